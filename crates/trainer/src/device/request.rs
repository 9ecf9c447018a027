//! The value of `--device`.

use std::str::FromStr;

use crate::config::suggest::did_you_mean;
use crate::device::backend::Backend;
#[cfg(feature = "remote")]
use crate::device::remote::address::Address;

/// The environment variable that `--device` falls back to.
pub(crate) const VARIABLE: &str = "TRAINER_DEVICE";

/// A device that `--device` requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The first working device, in the order of [`Backend::ALL`].
    Auto,
    /// The first working CPU backend.
    Cpu,
    /// The device of a backend with this index.
    Device(Backend, usize),
    /// A device of another machine.
    #[cfg(feature = "remote")]
    Remote(Address),
}

impl FromStr for Request {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("remote:") {
            return remote_request(address);
        }
        if text.contains(',') {
            return Err("expected one device".into());
        }
        let (name, index) = match text.split_once(':') {
            None => (text, 0),
            Some((name, index)) => {
                let index = index.parse().map_err(|_| {
                    format!("expected a device number after the colon, as in {name}:0")
                })?;
                (name, index)
            }
        };
        match (name, text.contains(':')) {
            ("auto", false) => return Ok(Self::Auto),
            ("cpu", false) => return Ok(Self::Cpu),
            _ => {}
        }
        let backend = Backend::ALL
            .into_iter()
            .find(|backend| backend.name() == name);
        backend.map(|backend| Self::Device(backend, index)).ok_or_else(|| {
            let backends = Backend::ALL.map(Backend::name);
            let names = backends.into_iter().chain(["auto", "cpu", "remote"]);
            format!(
                "unknown device{}; there are auto, cpu, {}, the GPUs also with a number as in wgpu:1, \
                 and remote:HOST:PORT",
                did_you_mean(name, names),
                backends.join(", ")
            )
        })
    }
}

#[cfg(feature = "remote")]
fn remote_request(address: &str) -> Result<Request, String> {
    address.parse().map(Request::Remote)
}

#[cfg(not(feature = "remote"))]
fn remote_request(_: &str) -> Result<Request, String> {
    Err("not compiled in; build with `--features remote`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_with_an_optional_index() {
        assert_eq!("auto".parse(), Ok(Request::Auto));
        assert_eq!("cpu".parse(), Ok(Request::Cpu));
        assert_eq!("wgpu".parse(), Ok(Request::Device(Backend::Wgpu, 0)));
        assert_eq!("cuda:3".parse(), Ok(Request::Device(Backend::Cuda, 3)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "auto:0"] {
            assert!(text.parse::<Request>().is_err(), "{text}");
        }
        let error = "cude".parse::<Request>().unwrap_err();
        assert!(
            error.starts_with("unknown device (did you mean cuda?)"),
            "{error}"
        );
    }
}
