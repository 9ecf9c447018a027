//! Access to the tensors of CPU backends as slices.

use std::borrow::Cow;

use burn::backend::Backend;
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Shape, TensorData};

/// A backend whose `f32` tensors can be accessed as slices. It gets all fused operations.
pub(crate) trait CpuBackend: Backend {
    /// Returns the elements in row-major order. Copies them only if the tensor is not contiguous.
    fn contiguous(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

    /// Creates a tensor from elements in row-major order.
    fn from_vec(values: Vec<f32>, shape: impl Into<Shape>) -> FloatTensor<Self> {
        Self::float_from_data(TensorData::new(values, shape), &Default::default())
    }

    /// Calls `update` with the elements of the tensors in row-major order, and returns the updated tensors. Copies a
    /// tensor first if it is not contiguous or another tensor shares its memory.
    fn update_in_place<const N: usize>(
        tensors: [FloatTensor<Self>; N],
        update: impl FnOnce([&mut [f32]; N]),
    ) -> [FloatTensor<Self>; N];
}

#[cfg(feature = "flex")]
impl CpuBackend for Flex {
    fn contiguous(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        match tensor.as_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(tensor.to_contiguous().storage().to_vec()),
        }
    }

    fn update_in_place<const N: usize>(
        tensors: [FloatTensor<Self>; N],
        update: impl FnOnce([&mut [f32]; N]),
    ) -> [FloatTensor<Self>; N] {
        let mut tensors = tensors.map(|tensor| {
            // `storage_mut` returns the whole storage, of which the tensor may be a part.
            let is_whole_storage = tensor
                .as_slice::<f32>()
                .is_some_and(|values| values.len() == tensor.storage::<f32>().len());
            if is_whole_storage {
                tensor
            } else {
                tensor.to_contiguous()
            }
        });
        update(tensors.each_mut().map(|tensor| tensor.storage_mut()));
        tensors
    }
}

#[cfg(feature = "ndarray")]
impl CpuBackend for NdArray {
    fn contiguous(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        let FloatTensor::<Self>::F32(storage) = tensor else {
            unreachable!("the caller checked that the tensor is f32");
        };
        let view = storage.view();
        match view.to_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(view.iter().copied().collect()),
        }
    }

    fn update_in_place<const N: usize>(
        tensors: [FloatTensor<Self>; N],
        update: impl FnOnce([&mut [f32]; N]),
    ) -> [FloatTensor<Self>; N] {
        let mut arrays = tensors.map(|tensor| {
            let FloatTensor::<Self>::F32(storage) = tensor else {
                unreachable!("the caller checked that the tensor is f32");
            };
            let array = storage.into_owned();
            if array.is_standard_layout() {
                array
            } else {
                array.as_standard_layout().into_owned().into_shared()
            }
        });
        update(arrays.each_mut().map(|array| match array.as_slice_mut() {
            Some(values) => values,
            None => unreachable!("the array is in standard layout"),
        }));
        arrays.map(FloatTensor::<Self>::from)
    }
}
