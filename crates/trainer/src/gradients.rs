//! What is done with gradients before the optimizer has them.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use model::ConvNet;

/// Scales `gradients` down to the norm `limit`, over all parameters together, where theirs is
/// larger; Pascanu, Mikolov and Bengio (2013).
///
/// Burn's own clipping takes the norm of each parameter alone. This one never waits for the device.
pub(crate) fn clip_norm(
    gradients: GradientsParams,
    model: &ConvNet,
    limit: f64,
) -> GradientsParams {
    let mut squares = Squares {
        gradients: &gradients,
        sum: None,
    };
    model.visit(&mut squares);
    let Some(sum) = squares.sum else {
        return gradients;
    };
    // As PyTorch: 1e-6 keeps it finite where there is no gradient.
    let factor = (sum.sqrt() + 1e-6).recip().mul_scalar(limit).clamp_max(1.0);
    scale(gradients, model, factor)
}

/// `gradients` times `factor`, `[1]`.
pub(crate) fn scale(
    gradients: GradientsParams,
    model: &ConvNet,
    factor: Tensor<1>,
) -> GradientsParams {
    let mut scaling = Scaling { gradients, factor };
    model.visit(&mut scaling);
    scaling.gradients
}

/// The gradient of each parameter, `[P_i]`.
pub(crate) fn of_each(gradients: GradientsParams, model: &ConvNet) -> Vec<Tensor<1>> {
    let mut flat = Flat {
        gradients,
        found: Vec::new(),
    };
    model.visit(&mut flat);
    flat.found
}

/// The gradients of all parameters one after another, `[P]`.
pub(crate) fn to_flat(gradients: GradientsParams, model: &ConvNet) -> Tensor<1> {
    Tensor::cat(of_each(gradients, model), 0)
}

/// What [`to_flat`] was given.
pub(crate) fn from_flat(flat: Tensor<1>, model: &ConvNet) -> GradientsParams {
    let mut slices = Slices {
        flat,
        at: 0,
        gradients: GradientsParams::new(),
    };
    model.visit(&mut slices);
    slices.gradients
}

/// The sum of squares over all gradients, `[1]`.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
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

/// The gradients of the parameters that were visited, in order.
struct Flat {
    gradients: GradientsParams,
    found: Vec<Tensor<1>>,
}

impl ModuleVisitor for Flat {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let count = param.dims().iter().product::<usize>();
        self.found.push(match self.gradients.remove::<D>(param.id) {
            Some(gradient) => gradient.reshape([count]),
            None => Tensor::zeros([count], &param.device().inner()),
        });
    }
}

/// Makes the next part of `flat` the gradient of each parameter.
struct Slices {
    flat: Tensor<1>,
    at: usize,
    gradients: GradientsParams,
}

impl ModuleVisitor for Slices {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.dims();
        let end = self.at + shape.iter().product::<usize>();
        let gradient = self.flat.clone().slice(self.at..end).reshape(shape);
        self.gradients.register(param.id, gradient);
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use model::ConvNetConfig;

    use super::*;

    /// The norm over all parameters, computed here.
    fn norm(gradients: &GradientsParams, model: &ConvNet) -> f64 {
        let mut squares = Squares {
            gradients,
            sum: None,
        };
        model.visit(&mut squares);
        f64::from(squares.sum.unwrap().into_scalar::<f32>()).sqrt()
    }

    #[test]
    fn all_gradients_shrink_together_and_never_grow() {
        let device = Device::default().autodiff();
        let model = ConvNetConfig::default().init(&device).unwrap();
        let gradients = || {
            let images = Tensor::random([2, 1, 28, 28], Distribution::Default, &device);
            let loss = model.forward(images).square().sum();
            GradientsParams::from_grads(loss.backward(), &model)
        };
        let clipped = clip_norm(gradients(), &model, 0.25);
        assert!((norm(&clipped, &model) - 0.25).abs() < 1e-5);

        let once = gradients();
        let before = norm(&once, &model);
        let after = norm(&clip_norm(once, &model, 1e6), &model);
        assert_eq!(before, after);
    }
}
