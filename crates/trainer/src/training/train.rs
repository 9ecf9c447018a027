//! The training loop. Read this file first, then `epoch.rs` and `step.rs`.

use anyhow::{Context, Result, anyhow};
use burn::data::dataloader::DataLoader;
use burn::train::ClassificationOutput;
use model::ConvNet;
use tracing::warn;

use crate::config::run_config::{Config, SelectBy};
use crate::device::OpenDevice;
use crate::device::panics::catch_panic_in_all_threads;
use crate::inference::evaluation::{EvaluatedBatch, Evaluation, evaluate};
use crate::run::checkpoint::Checkpoint;
use crate::run::images::DataSplit;
use crate::run::metrics::Metrics;
use crate::run::position::Position;
use crate::run::run_dir::RunDir;
use crate::training::burn_train::{self, Monitor};
use crate::training::epoch_result::EvaluatedEpoch;
use crate::training::progress::Style;
use crate::training::session::Session;
use crate::training::state::Training;
use crate::training::stop_reason::StopReason;

/// A training that ended.
#[derive(Debug)]
pub(crate) struct Trained {
    /// The network of the best epoch, or of the last one without validation; `None` if no epoch was
    /// completed.
    pub(crate) model: Option<ConvNet>,
    pub(crate) position: Position,
    pub(crate) stop_reason: StopReason,
}

/// Trains the network that `config` describes, from its first step or from a checkpoint.
///
/// The best weights, the checkpoints and the metrics go to the run folder. Several devices each
/// compute a part of every batch; the first one has the optimizer and evaluates.
///
/// # Errors
/// Returns an error if the loss is not finite, the checkpoint does not fit the network, a device fails,
/// or the run folder cannot be written to.
pub(crate) fn train(
    config: &Config,
    images: &DataSplit,
    devices: &[OpenDevice],
    run: &RunDir,
    style: Style,
    checkpoint: Option<Checkpoint>,
) -> Result<Trained> {
    let device = &devices.first().context("no device")?.device;
    let training = match checkpoint {
        None => Training::begin(config, &images.train, &device.clone().autodiff())?,
        Some(checkpoint) => Training::resume(config, &device.clone().autodiff(), checkpoint)?,
    };
    training.restore_files(run)?;

    let session = Session::new(config, images, devices, run, style, training)?;
    let setup = session.burn_train_setup();
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let names = names.join(" or ");
    let Fitted {
        training,
        stop_reason,
        warning,
    } = burn_train::launch(setup, move |monitor| {
        catch_panic_in_all_threads(|| session.fit(monitor))
            .unwrap_or_else(|panic| Err(anyhow!("on device {names}: {panic}")))
    })?;

    if let (Style::Dashboard, Some(warning)) = (style, warning) {
        warn!("{warning}");
    }
    let Training { best, position, .. } = training;
    let model = match best.is_empty() {
        true => None,
        false => Some(config.model.folded().init(device)?.with_safetensors(best)?),
    };
    Ok(Trained {
        model,
        position,
        stop_reason,
    })
}

/// A training that a session ended.
struct Fitted {
    training: Training,
    stop_reason: StopReason,
    warning: Option<String>,
}

impl Session {
    /// Trains, evaluates, records and checkpoints epoch by epoch, until there is a reason to stop.
    fn fit(mut self, monitor: &mut Monitor<'_>) -> Result<Fitted> {
        loop {
            match self.stop_reason(monitor) {
                // A limit ends a partial epoch, which is evaluated and recorded first.
                Some(reason) if reason.is_limit() && self.is_within_epoch() => {}
                Some(StopReason::Interrupted) => {
                    self.save_checkpoint()?;
                    return Ok(self.end(StopReason::Interrupted));
                }
                Some(reason) => return Ok(self.end(reason)),
                None => {}
            }

            let trained = self.train_epoch(monitor)?;
            match trained.stopped_by {
                Some(StopReason::Interrupted) => continue,
                // From this checkpoint the epoch can be continued under a higher limit.
                Some(_) => self.save_checkpoint()?,
                None => {}
            }

            let number = self.training.position.epochs.len() + 1;
            let model = self.training.evaluation_model(&self.config, &self.train)?;
            let Some(evaluated) = self.evaluate_epoch(number, &model, monitor)? else {
                continue;
            };
            monitor.end_epoch(number)?;

            self.record_epoch(&trained, evaluated, &model)?;
            // The checkpoint precedes the weights, so that a run with weights can always be resumed.
            if trained.stopped_by.is_none() {
                self.save_checkpoint()?;
            }
            self.write_results()?;
            if let Some(reason) = trained.stopped_by {
                return Ok(self.end(reason));
            }
        }
    }

    fn end(self, stop_reason: StopReason) -> Fitted {
        Fitted {
            training: self.training,
            stop_reason,
            warning: self.warning,
        }
    }

    /// Returns the metrics on the validation split, and on the test split if they are reported per epoch;
    /// `None` if the user interrupted the evaluation.
    fn evaluate_epoch(
        &self,
        epoch: usize,
        model: &ConvNet,
        monitor: &mut Monitor<'_>,
    ) -> Result<Option<EvaluatedEpoch>> {
        let evaluated = self.validate(epoch, model, monitor).and_then(|validation| {
            let test = match self.config.training.report_test {
                true => Some(self.test(model, monitor)?),
                false => None,
            };
            let score = validation
                .as_ref()
                .and_then(|evaluation| self.score(evaluation));
            let validation = validation.map(|evaluation| evaluation.metrics());
            Ok(EvaluatedEpoch {
                validation,
                score,
                test,
            })
        });
        match evaluated {
            Err(error) if error.is::<Interrupted>() => Ok(None),
            evaluated => evaluated.map(Some),
        }
    }

    fn validate(
        &self,
        epoch: usize,
        model: &ConvNet,
        monitor: &mut Monitor<'_>,
    ) -> Result<Option<Evaluation>> {
        let images = self.validation.num_items();
        if images == 0 {
            return Ok(None);
        }
        monitor.start_validation(epoch, images)?;
        let mut number = 0;
        let classes = &self.config.images.classes;
        let evaluation = evaluate(model, &self.validation, classes, |batch| {
            check_interrupted(monitor)?;
            number += 1;
            let EvaluatedBatch {
                loss,
                logits,
                targets,
                progress,
            } = batch;
            let output = ClassificationOutput::new(loss, logits, targets);
            monitor.validation_batch(output, progress, number)
        });
        let evaluation = evaluation.with_context(|| format!("validation of epoch {epoch}"))?;
        monitor.end_validation(epoch)?;
        Ok(Some(evaluation))
    }

    /// Returns the metric that the best epoch is chosen by, the higher the better; `None` for the accuracy.
    fn score(&self, evaluation: &Evaluation) -> Option<f64> {
        match self.config.training.select_by {
            SelectBy::Accuracy => None,
            SelectBy::BalancedAccuracy => Some(evaluation.balanced_accuracy()),
            SelectBy::MacroF1 => Some(evaluation.macro_average().f1),
            SelectBy::Loss => Some(-evaluation.loss),
        }
    }

    fn test(&self, model: &ConvNet, monitor: &Monitor<'_>) -> Result<Metrics> {
        let classes = &self.config.images.classes;
        let evaluation = evaluate(model, &self.test, classes, |_| check_interrupted(monitor))?;
        Ok(evaluation.metrics())
    }
}

/// Ends an evaluation when the user stops the training.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

fn check_interrupted(monitor: &Monitor<'_>) -> Result<()> {
    match monitor.is_interrupted() {
        true => Err(Interrupted.into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::slice;

    use super::*;
    use crate::config::settings::Settings;
    use crate::device::{self, Request};
    use crate::run::images;
    use crate::run::loaders::evaluation_loader;
    use crate::run::picture_cache::PictureCache;

    /// A network with batch normalization.
    const BATCH_NORM: &str = "model.blocks = [{ channels = 8, padding = 0, norm = true }, \
                              { channels = 16, padding = 0, norm = true }]";

    fn open_device() -> OpenDevice {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        device
    }

    /// Returns the preset `tiny` with these settings, without validation, and its images.
    fn tiny(settings: &str) -> (Config, DataSplit) {
        let mut tiny = Settings::preset("tiny").unwrap();
        let settings = format!("data.validation = 0.0\n{settings}");
        tiny.overlay(settings.parse().unwrap()).unwrap();
        let (config, images) = images::resolve(tiny, PictureCache::No).unwrap();
        (config, images.split.clone())
    }

    fn run_folder() -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path(), "tiny", None, "", |_| Ok(())).unwrap();
        (folder, run)
    }

    /// Trains the preset `tiny` with these settings on 300 digits, on the same device several times at once.
    /// Returns the reason to stop and the weights.
    fn train_tiny(devices: usize, settings: &str) -> (StopReason, Vec<f32>) {
        let (config, images) = tiny(&format!("data.limit_train = 300\n{settings}"));
        let (_folder, run) = run_folder();
        let devices = vec![open_device(); devices];
        let trained = train(&config, &images, &devices, &run, Style::Details, None).unwrap();
        let bytes = fs::read(run.model_path()).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let values = bytes[8 + header..].chunks_exact(4);
        let values = values.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        (trained.stop_reason, values.collect())
    }

    /// Trains all epochs, and returns the weights.
    fn weights_on(devices: usize, settings: &str) -> Vec<f32> {
        let (stop_reason, weights) = train_tiny(devices, settings);
        assert_eq!(stop_reason, StopReason::Epochs);
        weights
    }

    fn weights(settings: &str) -> Vec<f32> {
        weights_on(1, settings)
    }

    #[test]
    fn reports_why_it_stopped() {
        // An epoch has five steps.
        for (settings, reason) in [
            (
                "training.epochs = 1\ntraining.max_steps = 3",
                StopReason::MaxSteps,
            ),
            (
                "training.epochs = 1\ntraining.max_steps = 5",
                StopReason::Epochs,
            ),
            (
                "training.epochs = 2\ntraining.max_steps = 5",
                StopReason::MaxSteps,
            ),
        ] {
            assert_eq!(train_tiny(1, settings).0, reason, "{settings}");
        }
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    }

    #[test]
    fn accumulated_batches_equal_one_large_batch() {
        // 300 images make two steps of 128 and one of 44, whose last batch is smaller.
        let sgd = "training.epochs = 1\ntraining.optimizer = \"sgd\"\ntraining.learning_rate = 0.1";
        let whole = weights(&format!("{sgd}\ntraining.batch_size = 128"));
        let parts = weights(&format!(
            "{sgd}\ntraining.batch_size = 32\ntraining.accumulate = 4"
        ));
        let found = distance(&whole, &parts);
        assert!(found < 1e-5, "{found}");
        let other = weights(&format!("{sgd}\ntraining.batch_size = 32"));
        assert!(distance(&whole, &other) > 1e-3);
    }

    #[test]
    fn several_devices_train_the_same_weights_as_one() {
        // In steps of 64 images three devices get 22, 21 and 21 images; the last step has 44.
        let settings = "training.epochs = 2\ntraining.optimizer = \"sgd\"\n\
                        training.learning_rate = 0.1\ntraining.label_smoothing = 0.1";
        let mixed = format!("{settings}\naugmentation.mixup = 0.4\naugmentation.cutmix = 1.0");
        for settings in [settings, &mixed] {
            let alone = weights(settings);
            for devices in [2, 3] {
                let found = distance(&alone, &weights_on(devices, settings));
                assert!(found < 1e-5, "{devices} devices: {found}");
            }
        }
        let alone = weights(settings);
        let parts = format!("{settings}\ntraining.batch_size = 32");
        let accumulated = format!("{parts}\ntraining.accumulate = 2");
        assert!(distance(&alone, &weights_on(2, &accumulated)) < 1e-5);
        assert!(distance(&alone, &weights_on(2, &parts)) > 1e-3);
        assert_eq!(weights_on(3, settings), weights_on(3, settings));
    }

    #[test]
    fn every_training_setting_has_an_effect() {
        let plain = weights("");
        for setting in [
            "training.optimizer = \"adamw\"",
            "training.beta1 = 0.7",
            "training.beta2 = 0.9",
            "training.weight_decay = 0.1",
            "training.gradient_clip = 0.5",
            "training.label_smoothing = 0.2",
            "training.schedule = \"cosine\"",
            "training.schedule = \"one-cycle\"",
            "training.schedule = \"step\"\ntraining.decay_epochs = 1",
            "training.warmup_steps = 3",
            "training.ema_decay = 0.9",
            "training.lookahead = 2",
            "training.optimizer = \"muon\"",
            "training.bias_factor = 4",
            "training.head_factor = 4",
            "training.schedule = \"linear\"",
            "augmentation.rotation = 10",
            "augmentation.elastic = 0.02",
            "augmentation.flip = \"alternating\"",
            "augmentation.crop = 2",
            "augmentation.crop = 2\naugmentation.crop_padding = \"zero\"",
            "augmentation.resized_crop = 0.5",
            "augmentation.cutout = 8",
            "augmentation.brightness = 0.3",
            "augmentation.contrast = 0.3",
            "augmentation.mixup = 0.2",
            "augmentation.cutmix = 1.0",
            "model.blocks = [{ channels = 8, padding = 0, norm = true }]",
        ] {
            assert!(distance(&plain, &weights(setting)) > 1e-5, "{setting}");
        }
    }

    #[test]
    fn every_setting_of_sgd_has_an_effect() {
        let with = |setting: &str| {
            let sgd = "training.optimizer = \"sgd\"\ntraining.learning_rate = 0.05";
            weights(&format!("{sgd}\ntraining.weight_decay = 0.1\n{setting}"))
        };
        let plain = with("");
        for setting in [
            "training.momentum = 0.5",
            "training.nesterov = true",
            "training.decay_biases = false",
            "training.bias_factor = 2",
        ] {
            assert!(distance(&plain, &with(setting)) > 1e-5, "{setting}");
        }
        for setting in [
            "training.momentum = 0.9\ntraining.nesterov = false",
            "training.bias_factor = 1\ntraining.head_factor = 1",
        ] {
            assert_eq!(plain, with(setting), "{setting}");
        }
    }

    #[test]
    fn lookahead_evaluates_the_weights_before_it_first_moves_the_slow_ones() {
        // Five steps.
        let plain = weights("training.epochs = 1");
        assert_eq!(
            plain,
            weights("training.epochs = 1\ntraining.lookahead = 6")
        );
        let moved = weights("training.epochs = 1\ntraining.lookahead = 5");
        assert!(distance(&plain, &moved) > 1e-5);
    }

    #[test]
    fn one_image_more_changes_the_accuracy_little() {
        let device = open_device();
        let accuracy = |images: usize| {
            let (config, split) = tiny(&format!(
                "data.limit_train = {images}\ntraining.epochs = 4\ntraining.optimizer = \"sgd\"\n\
                 training.learning_rate = 0.1\n{BATCH_NORM}"
            ));
            let (_folder, run) = run_folder();
            let devices = slice::from_ref(&device);
            let trained = train(&config, &split, devices, &run, Style::Details, None).unwrap();
            let test = split.test.select(0..2000);
            let loader = evaluation_loader(&config, &test, &device.device).unwrap();
            let model = trained.model.unwrap();
            let evaluation = evaluate(&model, &loader, &config.images.classes, |_| Ok(()));
            evaluation.unwrap().accuracy
        };
        // 87.3% and 86.9%. With a last batch of one image it was 70.8%.
        let (full, one_more) = (accuracy(512), accuracy(513));
        assert!(full > 0.8, "{full}");
        assert!((full - one_more).abs() < 0.03, "{full} {one_more}");
    }

    #[test]
    fn older_checkpoint_before_a_merged_batch_completes_its_epoch() {
        let (config, split) = tiny(&format!(
            "data.limit_train = 321\ntraining.epochs = 2\n{BATCH_NORM}"
        ));
        let device = open_device();
        let devices = slice::from_ref(&device);
        let autodiff = device.device.clone().autodiff();
        let begin = Training::begin(&config, &split.train, &autodiff).unwrap();
        // Older versions trained on 5 batches of 64 images and one of a single image.
        for batches in [5, 6] {
            let mut checkpoint = begin.checkpoint(&config).unwrap();
            checkpoint.position.batches = batches;
            checkpoint.position.steps = batches as u64;
            checkpoint.position.sums.add(1.5, 160, 320);
            let checkpoint = Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap()).unwrap();
            let (_folder, run) = run_folder();
            let style = Style::Details;
            let trained = train(&config, &split, devices, &run, style, Some(checkpoint)).unwrap();
            let epochs = trained.position.epochs;
            let steps: Vec<u64> = epochs.iter().map(|epoch| epoch.steps).collect();
            assert_eq!(steps, [batches as u64, batches as u64 + 5]);
            let Metrics { loss, accuracy } = epochs[0].train;
            assert_eq!((loss, accuracy), (1.5, 0.5));
        }
    }
}
