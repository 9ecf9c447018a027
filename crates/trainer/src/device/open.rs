//! OpenDevices: what is compiled in, what is there, and which one to take.
//!
//! This is the only file that names backends. Everything else works on a [`Device`] value.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::tensor::{Device, Tensor};

use crate::device::backend::Backend;
use crate::device::panics::catch_panic;

use crate::config::suggest::did_you_mean;
#[cfg(feature = "remote")]
use crate::device::remote;

/// The environment variable that stands for `--device`.
pub(crate) const VARIABLE: &str = "TRAINER_DEVICE";

/// What `--device` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The best device that works.
    Auto,
    /// The best CPU backend that works.
    Cpu,
    /// One device of one backend.
    Exactly(Backend, usize),
    /// One of another machine.
    #[cfg(feature = "remote")]
    Remote(remote::Address),
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
        let known = || Backend::ALL.map(Backend::name).into_iter();
        backend.map(|backend| Self::Exactly(backend, index)).ok_or_else(|| {
            let known = known().chain(["auto", "cpu", "remote"]);
            format!(
                "unknown device{}; there are auto, cpu, {}, the GPUs also with a number as in wgpu:1, \
                 and remote:HOST:PORT",
                did_you_mean(name, known),
                Backend::ALL.map(Backend::name).join(", ")
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

/// A device that has computed something.
#[derive(Clone, Debug)]
pub(crate) struct OpenDevice {
    /// The device.
    pub(crate) device: Device,
    /// How `--device` names it: `flex`, `cuda:0`.
    pub(crate) name: String,
    /// The part, as it names itself.
    pub(crate) part: String,
    /// Whether it is a processor pretending to be a GPU.
    is_emulated: bool,
}

impl OpenDevice {
    /// Whether it is a GPU of this machine.
    pub(crate) fn is_gpu(&self) -> bool {
        !kernels::is_cpu(&self.device) && !self.name.starts_with("remote:")
    }
}

impl fmt::Display for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.part)
    }
}

/// OpenDevices that learn together, the first of which has the optimizer and judges.
#[derive(Clone, Debug)]
pub(crate) struct OpenDevices {
    pub(crate) all: Vec<OpenDevice>,
    /// Why it is these.
    pub(crate) reason: String,
}

impl OpenDevices {
    /// Opens all that are requested.
    ///
    /// # Errors
    /// As [`open()`] does; or when none is requested.
    pub(crate) fn open(requests: &[Request], token_file: Option<&Path>) -> Result<Self> {
        let opened = requests.iter().map(|request| open(request, token_file));
        let (all, mut reasons): (Vec<_>, Vec<_>) = opened.collect::<Result<_>>()?;
        reasons.dedup();
        ensure!(!all.is_empty(), "no device");
        Ok(Self {
            all,
            reason: reasons.join("; "),
        })
    }

    /// The first.
    pub(crate) fn main(&self) -> &OpenDevice {
        &self.all[0]
    }
}

impl fmt::Display for OpenDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.all.iter().map(OpenDevice::to_string).collect();
        f.write_str(&names.join(" and "))
    }
}

/// Opens the requested device, and says why it is this one. Those of other machines want a token.
///
/// # Errors
/// When it is not compiled in, not there, or does not work: with what to do about it.
#[cfg_attr(
    not(feature = "remote"),
    expect(unused_variables, reason = "no device wants a token")
)]
pub(crate) fn open(request: &Request, token_file: Option<&Path>) -> Result<(OpenDevice, String)> {
    match request {
        &Request::Exactly(backend, index) => {
            let candidates = candidates(backend)?;
            let candidate = candidates.get(index).with_context(|| {
                let count = candidates.len();
                format!("device {backend}:{index}: there are {count}, numbered from 0")
            })?;
            Ok((candidate.probe()?, "as asked".into()))
        }
        Request::Auto => best(&Backend::ALL),
        Request::Cpu => best(&[Backend::Flex, Backend::Ndarray]),
        #[cfg(feature = "remote")]
        Request::Remote(address) => {
            let file = token_file
                .with_context(|| format!("{address}: name the worker's file with --token-file"))?;
            let (device, part) = remote::connect(address, &remote::Token::read(file)?)?;
            let found = probe(&device, &address.to_string(), "is the worker still there?")?;
            let part = part.into();
            Ok((OpenDevice { part, ..found }, "as asked".into()))
        }
    }
}

/// The first device that works and is what it pretends to be.
fn best(backends: &[Backend]) -> Result<(OpenDevice, String)> {
    let mut passed_over = Vec::new();
    for &backend in backends.iter().filter(|backend| backend.is_compiled_in()) {
        let Ok(candidates) = candidates(backend) else {
            passed_over.push(format!("no {backend} device"));
            continue;
        };
        for candidate in candidates {
            match candidate.probe() {
                Ok(found) if found.is_emulated => {
                    passed_over.push(format!("{found} is no GPU"));
                }
                Ok(found) => {
                    let reason = match passed_over.as_slice() {
                        [] => "the best compiled in".into(),
                        reasons => reasons.join(", "),
                    };
                    return Ok((found, reason));
                }
                Err(error) => passed_over.push(format!("{error:#}")),
            }
        }
    }
    if passed_over.is_empty() {
        passed_over.push("no such backend is compiled in".into());
    }
    bail!(
        "no device works: {}; `trainer devices` says what to do",
        passed_over.join(", ")
    )
}

/// A device that is there; whether it works is another matter.
#[derive(Debug)]
pub(crate) struct Candidate {
    backend: Backend,
    index: usize,
    device: Device,
}

/// The backend's devices.
///
/// # Errors
/// When the backend is not compiled in or finds no device.
pub(crate) fn candidates(backend: Backend) -> Result<Vec<Candidate>> {
    if !backend.is_compiled_in() {
        let compiled = Backend::ALL
            .into_iter()
            .filter(|other| other.is_compiled_in());
        bail!(
            "device {backend}: not compiled in; build with `--features {backend}` (this build has {})",
            compiled.map(Backend::name).collect::<Vec<_>>().join(", ")
        );
    }
    let devices = catch_panic(|| backend.enumerate())
        .map_err(|panic| anyhow!("device {backend}: {panic}; {}", backend.remedy()))?;
    if devices.is_empty() {
        bail!("device {backend}: found none; {}", backend.remedy());
    }
    let numbered = devices.into_iter().enumerate();
    Ok(numbered
        .map(|(index, device)| Candidate {
            backend,
            index,
            device,
        })
        .collect())
}

impl Candidate {
    /// Computes something small: drivers that load may still fail at the first kernel.
    ///
    /// # Errors
    /// When it computes nothing, or something wrong.
    pub(crate) fn probe(&self) -> Result<OpenDevice> {
        let Self {
            backend,
            index,
            device,
        } = self;
        let name = match backend.is_cpu() {
            true => backend.to_string(),
            false => format!("{backend}:{index}"),
        };
        probe(device, &name, backend.remedy())
    }
}

fn probe(device: &Device, name: &str, remedy: &str) -> Result<OpenDevice> {
    let computed = catch_panic(|| {
        let sum = Tensor::<1>::ones([8], device).mul_scalar(2.0).sum();
        (sum.into_scalar::<f32>(), identity(device))
    });
    match computed {
        Ok((16.0, (part, is_emulated))) => Ok(OpenDevice {
            device: device.clone(),
            name: name.into(),
            part,
            is_emulated,
        }),
        Ok((sum, _)) => bail!("device {name}: computes 8 times 2 as {sum}; {remedy}"),
        Err(panic) => bail!("device {name}: does not work: {panic}; {remedy}"),
    }
}

/// The part's own name, and whether it is an emulation.
fn identity(device: &Device) -> (String, bool) {
    #[cfg(feature = "_gpu")]
    if let Some(identity) = device.identity() {
        return (identity.name, identity.physical.is_none());
    }
    let _ = device;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    (format!("CPU, {threads} threads"), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_names_with_an_optional_number() {
        assert_eq!("auto".parse(), Ok(Request::Auto));
        assert_eq!("cpu".parse(), Ok(Request::Cpu));
        assert_eq!("wgpu".parse(), Ok(Request::Exactly(Backend::Wgpu, 0)));
        assert_eq!("cuda:3".parse(), Ok(Request::Exactly(Backend::Cuda, 3)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "auto:0"] {
            assert!(text.parse::<Request>().is_err(), "{text}");
        }
        let error = "cude".parse::<Request>().unwrap_err();
        assert!(
            error.starts_with("unknown device (did you mean cuda?)"),
            "{error}"
        );
    }

    #[test]
    fn auto_finds_a_device_that_works() {
        let (found, _) = open(&Request::Auto, None).unwrap();
        assert!(!found.name.is_empty());
    }
}
