//! The four IDX files of the MNIST family, in a folder or embedded in the binary.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::idx::{FILE_NAMES, MAX_BYTES, parse_images, parse_labels};
use crate::image_dataset::ImageDataset;
use crate::info::describe;
use crate::regular_file;

/// The path and content of an IDX file.
struct File {
    path: PathBuf,
    bytes: std::borrow::Cow<'static, [u8]>,
}

impl Dataset {
    /// Loads the MNIST files embedded in this crate.
    ///
    /// # Errors
    /// Returns an error only if the binary is damaged.
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
        Self::from_idx_files(
            "mnist".as_ref(),
            [
                embedded!("train-images-idx3-ubyte.gz"),
                embedded!("train-labels-idx1-ubyte.gz"),
                embedded!("t10k-images-idx3-ubyte.gz"),
                embedded!("t10k-labels-idx1-ubyte.gz"),
            ],
        )
    }

    /// Loads a folder with the four IDX files of the MNIST family, each gzipped or not.
    ///
    /// # Errors
    /// Returns an error if a file is missing or invalid, or does not match the others.
    pub fn from_idx_folder(folder: &Path) -> Result<Self, DataError> {
        let folder_error = |source| DataError::Folder {
            path: folder.to_path_buf(),
            source,
        };
        fs::read_dir(folder).map_err(folder_error)?;
        let [a, b, c, d] = FILE_NAMES.map(|name| read_file(folder, name));
        Self::from_idx_files(folder, [a?, b?, c?, d?])
    }

    /// Parses the files, in the order of [`FILE_NAMES`].
    fn from_idx_files(folder: &Path, files: [File; 4]) -> Result<Self, DataError> {
        let [train_images, train_labels, test_images, test_labels] = files;
        // Decompression dominates the loading time, so the two splits are parsed in parallel.
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
        let (info, reason) = describe(folder, &train)?;
        check_labels(&train_labels.path, &train, info.classes.len(), &reason)?;
        check_labels(&test_labels.path, &test, info.classes.len(), &reason)?;
        Ok(Self {
            info,
            train,
            validation: None,
            test,
            unreadable: Vec::new(),
        })
    }
}

/// Returns whether a folder contains any of the four files.
pub(crate) fn is_idx_folder(folder: &Path) -> bool {
    let is_file =
        |name: &str| folder.join(name).is_file() || folder.join(format!("{name}.gz")).is_file();
    FILE_NAMES.into_iter().any(is_file)
}

/// Reads `name` or `name.gz`, whichever exists.
fn read_file(folder: &Path, name: &'static str) -> Result<File, DataError> {
    for path in [folder.join(name), folder.join(format!("{name}.gz"))] {
        match regular_file::read(&path, MAX_BYTES) {
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
    let invalid = (0..dataset.len()).find(|&i| usize::from(dataset.label(i)) >= classes);
    invalid.map_or(Ok(()), |index| {
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
    use crate::image_dataset::Images;

    #[test]
    fn embedded_files_are_the_published_mnist() {
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
    fn recognizes_mnist_with_its_published_statistics() {
        let mnist = Dataset::embedded_mnist().unwrap();
        assert_eq!(mnist.info.name, "mnist");
        assert_eq!(mnist.info.classes[7], "7");
        assert_eq!((mnist.train.len(), mnist.test.len()), (60_000, 10_000));
        assert_eq!((mnist.train.height(), mnist.train.width()), (28, 28));
        assert_eq!((mnist.train.label(0), mnist.test.label(0)), (5, 7));
        let (mean, std) = mnist.train.mean_std().unwrap();
        assert!((mean - mnist.info.mean.of(0)).abs() < 5e-5, "mean {mean}");
        assert!((std - mnist.info.std.of(0)).abs() < 5e-5, "std {std}");
    }

    #[test]
    fn inverted_mnist_gets_its_own_statistics() {
        let train = Dataset::embedded_mnist().unwrap().train;
        let inverted = Images {
            channels: 1,
            height: train.height(),
            width: train.width(),
            pixels: (0..train.len())
                .flat_map(|i| train.pixels(i).unwrap().into_owned())
                .map(|pixel| 255 - pixel)
                .collect(),
        };
        let labels = train.labels().collect();
        let inverted = ImageDataset::new(inverted, labels).unwrap();
        let (info, _) = describe(Path::new("inverted"), &inverted).unwrap();
        assert_eq!(info.name, "mnist");
        let mean = info.mean.of(0);
        assert!((mean - (1.0 - 0.1307)).abs() < 1e-4, "{mean}");
    }
}
