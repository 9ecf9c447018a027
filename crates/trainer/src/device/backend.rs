//! The backends. Each is a cargo feature.

use std::fmt;

use burn::tensor::Device;

#[cfg(not(any(
    feature = "flex",
    feature = "ndarray",
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
)))]
compile_error!(
    "no backend: enable at least one of the features flex, ndarray, wgpu, vulkan, metal, cuda, rocm"
);

/// A backend of Burn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// NVIDIA GPUs with CUDA.
    Cuda,
    /// AMD GPUs with ROCm.
    Rocm,
    /// GPUs with the graphics API of the system, by WebGPU.
    Wgpu,
    /// GPUs with Vulkan.
    Vulkan,
    /// Apple GPUs with Metal.
    Metal,
    /// CPUs; Burn's maintained CPU backend.
    Flex,
    /// CPUs; Burn's deprecated CPU backend.
    Ndarray,
}

impl Backend {
    /// All backends, in the order in which `auto` tries them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Cuda,
        Self::Rocm,
        Self::Metal,
        Self::Vulkan,
        Self::Wgpu,
        Self::Flex,
        Self::Ndarray,
    ];

    /// Returns the name on the command line, which is also the name of the cargo feature.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
        }
    }

    /// Whether this build includes the backend.
    pub(crate) fn is_compiled_in(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Flex => cfg!(feature = "flex"),
            Self::Ndarray => cfg!(feature = "ndarray"),
        }
    }

    pub(super) fn is_cpu(self) -> bool {
        matches!(self, Self::Flex | Self::Ndarray)
    }

    /// Returns the advice to print if no device is found or works.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Cuda => "install the NVIDIA driver; `nvidia-smi` must list the GPU",
            Self::Rocm => "install ROCm; `rocminfo` must list the GPU",
            Self::Wgpu | Self::Vulkan => {
                "install the GPU's Vulkan driver (on Debian mesa-vulkan-drivers or the vendor's); \
                 `vulkaninfo --summary` must list the GPU"
            }
            Self::Metal => "Metal is available on macOS only",
            Self::Flex | Self::Ndarray => "please report this as a bug",
        }
    }

    /// Returns the devices in the order of their indices.
    pub(super) fn enumerate(self) -> Vec<Device> {
        #[cfg(feature = "_gpu")]
        use burn::tensor::DeviceType;
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(DeviceType::Cuda).into_vec(),
            #[cfg(feature = "rocm")]
            Self::Rocm => Device::enumerate(DeviceType::Rocm).into_vec(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::enumerate(DeviceType::Wgpu).into_vec(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::enumerate(DeviceType::Vulkan).into_vec(),
            #[cfg(feature = "metal")]
            Self::Metal => Device::enumerate(DeviceType::Metal).into_vec(),
            #[cfg(feature = "flex")]
            Self::Flex => vec![Device::flex()],
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "deprecated upstream, supported here")]
            Self::Ndarray => vec![Device::ndarray()],
            #[allow(unreachable_patterns, reason = "reachable unless all are compiled in")]
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
