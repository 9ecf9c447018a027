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
    let mut scaling = Scaling {
        // As PyTorch: 1e-6 keeps it finite where there is no gradient.
        factor: (sum.sqrt() + 1e-6).recip().mul_scalar(limit).clamp_max(1.0),
        gradients,
    };
    model.visit(&mut scaling);
    scaling.gradients
}

/// `gradients` times `factor`.
pub(crate) fn scale(gradients: GradientsParams, model: &ConvNet, factor: f64) -> GradientsParams {
    let Some(device) = model.devices().into_iter().next() else {
        return gradients;
    };
    let mut scaling = Scaling {
        factor: Tensor::full([1], factor, &device.inner()),
        gradients,
    };
    model.visit(&mut scaling);
    scaling.gradients
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
