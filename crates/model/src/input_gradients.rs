//! Gradients of the loss with respect to the images.

use burn::module::Module;
use burn::tensor::{Int, Tensor};

use crate::conv_net::ConvNet;
use crate::loss::cross_entropy;

/// Computes gradients of the loss with respect to the images; the parameters are frozen.
#[derive(Clone, Debug)]
pub struct InputGradients {
    /// On an autodiff device. Its parameters do not require gradients, and dropout is off.
    network: ConvNet,
}

impl InputGradients {
    /// Copies a network, which may be without autodiff.
    pub fn new(network: &ConvNet) -> Self {
        Self {
            network: network.valid().train().freeze(),
        }
    }

    /// Computes the gradient of each image's own cross-entropy with respect to the image, without autodiff.
    ///
    /// # Shapes
    /// - `images`: `[N, C, H, W]`, normalized, without autodiff
    /// - `targets`: `[N]`, without autodiff
    /// - gradients: `[N, C, H, W]`
    pub fn of_loss(&self, images: Tensor<4>, targets: Tensor<1, Int>) -> Tensor<4> {
        let count = images.dims()[0];
        let images = Tensor::from_inner(images).require_grad();
        let logits = self.network.forward(images.clone());
        let mean = cross_entropy(logits, Tensor::from_inner(targets), 0.0);
        let mut gradients = mean.mul_scalar(count as f64).backward();
        let gradient = images.grad_remove(&mut gradients);
        gradient.expect("the logits depend on the images")
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::block::{BlockConfig, Pool};
    use crate::config::ConvNetConfig;

    /// Returns the sum of the cross-entropies.
    fn loss(network: &ConvNet, images: Tensor<4>, targets: Tensor<1, Int>) -> f64 {
        let count = images.dims()[0] as f64;
        let loss = cross_entropy(network.forward(images), targets, 0.0);
        count * f64::from(loss.into_scalar::<f32>())
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn the_gradient_of_a_linear_network_is_its_weights_times_the_error() {
        let device = Device::default();
        let config = ConvNetConfig {
            input: [2, 3],
            classes: 3,
            dense: vec![],
            blocks: vec![],
            ..ConvNetConfig::default()
        };
        let network = config.init_seeded(5, &device).unwrap();
        let images = Tensor::<4>::random([4, 1, 2, 3], Distribution::Default, &device);
        let targets = [0usize, 2, 1, 1];
        let gradients = InputGradients::new(&network).of_loss(
            images.clone(),
            Tensor::from_ints(targets.map(|target| target as i32), &device),
        );
        assert!(!gradients.device().is_autodiff());
        // d loss / d x = W (softmax(x W + b) - one-hot(target)), with W of [pixels, classes].
        let logits = values(network.forward(images));
        let weights = values(network.output.weight.val());
        let gradients = values(gradients);
        for ((logits, gradient), target) in logits.chunks(3).zip(gradients.chunks(6)).zip(targets) {
            let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
            for (weights, gradient) in weights.chunks(3).zip(gradient) {
                let terms = weights.iter().zip(logits).enumerate();
                let expected: f32 = terms
                    .map(|(class, (weight, logit))| {
                        weight * (logit.exp() / sum - f32::from(u8::from(class == target)))
                    })
                    .sum();
                assert!((expected - gradient).abs() < 1e-6, "{expected} {gradient}");
            }
        }
    }

    #[test]
    fn the_gradient_of_blocks_with_dropout_is_the_slope_of_the_loss() {
        let device = Device::default();
        device.seed(2);
        let config = ConvNetConfig {
            input: [9, 8],
            classes: 3,
            dense: vec![5],
            dropout: 0.5,
            blocks: vec![
                BlockConfig {
                    channels: 4,
                    pool: Pool::MAX,
                    dropout: 0.5,
                    ..BlockConfig::default()
                }
                .into(),
            ],
            ..ConvNetConfig::default()
        };
        // Dropout would change the gradients of a network in training.
        let training = config.init_seeded(1, &device.clone().autodiff()).unwrap();
        let network = training.valid();
        let images = Tensor::<4>::random([2, 1, 9, 8], Distribution::Default, &device);
        let targets = Tensor::<1, Int>::from_ints([2, 0], &device);
        let gradients = [&network, &training]
            .map(|network| InputGradients::new(network).of_loss(images.clone(), targets.clone()));
        let gradients = gradients.map(values);
        assert_eq!(gradients[0], gradients[1]);
        assert!(gradients[0].iter().filter(|value| **value != 0.0).count() > 50);
        let direction = Tensor::<4>::random([2, 1, 9, 8], Distribution::Default, &device);
        let step = 1e-3;
        let [after, before] = [step, -step].map(|step| {
            let moved = images.clone() + direction.clone().mul_scalar(step);
            loss(&network, moved, targets.clone())
        });
        let slope = (after - before) / (2.0 * step);
        let pairs = gradients[0].iter().zip(values(direction));
        let expected: f64 = pairs.map(|(g, d)| f64::from(g * d)).sum();
        assert!((slope - expected).abs() < 2e-3, "{slope} {expected}");
    }
}
