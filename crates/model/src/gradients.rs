//! Gradients between the backward pass and the optimizer: clipping, scaling, and flat tensors for transfers
//! between devices.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::conv_net::ConvNet;

/// Scales `gradients` so that their global norm, over all parameters, is at most `limit`; Pascanu, Mikolov and
/// Bengio, "On the difficulty of training recurrent neural networks" (2013).
///
/// Burn's own clipping limits the norm of each parameter separately. This function never waits for the device.
pub fn clip_norm(gradients: GradientsParams, model: &ConvNet, limit: f64) -> GradientsParams {
    let mut squares = SumOfSquares {
        gradients: &gradients,
        sum: None,
    };
    model.visit(&mut squares);
    let Some(sum) = squares.sum else {
        return gradients;
    };
    // As in PyTorch, 1e-6 avoids a division by zero.
    let factor = (sum.sqrt() + 1e-6).recip().mul_scalar(limit).clamp_max(1.0);
    scale(gradients, model, factor)
}

/// Multiplies `gradients` by `factor`, `[1]`.
pub fn scale(gradients: GradientsParams, model: &ConvNet, factor: Tensor<1>) -> GradientsParams {
    let mut scaling = Scaling { gradients, factor };
    model.visit(&mut scaling);
    scaling.gradients
}

/// Layers whose weights a training keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// None.
    #[default]
    None,
    /// The convolutional blocks.
    Blocks,
    /// All layers but the last.
    AllButHead,
}

/// Removes the gradients of frozen layers: of `freeze`, of the filters of a whitening block, and of its bias unless it is
/// trained.
pub fn without_frozen(
    mut gradients: GradientsParams,
    model: &ConvNet,
    trains_bias: bool,
    freeze: Freeze,
) -> GradientsParams {
    let projections = model.shortcuts.iter();
    let projections = projections.filter_map(|shortcut| shortcut.projection.as_ref());
    for block in model.blocks.iter().chain(projections) {
        let is_frozen = freeze != Freeze::None;
        if block.options.is_frozen || is_frozen {
            gradients.remove::<4>(block.conv.weight.id);
        }
        if let Some(bias) = &block.conv.bias
            && (is_frozen || (block.options.is_frozen && !trains_bias))
        {
            gradients.remove::<1>(bias.id);
        }
    }
    if freeze == Freeze::AllButHead {
        for layer in &model.hidden {
            gradients.remove::<2>(layer.weight.id);
            if let Some(bias) = &layer.bias {
                gradients.remove::<1>(bias.id);
            }
        }
    }
    gradients
}

/// Returns the gradient of each parameter as `[P_i]`, zeros for a parameter without a gradient.
pub fn per_parameter(gradients: GradientsParams, model: &ConvNet) -> Vec<Tensor<1>> {
    let mut collector = PerParameter {
        gradients,
        collected: Vec::new(),
    };
    model.visit(&mut collector);
    collector.collected
}

/// Concatenates the gradients of all parameters to one tensor, `[P]`.
pub fn flatten(gradients: GradientsParams, model: &ConvNet) -> Tensor<1> {
    Tensor::cat(per_parameter(gradients, model), 0)
}

/// Splits a tensor `[P]` made by [`flatten`] into the gradients of each parameter.
pub fn unflatten(flat: Tensor<1>, model: &ConvNet) -> GradientsParams {
    let mut unflatten = Unflatten {
        flat,
        offset: 0,
        gradients: GradientsParams::new(),
    };
    model.visit(&mut unflatten);
    unflatten.gradients
}

/// Sums the squares of all gradients, `[1]`.
struct SumOfSquares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SumOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let squares = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                None => squares,
                Some(sum) => sum + squares,
            });
        }
    }
}

/// Multiplies all gradients by `factor`, `[1]`.
struct Scaling {
    gradients: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scaling {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let factor = self.factor.clone().reshape([1; D]);
            self.gradients.register(param.id, gradient * factor);
        }
    }
}

/// Collects the gradients in the order of the parameters.
struct PerParameter {
    gradients: GradientsParams,
    collected: Vec<Tensor<1>>,
}

impl ModuleVisitor for PerParameter {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let count = param.dims().iter().product::<usize>();
        self.collected
            .push(match self.gradients.remove::<D>(param.id) {
                Some(gradient) => gradient.reshape([count]),
                None => Tensor::zeros([count], &param.device().inner()),
            });
    }
}

/// Registers consecutive slices of `flat` as the gradients of the parameters.
struct Unflatten {
    flat: Tensor<1>,
    offset: usize,
    gradients: GradientsParams,
}

impl ModuleVisitor for Unflatten {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.dims();
        let end = self.offset + shape.iter().product::<usize>();
        let gradient = self.flat.clone().slice(self.offset..end).reshape(shape);
        self.gradients.register(param.id, gradient);
        self.offset = end;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::config::ConvNetConfig;

    fn network() -> ConvNet {
        let device = Device::default().autodiff();
        ConvNetConfig::default().init(&device).unwrap()
    }

    fn gradients(model: &ConvNet) -> GradientsParams {
        let device = Device::default().autodiff();
        let images = Tensor::random([2, 1, 28, 28], Distribution::Default, &device);
        let loss = model.forward(images).square().sum();
        GradientsParams::from_grads(loss.backward(), model)
    }

    fn global_norm(gradients: &GradientsParams, model: &ConvNet) -> f64 {
        let mut squares = SumOfSquares {
            gradients,
            sum: None,
        };
        model.visit(&mut squares);
        f64::from(squares.sum.unwrap().into_scalar::<f32>()).sqrt()
    }

    #[test]
    fn clipping_limits_the_global_norm_and_never_increases_it() {
        let model = network();
        let clipped = clip_norm(gradients(&model), &model, 0.25);
        assert!((global_norm(&clipped, &model) - 0.25).abs() < 1e-5);

        let small = gradients(&model);
        let before = global_norm(&small, &model);
        let after = global_norm(&clip_norm(small, &model, 1e6), &model);
        assert_eq!(before, after);
    }

    #[test]
    fn unflatten_reverses_flatten() {
        let model = network();
        let flat = flatten(gradients(&model), &model);
        assert_eq!(flat.dims(), [model.num_params()]);
        let again = flatten(unflatten(flat.clone(), &model), &model);
        let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(values(again), values(flat));
    }
}
