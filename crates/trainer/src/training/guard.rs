//! Symptoms of a training that does not learn.

use crate::run::metrics::Metrics;

/// Factor above the initial loss at which a training diverges.
const DIVERGED: f64 = 10.0;
/// Optimizer steps after which a network that learns is better than chance. Before, its accuracy says little.
const MIN_STEPS: u64 = 50;
/// Number of standard deviations above chance at which an accuracy is better than chance.
const SIGNIFICANT: f64 = 3.0;

/// A symptom of a training that does not learn.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Symptom {
    /// The loss is far above that of the first batch.
    #[error("the loss is {loss:.2}, that of the first batch was {initial:.2}")]
    Loss { loss: f64, initial: f64 },
    /// The accuracy after an epoch is not above that of a random choice.
    #[error("the {split} accuracy is {:.2}%, no better than chance, {:.2}%", 100.0 * accuracy, 100.0 * chance)]
    Accuracy {
        split: &'static str,
        accuracy: f64,
        chance: f64,
    },
}

/// Metrics on some images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) split: &'static str,
    pub(crate) metrics: Metrics,
    pub(crate) images: u64,
}

impl Symptom {
    /// Checks a mean loss.
    pub(crate) fn of_loss(loss: f64, initial: Option<f32>) -> Option<Self> {
        let initial = f64::from(initial?);
        (loss > DIVERGED * initial).then_some(Self::Loss { loss, initial })
    }

    /// Checks the accuracy after an epoch that ends after `steps` optimizer steps.
    pub(crate) fn of_accuracy(steps: u64, classes: usize, measured: Measured) -> Option<Self> {
        if steps < MIN_STEPS || classes < 2 {
            return None;
        }
        let Measured {
            split,
            metrics: Metrics { accuracy, .. },
            images,
        } = measured;
        let chance = 1.0 / classes as f64;
        let deviation = (chance * (1.0 - chance) / images.max(1) as f64).sqrt();
        (accuracy < chance + SIGNIFICANT * deviation).then_some(Self::Accuracy {
            split,
            accuracy,
            chance,
        })
    }

    /// Returns advice for a training with this highest learning rate.
    pub(crate) fn remedy(self, learning_rate: f64) -> String {
        let try_rate = match self {
            Self::Loss { .. } => format!("try a smaller --learning-rate than {learning_rate}"),
            Self::Accuracy { .. } => {
                format!("try another --learning-rate than {learning_rate}, usually a smaller one")
            }
        };
        format!("{try_rate}; `trainer find-lr` suggests one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_above_ten_times_the_initial_one_is_a_symptom() {
        assert_eq!(Symptom::of_loss(22.9, Some(2.3)), None);
        assert_eq!(Symptom::of_loss(1e9, None), None);
        let symptom = Symptom::of_loss(181_909.0, Some(2.375)).unwrap();
        assert_eq!(
            symptom.to_string(),
            "the loss is 181909.00, that of the first batch was 2.38"
        );
        assert_eq!(
            symptom.remedy(50.0),
            "try a smaller --learning-rate than 50; `trainer find-lr` suggests one"
        );
    }

    #[test]
    fn an_accuracy_no_better_than_chance_is_a_symptom() {
        let check = |steps: u64, accuracy: f64, images: u64| {
            let metrics = Metrics {
                loss: 2.3,
                accuracy,
            };
            let measured = Measured {
                split: "validation",
                metrics,
                images,
            };
            Symptom::of_accuracy(steps, 10, measured)
        };
        // The standard deviation is 0.3% of 10,000 images, and 3% of 100.
        assert_eq!(check(844, 0.11, 10_000), None);
        assert_eq!(
            check(844, 0.1065, 10_000).unwrap().to_string(),
            "the validation accuracy is 10.65%, no better than chance, 10.00%"
        );
        assert!(check(844, 0.0, 10_000).is_some());
        assert!(check(844, 0.18, 100).is_some());
        assert_eq!(check(844, 0.2, 100), None);
        assert_eq!(check(49, 0.0, 10_000), None);
        assert_eq!(
            check(50, 0.0, 10_000).unwrap().remedy(0.5),
            "try another --learning-rate than 0.5, usually a smaller one; `trainer find-lr` suggests one"
        );
    }
}
