//! Measures what verdicts on predictions need, on the images of a run.

use std::iter;

use anyhow::Result;
use classifier::{Held, IMAGES_PER_CLASS, Observation, fit, outputs};
use data::ImageDataset;
use tracing::{info, warn};

use crate::config::run_config::Config;
use crate::inference::classifier::{Classifier, Confidence};
use crate::inference::evaluation::for_each_batch;
use crate::run::images::{DataSplit, RunImages};
use crate::run::loaders::evaluation_loader;
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::RunDir;

/// Largest number of images whose features are in memory.
const MAX_IMAGES: usize = 20_000;
/// Largest number of their values.
const MAX_VALUES: usize = 1 << 24;
/// Largest number of images that the temperature and the limit of the distance are measured on.
const MAX_VALIDATION: usize = 5_000;

impl Classifier {
    /// Measures the confidence of the network of a run that has none, such as one of an older version, on the images of the run.
    /// Without them, there are no verdicts.
    pub(crate) fn with_verdicts(self, run: &RunDir) -> Self {
        if self.confidence.is_some() {
            return self;
        }
        info!("measuring what verdicts need, once for this run");
        let root = run.root();
        let images = RunImages::load(run, &self.config, PictureCache::Read(&root));
        match images.and_then(|images| self.measure_confidence(run, &images.split)) {
            Ok(None) => {
                info!("no verdicts: too few images to measure what they need");
                self
            }
            Ok(confidence) => self.with_confidence(confidence),
            Err(error) => {
                warn!("no verdicts: {error:#}");
                self
            }
        }
    }

    /// Measures the confidence of the network, and writes it to the folder of its run. Returns `None` if there are too few images.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read or the device fails. If the folder cannot be written, a warning says so.
    pub(crate) fn measure_confidence(
        &self,
        run: &RunDir,
        images: &DataSplit,
    ) -> Result<Option<Confidence>> {
        let classes = self.classes().len();
        let limit = (MAX_VALUES / self.model.features().max(1)).min(MAX_IMAGES);
        let per_class = IMAGES_PER_CLASS.min((limit / classes).max(1));
        let (fitted, others) = first_of_each_class(&images.train, classes, per_class);
        let training = self.observe(&images.train.select(fitted), false)?;
        let held = match images.validation.is_empty() {
            false => Held::Validation(self.observe(&some_of(&images.validation), false)?),
            true => {
                let others = some_of(&images.train.select(others));
                Held::Training {
                    plain: self.observe(&others, false)?,
                    augmented: self.observe(&others, true)?,
                }
            }
        };
        let confidence = fit(classes, training, &held);
        if let Some(confidence) = &confidence
            && !run.is_shipped()
        {
            let bytes = confidence.to_bytes(self.weights_digest())?;
            // In a folder that is read-only, it is measured each time.
            if let Err(error) = run.write(&run.confidence_path(), &bytes) {
                warn!("{error:#}");
            }
        }
        Ok(confidence)
    }

    /// Computes the outputs of the network for labeled images, possibly augmented as in the training.
    fn observe(&self, images: &ImageDataset, is_augmented: bool) -> Result<Vec<Observation>> {
        let mut observations = Vec::with_capacity(images.len());
        if images.is_empty() {
            return Ok(observations);
        }
        let Config {
            augmentation,
            training,
            ..
        } = &self.config;
        let mut loader = evaluation_loader(&self.config, images, &self.device)?;
        if is_augmented {
            loader = loader.with_augmentation(*augmentation, training.seed);
        }
        let mut labels = images.labels();
        for_each_batch(&loader, 1, |batch, _| {
            let outputs = outputs(&self.model, batch.images)?;
            let labeled = iter::zip(outputs, labels.by_ref());
            observations.extend(
                labeled.map(|((probabilities, features), label)| Observation {
                    label: label.into(),
                    probabilities,
                    features,
                }),
            );
            Ok(())
        })?;
        Ok(observations)
    }
}

/// Returns images evenly spread over a dataset.
fn some_of(images: &ImageDataset) -> ImageDataset {
    let step = images.len().div_ceil(MAX_VALIDATION).max(1);
    images.select((0..images.len()).step_by(step))
}

/// Returns the indices of the first images of each class, and of the others.
fn first_of_each_class(
    images: &ImageDataset,
    classes: usize,
    count: usize,
) -> (Vec<usize>, Vec<usize>) {
    let mut counts = vec![0; classes];
    let labels = images.labels().enumerate();
    let (first, others): (Vec<_>, Vec<_>) = labels.partition(|(_, label)| {
        let found = &mut counts[usize::from(*label)];
        *found += 1;
        *found <= count
    });
    let indices = |labeled: Vec<(usize, u8)>| labeled.into_iter().map(|(index, _)| index).collect();
    (indices(first), indices(others))
}
