//! The training loss.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Int, Tensor};

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
}
