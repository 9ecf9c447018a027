//! The choice among the networks and normalizations that a file may hold, on training images.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use data::{ImageDataset, Normalization, Scaling};
use model::ConvNet;

use crate::commands::import::candidate::Candidate;
use crate::config::run_config::Config;
use crate::inference::evaluation::for_each_batch;
use crate::process::printable::{LinesError, printable};
use crate::run::loaders::evaluation_loader;

/// Training images of each stage. The best eighth of the readings, or [`KEPT`], enters the next stage.
const STAGES: [usize; 4] = [32, 128, 512, 5_000];
/// Smallest number of readings that enter a stage.
const KEPT: usize = 6;
/// Largest number of multiply-adds of a stage, some seconds of computation. Beyond it, images are left out, then readings.
const MAX_WORK: usize = 150_000_000_000;
/// Training images to tell the last readings apart, if those of the stages do not suffice.
const MORE_IMAGES: usize = 20_000;
/// Least accuracy of the right normalization of a network that the file describes.
const MIN_ACCURACY: f64 = 0.8;
/// Least accuracy of a network that is recognized by its weights. Similar networks are wrong for a few percent of the
/// images, and none of the candidates may be the right one.
const MIN_RECOGNIZED: f64 = 0.97;
/// Least distance to the next best mean loss, in standard errors of the difference.
const MIN_STANDARD_ERRORS: f64 = 3.0;
/// Temperature of flatter probabilities.
const TEMPERATURE: f64 = 1.25;
/// Largest loss of an image, for logits that overflow.
const MAX_LOSS: f64 = 1e6;
/// Largest difference of the losses of an image, relative to the loss plus 1, that is rounding.
const ROUNDING: f64 = 1e-3;
/// Number of readings that an error lists.
const MAX_LISTED: usize = 5;

/// Normalizations that are compared where none is stated.
pub(super) fn usual_normalizations() -> Vec<Normalization> {
    vec![
        Normalization::Unit,
        Normalization::Half,
        Normalization::MeanStd,
        // Pixels from 0 to 255, and from -0.5 to 0.5.
        Normalization::Custom(Scaling::same(0.0, 1.0 / 255.0)),
        Normalization::Custom(Scaling::same(0.5, 1.0)),
    ]
}

/// Returns the least accuracy of a candidate that is taken.
fn min_accuracy(candidate: &Candidate<'_>) -> f64 {
    match candidate {
        Candidate::Described(_) => MIN_ACCURACY,
        Candidate::Read { .. } | Candidate::Matched { .. } => MIN_RECOGNIZED,
    }
}

/// A network and a normalization, and their result on the images of a stage.
#[derive(Clone, Debug)]
struct Reading {
    /// Index of the candidate.
    candidate: usize,
    normalization: Normalization,
    accuracy: f64,
    /// Mean cross-entropy with flatter probabilities: of the logits divided by [`TEMPERATURE`].
    flatter_loss: f64,
    /// The cross-entropy of each image.
    losses: Vec<f64>,
}

impl Reading {
    fn new(candidate: usize, normalization: Normalization) -> Self {
        Self {
            candidate,
            normalization,
            accuracy: 0.0,
            flatter_loss: 0.0,
            losses: Vec::new(),
        }
    }

    fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// Returns by how many standard errors the mean loss of `other` is higher, on the same images.
    fn distance(&self, other: &Self) -> f64 {
        let differences = || other.losses.iter().zip(&self.losses).map(|(a, b)| a - b);
        let count = self.losses.len() as f64;
        let mean = differences().sum::<f64>() / count;
        let squares = differences().map(|difference| (difference - mean).powi(2));
        mean / (squares.sum::<f64>() / (count * (count - 1.0))).sqrt()
    }

    /// Whether the probabilities are not too high, as on the images that a network was trained on. A network that is read
    /// wrongly is more confident than accurate.
    fn is_fitted(&self) -> bool {
        self.loss() < self.flatter_loss
    }

    /// Whether `other` computes the same, up to rounding.
    fn equals(&self, other: &Self) -> bool {
        let mut pairs = self.losses.iter().zip(&other.losses);
        pairs.all(|(a, b)| (a - b).abs() <= ROUNDING * (1.0 + a.abs()))
    }
}

/// The results of the readings on the training images. The best reading that is not doubtful comes first, then all others
/// by their loss. Readings that compute the same count as one.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    candidates: &'a [Candidate<'a>],
    readings: Vec<Reading>,
}

impl<'a> Comparison<'a> {
    /// Compares all candidates with all normalizations on training images. A choice on test images would bias their
    /// accuracy.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(super) fn new(
        candidates: &'a [Candidate<'a>],
        normalizations: &[Normalization],
        config: &Config,
        training: &ImageDataset,
        device: &Device,
    ) -> Result<Self> {
        let images = Images {
            candidates,
            config,
            training,
            device,
        };
        let all = |condition: &dyn Fn(&Candidate<'_>) -> bool, normalizations: &[Normalization]| {
            let chosen = candidates
                .iter()
                .enumerate()
                .filter(|(_, candidate)| condition(candidate));
            let chosen = chosen.flat_map(|(candidate, _)| {
                normalizations
                    .iter()
                    .map(move |&normalization| Reading::new(candidate, normalization))
            });
            chosen.collect::<Vec<_>>()
        };
        let mut readings = images.narrow(all(&|candidate| candidate.is_usual(), normalizations))?;
        let is_accurate =
            |best: &Reading| best.accuracy >= min_accuracy(&candidates[best.candidate]);
        if !readings.first().is_some_and(is_accurate) {
            readings = images.narrow(all(&|_| true, normalizations))?;
        }
        if let Some(best) = readings.first() {
            let (similar, normalization) = (&candidates[best.candidate], best.normalization);
            let others = all(&|candidate| candidate.is_similar(similar), &[normalization]);
            if !others.is_empty() {
                readings.extend(others);
                readings = images.narrow(readings)?;
            }
        }
        if let Some(best) = readings.first().cloned() {
            let is_close =
                |other: &Reading| other.equals(&best) || best.distance(other) < MIN_STANDARD_ERRORS;
            let close: Vec<Reading> = readings
                .iter()
                .filter(|other| is_close(other))
                .cloned()
                .collect();
            if close.len() > 1 {
                readings = images.evaluate(close, MORE_IMAGES)?;
            }
        }
        let is_common = |reading: &Reading| !candidates[reading.candidate].is_doubtful();
        if let Some(common) = readings.iter().position(is_common) {
            readings[..=common].rotate_right(1);
        }
        Ok(Self {
            candidates,
            readings,
        })
    }

    /// Returns the index of the best candidate, and its normalization.
    ///
    /// # Errors
    /// Returns an error if no reading is clearly better than the others.
    pub(super) fn best(&self) -> Result<(usize, Normalization)> {
        let (best, others) = self
            .readings
            .split_first()
            .context("this project has none of the networks that the file may hold")?;
        let is_doubtful = |reading: &Reading| self.candidates[reading.candidate].is_doubtful();
        let is_worse = |other: &Reading| match is_doubtful(other) {
            // The training of a common network may leave it as good with a doubtful activation.
            true => other.distance(best) < MIN_STANDARD_ERRORS,
            false => best.distance(other) >= MIN_STANDARD_ERRORS,
        };
        // The variance of an accuracy.
        let variance = |reading: &Reading| {
            reading.accuracy * (1.0 - reading.accuracy) / reading.losses.len() as f64
        };
        let is_more_accurate = |other: &Reading| {
            other.accuracy - best.accuracy > 2.0 * (variance(other) + variance(best)).sqrt()
        };
        let is_clear = !is_doubtful(best)
            && others.iter().all(is_worse)
            && !others.iter().any(is_more_accurate);
        let min_accuracy = min_accuracy(&self.candidates[best.candidate]);
        if best.accuracy >= min_accuracy && best.is_fitted() && is_clear {
            return Ok((best.candidate, best.normalization));
        }
        let reason = match best.accuracy >= min_accuracy {
            true if best.is_fitted() => "none is clearly better than the next".into(),
            true => "the best is more confident than accurate".into(),
            false => format!("none is right for {}%", 100.0 * min_accuracy),
        };
        let readings = self.readings.iter().take(MAX_LISTED);
        let lines: Vec<String> = readings.map(|reading| self.line(reading)).collect();
        bail!(LinesError(format!(
            "the file does not say all of its network, and of its readings, {reason} of {} training images:\n  {}\n\
             choose other images with --data, name the activation with --activation, or describe the network with --preset \
             or --config",
            best.losses.len(),
            lines.join("\n  "),
        )))
    }

    /// Returns the accuracy of the best reading.
    pub(super) fn best_accuracy(&self) -> Option<f64> {
        self.readings.first().map(|reading| reading.accuracy)
    }

    fn line(&self, reading: &Reading) -> String {
        let candidate = self.candidates[reading.candidate].to_string();
        let Reading {
            normalization,
            accuracy,
            ..
        } = reading;
        let candidate = printable(&candidate);
        format!(
            "{:.1}% as {candidate}, normalization {normalization}",
            100.0 * accuracy
        )
    }
}

impl fmt::Display for Comparison<'_> {
    /// Writes the best reading and its accuracy, and the accuracy of the next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(best) = self.readings.first() else {
            return Ok(());
        };
        let candidate = self.candidates[best.candidate].to_string();
        write!(
            f,
            "{}, normalization {}: {:.1}% of {} training images",
            printable(&candidate),
            best.normalization,
            100.0 * best.accuracy,
            best.losses.len()
        )?;
        match self.readings.get(1) {
            Some(next) => write!(f, "; next best {}", self.line(next)),
            None => Ok(()),
        }
    }
}

/// The training images, and the candidates to evaluate on them.
struct Images<'a> {
    candidates: &'a [Candidate<'a>],
    config: &'a Config,
    training: &'a ImageDataset,
    device: &'a Device,
}

impl Images<'_> {
    /// Evaluates readings on more and more images, and returns the best ones, the best first.
    fn narrow(&self, mut readings: Vec<Reading>) -> Result<Vec<Reading>> {
        for (stage, count) in STAGES.into_iter().enumerate() {
            if stage > 0 {
                readings.truncate(readings.len().div_ceil(8).max(KEPT));
            }
            readings = self.evaluate(readings, count)?;
        }
        Ok(readings)
    }

    /// Limits the work of evaluating readings on `count` images: removes the last readings if there are too many for the
    /// images of the first stage, and returns the number of images.
    fn limit(&self, readings: &mut Vec<Reading>, count: usize) -> usize {
        let mut costs: HashMap<usize, usize> = HashMap::new();
        let costs = readings.iter().map(|reading| {
            let candidate = &self.candidates[reading.candidate];
            *costs
                .entry(reading.candidate)
                .or_insert_with(|| candidate.multiply_adds())
        });
        let costs: Vec<usize> = costs.collect();
        let all = costs.iter().copied().fold(0, usize::saturating_add).max(1);
        let count = count.min((MAX_WORK / all).max(STAGES[0]));
        let mut work = 0;
        let is_affordable = |cost: &&usize| {
            work = cost.saturating_mul(count).saturating_add(work);
            work <= MAX_WORK
        };
        readings.truncate(costs.iter().take_while(is_affordable).count().max(1));
        count
    }

    /// Evaluates readings on the first `count` training images, and returns each once, the best first. Networks that this
    /// project does not have are left out.
    fn evaluate(&self, mut readings: Vec<Reading>, count: usize) -> Result<Vec<Reading>> {
        let count = self.limit(&mut readings, count);
        let images = self.training.select(0..count.min(self.training.len()));
        // The readings of a candidate use its network one after another.
        readings.sort_by_key(|reading| reading.candidate);
        let mut evaluated: Vec<Reading> = Vec::new();
        for readings in readings.chunk_by(|a, b| a.candidate == b.candidate) {
            let Some((architecture, model)) =
                self.candidates[readings[0].candidate].load(self.device)
            else {
                continue;
            };
            let mut config = self.config.clone();
            config.model = architecture.network;
            for reading in readings {
                config.data.normalization = reading.normalization;
                evaluated.push(Reading {
                    candidate: reading.candidate,
                    ..evaluate(&model, &config, &images, self.device)?
                });
            }
        }
        Ok(distinct(evaluated))
    }
}

/// Returns the readings by their mean loss, each once.
fn distinct(mut readings: Vec<Reading>) -> Vec<Reading> {
    readings.sort_by(|a, b| a.loss().total_cmp(&b.loss()));
    let mut distinct: Vec<Reading> = Vec::new();
    for reading in readings {
        if !distinct.iter().any(|other| other.equals(&reading)) {
            distinct.push(reading);
        }
    }
    distinct
}

/// Returns the results of a network, as a reading of candidate 0.
fn evaluate(
    model: &ConvNet,
    config: &Config,
    images: &ImageDataset,
    device: &Device,
) -> Result<Reading> {
    let loader = evaluation_loader(config, images, device)?;
    let mut losses = Vec::new();
    let mut hits = 0;
    let mut flatter_loss = 0.0;
    for_each_batch(&loader, 1, |batch, _| {
        let logits = model.forward(batch.images);
        let predicted = logits.clone().argmax(1).into_data();
        let actual = batch.targets.clone().into_data();
        let pairs = actual.iter::<i64>().zip(predicted.iter::<i64>());
        hits += pairs
            .filter(|(actual, predicted)| actual == predicted)
            .count();
        let targets = batch.targets.unsqueeze_dim::<2>(1);
        let losses_of = |logits| {
            let log_probabilities = log_softmax(logits, 1)
                .gather(1, targets.clone())
                .into_data();
            let loss = |log: f64| match -log {
                loss if loss.is_finite() => loss.min(MAX_LOSS),
                _ => MAX_LOSS,
            };
            log_probabilities
                .iter::<f64>()
                .map(loss)
                .collect::<Vec<f64>>()
        };
        flatter_loss += losses_of(logits.clone() / TEMPERATURE).iter().sum::<f64>();
        losses.extend(losses_of(logits));
        Ok(())
    })?;
    let count = losses.len().max(1) as f64;
    Ok(Reading {
        candidate: 0,
        normalization: config.data.normalization,
        accuracy: hits as f64 / count,
        flatter_loss: flatter_loss / count,
        losses,
    })
}
