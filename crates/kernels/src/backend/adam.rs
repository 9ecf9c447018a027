//! Registers the Adam step with Burn.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::adam::{self, AdamStep};
use crate::cpu::simd::InstructionSet;

/// Returns the parameter and both moments after a step.
pub(crate) fn adam_step<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let [first, second] = moments.map(Tensor::into_dispatch);
    let (parameter, first, second) = <Dispatch as AdamBackend>::adam_step(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first,
        second,
        step,
    );
    let moments = [first, second].map(Tensor::from_dispatch);
    (Tensor::from_dispatch(parameter), moments)
}

/// A backend with the fused Adam step. The step is not differentiable.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Remote: cfg(feature = "remote")
)]
pub(crate) trait AdamBackend: Backend {
    /// Returns the parameter, the first and the second moment after the step. All tensors are `f32`.
    fn adam_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: CpuBackend> AdamBackend for B {
    fn adam_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let gradient = Self::contiguous(&gradient);
        let [parameter, first, second] =
            Self::update_in_place([parameter, first, second], |[parameter, first, second]| {
                let set = InstructionSet::best();
                adam::adam_step(set, step, parameter, &gradient, [first, second]);
            });
        (parameter, first, second)
    }
}
