//! Which devices have fused operations.

use burn::backend::DispatchDevice;
use burn::tensor::Device;

/// Returns whether `device` has the fused convolution block and the fused Adam step.
pub(crate) fn is_fused(device: &Device) -> bool {
    match without_autodiff(device) {
        #[cfg(feature = "remote")]
        DispatchDevice::Remote(remote) => super::remote::is_declared(remote),
        _ => is_cpu(device),
    }
}

/// Returns whether `device` is a CPU of this process. It then has all fused operations.
pub fn is_cpu(device: &Device) -> bool {
    match without_autodiff(device) {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[allow(
            unreachable_patterns,
            reason = "reachable if other backends are compiled in"
        )]
        _ => false,
    }
}

fn without_autodiff(device: &Device) -> &DispatchDevice {
    match device.as_dispatch() {
        DispatchDevice::Autodiff(device) => device,
        device => device,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_backends_are_cpus_with_and_without_autodiff() {
        #[cfg(feature = "flex")]
        assert!(is_cpu(&Device::flex()) && is_cpu(&Device::flex().autodiff()));
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "deprecated upstream, supported here")]
        let ndarray = Device::ndarray();
        #[cfg(feature = "ndarray")]
        assert!(is_cpu(&ndarray) && is_cpu(&ndarray.autodiff()));
    }
}
