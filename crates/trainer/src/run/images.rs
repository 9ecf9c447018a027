//! The images of a run: the embedded MNIST, a folder of IDX files, or one of pictures, which are
//! decoded once and kept beside the runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::digest::sha256_hex;
use data::folder::{Pictures, Wanted};
use data::source::{IDX_NAMES, idx_files};
use data::{DatasetInfo, ImageDataset, PictureFolder, Preparation, Splits};
use tracing::{info, warn};

use crate::config::run_config::{Config, DataConfig};
use crate::config::settings::Settings;
use crate::process::progress_bar::bar;
use crate::run::atomic_file::write_folder;
use crate::run::run_dir::{self, RunDir};

/// The source that names the embedded MNIST.
const EMBEDDED: &str = "mnist";
/// So many of the pictures that cannot be read are named.
const NAMED: usize = 5;
/// Beside the IDX files of decoded pictures: those that could not be read, and a checksum of all.
const UNREADABLE: &str = "unreadable.txt";
const CHECKSUM: &str = "sha256.txt";
/// What the checksum is of, in this order.
const NAMES: [&str; 5] = {
    let [a, b, c, d] = IDX_NAMES;
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

/// Where decoded pictures are looked up and kept, among the runs of a folder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PictureCache<'a> {
    /// Nowhere.
    No,
    /// Looked up there.
    Read(&'a Path),
    /// Looked up and kept there.
    Write(&'a Path),
}

/// Reads the images that the settings name, and makes the configuration of a run on them.
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
    let splits = load_splits(&settings.data()?, cache)?;
    let config = settings.into_config(&splits.info)?;
    let images = RunImages::new(&config.data, config.training.seed, splits)?;
    Ok((config, images))
}

/// Reads the images that a run was begun with.
///
/// # Errors
/// Returns an error if they cannot be read, or are too few to divide.
pub(crate) fn load(config: &Config, cache: PictureCache<'_>) -> Result<RunImages> {
    let splits = load_splits(&config.data, cache)?;
    RunImages::new(&config.data, config.training.seed, splits)
}

impl RunImages {
    fn new(data: &DataConfig, seed: u64, splits: Splits) -> Result<Self> {
        Ok(Self {
            split: DataSplit::new(data, seed, &splits.train, splits.test)?,
            info: splits.info,
            unreadable: splits.unreadable,
        })
    }
}

/// Reads a data set for training.
fn load_splits(data: &DataConfig, kept: PictureCache<'_>) -> Result<Splits> {
    let wanted = Wanted {
        preparation: Preparation::Picture,
        height: data.image_size,
        width: data.image_size,
    };
    match open(&data.source)? {
        Source::Ready(splits) => Ok(*splits),
        Source::Pictures(folder) => read(folder, wanted, kept),
    }
}

/// Reads images for a network that has learned already: those it learned from, or `others`.
/// Pictures are prepared as the network needs them; of other pictures, all are judged unless they
/// have a folder `test`.
///
/// # Errors
/// When they are not there or damaged, or are not such as the network learned.
pub(crate) fn of_run(run: &RunDir, config: &Config, others: Option<&str>) -> Result<Splits> {
    let learned = &config.images;
    let source = match others {
        Some(source) => open(&absolute_source(source)?)?,
        None => open(&config.data.source)
            .context("the images of the run; for evaluate, --data names another place")?,
    };
    let splits = match source {
        Source::Ready(splits) => *splits,
        Source::Pictures(folder) => {
            let wanted = Wanted {
                preparation: learned.preparation,
                height: learned.height,
                width: learned.width,
            };
            let is_all_judged = others.is_some() && !folder.is_divided;
            let mut splits = read(folder, wanted, PictureCache::Read(&run.root()))?;
            if is_all_judged {
                splits.test = splits.train.joined(&splits.test);
            }
            as_learned(splits, learned)?
        }
    };
    let found = &splits.info;
    ensure!(
        found.shape() == learned.shape() && found.classes.len() <= learned.classes.len(),
        "{} has {} classes of {:?} images, but the run learned {} of {:?}",
        found.name,
        found.classes.len(),
        found.shape(),
        learned.classes.len(),
        learned.shape(),
    );
    if !learned.classes.starts_with(&found.classes) {
        warn!(
            "the classes of {} are called {}, those of the run {}: taken for each other in this order",
            found.name,
            found.classes.join(", "),
            learned.classes.join(", ")
        );
    }
    Ok(splits)
}

/// Pictures with the channels that a network takes, and its labels for their classes.
fn as_learned(mut splits: Splits, learned: &DatasetInfo) -> Result<Splits> {
    let label = |class: &String| {
        let label = learned.classes.iter().position(|known| known == class);
        label.map(|label| label as u8).with_context(|| {
            format!(
                "{} has a class {class}, but the run learned {}",
                splits.info.name,
                learned.classes.join(", ")
            )
        })
    };
    let labels = splits
        .info
        .classes
        .iter()
        .map(label)
        .collect::<Result<Vec<u8>>>()?;
    splits.test = splits
        .test
        .with_channels(learned.channels)
        .relabelled(&labels);
    splits.info.channels = learned.channels;
    splits.info.classes.clone_from(&learned.classes);
    Ok(splits)
}

/// Where images come from.
enum Source {
    Ready(Box<Splits>),
    /// To be decoded.
    Pictures(PictureFolder),
}

fn open(source: &str) -> Result<Source> {
    let path = Path::new(source);
    Ok(match source {
        EMBEDDED => Source::Ready(Box::new(embedded_mnist()?)),
        _ if PictureFolder::is_at(path) => Source::Pictures(PictureFolder::list(path)?),
        _ => Source::Ready(Box::new(Splits::from_folder(path)?)),
    })
}

/// Reads pictures, from where they are kept if they are there.
fn read(folder: PictureFolder, wanted: Wanted, kept: PictureCache<'_>) -> Result<Splits> {
    let place = match kept {
        PictureCache::No => None,
        PictureCache::Read(root) | PictureCache::Write(root) => {
            Some(run_dir::pictures(root, &folder.fingerprint(wanted)))
        }
    };
    let pictures = match place.as_deref().and_then(|place| look_up(place, wanted)) {
        Some(pictures) => pictures,
        None => {
            let decoded = decode(&folder, wanted)?;
            if let (Some(place), PictureCache::Write(_), false) =
                (&place, kept, decoded.is_incomplete)
            {
                keep(place, &decoded);
            }
            decoded
        }
    };
    for message in left_out(&pictures.unreadable) {
        warn!("{message}");
    }
    Ok(folder.splits(wanted.preparation, pictures))
}

/// What is to be said of pictures that could not be read.
pub(crate) fn left_out(unreadable: &[String]) -> Vec<String> {
    let named = unreadable.iter().take(NAMED);
    let mut messages: Vec<String> = named.map(|message| format!("left out {message}")).collect();
    if let Some(more @ 1..) = unreadable.len().checked_sub(NAMED) {
        messages.push(format!("left out {more} more pictures"));
    }
    messages
}

fn decode(folder: &PictureFolder, wanted: Wanted) -> Result<Pictures> {
    info!("reading {} pictures", folder.count());
    let bar = bar(folder.count() as u64, "pictures");
    let pictures = folder.decode(wanted, &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(pictures?)
}

/// Pictures that were decoded before; `None` where anything is missing or damaged.
fn look_up(place: &Path, wanted: Wanted) -> Option<Pictures> {
    let checksum = fs::read_to_string(place.join(CHECKSUM)).ok()?;
    let files = NAMES.map(|name| fs::read(place.join(name)).ok());
    let is_whole = files.iter().all(Option::is_some);
    (is_whole && checksum == sha256_hex(files.iter().flatten())).then_some(())?;
    drop(files);
    let unreadable = fs::read_to_string(place.join(UNREADABLE)).ok()?;
    let splits = Splits::from_folder(place).ok()?;
    Some(Pictures {
        train: splits.train.with_rows(wanted.height).ok()?,
        test: splits.test.with_rows(wanted.height).ok()?,
        unreadable: unreadable.lines().map(String::from).collect(),
        is_incomplete: false,
    })
}

/// Keeps decoded pictures for the next time. Without them the next time takes longer, no more.
fn keep(place: &Path, pictures: &Pictures) {
    let mut files = Vec::from(idx_files(&pictures.train, &pictures.test));
    files.push((UNREADABLE, pictures.unreadable.join("\n").into_bytes()));
    let checksum = sha256_hex(files.iter().map(|(_, bytes)| bytes));
    files.push((CHECKSUM, checksum.into_bytes()));
    if let Err(error) = write_folder(place, &files) {
        warn!("the decoded pictures are not kept: {error:#}");
    }
}

#[cfg(feature = "embedded-mnist")]
fn embedded_mnist() -> Result<Splits> {
    Ok(Splits::embedded_mnist()?)
}

#[cfg(not(feature = "embedded-mnist"))]
fn embedded_mnist() -> Result<Splits> {
    bail!(
        "this build has no embedded MNIST: name a folder of IDX files or of pictures with --data, \
         or build with `--features embedded-mnist`"
    )
}

/// The source as a configuration keeps it: absolute, so that a run folder finds its images from
/// wherever it is read.
///
/// # Errors
/// When there is no such folder.
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
