//! A data source: the embedded MNIST, a folder of IDX files, or a folder of pictures.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::{Dataset, DatasetInfo, DecodeOptions, ImageDataset, PictureFolder, TestSelection};
use tracing::warn;

use crate::run::picture_cache::PictureCache;

/// The source that names the embedded MNIST.
pub(crate) const EMBEDDED: &str = "mnist";
/// Maximum number of messages about unreadable pictures.
const MAX_MESSAGES: usize = 5;

/// A data source.
#[derive(Debug)]
pub(crate) enum Source {
    /// IDX files, read into memory.
    Idx(Box<Dataset>),
    /// Pictures that are not decoded yet.
    Pictures(PictureFolder),
}

impl Source {
    /// Opens `mnist` or a folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read, or its layout is not supported.
    pub(crate) fn open(source: &str, selection: TestSelection) -> Result<Self> {
        let path = Path::new(source);
        Ok(match source {
            EMBEDDED => Self::Idx(Box::new(embedded_mnist()?)),
            _ if PictureFolder::is_at(path) => {
                let folder = PictureFolder::list(path, selection)?;
                for note in &folder.notes {
                    warn!("{note}");
                }
                Self::Pictures(folder)
            }
            _ => Self::Idx(Box::new(Dataset::from_idx_folder(path)?)),
        })
    }

    /// Opens a source that consists of IDX files.
    ///
    /// # Errors
    /// Returns an error if the files cannot be read, or the folder contains pictures.
    pub(crate) fn open_idx(source: &str) -> Result<Dataset> {
        match Self::open(source, TestSelection::ByPath)? {
            Self::Idx(dataset) => Ok(*dataset),
            Self::Pictures(_) => bail!("{source}: found pictures, expected the four IDX files"),
        }
    }

    /// Reads all images.
    ///
    /// # Errors
    /// Returns an error if a class or the test split has no readable picture.
    pub(crate) fn read(self, options: DecodeOptions, cache: PictureCache<'_>) -> Result<Dataset> {
        match self {
            Self::Idx(dataset) => Ok(*dataset),
            Self::Pictures(folder) => {
                let pictures = cache.decode(&folder.all_files(), options)?;
                let dataset = folder.into_dataset(options.preparation, pictures)?;
                warn_of_unreadable(&dataset.unreadable);
                Ok(dataset)
            }
        }
    }

    /// Reads the test images for a network that expects images like `expected`: of a folder of pictures
    /// without a sub-folder `test`, all of them.
    ///
    /// # Errors
    /// Returns an error if the images do not fit the network, or there are none.
    pub(crate) fn read_test(
        self,
        expected: &DatasetInfo,
        cache: PictureCache<'_>,
    ) -> Result<ImageDataset> {
        match self {
            Self::Idx(dataset) => {
                let dataset = dataset.with_channels(expected.channels)?;
                check_fits(&dataset.info, expected)?;
                Ok(dataset.test)
            }
            Self::Pictures(folder) => {
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
                relabel(&pictures.images, &folder.classes, expected)
                    .with_context(|| name.to_string())
            }
        }
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

/// Checks that IDX images fit a network that expects images like `expected`, and warns if the classes have other
/// names.
fn check_fits(info: &DatasetInfo, expected: &DatasetInfo) -> Result<()> {
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
    Ok(())
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
