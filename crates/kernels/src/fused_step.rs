//! The tensors that a fused optimizer step supports.

use burn::tensor::{DType, Tensor};

/// Returns whether a parameter without autodiff and the tensors of its step are `f32`, of equal shapes.
pub(crate) fn is_supported<'a, const D: usize>(
    parameter: &'a Tensor<D>,
    others: impl IntoIterator<Item = &'a Tensor<D>>,
) -> bool {
    let is_alike =
        |other: &Tensor<D>| other.dims() == parameter.dims() && other.dtype() == DType::F32;
    !parameter.device().is_autodiff() && is_alike(parameter) && others.into_iter().all(is_alike)
}
