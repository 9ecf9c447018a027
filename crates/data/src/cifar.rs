//! CIFAR-10 and CIFAR-100 as published: records of a label, or two, and 3072 pixels.
//!
//! Format: <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::path::Path;

use crate::dataset::Dataset;
use crate::dataset_files::{DatasetFile, DatasetFiles, FileKind};
use crate::error::DataError;
use crate::image_dataset::Images;
use crate::labels::Labels;
use crate::parts::{Part, Parts};
use crate::regular_file;
use crate::split_name::Split;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
/// Largest accepted file, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Names of the files of class names, with the number of labels in a record.
const NAME_FILES: [(&str, usize); 2] = [("batches.meta.txt", 1), ("fine_label_names.txt", 2)];

impl Dataset {
    /// Reads binary files of CIFAR.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or has another length than whole records.
    pub(crate) fn from_cifar(files: &DatasetFiles) -> Result<Self, DataError> {
        let mut splits: [Option<Part>; 2] = [None, None];
        let mut classes = None;
        for DatasetFile { path, kind, split } in &files.files {
            if *kind == FileKind::CifarPickle {
                let message =
                    "pickles of Python; expected the binary version (for C programs)".into();
                return Err(DataError::invalid(path, message));
            }
            let bytes = read(path)?;
            let labels = (1..=2)
                .find(|labels| !bytes.is_empty() && bytes.len().is_multiple_of(labels + PIXELS));
            let Some(labels) = labels else {
                let message = format!(
                    "{} bytes, expected records of {} or {} bytes",
                    bytes.len(),
                    PIXELS + 1,
                    PIXELS + 2
                );
                return Err(DataError::invalid(path, message));
            };
            if classes.is_none() {
                classes = class_names(path, labels);
            }
            let part =
                splits[usize::from(*split == Some(Split::Test))].get_or_insert_with(|| Part {
                    path: path.clone(),
                    images: Images {
                        channels: 3,
                        height: SIDE,
                        width: SIDE,
                        pixels: Vec::new(),
                    },
                    labels: Labels::default(),
                });
            for record in bytes.chunks_exact(labels + PIXELS) {
                // Of two labels, the second is the finer one.
                part.labels.push(&record[labels - 1].to_string());
                part.images.pixels.extend_from_slice(&record[labels..]);
            }
        }
        let [train, test] = splits;
        let Some(train) = train else {
            return Err(DataError::invalid(
                &files.path,
                "found no training batches such as data_batch_1.bin".into(),
            ));
        };
        let named = |part: Part| part.named(classes.as_deref());
        Parts {
            path: files.path.clone(),
            train: named(train),
            validation: None,
            test: test.map(named),
            classes: classes.clone(),
            notes: Vec::new(),
        }
        .into_dataset()
    }
}

/// Reads the class names beside a file, if there are any.
fn class_names(path: &Path, labels: usize) -> Option<Vec<String>> {
    let (name, _) = NAME_FILES.iter().find(|(_, count)| *count == labels)?;
    let text = regular_file::read_to_string(&path.with_file_name(name), 1 << 20).ok()?;
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
    Some(names.map(String::from).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    regular_file::read(path, MAX_BYTES).map_err(DataError::read(path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn records(labels: &[&[u8]]) -> Vec<u8> {
        labels
            .iter()
            .enumerate()
            .flat_map(|(at, labels)| [labels, &[at as u8; PIXELS][..]].concat())
            .collect()
    }

    fn dataset(files: &[(&str, Vec<u8>)]) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let files = DatasetFiles::find(folder.path()).unwrap().unwrap();
        Dataset::from_cifar(&files).map_err(|error| error.to_string())
    }

    #[test]
    fn batches_are_joined_and_named() {
        let dataset = dataset(&[
            ("data_batch_1.bin", records(&[&[1], &[0]])),
            ("data_batch_2.bin", records(&[&[1]])),
            ("test_batch.bin", records(&[&[0]])),
            ("batches.meta.txt", b"airplane\nbird\n\n".to_vec()),
        ])
        .unwrap();
        assert_eq!(dataset.info.classes, ["airplane", "bird"]);
        assert_eq!(dataset.train.labels().collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(dataset.info.shape(), [3, 32, 32]);
    }

    #[test]
    fn of_two_labels_the_finer_one_counts() {
        let dataset = dataset(&[
            ("train.bin", records(&[&[9, 1], &[8, 3]])),
            ("test.bin", records(&[&[9, 1]])),
        ])
        .unwrap();
        assert_eq!(dataset.info.classes, ["1", "3"]);
    }

    #[test]
    fn rejects_other_files() {
        let error = dataset(&[("train.bin", vec![0; 100])]).unwrap_err();
        assert!(
            error.ends_with("train.bin: 100 bytes, expected records of 3073 or 3074 bytes"),
            "{error}"
        );
    }
}
