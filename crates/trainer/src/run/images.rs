//! The images of a run: the embedded MNIST, a folder of IDX files, or a folder of pictures. Decoded pictures
//! are cached in the folder of runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::digest::sha256_hex;
use data::idx::{FILE_NAMES, MAX_BYTES};
use data::idx_folder::encode;
use data::{
    Dataset, DatasetInfo, DecodeOptions, DecodedPictures, ImageDataset, PictureFolder, Preparation,
    regular_file,
};
use tracing::{info, warn};

use crate::config::run_config::{Config, DataConfig};
use crate::config::settings::Settings;
use crate::process::progress_bar::bar;
use crate::run::atomic_file::write_folder;
use crate::run::run_dir::{self, RunDir};

/// The source that names the embedded MNIST.
const EMBEDDED: &str = "mnist";
/// Maximum number of messages about unreadable pictures.
const MAX_MESSAGES: usize = 5;
/// The cached list of unreadable pictures.
const UNREADABLE: &str = "unreadable.txt";
/// The checksum of the cached files.
const CHECKSUM: &str = "sha256.txt";
/// The cached files, in the order of the checksum.
const CACHED_FILES: [&str; 5] = {
    let [a, b, c, d] = FILE_NAMES;
    [a, b, c, d, UNREADABLE]
};

/// The images of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunImages {
    pub(crate) split: DataSplit,
    pub(crate) info: DatasetInfo,
    /// A message for each picture that could not be read.
    pub(crate) unreadable: Vec<String>,
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

impl DataSplit {
    /// Divides training and validation images as the configuration says.
    ///
    /// # Errors
    /// Returns an error if there are too few images to divide.
    pub(crate) fn new(
        data: &DataConfig,
        seed: u64,
        train: &ImageDataset,
        test: ImageDataset,
    ) -> Result<Self> {
        let limit = data.limit_train.unwrap_or(train.len()).min(train.len());
        let (train, validation) = data::train_validation_split(
            &train.select(0..limit),
            data.validation,
            data.validation_split,
            seed,
        )?;
        Ok(Self {
            train,
            validation,
            test,
        })
    }
}

/// How the cache of decoded pictures in a folder of runs is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PictureCache<'a> {
    /// Not used.
    No,
    /// Read only.
    Read(&'a Path),
    /// Read, and written on a miss.
    Write(&'a Path),
}

/// Reads the images that the settings name, and resolves the configuration of a run on them.
///
/// # Errors
/// Returns an error if the images cannot be read, or the settings do not fit them.
pub(crate) fn resolve(
    mut settings: Settings,
    cache: PictureCache<'_>,
) -> Result<(Config, RunImages)> {
    if let Some(source) = settings.source() {
        settings.set_source(absolute_source(source)?);
    }
    let dataset = load_dataset(&settings.data()?, cache)?;
    let config = settings.into_config(&dataset.info)?;
    let images = RunImages::new(&config.data, config.training.seed, dataset)?;
    Ok((config, images))
}

/// Reads the images of an existing run, to resume it.
///
/// # Errors
/// Returns an error if they cannot be read, or are too few to divide.
pub(crate) fn load(config: &Config, cache: PictureCache<'_>) -> Result<RunImages> {
    let dataset = load_dataset(&config.data, cache)?;
    RunImages::new(&config.data, config.training.seed, dataset)
}

impl RunImages {
    fn new(data: &DataConfig, seed: u64, dataset: Dataset) -> Result<Self> {
        Ok(Self {
            split: DataSplit::new(data, seed, &dataset.train, dataset.test)?,
            info: dataset.info,
            unreadable: dataset.unreadable,
        })
    }
}

/// Reads a data set for training.
fn load_dataset(data: &DataConfig, cache: PictureCache<'_>) -> Result<Dataset> {
    let options = DecodeOptions {
        preparation: Preparation::Picture,
        height: data.image_size,
        width: data.image_size,
    };
    match open(&data.source)? {
        Source::Dataset(dataset) => Ok(*dataset),
        Source::Pictures(folder) => read_pictures(folder, options, cache),
    }
}

/// Reads images for the trained network of a run: those of the run, or of `other_source`. Pictures are
/// prepared as the network expects them. If a folder of other pictures has no subfolder `test`, the test
/// split consists of all its pictures.
///
/// # Errors
/// Returns an error if the images cannot be read, or do not fit the network.
pub(crate) fn load_for_trained(
    run: &RunDir,
    config: &Config,
    other_source: Option<&str>,
) -> Result<Dataset> {
    let expected = &config.images;
    let source = match other_source {
        Some(source) => open(&absolute_source(source)?)?,
        None => open(&config.data.source)
            .context("the images of the run; evaluate can use others, with --data")?,
    };
    let dataset = match source {
        Source::Dataset(dataset) => *dataset,
        Source::Pictures(folder) => {
            let options = DecodeOptions {
                preparation: expected.preparation,
                height: expected.height,
                width: expected.width,
            };
            let is_test_only = other_source.is_some() && !folder.has_test_folder;
            let mut dataset = read_pictures(folder, options, PictureCache::Read(&run.root()))?;
            if is_test_only {
                dataset.test = dataset.train.concat(&dataset.test);
            }
            convert_test_split(dataset, expected)?
        }
    };
    let info = &dataset.info;
    ensure!(
        info.shape() == expected.shape() && info.classes.len() <= expected.classes.len(),
        "{} has {} classes and images of {:?}, but the network expects {} classes and {:?}",
        info.name,
        info.classes.len(),
        info.shape(),
        expected.classes.len(),
        expected.shape(),
    );
    if !expected.classes.starts_with(&info.classes) {
        warn!(
            "the classes of {} are {}, those of the run {}: matched in this order",
            info.name,
            info.classes.join(", "),
            expected.classes.join(", ")
        );
    }
    Ok(dataset)
}

/// Converts the test split of a folder of pictures to the channels and labels of a network.
fn convert_test_split(mut dataset: Dataset, expected: &DatasetInfo) -> Result<Dataset> {
    let label = |class: &String| {
        let label = expected.classes.iter().position(|known| known == class);
        label.map(|label| label as u8).with_context(|| {
            format!(
                "{} has a class {class}, expected one of {}",
                dataset.info.name,
                expected.classes.join(", ")
            )
        })
    };
    let labels = dataset
        .info
        .classes
        .iter()
        .map(label)
        .collect::<Result<Vec<u8>>>()?;
    dataset.test = dataset
        .test
        .with_channels(expected.channels)
        .relabeled(&labels);
    dataset.info.channels = expected.channels;
    dataset.info.classes.clone_from(&expected.classes);
    Ok(dataset)
}

/// A data source.
enum Source {
    /// A data set in memory.
    Dataset(Box<Dataset>),
    /// Pictures that are not decoded yet.
    Pictures(PictureFolder),
}

fn open(source: &str) -> Result<Source> {
    let path = Path::new(source);
    Ok(match source {
        EMBEDDED => Source::Dataset(Box::new(embedded_mnist()?)),
        _ if PictureFolder::is_at(path) => Source::Pictures(PictureFolder::list(path)?),
        _ => Source::Dataset(Box::new(Dataset::from_idx_folder(path)?)),
    })
}

/// Reads pictures from the cache, or decodes them.
fn read_pictures(
    folder: PictureFolder,
    options: DecodeOptions,
    cache: PictureCache<'_>,
) -> Result<Dataset> {
    let cache_path = match cache {
        PictureCache::No => None,
        PictureCache::Read(root) | PictureCache::Write(root) => Some(run_dir::picture_cache_path(
            root,
            &folder.fingerprint(options),
        )),
    };
    let cached = cache_path
        .as_deref()
        .and_then(|path| read_cache(path, options));
    let pictures = match cached {
        Some(pictures) => pictures,
        None => {
            let decoded = decode(&folder, options)?;
            if let (Some(path), PictureCache::Write(_), false) =
                (&cache_path, cache, decoded.has_io_errors)
            {
                write_cache(path, &decoded);
            }
            decoded
        }
    };
    for message in skipped_messages(&pictures.unreadable) {
        warn!("{message}");
    }
    Ok(folder.into_dataset(options.preparation, pictures))
}

/// Returns the warnings about unreadable pictures.
pub(crate) fn skipped_messages(unreadable: &[String]) -> Vec<String> {
    let first = unreadable.iter().take(MAX_MESSAGES);
    let mut messages: Vec<String> = first.map(|message| format!("skipped {message}")).collect();
    if let Some(more @ 1..) = unreadable.len().checked_sub(MAX_MESSAGES) {
        messages.push(format!("skipped {more} more pictures"));
    }
    messages
}

fn decode(folder: &PictureFolder, options: DecodeOptions) -> Result<DecodedPictures> {
    info!("reading {} pictures", folder.count());
    let bar = bar(folder.count() as u64, "pictures");
    let pictures = folder.decode(options, &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(pictures?)
}

/// Reads decoded pictures from the cache. Returns None if a file is missing or damaged.
fn read_cache(path: &Path, options: DecodeOptions) -> Option<DecodedPictures> {
    let checksum = regular_file::read_to_string(&path.join(CHECKSUM), MAX_BYTES).ok()?;
    let files = CACHED_FILES.map(|name| regular_file::read(&path.join(name), MAX_BYTES).ok());
    let is_complete = files.iter().all(Option::is_some);
    (is_complete && checksum == sha256_hex(files.iter().flatten())).then_some(())?;
    drop(files);
    let unreadable = regular_file::read_to_string(&path.join(UNREADABLE), MAX_BYTES).ok()?;
    let dataset = Dataset::from_idx_folder(path).ok()?;
    Some(DecodedPictures {
        train: dataset.train.unstack_channels(options.height).ok()?,
        test: dataset.test.unstack_channels(options.height).ok()?,
        unreadable: unreadable.lines().map(String::from).collect(),
        has_io_errors: false,
    })
}

/// Writes decoded pictures to the cache. A failure only costs time at the next read.
fn write_cache(path: &Path, pictures: &DecodedPictures) {
    let mut files = Vec::from(encode(&pictures.train, &pictures.test));
    files.push((UNREADABLE, pictures.unreadable.join("\n").into_bytes()));
    let checksum = sha256_hex(files.iter().map(|(_, bytes)| bytes));
    files.push((CHECKSUM, checksum.into_bytes()));
    if let Err(error) = write_folder(path, &files) {
        warn!("cannot cache the decoded pictures: {error:#}");
    }
}

#[cfg(feature = "embedded-mnist")]
fn embedded_mnist() -> Result<Dataset> {
    Ok(Dataset::embedded_mnist()?)
}

#[cfg(not(feature = "embedded-mnist"))]
fn embedded_mnist() -> Result<Dataset> {
    bail!(
        "this build has no embedded MNIST: pass a folder of IDX files or of pictures with --data, \
         or build with `--features embedded-mnist`"
    )
}

/// Returns the absolute path of a data source, which is stored in the configuration of a run.
///
/// # Errors
/// Returns an error if there is no such folder.
pub(crate) fn absolute_source(source: &str) -> Result<String> {
    if source == EMBEDDED {
        return Ok(source.into());
    }
    let path = fs::canonicalize(source)
        .with_context(|| format!("{source}: cannot open the data folder"))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("{}: not valid UTF-8", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use model::ConvNetConfig;

    use super::*;
    use crate::config::presets;

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
        ] {
            assert_eq!(preset(name).model.parameters(), Ok(expected), "{name}");
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
            let config = preset(name);
            let folder = tempfile::tempdir().unwrap();
            let text = config.to_toml().unwrap();
            let run = RunDir::create(folder.path(), name, None, &text, |_| Ok(())).unwrap();
            assert_eq!(run.read_config().unwrap(), config);
            let settings = Settings::file(&run.config_path(), None).unwrap();
            let (repeated, _) = resolve(settings, PictureCache::No).unwrap();
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
