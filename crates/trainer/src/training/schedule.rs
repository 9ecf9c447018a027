//! Learning-rate schedules: functions of the step and of the epochs completed before it, without state.

use std::f64::consts::PI;

use crate::config::run_config::{Schedule, TrainingConfig};
use crate::run::epoch::Epoch;

/// First learning rate of one-cycle, as a fraction of the highest. This and the next two are PyTorch's
/// defaults for Smith and Topin (2018).
const ONE_CYCLE_START: f64 = 1.0 / 25.0;
/// Last learning rate of one-cycle, as a fraction of the highest.
const ONE_CYCLE_END: f64 = ONE_CYCLE_START * 1e-4;
/// Fraction of the steps in which one-cycle increases.
const ONE_CYCLE_RISE: f64 = 0.3;

/// First and last learning rate of the linear schedule, as fractions of the highest. These and the next one are
/// those of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024).
const LINEAR_START: f64 = 0.2;
const LINEAR_END: f64 = 0.07;
/// Fraction of the steps in which the linear schedule increases.
const LINEAR_RISE: f64 = 0.23;

/// Returns the learning rate of step `step`, counted from 0, of `steps_total`, after `epochs`.
pub(crate) fn learning_rate(
    settings: &TrainingConfig,
    step: u64,
    steps_total: u64,
    epochs: &[Epoch],
) -> f64 {
    let highest = settings.learning_rate;
    let warmup = settings.warmup_steps;
    if settings.schedule == Schedule::OneCycle {
        let rise = match warmup {
            0 => ONE_CYCLE_RISE * steps_total as f64 - 1.0,
            steps => steps as f64,
        };
        return highest * one_cycle(step as f64, rise, steps_total as f64);
    }
    if settings.schedule == Schedule::Linear {
        let rise = match warmup {
            0 => LINEAR_RISE * steps_total as f64,
            steps => steps as f64,
        };
        return highest * linear(step as f64, rise, steps_total as f64);
    }
    if step < warmup {
        return highest * (step + 1) as f64 / warmup as f64;
    }
    let decays = |times: usize| {
        settings
            .decay
            .powi(i32::try_from(times).unwrap_or(i32::MAX))
    };
    highest
        * match settings.schedule {
            Schedule::Constant | Schedule::OneCycle | Schedule::Linear => 1.0,
            Schedule::Cosine => {
                let steps = steps_total.saturating_sub(warmup);
                cosine(1.0, 0.0, fraction(step - warmup, steps))
            }
            Schedule::Step => decays(epochs.len() / settings.decay_epochs),
            Schedule::Plateau => decays(count_plateaus(epochs, settings.decay_epochs)),
        }
}

fn fraction(done: u64, of: u64) -> f64 {
    done as f64 / of.max(1) as f64
}

/// Interpolates from `start` to `end` along half a cosine; `fraction` goes from 0 to 1.
fn cosine(start: f64, end: f64, fraction: f64) -> f64 {
    end + (start - end) * (1.0 + (PI * fraction.clamp(0.0, 1.0)).cos()) / 2.0
}

/// Returns the learning rate as a fraction of the highest, which is reached after `rise` steps.
fn one_cycle(step: f64, rise: f64, steps: f64) -> f64 {
    if step < rise {
        cosine(ONE_CYCLE_START, 1.0, step / rise)
    } else {
        // The last step is step `steps - 1`.
        let fall = (steps - 1.0 - rise).max(1.0);
        cosine(1.0, ONE_CYCLE_END, (step - rise) / fall)
    }
}

/// Returns the learning rate as a fraction of the highest, which is reached after `rise` steps. The fall would end
/// at step `steps`.
fn linear(step: f64, rise: f64, steps: f64) -> f64 {
    if step < rise {
        LINEAR_START + (1.0 - LINEAR_START) * step / rise
    } else {
        let fall = (steps - rise).max(1.0);
        1.0 - (1.0 - LINEAR_END) * ((step - rise) / fall).min(1.0)
    }
}

/// Counts the sequences of `patience` epochs without a lower validation loss.
fn count_plateaus(epochs: &[Epoch], patience: usize) -> usize {
    let mut lowest = f64::INFINITY;
    let (mut count, mut waited) = (0, 0);
    for loss in epochs
        .iter()
        .filter_map(|epoch| Some(epoch.validation?.loss))
    {
        if loss < lowest {
            (lowest, waited) = (loss, 0);
            continue;
        }
        waited += 1;
        if waited == patience {
            (count, waited) = (count + 1, 0);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Settings, digits};
    use crate::run::metrics::Metrics;

    fn settings(text: &str) -> TrainingConfig {
        let mut settings = Settings::preset("tiny").unwrap();
        let text = format!("training.learning_rate = 0.4\n{text}");
        settings.overlay(text.parse().unwrap()).unwrap();
        settings.into_config(&digits()).unwrap().training
    }

    fn epoch(validation_loss: f64) -> Epoch {
        let metrics = Metrics {
            loss: validation_loss,
            accuracy: 0.5,
        };
        Epoch {
            number: 1,
            of: 9,
            steps: 1,
            train: metrics,
            validation: Some(metrics),
            score: None,
            test: None,
            learning_rate: 0.1,
            images_per_second: 1.0,
            loading: 0.0,
            seconds: 1.0,
        }
    }

    /// Returns the learning rates of some of 100 steps.
    fn rates<const N: usize>(settings: &TrainingConfig, steps: [u64; N]) -> [f64; N] {
        steps.map(|step| (1e7 * learning_rate(settings, step, 100, &[])).round() / 1e7)
    }

    #[test]
    fn constant_stays_after_warmup() {
        let constant = settings("training.warmup_steps = 4");
        assert_eq!(
            rates(&constant, [0, 1, 3, 4, 99]),
            [0.1, 0.2, 0.4, 0.4, 0.4]
        );
    }

    #[test]
    fn cosine_decreases_to_zero_after_warmup() {
        let cosine = settings("training.schedule = \"cosine\"");
        assert_eq!(rates(&cosine, [0, 50, 100]), [0.4, 0.2, 0.0]);
        let cosine = settings("training.schedule = \"cosine\"\ntraining.warmup_steps = 20");
        assert_eq!(rates(&cosine, [9, 20, 60, 100]), [0.2, 0.4, 0.2, 0.0]);
    }

    #[test]
    fn one_cycle_matches_pytorch() {
        // torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=0.4, total_steps=100).
        let cycle = settings("training.schedule = \"one-cycle\"");
        assert_eq!(
            rates(&cycle, [0, 10, 29, 30, 64, 98, 99]),
            [
                0.016, 0.1180656, 0.4, 0.3997986, 0.2000008, 0.000203, 0.0000016
            ]
        );
        let cycle = settings("training.schedule = \"one-cycle\"\ntraining.warmup_steps = 10");
        assert_eq!(
            rates(&cycle, [0, 5, 10, 99]),
            [0.016, 0.208, 0.4, 0.0000016]
        );
    }

    #[test]
    fn linear_matches_the_recipe_for_cifar() {
        // The function `rate` of tests/cifar/cifar_torch.py, times 0.4.
        let linear = settings("training.schedule = \"linear\"");
        assert_eq!(
            rates(&linear, [0, 1, 10, 22, 23, 24, 60, 99]),
            [
                0.08, 0.093913, 0.2191304, 0.386087, 0.4, 0.3951688, 0.2212468, 0.0328312
            ]
        );
        let linear = settings("training.schedule = \"linear\"\ntraining.warmup_steps = 40");
        assert_eq!(rates(&linear, [0, 20, 40, 100]), [0.08, 0.24, 0.4, 0.028]);
        // A rise of all steps, and steps beyond the end.
        let linear = settings("training.schedule = \"linear\"\ntraining.warmup_steps = 200");
        assert_eq!(rates(&linear, [0, 99, 300]), [0.08, 0.2384, 0.028]);
    }

    #[test]
    fn step_decays_every_few_epochs() {
        let step = settings("training.schedule = \"step\"\ntraining.decay = 0.5");
        let after = |epochs: usize| learning_rate(&step, 0, 100, &vec![epoch(1.0); epochs]);
        assert_eq!([0, 1, 2, 3, 4].map(after), [0.4, 0.4, 0.2, 0.2, 0.1]);
    }

    #[test]
    fn plateau_decays_when_validation_stops_improving() {
        let plateau = settings("training.schedule = \"plateau\"\ntraining.decay = 0.5");
        let after = |losses: &[f64]| {
            let epochs: Vec<Epoch> = losses.iter().copied().map(epoch).collect();
            learning_rate(&plateau, 0, 100, &epochs)
        };
        assert_eq!(after(&[3.0, 2.0, 1.0]), 0.4);
        assert_eq!(after(&[3.0, 3.5, 2.0, 2.0]), 0.4);
        assert_eq!(after(&[3.0, 3.5, 3.1]), 0.2);
        assert_eq!(after(&[3.0, 3.5, 3.1, 3.0, 3.0]), 0.1);
    }
}
