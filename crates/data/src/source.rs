//! Where images come from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::ImageDataset;
use crate::idx::{self, IdxError, parse_images, parse_labels};
use crate::info::{DatasetInfo, describe};

/// A dataset as published: a training and a test split.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Facts that hold for both splits.
    pub info: DatasetInfo,
    /// The images to learn from.
    pub train: ImageDataset,
    /// The images to judge by, never trained on or chosen on.
    pub test: ImageDataset,
    /// Pictures that could not be read and are not among them, and why: a line each.
    pub unreadable: Vec<String>,
}

/// Why a dataset could not be read. What lies beneath an error is its source, not its text.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The folder itself.
    #[error("{path}: cannot read the data folder")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// One of the four files is not there.
    #[error(
        "{folder}: found no {file} (nor {file}.gz); expected {FILES_TEXT}, gzipped or not, \
         or a sub-folder of pictures per class"
    )]
    Missing {
        /// The folder searched.
        folder: PathBuf,
        /// Canonical name of the file.
        file: &'static str,
    },
    /// A file that cannot be read.
    #[error("{path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file with something else in it.
    #[error("{path}")]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong with its bytes.
        source: IdxError,
    },
    /// Images and labels that do not belong together.
    #[error("{images}: {image_count} images, but {label_count} labels in {labels}")]
    Counts {
        /// The image file.
        images: PathBuf,
        /// The label file.
        labels: PathBuf,
        /// Images found.
        image_count: usize,
        /// Labels found.
        label_count: usize,
    },
    /// A folder of pictures that cannot be learned from.
    #[error("{folder}: {message}")]
    Pictures {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A label outside the classes.
    #[error("{path}: label {label} of image {index}, expected 0 to {last} ({last_reason})")]
    Label {
        /// The label file.
        path: PathBuf,
        /// The label.
        label: u8,
        /// Its position.
        index: usize,
        /// The last valid label.
        last: usize,
        /// Where that bound comes from.
        last_reason: String,
    },
    /// Splits of different image sizes.
    #[error(
        "{folder}: training images are {}x{} pixels, test images {}x{}",
        train.0, train.1, test.0, test.1
    )]
    Sizes {
        /// The folder.
        folder: PathBuf,
        /// `(height, width)` of the training images.
        train: (usize, usize),
        /// `(height, width)` of the test images.
        test: (usize, usize),
    },
}

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";
/// Names of the four IDX files of the MNIST family.
pub const IDX_NAMES: [&str; 4] = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS];
const FILES_TEXT: &str = "train-images-idx3-ubyte, train-labels-idx1-ubyte, \
                          t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte";

/// The splits as the four IDX files of the MNIST family, by their names. Channels lie below each
/// other: see [`ImageDataset::with_rows`].
pub fn idx_files(train: &ImageDataset, test: &ImageDataset) -> [(&'static str, Vec<u8>); 4] {
    let (train_images, train_labels) = idx::write(train);
    let (test_images, test_labels) = idx::write(test);
    [
        (TRAIN_IMAGES, train_images),
        (TRAIN_LABELS, train_labels),
        (TEST_IMAGES, test_images),
        (TEST_LABELS, test_labels),
    ]
}

/// An IDX file before it is parsed: where it came from and what it holds.
struct File {
    path: PathBuf,
    bytes: std::borrow::Cow<'static, [u8]>,
}

impl Splits {
    /// The MNIST that ships with this crate.
    ///
    /// # Errors
    /// Never for an undamaged binary.
    #[cfg(feature = "embedded-mnist")]
    pub fn embedded_mnist() -> Result<Self, DataError> {
        macro_rules! embedded {
            ($name:literal) => {
                File {
                    path: concat!("embedded ", $name).into(),
                    bytes: include_bytes!(concat!("../mnist/", $name))
                        .as_slice()
                        .into(),
                }
            };
        }
        Self::from_files(
            "mnist".as_ref(),
            [
                embedded!("train-images-idx3-ubyte.gz"),
                embedded!("train-labels-idx1-ubyte.gz"),
                embedded!("t10k-images-idx3-ubyte.gz"),
                embedded!("t10k-labels-idx1-ubyte.gz"),
            ],
        )
    }

    /// Whether any of the four IDX files of the MNIST family is in a folder.
    pub(crate) fn is_at(folder: &Path) -> bool {
        let is_file =
            |name: &str| folder.join(name).is_file() || folder.join(format!("{name}.gz")).is_file();
        IDX_NAMES.into_iter().any(is_file)
    }

    /// A folder with the four IDX files of the MNIST family, each gzipped or not.
    ///
    /// # Errors
    /// When a file is missing, damaged, or does not fit the others: see [`DataError`].
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let folder_error = |source| DataError::Folder {
            path: folder.to_path_buf(),
            source,
        };
        fs::read_dir(folder).map_err(folder_error)?;
        let [a, b, c, d] = IDX_NAMES.map(|name| read_file(folder, name));
        Self::from_files(folder, [a?, b?, c?, d?])
    }

    /// Training images, training labels, test images, test labels.
    fn from_files(folder: &Path, files: [File; 4]) -> Result<Self, DataError> {
        let [train_images, train_labels, test_images, test_labels] = files;
        // Decompression dominates the start of a run, and the two splits are independent.
        let (train, test) = std::thread::scope(|scope| {
            let test = scope.spawn(|| parse_split(&test_images, &test_labels));
            let train = parse_split(&train_images, &train_labels);
            let test = test
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (train, test)
        });
        let (train, test) = (train?, test?);

        let sizes = |split: &ImageDataset| (split.height(), split.width());
        if sizes(&train) != sizes(&test) {
            return Err(DataError::Sizes {
                folder: folder.to_path_buf(),
                train: sizes(&train),
                test: sizes(&test),
            });
        }
        let (info, reason) = describe(folder, &train);
        check_labels(&train_labels.path, &train, info.classes.len(), &reason)?;
        check_labels(&test_labels.path, &test, info.classes.len(), &reason)?;
        Ok(Self {
            info,
            train,
            test,
            unreadable: Vec::new(),
        })
    }
}

/// `name` or `name.gz` of the folder, whichever is there.
fn read_file(folder: &Path, name: &'static str) -> Result<File, DataError> {
    for path in [folder.join(name), folder.join(format!("{name}.gz"))] {
        match fs::read(&path) {
            Ok(bytes) => {
                return Ok(File {
                    path,
                    bytes: bytes.into(),
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataError::Read { path, source }),
        }
    }
    Err(DataError::Missing {
        folder: folder.to_path_buf(),
        file: name,
    })
}

fn parse_split(images: &File, labels: &File) -> Result<ImageDataset, DataError> {
    let idx_error = |file: &File| {
        let path = file.path.clone();
        move |source| DataError::Idx { path, source }
    };
    let parsed_images = parse_images(&images.bytes).map_err(idx_error(images))?;
    let parsed_labels = parse_labels(&labels.bytes).map_err(idx_error(labels))?;
    ImageDataset::new(parsed_images, parsed_labels).map_err(|(image_count, label_count)| {
        DataError::Counts {
            images: images.path.clone(),
            labels: labels.path.clone(),
            image_count,
            label_count,
        }
    })
}

fn check_labels(
    path: &Path,
    dataset: &ImageDataset,
    classes: usize,
    reason: &str,
) -> Result<(), DataError> {
    let beyond = (0..dataset.len()).find(|&i| usize::from(dataset.label(i)) >= classes);
    beyond.map_or(Ok(()), |index| {
        Err(DataError::Label {
            path: path.to_path_buf(),
            label: dataset.label(index),
            index,
            last: classes - 1,
            last_reason: reason.into(),
        })
    })
}

#[cfg(all(test, feature = "embedded-mnist"))]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_embedded_files_are_the_published_mnist() {
        use std::io::Read;

        let published = [
            (
                include_bytes!("../mnist/train-images-idx3-ubyte.gz").as_slice(),
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            (
                include_bytes!("../mnist/train-labels-idx1-ubyte.gz"),
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            (
                include_bytes!("../mnist/t10k-images-idx3-ubyte.gz"),
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            (
                include_bytes!("../mnist/t10k-labels-idx1-ubyte.gz"),
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ];
        for (compressed, sha256) in published {
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(compressed)
                .read_to_end(&mut bytes)
                .unwrap();
            let digest = Sha256::digest(&bytes);
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, sha256);
        }
    }

    #[test]
    fn mnist_is_known_by_its_labels_and_has_the_quoted_moments() {
        let splits = Splits::embedded_mnist().unwrap();
        assert_eq!(splits.info.name, "mnist");
        assert_eq!(splits.info.classes[7], "7");
        assert_eq!((splits.train.len(), splits.test.len()), (60_000, 10_000));
        assert_eq!((splits.train.height(), splits.train.width()), (28, 28));
        assert_eq!((splits.train.label(0), splits.test.label(0)), (5, 7));
        let (mean, std) = splits.train.mean_std();
        assert!((mean - splits.info.mean).abs() < 5e-5, "mean {mean}");
        assert!((std - splits.info.std).abs() < 5e-5, "std {std}");
    }
}
