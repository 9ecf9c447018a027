//! The operations as Burn's backends see them.

mod adam;
mod batch_norm;
mod conv_block;
#[cfg(feature = "remote")]
mod remote;

use std::borrow::Cow;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DispatchDevice};
use burn::tensor::{Device, TensorData};

pub(crate) use adam::adam_step;
pub(crate) use batch_norm::batch_norm_relu;
pub(crate) use conv_block::conv_block;
#[cfg(feature = "remote")]
pub use remote::{declare_fused, with_fused};

/// Whether a device computes the convolution block, and a step of Adam, as one operation.
pub(crate) fn is_fused(device: &Device) -> bool {
    match without_autodiff(device) {
        #[cfg(feature = "remote")]
        DispatchDevice::Remote(remote) => remote::is_declared(remote),
        _ => is_cpu(device),
    }
}

/// Whether a device is a CPU of this process, for which all fused operations are registered.
pub fn is_cpu(device: &Device) -> bool {
    match without_autodiff(device) {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[allow(
            unreachable_patterns,
            reason = "reachable where other backends are compiled in"
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

/// A backend whose tensors of `f32` lie in memory as slices.
pub(crate) trait InMemory: Backend {
    /// The numbers in row-major order, copied only where they lie otherwise.
    fn numbers(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

    /// A tensor of these numbers.
    fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FloatTensor<Self> {
        Self::float_from_data(TensorData::new(numbers, shape), &Default::default())
    }

    /// Changes the numbers, in row-major order, in place where no other tensor shares them.
    fn update<const N: usize>(
        tensors: [FloatTensor<Self>; N],
        change: impl FnOnce([&mut [f32]; N]),
    ) -> [FloatTensor<Self>; N];
}

#[cfg(feature = "flex")]
impl InMemory for Flex {
    fn numbers(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        match tensor.as_slice() {
            Some(numbers) => Cow::Borrowed(numbers),
            None => Cow::Owned(tensor.to_contiguous().storage().to_vec()),
        }
    }

    fn update<const N: usize>(
        tensors: [FloatTensor<Self>; N],
        change: impl FnOnce([&mut [f32]; N]),
    ) -> [FloatTensor<Self>; N] {
        // Contiguous, and nothing but the tensor in its memory.
        let mut tensors = tensors.map(|tensor| {
            let whole = tensor
                .as_slice::<f32>()
                .is_some_and(|numbers| numbers.len() == tensor.storage::<f32>().len());
            if whole {
                tensor
            } else {
                tensor.to_contiguous()
            }
        });
        change(tensors.each_mut().map(|tensor| tensor.storage_mut()));
        tensors
    }
}

#[cfg(feature = "ndarray")]
impl InMemory for NdArray {
    fn numbers(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        let FloatTensor::<Self>::F32(storage) = tensor else {
            unreachable!("the caller checked the type of the numbers");
        };
        let view = storage.view();
        match view.to_slice() {
            Some(numbers) => Cow::Borrowed(numbers),
            None => Cow::Owned(view.iter().copied().collect()),
        }
    }

    fn update<const N: usize>(
        tensors: [FloatTensor<Self>; N],
        change: impl FnOnce([&mut [f32]; N]),
    ) -> [FloatTensor<Self>; N] {
        let mut arrays = tensors.map(|tensor| {
            let FloatTensor::<Self>::F32(storage) = tensor else {
                unreachable!("the caller checked the type of the numbers");
            };
            let array = storage.into_owned();
            if array.is_standard_layout() {
                array
            } else {
                array.as_standard_layout().into_owned().into_shared()
            }
        });
        change(arrays.each_mut().map(|array| match array.as_slice_mut() {
            Some(numbers) => numbers,
            None => unreachable!("the array is in standard layout"),
        }));
        arrays.map(FloatTensor::<Self>::from)
    }
}
