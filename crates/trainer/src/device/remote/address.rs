//! The address of a worker's device.

use std::fmt;
use std::str::FromStr;

/// The address of a worker's device, `HOST:PORT[:INDEX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `HOST:PORT`
    pub(super) worker: String,
    /// The index of the device on the worker.
    pub(super) index: u32,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected remote:HOST:PORT or remote:HOST:PORT:NUMBER, not remote:{text}");
        // An IPv6 address contains colons itself, within brackets.
        let after_host = text.find(']').map_or(0, |end| end + 1);
        let (host, rest) =
            text.split_at(after_host + text[after_host..].find(':').ok_or_else(expected)?);
        let mut numbers = rest[1..].split(':');
        let port: u16 = numbers
            .next()
            .and_then(|port| port.parse().ok())
            .ok_or_else(expected)?;
        let index = match numbers.next() {
            None => 0,
            Some(index) => index.parse().map_err(|_| expected())?,
        };
        if host.is_empty() || numbers.next().is_some() {
            return Err(expected());
        }
        Ok(Self {
            worker: format!("{host}:{port}"),
            index,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote:{}:{}", self.worker, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_host_a_port_and_an_optional_index() {
        let address = |worker: &str, index| Address {
            worker: worker.into(),
            index,
        };
        assert_eq!("gpu:7000".parse(), Ok(address("gpu:7000", 0)));
        assert_eq!("10.0.0.1:7000:3".parse(), Ok(address("10.0.0.1:7000", 3)));
        assert_eq!("[::1]:7000:1".parse(), Ok(address("[::1]:7000", 1)));
        for text in [
            "",
            "gpu",
            "gpu:",
            ":7000",
            "gpu:70000",
            "gpu:1:x",
            "gpu:1:2:3",
            "::1:7000",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!(address("gpu:7000", 2).to_string(), "remote:gpu:7000:2");
    }
}
