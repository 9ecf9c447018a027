//! Learning rates over a training: functions of the step and of what the epochs before it reached,
//! so that there is no state to keep.

use std::f64::consts::PI;

use crate::config::run_config::{Schedule, TrainingConfig};
use crate::run::epoch::Epoch;

/// Where one-cycle begins, and what it ends at, as fractions of the highest learning rate; and the
/// share of the steps in which it rises. PyTorch's defaults for Smith and Topin (2018).
const ONE_CYCLE_START: f64 = 1.0 / 25.0;
const ONE_CYCLE_END: f64 = ONE_CYCLE_START * 1e-4;
const ONE_CYCLE_RISE: f64 = 0.3;

/// The learning rate of the step after `step` others, of `steps` in all, after `epochs`.
pub(crate) fn learning_rate(
    settings: &TrainingConfig,
    step: u64,
    steps: u64,
    epochs: &[Epoch],
) -> f64 {
    let highest = settings.learning_rate;
    let warmup = settings.warmup_steps;
    if settings.schedule == Schedule::OneCycle {
        let rise = match warmup {
            0 => ONE_CYCLE_RISE * steps as f64 - 1.0,
            steps => steps as f64,
        };
        return highest * one_cycle(step as f64, rise, steps as f64);
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
            Schedule::Constant | Schedule::OneCycle => 1.0,
            Schedule::Cosine => cosine(1.0, 0.0, part(step - warmup, steps.saturating_sub(warmup))),
            Schedule::Step => decays(epochs.len() / settings.decay_epochs),
            Schedule::Plateau => decays(plateaus(epochs, settings.decay_epochs)),
        }
}

fn part(done: u64, of: u64) -> f64 {
    done as f64 / of.max(1) as f64
}

/// From `start` to `end` along half a cosine, of which `part` is done.
fn cosine(start: f64, end: f64, part: f64) -> f64 {
    end + (start - end) * (1.0 + (PI * part.clamp(0.0, 1.0)).cos()) / 2.0
}

/// As a fraction of the highest: `rise` steps up, the others down.
fn one_cycle(step: f64, rise: f64, steps: f64) -> f64 {
    if step < rise {
        cosine(ONE_CYCLE_START, 1.0, step / rise)
    } else {
        // The last step is one before the end.
        let fall = (steps - 1.0 - rise).max(1.0);
        cosine(1.0, ONE_CYCLE_END, (step - rise) / fall)
    }
}

/// How often `patience` epochs in a row brought no lower validation loss.
fn plateaus(epochs: &[Epoch], patience: usize) -> usize {
    let mut lowest = f64::INFINITY;
    let (mut times, mut waited) = (0, 0);
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
            (times, waited) = (times + 1, 0);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::run::images::{self, PictureCache};
    use crate::run::metrics::Metrics;

    fn settings(text: &str) -> TrainingConfig {
        let mut settings = Settings::preset("tiny").unwrap();
        let text = format!("training.learning_rate = 0.4\n{text}");
        settings.overlay(text.parse().unwrap()).unwrap();
        images::resolve(settings, PictureCache::No)
            .unwrap()
            .0
            .training
    }

    fn epoch(validation_loss: f64) -> Epoch {
        let figures = Metrics {
            loss: validation_loss,
            accuracy: 0.5,
        };
        Epoch {
            number: 1,
            of: 9,
            steps: 1,
            train: figures,
            validation: Some(figures),
            test: None,
            learning_rate: 0.1,
            images_per_second: 1.0,
            loading: 0.0,
            seconds: 1.0,
        }
    }

    /// Rates of some of 100 steps.
    fn rates<const N: usize>(settings: &TrainingConfig, steps: [u64; N]) -> [f64; N] {
        steps.map(|step| (1e7 * learning_rate(settings, step, 100, &[])).round() / 1e7)
    }

    #[test]
    fn constant_rises_and_stays() {
        let constant = settings("training.warmup_steps = 4");
        assert_eq!(
            rates(&constant, [0, 1, 3, 4, 99]),
            [0.1, 0.2, 0.4, 0.4, 0.4]
        );
    }

    #[test]
    fn cosine_falls_to_zero_after_its_rise() {
        let cosine = settings("training.schedule = \"cosine\"");
        assert_eq!(rates(&cosine, [0, 50, 100]), [0.4, 0.2, 0.0]);
        let cosine = settings("training.schedule = \"cosine\"\ntraining.warmup_steps = 20");
        assert_eq!(rates(&cosine, [9, 20, 60, 100]), [0.2, 0.4, 0.2, 0.0]);
    }

    #[test]
    fn one_cycle_is_that_of_pytorch() {
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
    fn step_decays_every_few_epochs() {
        let step = settings("training.schedule = \"step\"\ntraining.decay = 0.5");
        let after = |epochs: usize| learning_rate(&step, 0, 100, &vec![epoch(1.0); epochs]);
        assert_eq!([0, 1, 2, 3, 4].map(after), [0.4, 0.4, 0.2, 0.2, 0.1]);
    }

    #[test]
    fn plateau_decays_where_validation_no_longer_improves() {
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
