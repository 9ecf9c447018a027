//! CIFAR-10 and CIFAR-100 as published: records of a label, or two, and 3072 pixels, or the same as pickles of Python.
//!
//! Format: <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::path::Path;

use crate::dataset::Dataset;
use crate::dataset_files::{DatasetFile, DatasetFiles, FileKind};
use crate::error::DataError;
use crate::image_dataset::Images;
use crate::labels::Labels;
use crate::npy::ArrayError;
use crate::parts::{Part, Parts};
use crate::pickled_arrays::{self, NamedArray};
use crate::regular_file;
use crate::split_name::Split;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
/// Largest accepted file, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Files of class names beside records of one label, and of two.
const NAME_FILES: [&str; 2] = ["batches.meta.txt", "fine_label_names.txt"];
/// Pickles of class names, and the key of the names.
const NAME_PICKLES: [(&str, &str); 2] = [
    ("batches.meta", "label_names"),
    ("meta", "fine_label_names"),
];
/// Keys of the labels in a pickle. Of two, the first is the finer one.
const LABEL_KEYS: [&str; 2] = ["fine_labels", "labels"];

impl Dataset {
    /// Reads the files of CIFAR.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or has another length than whole records.
    pub(crate) fn from_cifar(files: &DatasetFiles) -> Result<Self, DataError> {
        let mut splits: [Option<Part>; 2] = [None, None];
        let mut classes = None;
        for DatasetFile { path, kind, split } in &files.files {
            let (part, names) = match kind {
                FileKind::CifarPickle => (read_pickle(path)?, names_in_pickle(path)),
                _ => read_records(path)?,
            };
            classes = classes.or(names);
            match &mut splits[usize::from(*split == Some(Split::Test))] {
                Some(earlier) => earlier.append(part),
                first => *first = Some(part),
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

/// Reads fixed records, and the class names beside the file if there are any.
fn read_records(path: &Path) -> Result<(Part, Option<Vec<String>>), DataError> {
    let bytes = regular_file::read(path, MAX_BYTES).map_err(DataError::read(path))?;
    let labels =
        (1..=2).find(|labels| !bytes.is_empty() && bytes.len().is_multiple_of(labels + PIXELS));
    let Some(count) = labels else {
        let message = format!(
            "{} bytes, expected records of {} or {} bytes",
            bytes.len(),
            PIXELS + 1,
            PIXELS + 2
        );
        return Err(DataError::invalid(path, message));
    };
    let mut labels = Labels::default();
    let mut pixels = Vec::with_capacity(bytes.len());
    for record in bytes.chunks_exact(count + PIXELS) {
        // Of two labels, the second is the finer one.
        labels.push(&record[count - 1].to_string());
        pixels.extend_from_slice(&record[count..]);
    }
    Ok((
        part(path, pixels, labels),
        class_names(&path.with_file_name(NAME_FILES[count - 1])),
    ))
}

/// Reads a batch that is a pickle.
fn read_pickle(path: &Path) -> Result<Part, DataError> {
    let mut arrays = pickled_arrays::read(path)?;
    let mut take = |names: &[&str]| {
        let at = names
            .iter()
            .find_map(|name| arrays.iter().position(|array| array.name == *name));
        let NamedArray { name, array } = match at {
            Some(at) => arrays.swap_remove(at),
            None => {
                let message = format!(
                    "a pickle without {}, expected a batch of CIFAR",
                    names.join(" or ")
                );
                return Err(DataError::invalid(path, message));
            }
        };
        let invalid =
            move |error: ArrayError| DataError::invalid(path, format!("array {name}: {error}"));
        match array {
            Ok(array) => Ok((array, invalid)),
            Err(error) => Err(invalid(error)),
        }
    };
    let (images, invalid) = take(&["data"])?;
    if images.shape.len() != 2 || images.shape[1] != PIXELS {
        let message = format!("the shape {:?}, expected [count, {PIXELS}]", images.shape);
        return Err(invalid(ArrayError::Invalid(message)));
    }
    let pixels = images.into_pixels().map_err(invalid)?;
    let (labels, invalid) = take(&LABEL_KEYS)?;
    Ok(part(path, pixels, labels.to_labels().map_err(invalid)?))
}

fn part(path: &Path, pixels: Vec<u8>, labels: Labels) -> Part {
    Part {
        path: path.to_path_buf(),
        images: Images {
            channels: 3,
            height: SIDE,
            width: SIDE,
            pixels,
        },
        labels,
    }
}

fn class_names(path: &Path) -> Option<Vec<String>> {
    let text = regular_file::read_to_string(path, 1 << 20).ok()?;
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
    Some(names.map(String::from).collect())
}

/// Reads the class names in a pickle beside another one, if there are any.
fn names_in_pickle(path: &Path) -> Option<Vec<String>> {
    NAME_PICKLES
        .iter()
        .find_map(|(name, key)| pickled_arrays::names(&path.with_file_name(name), key))
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

    /// Returns a batch as a pickle of protocol 3.
    fn batch(key: &str, labels: &[u8], images: usize) -> Vec<u8> {
        let array = |count: usize, fill: u8| {
            let header = b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K";
            let shape = [&[count as u8][..], b"M\x00\x0ct"].concat();
            let size = ((count * PIXELS) as u32).to_le_bytes();
            let dtype = b"cnumpy\ndtype\n(Vu1\ntR(K\x03V|\ntb\x89B";
            [
                header,
                &shape[..],
                dtype,
                &size,
                &vec![fill; count * PIXELS],
                b"tb",
            ]
            .concat()
        };
        let labels: Vec<u8> = labels.iter().flat_map(|label| [b'K', *label]).collect();
        let key = format!("C{}{key}](", char::from(key.len() as u8));
        [
            b"\x80\x03}(C\x04data",
            &array(images, 9)[..],
            key.as_bytes(),
            &labels,
            b"eu.",
        ]
        .concat()
    }

    #[test]
    fn batches_may_be_pickles() {
        let names = b"\x80\x03}C\x0blabel_names](C\x08airplaneC\x04birdes.".to_vec();
        let dataset = dataset(&[
            ("data_batch_1", batch("labels", &[1, 0], 2)),
            ("data_batch_2", batch("labels", &[1], 1)),
            ("test_batch", batch("labels", &[0], 1)),
            ("batches.meta", names),
        ])
        .unwrap();
        assert_eq!(dataset.info.classes, ["airplane", "bird"]);
        assert_eq!(dataset.train.labels().collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(dataset.train.pixels(0).unwrap()[..], [9; PIXELS]);
        assert_eq!((dataset.info.shape(), dataset.test.len()), ([3, 32, 32], 1));
    }

    #[test]
    fn wrong_pickles_are_described() {
        let error = |train: Vec<u8>| {
            let error = dataset(&[("train", train), ("test", batch("fine_labels", &[0], 1))]);
            error
                .unwrap_err()
                .rsplit_once("/train: ")
                .unwrap()
                .1
                .to_string()
        };
        assert_eq!(
            error(batch("names", &[0], 1)),
            "a pickle without fine_labels or labels, expected a batch of CIFAR"
        );
        assert!(error(b"text".to_vec()).starts_with("a damaged pickle"));
        assert!(error(batch("fine_labels", &[0, 1], 1)).starts_with("1 images, but 2 labels"));
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
