//! The trained network of a run.

use std::fs::File;
use std::iter;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Result, ensure};
use burn::data::dataloader::DataLoader;
use burn::tensor::{Device, Tensor};
use data::{ImageDataset, Loader, Picture, PictureError, Preparation};

use crate::config::run_config::Config;
use crate::inference::evaluation::{EvaluatedBatch, Evaluation, evaluate, for_each_batch};
use crate::inference::test_time_augmentation::TestTimeAugmentation;
use crate::run::loaders::evaluation_loader;
use crate::run::run_dir::RunDir;

pub(crate) use classifier::{Answer, Confidence, Probabilities};

/// The trained network of a run, with the settings of the run. Dereferences to the network's classifier.
#[derive(Debug)]
pub(crate) struct Classifier {
    pub(crate) config: Config,
    classifier: classifier::Classifier,
}

/// Opens a picture that the user names. It may be a pipe, such as the process substitution `<(...)` of a shell.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a picture, or exceeds the size limits.
pub(crate) fn open_picture(path: &Path) -> Result<Picture, PictureError> {
    Picture::read(File::open(path)?)
}

impl Deref for Classifier {
    type Target = classifier::Classifier;

    fn deref(&self) -> &Self::Target {
        &self.classifier
    }
}

impl Classifier {
    /// Opens the network of a run.
    ///
    /// # Errors
    /// Returns an error if the run has no weights yet, or a file is damaged.
    pub(crate) fn open(run: &RunDir, device: Device) -> Result<Self> {
        Ok(Self {
            config: run.read_config()?,
            classifier: run.open_classifier(&device)?,
        })
    }

    /// Converts a picture into an image, `[channels, height, width]`: prepared as the training images were, or
    /// only scaled if `raw`.
    ///
    /// # Errors
    /// Returns an error if nothing is written on a picture of handwriting.
    pub(crate) fn prepared(&self, picture: &Picture, raw: bool) -> Result<Vec<u8>, PictureError> {
        match raw {
            true => Preparation::Picture.prepare(picture, self.config.images.shape()),
            false => self.classifier.prepared(picture),
        }
    }

    /// Returns the network with what its verdicts need.
    pub(crate) fn with_confidence(mut self, confidence: Option<Confidence>) -> Self {
        self.classifier.confidence = confidence;
        self
    }

    /// Classifies several images, each `[channels, height, width]`, in one batch.
    ///
    /// # Errors
    /// Returns an error if an image has another size, or the device fails.
    pub(crate) fn classify(&self, images: Vec<Vec<u8>>) -> Result<Vec<Answer>> {
        Ok(self.answers(images)?)
    }

    /// Evaluates the network on a split; `observe` is called with each batch.
    ///
    /// # Errors
    /// Returns an error if there are no images, the loss is not finite, or `observe` fails.
    pub(crate) fn evaluate(
        &self,
        images: &ImageDataset,
        observe: impl FnMut(EvaluatedBatch) -> Result<()>,
    ) -> Result<Evaluation> {
        let loader = evaluation_loader(&self.config, images, &self.device)?;
        evaluate(&self.model, &loader, self.classes(), observe)
    }

    /// Computes the class probabilities of a split with test-time augmentation.
    ///
    /// # Errors
    /// Returns an error if the device fails, the images are too small for the views, or random transforms are
    /// asked for and the training had no augmentation.
    pub(crate) fn predict_split(
        &self,
        images: &ImageDataset,
        augmentation: TestTimeAugmentation,
    ) -> Result<Vec<Probabilities>> {
        match augmentation {
            TestTimeAugmentation::Random(count) => self.predict_random_views(images, count),
            TestTimeAugmentation::Fixed(views) => {
                views.check(images.height(), images.width())?;
                let loader = evaluation_loader(&self.config, images, &self.device)?;
                predictions(&loader, 1, |images| views.mean_logits(&self.model, images))
            }
        }
    }

    /// Computes the mean class probabilities over each image and `views` random transforms of it.
    fn predict_random_views(
        &self,
        images: &ImageDataset,
        views: usize,
    ) -> Result<Vec<Probabilities>> {
        let config = &self.config;
        ensure!(
            views == 0 || !config.augmentation.is_identity(),
            "--tta needs the augmentation of the training, but this run was trained without"
        );
        let loader = evaluation_loader(config, images, &self.device)?;
        let augmented = loader.clone();
        let augmented = augmented.with_augmentation(config.augmentation, config.training.seed);
        let originals = iter::once((loader, 1));
        let passes = originals.chain((1..=views as u64).map(|epoch| (augmented.clone(), epoch)));
        Probabilities::mean(passes.map(|(loader, epoch)| {
            predictions(&loader, epoch, |images| self.model.forward(images))
        }))
    }
}

/// Computes the class probabilities of the images of a pass from their logits.
fn predictions(
    loader: &Loader,
    epoch: u64,
    logits: impl Fn(Tensor<4>) -> Tensor<2>,
) -> Result<Vec<Probabilities>> {
    let mut predictions = Vec::with_capacity(loader.num_items());
    for_each_batch(loader, epoch, |batch, _| {
        predictions.extend(Probabilities::from_logits(logits(batch.images))?);
        Ok(())
    })?;
    Ok(predictions)
}
