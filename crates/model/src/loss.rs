//! The training loss.

use burn::nn::loss::CrossEntropyLossConfig;
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

/// Computes the mean cross-entropy of a batch of mixed images, `[1]`: `1 - weight` times that of the targets
/// plus `weight` times that of the other targets; Zhang et al., "mixup: Beyond Empirical Risk Minimization"
/// (2018).
///
/// # Shapes
/// - `logits`: `[N, classes]`
/// - `targets`: `[N]`
pub fn mixed_cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    others: MixedTargets,
    label_smoothing: f64,
) -> Tensor<1> {
    let MixedTargets {
        targets: others,
        weight,
    } = others;
    let loss = cross_entropy(logits.clone(), targets, label_smoothing);
    let other_loss = cross_entropy(logits, others, label_smoothing);
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
        let loss = mixed_cross_entropy(logits.clone(), targets.clone(), mixed.clone(), 0.0);
        let loss = f64::from(loss.into_scalar::<f32>());
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
        // Smoothing by 0.2 takes a fifth from both targets and gives a 15th to each class.
        let smooth = (1.464_369 + 0.464_369 + 1.964_369 + 3.065_884 + 4.065_884 + 0.065_884) / 6.0;
        let expected = 0.8 * expected + 0.2 * smooth;
        let loss = mixed_cross_entropy(logits, targets, mixed, 0.2);
        let loss = f64::from(loss.into_scalar::<f32>());
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    }
}
