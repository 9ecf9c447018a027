//! The images of a run. An existing run gets the images that it recorded.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use data::digest::sha256_hex;
use data::{DataSource, Dataset, DecodeOptions, ImageDataset, Preparation, TestSelection};
use tracing::{info, warn};

use crate::config::run_config::{Config, DataConfig};
use crate::config::settings::Settings;
use crate::run::class_weights::class_weights;
use crate::run::image_record::{ImageRecord, RecordedFile, SplitDigest};
use crate::run::image_source::{
    absolute_source, as_expected, decode_options, file_labels, open, read, read_test, relabel,
    warn_of_unused,
};
use crate::run::picture_cache::PictureCache;
use crate::run::recorded_pictures::RecordedPictures;
use crate::run::run_dir::RunDir;

/// The images of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunImages {
    pub(crate) split: DataSplit,
    /// A message for each picture that could not be read.
    pub(crate) unreadable: Vec<String>,
    /// Training and validation images together, or the training images if the data set has a validation split.
    training: ImageDataset,
    /// Whether the data set has validation images of its own.
    pub(crate) has_validation_split: bool,
}

/// The images of a run by their use.
#[derive(Clone, Debug)]
pub(crate) struct DataSplit {
    /// Images to train on.
    pub(crate) train: ImageDataset,
    /// Images to choose the best epoch by; possibly none.
    pub(crate) validation: ImageDataset,
    /// Images to report on.
    pub(crate) test: ImageDataset,
}

/// Whether the images of a run without a record have the statistics that they had when the run was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    Same,
    Changed,
}

/// Reads the images that the settings name, and resolves the configuration of a run on them.
///
/// # Errors
/// Returns an error if the images cannot be read, or the settings do not fit them.
pub(crate) fn resolve(settings: Settings, cache: PictureCache<'_>) -> Result<(Config, RunImages)> {
    resolve_opened(settings, None, cache)
}

/// Does the same as [`resolve`] with the source of the images, if it was opened before.
///
/// # Errors
/// Returns an error as [`resolve`] does.
pub(crate) fn resolve_opened(
    mut settings: Settings,
    opened: Option<DataSource>,
    cache: PictureCache<'_>,
) -> Result<(Config, RunImages)> {
    if let Some(source) = settings.source() {
        settings.set_source(absolute_source(source)?);
    }
    settings.make_label_path_absolute()?;
    let data = settings.data()?;
    let labels = file_labels(&data)?;
    let source = match opened {
        Some(source) => source,
        None => open(&data.source, labels.as_ref(), TestSelection::ByPath, cache)?,
    };
    warn_of_unused(&source);
    let options = DecodeOptions {
        preparation: data.preparation.unwrap_or(Preparation::Picture),
        height: data.image_size,
        width: data.image_size,
    };
    let mut dataset = read(source, options, cache)?;
    if data.channels.is_none() {
        dataset.notes.iter().for_each(|note| warn!("{note}"));
    }
    if let Some(preparation) = data.preparation {
        dataset.info.preparation = preparation;
    }
    if settings.resizes_images() {
        dataset = dataset.resized(options.size())?;
    }
    if let Some(channels) = data.channels {
        ensure!(
            matches!(channels, 1 | 3),
            "data.channels = {channels}: expected 1 for gray or 3 for RGB"
        );
        dataset = dataset.with_channels(channels)?;
    }
    if dataset.is_stratified {
        settings.prefer_stratified_validation();
    }
    let weighting = settings.take_class_weights();
    let mut config = settings.into_config(&dataset.info)?;
    let images = RunImages::new(&config, dataset)?;
    if let Some(weighting) = weighting {
        let (train, classes) = (&images.split.train, &config.images.classes);
        config.training.class_weights = Some(class_weights(&weighting, train, classes)?);
    }
    config.model.check_whitening(images.split.train.len())?;
    Ok((config, images))
}

impl RunImages {
    fn new(config: &Config, dataset: Dataset) -> Result<Self> {
        let training = limited(&config.data, &dataset.train);
        let has_validation_split = dataset.validation.is_some();
        let (train, validation) = match dataset.validation {
            Some(validation) => (training.clone(), validation),
            None => data::train_validation_split(
                &training,
                config.data.validation,
                config.data.validation_split,
                config.training.seed,
            )?,
        };
        Ok(Self {
            split: DataSplit {
                train,
                validation,
                test: dataset.test,
            },
            unreadable: dataset.unreadable,
            training,
            has_validation_split,
        })
    }

    /// Returns the record of the images, for the folder of a new run with these classes.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn record(&self, classes: &[String]) -> Result<ImageRecord> {
        let DataSplit {
            train,
            validation,
            test,
        } = &self.split;
        let files = |images| RecordedFile::of_split(images, classes);
        Ok(match (files(train), files(validation), files(test)) {
            (Some(train), Some(validation), Some(test)) => ImageRecord::Pictures {
                train,
                validation,
                test,
            },
            _ => {
                let digest = SplitDigest::of;
                let (train, test) = rayon::join(|| digest(&self.training), || digest(test));
                ImageRecord::Images {
                    train: train?,
                    validation: match self.has_validation_split {
                        true => Some(digest(validation)?),
                        false => None,
                    },
                    test: test?,
                }
            }
        })
    }

    /// Reads the images of an existing run, to resume it.
    ///
    /// # Errors
    /// Returns an error if they cannot be read, or are not those that the run began with.
    pub(crate) fn load(run: &RunDir, config: &Config, cache: PictureCache<'_>) -> Result<Self> {
        let source = &config.data.source;
        match ImageRecord::read(run)? {
            Some(ImageRecord::Images {
                train,
                validation,
                test,
            }) => {
                let images = Self::new(config, stored_images(config, cache)?)?;
                train.check(&images.training, "training", source)?;
                if let Some(validation) = validation {
                    validation.check(&images.split.validation, "validation", source)?;
                }
                test.check(&images.split.test, "test", source)?;
                Ok(images)
            }
            Some(ImageRecord::Pictures {
                train,
                validation,
                test,
            }) => {
                let pictures = RecordedPictures::new(config, source, cache)?;
                let training = [train.as_slice(), &validation].concat();
                let training = pictures.read_all(&training)?;
                let split = DataSplit {
                    train: training.select(0..train.len()),
                    validation: training.select(train.len()..training.len()),
                    test: pictures.read_unchanged(&test)?,
                };
                Ok(Self {
                    split,
                    unreadable: Vec::new(),
                    training,
                    has_validation_split: false,
                })
            }
            None => {
                let (dataset, statistics) = read_unrecorded(run, config, cache)?;
                ensure!(
                    statistics == Statistics::Same,
                    "{source}: the images are not those that the run began with"
                );
                Self::new(config, dataset)
            }
        }
    }
}

/// Reads the test images of a run.
///
/// # Errors
/// Returns an error if none of them can be read.
pub(crate) fn load_test(run: &RunDir, config: &Config) -> Result<ImageDataset> {
    let source = &config.data.source;
    let root = run.root();
    let cache = PictureCache::Read(&root);
    let load = || match ImageRecord::read(run)? {
        Some(ImageRecord::Images { test, .. }) => {
            let images = stored_images(config, cache)?.test;
            test.check(&images, "test", source)?;
            Ok(images)
        }
        Some(ImageRecord::Pictures { test, .. }) => {
            RecordedPictures::new(config, source, cache)?.read_unchanged(&test)
        }
        None => Ok(read_unrecorded(run, config, cache)?.0.test),
    };
    load().context("the images of the run; evaluate can use others, with --data")
}

/// Reads the first training images of a run, at most `count`.
///
/// # Errors
/// Returns an error if none of them can be read.
pub(crate) fn load_training_examples(
    run: &RunDir,
    config: &Config,
    count: usize,
) -> Result<ImageDataset> {
    let source = &config.data.source;
    let root = run.root();
    let cache = PictureCache::Read(&root);
    let load = || match ImageRecord::read(run)? {
        Some(ImageRecord::Pictures { train, .. }) => {
            let first = &train[..train.len().min(count)];
            RecordedPictures::new(config, source, cache)?.read_unchanged(first)
        }
        Some(ImageRecord::Images { train, .. }) => {
            let images = RunImages::new(config, stored_images(config, cache)?)?;
            train.check(&images.training, "training", source)?;
            Ok(images.split.train)
        }
        None => {
            let (dataset, _) = read_unrecorded(run, config, cache)?;
            Ok(RunImages::new(config, dataset)?.split.train)
        }
    };
    let train = load().context("the training images of the run")?;
    Ok(train.select(0..train.len().min(count)))
}

/// Reads the test images of another data source for the network of a run, or those of the run if the source
/// contains its images. Without a test split, all images are test images.
///
/// # Errors
/// Returns an error if the images cannot be read, or do not fit the network.
pub(crate) fn load_other_test(run: &RunDir, config: &Config, other: &str) -> Result<ImageDataset> {
    let other = absolute_source(other)?;
    let root = run.root();
    let cache = PictureCache::Read(&root);
    let record = ImageRecord::read(run)?;
    if record.is_some() && other == config.data.source {
        return load_test(run, config);
    }
    if let Some(ImageRecord::Pictures { test, .. }) = &record {
        let pictures = RecordedPictures::new(config, &other, cache)?;
        if pictures.contains(test) {
            info!("{other} contains the images of the run: evaluating on its test images");
            return pictures.read_unchanged(test);
        }
    }
    let source = open(&other, None, TestSelection::ByPath, cache)?;
    warn_of_unused(&source);
    if let (DataSource::Images(dataset), Some(ImageRecord::Images { train, test, .. })) =
        (&source, &record)
    {
        let dataset = as_expected((**dataset).clone(), &config.images)?;
        let training = limited(&config.data, &dataset.train);
        if test.is_of(&dataset.test)? && train.is_of(&training)? {
            return Ok(dataset.test);
        }
    }
    let images = read_test(source, &config.images, cache)?;
    warn_of_training_images(&images, run, config, record, cache);
    Ok(images)
}

/// Reads the images of a run that are not pictures in files of their own, as its network expects them.
fn stored_images(config: &Config, cache: PictureCache<'_>) -> Result<Dataset> {
    let source = &config.data.source;
    match open(source, None, TestSelection::ByPath, cache)? {
        DataSource::Images(dataset) => as_expected(*dataset, &config.images),
        DataSource::Pictures(_) => bail!("{source}: found pictures, expected files of many images"),
    }
}

/// Returns the training images that the settings permit.
fn limited(data: &DataConfig, train: &ImageDataset) -> ImageDataset {
    let limit = data.limit_train.unwrap_or(train.len());
    train.select(0..limit.min(train.len()))
}

/// Reads the images of a run without a record. Older versions wrote none; that of `pretrained-cifar`, of 60,000 files, is
/// left out because of its size.
fn read_unrecorded(
    run: &RunDir,
    config: &Config,
    cache: PictureCache<'_>,
) -> Result<(Dataset, Statistics)> {
    let source = &config.data.source;
    let expected = &config.images;
    info!(
        "{} has no record of its images; they are read from {source}",
        run.name()
    );
    let opened = open(source, None, TestSelection::Shuffled, cache)?;
    let is_pictures = matches!(opened, DataSource::Pictures(_));
    let mut dataset = read(opened, decode_options(expected), cache)?;
    dataset.info = dataset.info.in_form_of(expected, &dataset.train)?;
    let statistics = match dataset.info.is_same_data(expected) {
        true => Statistics::Same,
        false => Statistics::Changed,
    };
    if statistics == Statistics::Changed {
        warn!(
            "{source}: changed since the run began; the test images may include images that the run was \
             trained on"
        );
    }
    if is_pictures {
        let relabel = |images| relabel(images, &dataset.info.classes, expected);
        let (train, test) = (relabel(&dataset.train), relabel(&dataset.test));
        let context = || source.to_string();
        dataset.train = train.with_context(context)?;
        dataset.test = test.with_context(context)?;
    }
    Ok((dataset, statistics))
}

/// Warns if images of another source are training or validation images of a run.
fn warn_of_training_images(
    images: &ImageDataset,
    run: &RunDir,
    config: &Config,
    record: Option<ImageRecord>,
    cache: PictureCache<'_>,
) {
    match count_training_images(images, run, config, record, cache) {
        Ok(0) => {}
        Ok(count) => warn!(
            "{count} of the {} images are training or validation images of {}",
            images.len(),
            run.name()
        ),
        Err(error) => warn!(
            "cannot check whether {} was trained on some of the images: {error:#}",
            run.name()
        ),
    }
}

/// Counts the images that have the file of a training or validation image of a run, or its pixels where one of
/// both has no file of its own.
fn count_training_images(
    images: &ImageDataset,
    run: &RunDir,
    config: &Config,
    record: Option<ImageRecord>,
    cache: PictureCache<'_>,
) -> Result<usize> {
    let source = &config.data.source;
    let training = match record {
        Some(ImageRecord::Pictures {
            train, validation, ..
        }) => {
            let recorded = [train, validation].concat();
            if let Some(files) = images.files() {
                let known: HashSet<&str> =
                    recorded.iter().map(|picture| picture.sha256()).collect();
                return Ok(files
                    .filter(|file| known.contains(file.sha256.as_str()))
                    .count());
            }
            RecordedPictures::new(config, source, cache)?.read_unchanged(&recorded)?
        }
        Some(ImageRecord::Images { .. }) => {
            limited(&config.data, &stored_images(config, cache)?.train)
        }
        None => limited(&config.data, &read_unrecorded(run, config, cache)?.0.train),
    };
    let known: HashSet<String> = pixel_digests(&training).collect::<Result<_>>()?;
    let mut count = 0;
    for digest in pixel_digests(images) {
        count += usize::from(known.contains(&digest?));
    }
    Ok(count)
}

/// Iterates over the SHA-256 of the pixels of each image.
fn pixel_digests(images: &ImageDataset) -> impl Iterator<Item = Result<String>> {
    (0..images.len()).map(|index| Ok(sha256_hex([images.pixels(index)?])))
}

#[cfg(test)]
mod tests {
    use model::ConvNetConfig;

    use super::*;
    use crate::config::presets;
    use crate::config::settings::images_of;

    fn preset(name: &str) -> Config {
        resolve(Settings::preset(name).unwrap(), PictureCache::No)
            .unwrap()
            .0
    }

    #[test]
    fn the_default_preset_has_the_default_network() {
        assert_eq!(preset(presets::DEFAULT).model, ConvNetConfig::default());
    }

    #[test]
    fn presets_have_the_published_numbers_of_parameters() {
        for (name, expected) in [
            ("convnet", 421_642),
            ("dropout", 421_642),
            ("dropout-meanstd", 421_642),
            ("half-norm", 421_642),
            ("single-pool", 1_625_866),
            ("tiny", 13_610),
            ("three-block", 241_546),
            ("kernel5", 454_922),
            ("dense", 101_770),
            ("sprint", 108_874),
            ("best", 575_434),
            ("vgg", 1_186_378),
            ("resnet9", 6_570_880),
            ("cifar", 1_971_640),
            ("cifar-sprint", 1_971_640),
            ("pictures", 759_434),
        ] {
            let settings = Settings::preset(name).unwrap();
            let config = settings.into_config(&images_of(name)).unwrap();
            assert_eq!(config.model.parameters(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn later_layers_override_earlier_ones() {
        let mut settings = Settings::preset("dropout").unwrap();
        let table = "training.epochs = 2\nmodel.dense = [64, 32]";
        settings.overlay(table.parse().unwrap()).unwrap();
        let (config, _) = resolve(settings, PictureCache::No).unwrap();
        assert_eq!(config.training.epochs, 2);
        assert_eq!(config.training.batch_size, 512);
        assert_eq!(config.model.dense, [64, 32]);
        assert_eq!(config.data.normalization.to_string(), "unit");
    }

    #[test]
    fn config_toml_is_read_back_and_repeats_the_configuration() {
        for name in presets::names() {
            let settings = Settings::preset(name).unwrap();
            let config = settings.into_config(&images_of(name)).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let text = config.to_toml().unwrap();
            let run = RunDir::create(folder.path(), name, None, &text, |_| Ok(())).unwrap();
            assert_eq!(run.read_config().unwrap(), config);
            let settings = Settings::file(&run.config_path(), None).unwrap();
            let repeated = settings.into_config(&images_of(name)).unwrap();
            assert_eq!(repeated, config);
        }
    }

    #[test]
    fn rejects_a_network_that_contradicts_the_images() {
        let mut settings = Settings::preset("convnet").unwrap();
        settings
            .overlay("model.classes = 5".parse().unwrap())
            .unwrap();
        assert_eq!(
            resolve(settings, PictureCache::No).unwrap_err().to_string(),
            "model.classes = 5, but mnist has 10"
        );
    }
}
