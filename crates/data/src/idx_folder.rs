//! The four IDX files of the MNIST family, in a folder or embedded in the binary.

use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::dataset_files::{DatasetFiles, FileKind};
use crate::emnist::Emnist;
use crate::error::DataError;
use crate::idx::{FILE_NAMES, MAX_BYTES, parse_images, parse_labels};
use crate::image_dataset::{ImageDataset, Images};
use crate::info::describe;
use crate::parts::{Part, Parts};
use crate::regular_file;
use crate::split_name::Split;

/// Largest accepted file of class names, in bytes.
const MAX_MAPPING: u64 = 1 << 20;

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

    /// Loads the four IDX files of the MNIST family, or of EMNIST, KMNIST or QMNIST, each gzipped or not.
    ///
    /// # Errors
    /// Returns an error if a file is missing or invalid, or does not match the others.
    pub(crate) fn from_idx(files: &DatasetFiles) -> Result<Self, DataError> {
        let roles = [
            (FileKind::IdxImages, Split::Train),
            (FileKind::IdxLabels, Split::Train),
            (FileKind::IdxImages, Split::Test),
            (FileKind::IdxLabels, Split::Test),
        ];
        let read =
            |(at, (kind, split)): (usize, (FileKind, Split))| match files.get(kind, Some(split)) {
                Some(path) => read_file(path),
                None => Err(DataError::Missing {
                    folder: files.path.clone(),
                    file: FILE_NAMES[at],
                }),
            };
        let found: Vec<File> = roles
            .into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()?;
        let [a, b, c, d] = found
            .try_into()
            .unwrap_or_else(|_| unreachable!("four roles"));
        let dataset = Self::from_idx_files(&files.path, [a, b, c, d])?;
        let Some(variant) = Emnist::of(&files.name) else {
            return Ok(dataset);
        };
        let mapping = files.get(FileKind::IdxMapping, None).map(read_mapping);
        dataset.into_emnist(files, &mapping.transpose()?.unwrap_or(variant))
    }

    /// Returns the images of EMNIST upright, with the names of their classes.
    fn into_emnist(self, files: &DatasetFiles, emnist: &Emnist) -> Result<Self, DataError> {
        let part = |images: &ImageDataset, split: Split| -> Result<Part, DataError> {
            let [channels, height, width] = self.info.shape();
            let mut pixels = Vec::with_capacity(images.len() * channels * height * width);
            for index in 0..images.len() {
                pixels.extend_from_slice(&images.pixels(index)?);
            }
            let images_of = Images {
                channels,
                height,
                width,
                pixels,
            };
            let names = images
                .labels()
                .map(|label| emnist.class(&label.to_string()));
            Ok(Part {
                path: files
                    .get(FileKind::IdxLabels, Some(split))
                    .unwrap_or(&files.path)
                    .to_path_buf(),
                images: images_of.transposed(),
                labels: names.collect(),
            })
        };
        Parts {
            path: files.path.clone(),
            classes: None,
            train: part(&self.train, Split::Train)?,
            validation: None,
            test: Some(part(&self.test, Split::Test)?),
            notes: Vec::new(),
        }
        .into_dataset()
        .map(|dataset| Self {
            is_stratified: false,
            ..dataset
        })
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
            notes: Vec::new(),
            has_test_split: true,
            is_stratified: false,
        })
    }
}

/// Reads an IDX file.
fn read_file(path: &Path) -> Result<File, DataError> {
    let bytes = regular_file::read(path, MAX_BYTES).map_err(DataError::read(path))?;
    Ok(File {
        path: path.to_path_buf(),
        bytes: bytes.into(),
    })
}

/// Reads the names of classes.
fn read_mapping(path: &Path) -> Result<Emnist, DataError> {
    let text = regular_file::read_to_string(path, MAX_MAPPING).map_err(DataError::read(path))?;
    Emnist::from_mapping(&text).ok_or_else(|| {
        DataError::invalid(
            path,
            "expected lines of a label and the codes of its letters, such as 1 65 97".into(),
        )
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
