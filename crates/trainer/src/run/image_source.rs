//! A data source: the embedded MNIST, or a file or folder with images or pictures.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use data::archive::{ArchiveFormat, parquet_files, unpack};
use data::digest::sha256_hex;
use data::source::names_dataset;
use data::{
    DataSource, Dataset, DatasetInfo, DecodeOptions, FileLabels, ImageDataset, TestSelection,
    file_version,
};
use tracing::{info, warn};

use crate::config::run_config::DataConfig;
use crate::process::progress_bar::byte_bar;
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir;

/// The source that names the embedded MNIST.
pub(crate) const EMBEDDED: &str = "mnist";
/// Maximum number of messages about unreadable pictures.
const MAX_MESSAGES: usize = 5;

/// Opens `mnist`, a file or a folder. Archives are unpacked in the folder of the cache.
///
/// # Errors
/// Returns an error if the data cannot be read, or their format is not supported.
pub(crate) fn open(
    source: &str,
    labels: Option<&FileLabels>,
    selection: TestSelection,
    cache: PictureCache<'_>,
) -> Result<DataSource> {
    if source == EMBEDDED {
        return Ok(DataSource::Images(Box::new(embedded_mnist()?)));
    }
    Ok(DataSource::open(
        &data_path(source, cache)?,
        labels,
        selection,
    )?)
}

/// Prints warnings about data that are not used.
pub(crate) fn warn_of_unused(source: &DataSource) {
    let notes = match source {
        DataSource::Images(dataset) => &dataset.notes,
        DataSource::Pictures(folder) => &folder.notes,
    };
    for note in notes {
        warn!("{note}");
    }
}

/// Returns where the labels of pictures are, unless they are in folders of their classes.
///
/// # Errors
/// Returns an error if the settings name two places, or the pattern is none.
pub(crate) fn file_labels(data: &DataConfig) -> Result<Option<FileLabels>> {
    match (&data.labels, &data.label_pattern) {
        (Some(_), Some(_)) => {
            bail!("data.labels and data.label_pattern both state the labels: remove one of them")
        }
        (Some(table), None) => Ok(Some(FileLabels::Table(table.into()))),
        (None, Some(pattern)) => {
            let pattern = pattern
                .parse()
                .with_context(|| format!("data.label_pattern = {pattern:?}"))?;
            Ok(Some(FileLabels::Pattern(pattern)))
        }
        (None, None) => Ok(None),
    }
}

/// Reads all images of a source.
///
/// # Errors
/// Returns an error if a class or the test split has no readable picture.
pub(crate) fn read(
    source: DataSource,
    options: DecodeOptions,
    cache: PictureCache<'_>,
) -> Result<Dataset> {
    match source {
        // Its warnings were printed when it was opened.
        DataSource::Images(dataset) => Ok(Dataset {
            notes: Vec::new(),
            ..*dataset
        }),
        DataSource::Pictures(folder) => {
            let pictures = cache.decode(&folder.all_files(), options)?;
            let dataset = folder.into_dataset(options.preparation, pictures)?;
            warn_of_unreadable(&dataset.unreadable);
            Ok(dataset)
        }
    }
}

/// Reads the test images of a source for a network that expects images like `expected`: all images if the source has no test
/// split.
///
/// # Errors
/// Returns an error if the images do not fit the network, or there are none.
pub(crate) fn read_test(
    source: DataSource,
    expected: &DatasetInfo,
    cache: PictureCache<'_>,
) -> Result<ImageDataset> {
    match source {
        DataSource::Images(dataset) => {
            let info = dataset.info.clone();
            let size = [expected.height, expected.width];
            if [info.height, info.width] != size {
                info!(
                    "the images of {} are scaled from {}x{} to {}x{} pixels",
                    info.name, info.width, info.height, expected.width, expected.height
                );
            }
            let images = dataset.into_test_images().resized(size)?;
            labeled_as(&images, &info, expected)
        }
        DataSource::Pictures(folder) => {
            let files = match folder.has_test_folder {
                true => folder.test_files(),
                false => folder.all_files(),
            };
            let pictures = cache.decode(&files, decode_options(expected))?;
            let unreadable = folder.unreadable(&pictures);
            warn_of_unreadable(&unreadable);
            let name = folder.path.display();
            ensure!(
                !pictures.images.is_empty(),
                "{name}: no readable picture to evaluate: {}",
                unreadable.join("; ")
            );
            relabel(&pictures.images, &folder.classes, expected).with_context(|| name.to_string())
        }
    }
}

/// Returns images with the channels and the size of those of a network.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn as_expected(dataset: Dataset, expected: &DatasetInfo) -> Result<Dataset> {
    // In the order in which a new run converts them, since both round.
    let dataset = dataset.resized([expected.height, expected.width])?;
    Ok(dataset.with_channels(expected.channels)?)
}

/// Returns the path of the data of a source: of an archive, or a folder of Parquet files, the folder that it is unpacked to.
///
/// # Errors
/// Returns an error if an archive cannot be unpacked.
pub(crate) fn data_path(source: &str, cache: PictureCache<'_>) -> Result<PathBuf> {
    let path = Path::new(source);
    let (archives, format) = if path.is_file() {
        let format = ArchiveFormat::of(path);
        let format = format.with_context(|| format!("{source}: cannot read the file"))?;
        (vec![path.to_path_buf()], format)
    } else {
        let files = parquet_files(path)?;
        let format = (!files.is_empty()).then_some(ArchiveFormat::Parquet);
        (files, format)
    };
    let Some(format) = format else {
        return Ok(path.into());
    };
    let versions = archives.iter().map(|archive| {
        let version = file_version(archive).unwrap_or_default();
        format!("{}\n{version}", archive.display())
    });
    let key = sha256_hex([versions.collect::<Vec<_>>().join("\n").as_bytes()]);
    let temporary = env::temp_dir();
    let folder = run_dir::unpacked_path(cache.root().unwrap_or(&temporary), &key);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let content = folder.join(
        name.split('.')
            .next()
            .filter(|stem| !stem.is_empty())
            .unwrap_or("data"),
    );
    if content.is_dir() {
        return Ok(content);
    }
    unpack_to(&archives, format, &content).with_context(|| source.to_string())?;
    Ok(content)
}

/// Unpacks archives into a new folder, which appears when it is complete.
fn unpack_to(archives: &[PathBuf], format: ArchiveFormat, content: &Path) -> Result<()> {
    let parent = content.parent().context("a folder without a parent")?;
    let create = || -> std::io::Result<tempfile::TempDir> {
        fs::create_dir_all(parent)?;
        tempfile::Builder::new()
            .prefix(".unfinished-")
            .tempdir_in(parent)
    };
    let folder = create().with_context(|| format!("cannot create {}", parent.display()))?;
    info!("unpacking to {}", content.display());
    let bar = byte_bar();
    let unpacked = unpack(archives, format, folder.path(), &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    for note in unpacked? {
        warn!("{note}");
    }
    match fs::rename(folder.path(), content) {
        // Another process was faster.
        Err(_) if content.is_dir() => Ok(()),
        renamed => Ok(renamed?),
    }
}

/// Returns the conversion of pictures for a network that expects images like `expected`.
pub(crate) fn decode_options(expected: &DatasetInfo) -> DecodeOptions {
    DecodeOptions {
        preparation: expected.preparation,
        height: expected.height,
        width: expected.width,
    }
}

/// Converts pictures to the channels of a network, and their labels to its labels of the same classes.
///
/// # Errors
/// Returns an error if the network does not have a class.
pub(crate) fn relabel(
    images: &ImageDataset,
    classes: &[String],
    expected: &DatasetInfo,
) -> Result<ImageDataset> {
    let label = |class: &String| {
        let label = expected.classes.iter().position(|known| known == class);
        label.map(|label| label as u8).with_context(|| {
            let known = expected.classes.join(", ");
            format!("found a class {class}, expected one of {known}")
        })
    };
    let labels = classes.iter().map(label).collect::<Result<Vec<u8>>>()?;
    Ok(images.with_channels(expected.channels).relabeled(&labels))
}

/// Converts images to the channels of a network. Labels are matched by the names of their classes; if the network has none
/// of them, in their order, with a warning.
///
/// # Errors
/// Returns an error if the network has only some of the classes, or fewer.
fn labeled_as(
    images: &ImageDataset,
    info: &DatasetInfo,
    expected: &DatasetInfo,
) -> Result<ImageDataset> {
    if info
        .classes
        .iter()
        .all(|class| expected.classes.contains(class))
    {
        return relabel(images, &info.classes, expected);
    }
    ensure!(
        info.classes.len() <= expected.classes.len(),
        "{} has {} classes, but the network has {}: {}",
        info.name,
        info.classes.len(),
        expected.classes.len(),
        expected.classes.join(", ")
    );
    warn!(
        "the classes of {} are {}, those of the run {}: matched in this order",
        info.name,
        info.classes.join(", "),
        expected.classes.join(", ")
    );
    Ok(images.with_channels(expected.channels))
}

fn warn_of_unreadable(unreadable: &[String]) {
    for message in skipped_messages(unreadable) {
        warn!("{message}");
    }
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

/// Returns the absolute path of a folder followed by the name of one of its datasets, such as `gzip/emnist-letters`.
fn named_dataset(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let folder = match path.parent()? {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let path = fs::canonicalize(folder).ok()?.join(name);
    names_dataset(&path).then_some(path)
}

/// Returns the absolute path of a data source, which is stored in the configuration of a run.
///
/// # Errors
/// Returns an error if there is no such file or folder.
pub(crate) fn absolute_source(source: &str) -> Result<String> {
    if source == EMBEDDED {
        return Ok(source.into());
    }
    let path = match (fs::canonicalize(source), named_dataset(Path::new(source))) {
        (Err(_), Some(path)) => path,
        (path, _) => path.with_context(|| format!("{source}: cannot open the data"))?,
    };
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("{}: not valid UTF-8", path.display()),
    }
}
