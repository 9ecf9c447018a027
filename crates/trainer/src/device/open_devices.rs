//! Opening the requested devices.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::device::backend::Backend;
use crate::device::candidate::candidates;
use crate::device::open_device::OpenDevice;
#[cfg(feature = "remote")]
use crate::device::remote::{client, token::Token};
use crate::device::request::Request;

/// The devices of a data-parallel training. The first one holds the optimizer and evaluates.
#[derive(Clone, Debug)]
pub(crate) struct OpenDevices {
    /// All devices, at least one.
    pub(crate) all: Vec<OpenDevice>,
    /// Why these were selected.
    pub(crate) reason: String,
}

impl OpenDevices {
    /// Opens all requested devices.
    ///
    /// # Errors
    /// Returns an error if there is no request, or as [`open()`] does.
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

    /// Returns the first device.
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

/// Opens the requested device, and returns it with the reason for the selection. Devices of other
/// machines need a token file.
///
/// # Errors
/// Returns an error with a remedy if the device is not compiled in, not found, or does not work.
#[cfg_attr(
    not(feature = "remote"),
    expect(unused_variables, reason = "only remote devices need a token")
)]
pub(crate) fn open(request: &Request, token_file: Option<&Path>) -> Result<(OpenDevice, String)> {
    let requested = || String::from("as requested");
    match request {
        &Request::Device(backend, index) => {
            let candidates = candidates(backend)?;
            let candidate = candidates.get(index).with_context(|| {
                let count = candidates.len();
                format!("device {backend}:{index}: there are {count}, numbered from 0")
            })?;
            Ok((candidate.open()?, requested()))
        }
        Request::Auto => open_first_working(&Backend::ALL),
        Request::Cpu => open_first_working(&[Backend::Flex, Backend::Ndarray]),
        #[cfg(feature = "remote")]
        Request::Remote(address) => {
            let file = token_file.with_context(|| {
                format!("{address}: needs the worker's token file, --token-file FILE")
            })?;
            let (device, hardware) = client::connect(address, &Token::read(file)?)?;
            let remedy = "check that the worker is still running";
            let mut device = OpenDevice::open(&device, &address.to_string(), remedy)?;
            device.hardware = hardware.into();
            Ok((device, requested()))
        }
    }
}

/// Opens the first device that works and is not a software GPU.
fn open_first_working(backends: &[Backend]) -> Result<(OpenDevice, String)> {
    let mut skipped = Vec::new();
    for &backend in backends.iter().filter(|backend| backend.is_compiled_in()) {
        let Ok(candidates) = candidates(backend) else {
            skipped.push(format!("no {backend} device"));
            continue;
        };
        for candidate in candidates {
            match candidate.open() {
                Ok(device) if device.is_software_gpu => {
                    skipped.push(format!("{device} is a software GPU"));
                }
                Ok(device) => {
                    let reason = match skipped.as_slice() {
                        [] => "the preferred backend of this build".into(),
                        skipped => skipped.join(", "),
                    };
                    return Ok((device, reason));
                }
                Err(error) => skipped.push(format!("{error:#}")),
            }
        }
    }
    if skipped.is_empty() {
        skipped.push("no such backend is compiled in".into());
    }
    bail!(
        "no device works: {}; `trainer devices` prints remedies",
        skipped.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_opens_a_working_device() {
        let (device, _) = open(&Request::Auto, None).unwrap();
        assert!(!device.name.is_empty());
    }
}
