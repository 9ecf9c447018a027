//! The training loss.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use data::MixedTargets;

/// Computes the mean cross-entropy of a batch, `[1]`.
///
/// Label smoothing takes the probability `label_smoothing` from each target and spreads it evenly over all
/// classes; Szegedy et al., "Rethinking the Inception Architecture" (2016). 0 disables it.
///
/// # Shapes
/// - `logits`: `[N, classes]`
/// - `targets`: `[N]`
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    label_smoothing: f64,
) -> Tensor<1> {
    CrossEntropyLossConfig::new()
        // `None` lets Burn gather the targets' log-probabilities instead of multiplying by a one-hot tensor.
        .with_smoothing((label_smoothing > 0.0).then_some(label_smoothing as f32))
        .init(&logits.device())
        .forward(logits, targets)
}

/// Computes the mean of the images' cross-entropies, each multiplied by the weight of its target, `[1]`. The sum is divided by
/// the number of images, as with `class_weight` of Keras, so that the batches of a step can be added.
///
/// # Shapes
/// - `logits`: `[N, classes]`
/// - `targets`: `[N]`
/// - `weights`: `[classes]`
pub fn weighted_cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    label_smoothing: f64,
    weights: Tensor<1>,
) -> Tensor<1> {
    let [images, classes] = logits.dims();
    let log_probabilities = log_softmax(logits, 1);
    let indices = targets.clone().reshape([images, 1]);
    let of_targets = log_probabilities
        .clone()
        .gather(1, indices)
        .reshape([images]);
    let log_likelihoods = match label_smoothing > 0.0 {
        false => of_targets,
        true => {
            let of_all = log_probabilities.sum_dim(1).reshape([images]);
            of_targets.mul_scalar(1.0 - label_smoothing)
                + of_all.mul_scalar(label_smoothing / classes as f64)
        }
    };
    (log_likelihoods * weights.select(0, targets)).mean().neg()
}

/// Computes the mean cross-entropy of a batch of mixed images, `[1]`: `1 - weight` times that of the targets
/// plus `weight` times that of the other targets; Zhang et al., "mixup: Beyond Empirical Risk Minimization"
/// (2018).
///
/// # Shapes
/// - `logits`: `[N, classes]`
/// - `targets`: `[N]`
///
/// `loss` computes the mean cross-entropy of logits and targets.
pub fn mixed_cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    others: MixedTargets,
    loss: impl Fn(Tensor<2>, Tensor<1, Int>) -> Tensor<1>,
) -> Tensor<1> {
    let MixedTargets {
        targets: others,
        weight,
    } = others;
    let other_loss = loss(logits.clone(), others);
    let loss = loss(logits, targets);
    loss.mul_scalar(1.0 - weight) + other_loss.mul_scalar(weight)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn label_smoothing_spreads_probability_over_all_classes() {
        let device = Device::default();
        device.seed(1);
        let distribution = Distribution::Normal(0.0, 2.0);
        let logits = Tensor::<2>::random([6, 3], distribution, &device);
        let targets = [0usize, 1, 2, 0, 1, 2];
        let values: Vec<f32> = logits.clone().into_data().try_to_vec().unwrap();
        let mut expected = 0.0;
        for (logits, target) in values.chunks(3).zip(targets) {
            let log_sum = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            for (class, &logit) in logits.iter().enumerate() {
                let probability = 0.2 / 3.0 + if class == target { 0.8 } else { 0.0 };
                expected += probability * (log_sum - f64::from(logit)) / 6.0;
            }
        }
        let loss = |smoothing| {
            let targets = Tensor::from_ints(targets.map(|target| target as i32), &device);
            let loss = cross_entropy(logits.clone(), targets, smoothing);
            f64::from(loss.into_scalar::<f32>())
        };
        let smoothed = loss(0.2);
        assert!((smoothed - expected).abs() < 1e-5, "{smoothed} {expected}");
        assert!((loss(1e-6) - loss(0.0)).abs() < 1e-4);
    }

    #[test]
    fn weights_multiply_the_losses_of_their_classes() {
        let device = Device::default();
        let logits = Tensor::<2>::from_floats(
            [[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [0.3, 0.1, 0.2]],
            &device,
        );
        let targets = Tensor::<1, Int>::from_ints([0, 2, 1], &device);
        let loss = |weights: [f32; 3], smoothing| {
            let weights = Tensor::from_floats(weights, &device);
            let loss = weighted_cross_entropy(logits.clone(), targets.clone(), smoothing, weights);
            f64::from(loss.into_scalar::<f32>())
        };
        for smoothing in [0.0, 0.2] {
            let unweighted = cross_entropy(logits.clone(), targets.clone(), smoothing);
            let unweighted = f64::from(unweighted.into_scalar::<f32>());
            assert!((loss([1.0; 3], smoothing) - unweighted).abs() < 1e-6);
        }
        // Losses 1.464369, 0.065884 and 1.201943.
        let expected = (2.0 * 1.464_369 + 0.5 * 0.065_884 + 3.0 * 1.201_943) / 3.0;
        assert!((loss([2.0, 3.0, 0.5], 0.0) - expected).abs() < 1e-5);
    }

    #[test]
    fn mixed_targets_share_the_probability() {
        let device = Device::default();
        let logits = Tensor::<2>::from_floats([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], &device);
        let targets = Tensor::from_ints([0, 2], &device);
        let mixed = MixedTargets {
            targets: Tensor::from_ints([1, 2], &device),
            weight: 0.3,
        };
        // -0.7 log softmax([1, 2, 0.5])[0] - 0.3 log softmax([1, 2, 0.5])[1], and -log softmax([0, -1, 3])[2].
        let expected = (0.7 * 1.464_369 + 0.3 * 0.464_369 + 0.065_884) / 2.0;
        let with_smoothing =
            |smoothing| move |logits, targets| cross_entropy(logits, targets, smoothing);
        let loss = mixed_cross_entropy(
            logits.clone(),
            targets.clone(),
            mixed.clone(),
            with_smoothing(0.0),
        );
        let loss = f64::from(loss.into_scalar::<f32>());
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
        // Smoothing by 0.2 takes a fifth from both targets and gives a 15th to each class.
        let smooth = (1.464_369 + 0.464_369 + 1.964_369 + 3.065_884 + 4.065_884 + 0.065_884) / 6.0;
        let expected = 0.8 * expected + 0.2 * smooth;
        let loss = mixed_cross_entropy(logits, targets, mixed, with_smoothing(0.2));
        let loss = f64::from(loss.into_scalar::<f32>());
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    }
}
