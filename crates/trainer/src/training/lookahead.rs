//! The decay rate of the slow weights of lookahead.

/// Factor by which each step between two updates reduces the final decay rate of the slow weights. This and the
/// cubic growth are those of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024).
const DECAY_PER_STEP: f64 = 0.95;

/// Returns the fraction of the slow weights that remains in the update after `step` of `steps_total` steps, with
/// an update every `every` steps. It grows with the cube of the progress.
pub(crate) fn decay(every: u64, step: u64, steps_total: u64) -> f64 {
    let progress = step as f64 / steps_total.max(step) as f64;
    DECAY_PER_STEP.powf(every as f64) * progress.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_is_that_of_the_recipe_for_cifar() {
        // tests/cifar/cifar_torch.py: 0.95 ** 5 * (step / steps) ** 3.
        for (step, expected) in [(5, 0.000_096_722_6), (50, 0.096_722_6), (100, 0.773_780_9)] {
            assert!((decay(5, step, 100) - expected).abs() < 1e-7, "{step}");
        }
    }
}
