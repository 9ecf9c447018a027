//! Errors of loading a dataset.

use std::io;
use std::path::{Path, PathBuf};

use crate::idx::{FILE_NAMES, IdxError};
use crate::picture_store::PixelError;

/// An error of loading a dataset. Its message does not repeat that of its
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The folder cannot be read.
    #[error("{path}: cannot read the data folder")]
    Folder {
        /// Path of the folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// One of the four IDX files is missing.
    #[error(
        "{folder}: found no {file} (nor {file}.gz); expected {}, {}, {} and {}, gzipped or not, \
         or a sub-folder of pictures per class",
        FILE_NAMES[0], FILE_NAMES[1], FILE_NAMES[2], FILE_NAMES[3]
    )]
    Missing {
        /// Path of the folder.
        folder: PathBuf,
        /// Name of the missing file, without `.gz`.
        file: &'static str,
    },
    /// A file cannot be read.
    #[error("{path}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A decoded picture cannot be read.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// A file is not a valid IDX file.
    #[error("{path}")]
    Idx {
        /// Path of the file.
        path: PathBuf,
        /// Error of the parser.
        source: IdxError,
    },
    /// The numbers of images and labels differ.
    #[error("{images}: {image_count} images, but {label_count} labels in {labels}")]
    Counts {
        /// Path of the image file.
        images: PathBuf,
        /// Path of the label file.
        labels: PathBuf,
        /// Number of images.
        image_count: usize,
        /// Number of labels.
        label_count: usize,
    },
    /// A folder of pictures is not a usable dataset.
    #[error("{folder}: {message}")]
    Pictures {
        /// Path of the folder.
        folder: PathBuf,
        /// Description of the value found and of the value expected.
        message: String,
    },
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Description of the value found and of the value expected.
        message: String,
    },
    /// A label is out of range.
    #[error("{path}: label {label} of image {index}, expected 0 to {last} ({last_reason})")]
    Label {
        /// Path of the label file.
        path: PathBuf,
        /// The invalid label.
        label: u8,
        /// Index of its image.
        index: usize,
        /// Largest valid label.
        last: usize,
        /// Reason for `last`.
        last_reason: String,
    },
    /// The image sizes of the two splits differ.
    #[error(
        "{folder}: training images are {}x{} pixels, test images {}x{}",
        train.0, train.1, test.0, test.1
    )]
    Sizes {
        /// Path of the folder.
        folder: PathBuf,
        /// `(height, width)` of the training images.
        train: (usize, usize),
        /// `(height, width)` of the test images.
        test: (usize, usize),
    },
}

impl DataError {
    /// Reports that a file cannot be read.
    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        |source| Self::Read {
            path: path.to_path_buf(),
            source,
        }
    }

    /// Reports what is wrong with a file.
    pub(crate) fn invalid(path: &Path, message: String) -> Self {
        Self::Invalid {
            path: path.to_path_buf(),
            message,
        }
    }
}
