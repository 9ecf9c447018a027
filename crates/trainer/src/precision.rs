//! The number formats that a device can compute in.

use std::iter;

use anyhow::{Result, ensure};
use model::Precision;

use crate::device::Found;

/// Returns the formats that a device supports, `F32` first.
pub(crate) fn supported(found: &Found) -> Vec<Precision> {
    let halves = [Precision::Bf16, Precision::F16].into_iter();
    let halves = halves.filter(|half| found.device.supports_dtype(half.dtype()));
    iter::once(Precision::F32).chain(halves).collect()
}

/// Checks that all devices support `precision`.
///
/// # Errors
/// Returns an error that names the first device that does not, and the formats it supports.
pub(crate) fn check(precision: Precision, devices: &[Found]) -> Result<()> {
    // All devices support 32 bits, so that remote ones need not be asked.
    for found in devices.iter().filter(|_| precision != Precision::F32) {
        let supported = supported(found);
        ensure!(
            supported.contains(&precision),
            "device {}: cannot compute in {precision}; it has {}",
            found.name,
            supported
                .iter()
                .map(Precision::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(())
}
