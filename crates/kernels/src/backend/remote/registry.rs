//! The remote devices whose workers have the fused operations.

use std::sync::{Mutex, PoisonError};

use burn::backend::{DispatchDevice, RemoteDevice};
use burn::tensor::Device;

static DECLARED: Mutex<Vec<RemoteDevice>> = Mutex::new(Vec::new());

/// Declares that the worker of a remote device has the fused operations (see [`with_fused`](crate::with_fused)).
/// [`conv_block`](crate::conv_block()) and [`FusedAdam`](crate::FusedAdam) use them on this device from now on. Has no
/// effect on devices of other backends.
pub fn declare_fused(device: &Device) {
    if let DispatchDevice::Remote(remote) = device.clone().inner().as_dispatch() {
        let mut declared = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
        if !declared.contains(remote) {
            declared.push(remote.clone());
        }
    }
}

/// Returns whether [`declare_fused`] was called for `device`.
pub(crate) fn is_declared(device: &RemoteDevice) -> bool {
    let declared = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
    declared.contains(device)
}
