//! A trained network with all that is needed to use it.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail, ensure};
use burn::data::dataloader::batcher::Batcher;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use data::{ImageDataset, MnistBatcher, Picture, PictureError, Preparation, Sample};
use model::ConvNet;

use crate::config::run_config::Config;
use crate::run::loaders::evaluation_loader;
use crate::run::run_dir::RunDir;

/// A trained network with all that is needed to use it.
#[derive(Debug)]
pub(crate) struct Classifier {
    pub(crate) config: Config,
    pub(crate) model: ConvNet,
    pub(crate) device: Device,
}

/// How likely an image is of which class; they sum up to 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probabilities(Vec<f32>);

impl Classifier {
    /// The network of a run.
    ///
    /// # Errors
    /// When the run has no weights yet, or they are damaged or those of another network.
    pub(crate) fn open(run: &RunDir, device: Device) -> Result<Self> {
        let config = run.read_config()?;
        let path = run.model();
        let weights = match run.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = path.display();
                bail!("{path}: no weights yet: they are written after the first epoch");
            }
            read => read.with_context(|| path.display().to_string())?,
        };
        let model = config
            .model
            .without_batch_norm()
            .init(&device)?
            .with_safetensors(weights)
            .with_context(|| format!("{}: not the network of config.toml", path.display()))?;
        ensure!(
            model.is_finite(),
            "{}: some weights are no finite numbers",
            path.display()
        );
        Ok(Self {
            config,
            model,
            device,
        })
    }

    /// Names of the classes.
    pub(crate) fn classes(&self) -> &[String] {
        &self.config.images.classes
    }

    /// A picture as an image `[channels, height, width]`: prepared as the network's data were, or, if
    /// it is `raw`, only scaled.
    ///
    /// # Errors
    /// When it is blank where something should be written.
    pub(crate) fn prepared(&self, picture: &Picture, raw: bool) -> Result<Vec<u8>, PictureError> {
        let images = &self.config.images;
        let preparation = match raw {
            true => Preparation::Picture,
            false => images.preparation,
        };
        preparation.prepare(picture, images.shape())
    }

    /// Images `[channels, height, width]` as the network sees them, `[N, channels, height, width]`.
    pub(crate) fn normalized(&self, images: Vec<Vec<u8>>) -> Tensor<4> {
        let [channels, height, width] = self.config.images.shape();
        let sample = |pixels| Sample {
            channels,
            height,
            width,
            pixels,
            label: 0,
        };
        let batcher = MnistBatcher {
            scaling: self.config.scaling(),
        };
        let samples = images.into_iter().map(sample).collect();
        batcher.batch(samples, &self.device).images
    }

    /// What the network makes of a whole split: of its images as they are, or, after so many `changes`
    /// of each like those it was trained with, the mean over all of these: test-time augmentation.
    ///
    /// # Errors
    /// When the device fails, or changes are asked for that training did not make.
    pub(crate) fn judge(
        &self,
        images: &ImageDataset,
        changes: usize,
    ) -> Result<Vec<Probabilities>> {
        let Self {
            config,
            model,
            device,
        } = self;
        ensure!(
            changes == 0 || !config.augmentation.is_identity(),
            "--tta changes images as training did, but this training had no augmentation"
        );
        let loader = || evaluation_loader(config, images, device);
        let changed = loader().with_augmentation(config.augmentation, config.training.seed);
        let originals = std::iter::once((loader(), 1));
        let views = originals.chain((1..=changes as u64).map(|epoch| (changed.clone(), epoch)));
        Probabilities::mean(views.map(|(loader, epoch)| {
            let mut found = Vec::with_capacity(images.len());
            for batch in loader.batches(epoch) {
                found.extend(Probabilities::of_logits(model.forward(batch?.images))?);
            }
            Ok(found)
        }))
    }

    /// What the network makes of some images, at least one.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn classify(&self, mut images: Vec<Vec<u8>>) -> Result<Vec<Probabilities>> {
        let count = images.len();
        if count == 1 {
            // A matrix product of one row may be summed up in another order than one of several: an image
            // has the same probabilities in whatever company.
            images.extend_from_within(..);
        }
        let mut found = Probabilities::of_logits(self.model.forward(self.normalized(images)))?;
        found.truncate(count);
        Ok(found)
    }
}

impl Probabilities {
    /// The probabilities of logits `[N, classes]`.
    ///
    /// # Errors
    /// When they cannot be read from their device.
    pub(crate) fn of_logits(logits: Tensor<2>) -> Result<Vec<Self>> {
        let [_, classes] = logits.dims();
        let values: Vec<f32> = softmax(logits, 1)
            .into_data()
            .try_to_vec()
            .map_err(|error| anyhow::anyhow!("cannot read the probabilities: {error:?}"))?;
        let rows = values.chunks(classes);
        Ok(rows.map(|row| Self(row.to_vec())).collect())
    }

    /// The mean of what was found each time of the same images, at least once.
    ///
    /// # Errors
    /// When one of the findings is an error.
    pub(crate) fn mean(findings: impl Iterator<Item = Result<Vec<Self>>>) -> Result<Vec<Self>> {
        let (mut sums, mut count) = (Vec::<Self>::new(), 0.0);
        for found in findings {
            let found = found?;
            count += 1.0;
            if sums.is_empty() {
                sums = found;
                continue;
            }
            for (Self(sum), Self(found)) in sums.iter_mut().zip(found) {
                sum.iter_mut().zip(found).for_each(|(sum, p)| *sum += p);
            }
        }
        for Self(sum) in &mut sums {
            sum.iter_mut().for_each(|p| *p /= count);
        }
        Ok(sums)
    }

    /// The classes and their probabilities, the most likely first.
    pub(crate) fn ranked(&self) -> Vec<(usize, f32)> {
        let mut ranked: Vec<(usize, f32)> = self.0.iter().copied().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }

    /// The most likely class and its probability.
    pub(crate) fn best(&self) -> (usize, f32) {
        let pairs = self.0.iter().copied().enumerate();
        // Of equals the first, as argmax takes it.
        pairs
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .unwrap_or_default()
    }

    /// The cross-entropy if the image is of class `label`.
    pub(crate) fn loss(&self, label: usize) -> f32 {
        -self.0[label].max(f32::MIN_POSITIVE).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_of_all_findings() {
        let found = |p: f32| Ok(vec![Probabilities(vec![p, 1.0 - p]); 2]);
        let mean = Probabilities::mean([found(1.0), found(0.5), found(0.0)].into_iter());
        let half = Probabilities(vec![0.5, 0.5]);
        assert_eq!(mean.unwrap(), [half.clone(), half]);
        let failed = Err(anyhow::anyhow!("no device"));
        assert!(Probabilities::mean([found(1.0), failed].into_iter()).is_err());
    }

    #[test]
    fn classes_are_ranked_and_of_equals_the_first_is_best() {
        let logits = Tensor::from_floats([[0.0, 2.0, 2.0], [5.0, 0.0, 1.0]], &Device::default());
        let probabilities = Probabilities::of_logits(logits).unwrap();
        assert_eq!(probabilities[0].best().0, 1);
        let ranked: Vec<usize> = probabilities[1]
            .ranked()
            .iter()
            .map(|&(class, _)| class)
            .collect();
        assert_eq!(ranked, [0, 2, 1]);
        let sum: f32 = probabilities[1].ranked().iter().map(|&(_, p)| p).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert!((probabilities[1].loss(0) - 0.0248).abs() < 1e-3);
    }
}
