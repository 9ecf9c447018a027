//! The floating-point formats that devices support.

use std::iter;

use anyhow::{Result, ensure};
use model::Precision;

use crate::device::open_device::OpenDevice;

/// Returns the floating-point formats that a device supports, `f32` first.
pub(crate) fn supported(device: &OpenDevice) -> Vec<Precision> {
    let halves = [Precision::Bf16, Precision::F16].into_iter();
    let halves = halves.filter(|half| device.device.supports_dtype(half.dtype()));
    iter::once(Precision::F32).chain(halves).collect()
}

/// Checks that all devices support `precision`.
///
/// # Errors
/// Returns an error that lists the formats of the first device without support.
pub(crate) fn check(precision: Precision, devices: &[OpenDevice]) -> Result<()> {
    // All devices support `f32`, so remote devices are not queried for it.
    for device in devices.iter().filter(|_| precision != Precision::F32) {
        let supported = supported(device);
        ensure!(
            supported.contains(&precision),
            "device {}: cannot compute in {precision}; it supports {}",
            device.name,
            supported
                .iter()
                .map(Precision::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(())
}
