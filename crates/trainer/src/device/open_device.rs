//! A device that has passed a test computation.

use std::fmt;

use anyhow::{Result, bail};
use burn::tensor::{Device, Tensor};

use crate::device::panics::catch_panic;

/// A device that has passed a test computation.
#[derive(Clone, Debug)]
pub(crate) struct OpenDevice {
    pub(crate) device: Device,
    /// Its name on the command line: `flex`, `cuda:0`.
    pub(crate) name: String,
    /// The name of the hardware.
    pub(crate) hardware: String,
    /// Whether it is a software GPU, such as Mesa's llvmpipe.
    pub(super) is_software_gpu: bool,
}

impl OpenDevice {
    /// Opens `device` by running a small computation. A driver that loads may still fail at the
    /// first kernel.
    ///
    /// # Errors
    /// Returns an error that ends with `remedy` if the computation fails or its result is wrong.
    pub(super) fn open(device: &Device, name: &str, remedy: &str) -> Result<Self> {
        let result = catch_panic(|| {
            let sum = Tensor::<1>::ones([8], device).mul_scalar(2.0).sum();
            (sum.into_scalar::<f32>(), hardware(device))
        });
        match result {
            Ok((16.0, (hardware, is_software_gpu))) => Ok(Self {
                device: device.clone(),
                name: name.into(),
                hardware,
                is_software_gpu,
            }),
            Ok((sum, _)) => bail!("device {name}: computed 8 * 2 as {sum}; {remedy}"),
            Err(panic) => bail!("device {name}: does not work: {panic}; {remedy}"),
        }
    }

    /// Whether it is a GPU of this machine.
    pub(crate) fn is_gpu(&self) -> bool {
        !kernels::is_cpu(&self.device) && !self.name.starts_with("remote:")
    }
}

impl fmt::Display for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.hardware)
    }
}

/// Returns the name of the hardware, and whether it is a software GPU.
fn hardware(device: &Device) -> (String, bool) {
    #[cfg(feature = "_gpu")]
    if let Some(identity) = device.identity() {
        return (identity.name, identity.physical.is_none());
    }
    let _ = device;
    let threads = rayon::current_num_threads();
    let s = if threads == 1 { "" } else { "s" };
    (format!("CPU, {threads} thread{s}"), false)
}
