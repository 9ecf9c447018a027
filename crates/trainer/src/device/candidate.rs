//! The devices that a backend finds.

use anyhow::{Result, anyhow, bail};
use burn::tensor::Device;

use crate::device::backend::Backend;
use crate::device::open_device::OpenDevice;
use crate::device::panics::catch_panic;

/// A device that a backend has found. It may still fail to compute.
#[derive(Debug)]
pub(crate) struct Candidate {
    backend: Backend,
    index: usize,
    device: Device,
}

/// Returns the devices of a backend, in the order of their indices.
///
/// # Errors
/// Returns an error if the backend is not compiled in, or finds no device.
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
        bail!("device {backend}: no device found; {}", backend.remedy());
    }
    let candidates = devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| Candidate {
            backend,
            index,
            device,
        });
    Ok(candidates.collect())
}

impl Candidate {
    /// Opens the device by running a small computation.
    ///
    /// # Errors
    /// Returns an error if the computation fails or its result is wrong.
    pub(crate) fn open(&self) -> Result<OpenDevice> {
        let Self {
            backend,
            index,
            device,
        } = self;
        let name = match backend.is_cpu() {
            true => backend.to_string(),
            false => format!("{backend}:{index}"),
        };
        OpenDevice::open(device, &name, backend.remedy())
    }
}
