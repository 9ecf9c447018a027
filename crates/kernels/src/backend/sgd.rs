//! Registers the step of stochastic gradient descent with Burn.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::sgd::{self, SgdStep};
use crate::cpu::simd::InstructionSet;

/// Returns the parameter and the velocity after a step.
pub(crate) fn sgd_step<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Tensor<D>,
    step: SgdStep,
) -> (Tensor<D>, Tensor<D>) {
    let (parameter, velocity) = <Dispatch as SgdBackend>::sgd_step(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        velocity.into_dispatch(),
        step,
    );
    (
        Tensor::from_dispatch(parameter),
        Tensor::from_dispatch(velocity),
    )
}

/// A backend with the fused step. The step is not differentiable.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait SgdBackend: Backend {
    /// Returns the parameter and the velocity after the step. All tensors are `f32`.
    fn sgd_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: CpuBackend> SgdBackend for B {
    fn sgd_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let gradient = Self::contiguous(&gradient);
        let [parameter, velocity] =
            Self::update_in_place([parameter, velocity], |[parameter, velocity]| {
                sgd::sgd_step(InstructionSet::best(), step, parameter, &gradient, velocity);
            });
        (parameter, velocity)
    }
}
