//! Datasets in tables of comma-separated values.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use crate::csv_table::{self, Table, TableError};
use crate::dataset::Dataset;
use crate::dataset_files::{DatasetFile, DatasetFiles, FileKind, dataset_name};
use crate::emnist::Emnist;
use crate::error::DataError;
use crate::image_dataset::ImageDataset;
use crate::parts::{Part, Parts};
use crate::regular_file;
use crate::split_name::Split;

impl Dataset {
    /// Reads tables of images. Those without labels are left out.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read, or there are no training images.
    pub(crate) fn from_tables(files: &DatasetFiles) -> Result<Self, DataError> {
        let mut parts: BTreeMap<Option<Split>, Part> = BTreeMap::new();
        let mut notes = Vec::new();
        let emnist = Emnist::of(&files.name);
        for DatasetFile { path, kind, split } in &files.files {
            if *kind == FileKind::UnlabeledTable {
                notes.push(format!(
                    "{}: not used, since its images have no labels",
                    path.display()
                ));
                continue;
            }
            for (inner, (images, labels)) in read_table(path)?.parts {
                let images = if emnist.is_some() {
                    images.transposed()
                } else {
                    images
                };
                let labels = match &emnist {
                    Some(emnist) => labels.renamed(|number| emnist.class(number)),
                    None => labels,
                };
                let part = Part {
                    path: path.clone(),
                    images,
                    labels,
                };
                if let Some(earlier) = parts.insert(inner.or(*split), part) {
                    let message =
                        format!("images of the same split as in {}", earlier.path.display());
                    return Err(DataError::invalid(path, message));
                }
            }
        }
        let Some(train) = parts
            .remove(&Some(Split::Train))
            .or_else(|| parts.remove(&None))
        else {
            let message = "found no table of images with labels to train on; expected a column label and a column per pixel";
            return Err(DataError::invalid(&files.path, message.into()));
        };
        Parts {
            path: files.path.clone(),
            classes: None,
            train,
            validation: parts.remove(&Some(Split::Validation)),
            test: parts.remove(&Some(Split::Test)),
            notes,
        }
        .into_dataset()
    }
}

/// Reads the images of a table in their order, without their labels.
///
/// # Errors
/// Returns an error if the file is no table of images.
pub fn read_images(path: &Path) -> Result<ImageDataset, DataError> {
    let mut parts = read_table(path)?.parts.into_values();
    match (parts.next(), parts.next()) {
        (Some((images, _)), None) => {
            let images = match Emnist::of(&dataset_name(path)) {
                Some(_) => images.transposed(),
                None => images,
            };
            let labels = vec![0; images.count()];
            Ok(ImageDataset::new(images, labels).expect("a label for each image"))
        }
        _ => Err(DataError::invalid(
            path,
            "has several splits, expected rows without a split".into(),
        )),
    }
}

/// Whether a file has the name of a table.
pub fn is_table(path: &Path) -> bool {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    matches!(extension.as_str(), "csv" | "tsv")
}

fn read_table(path: &Path) -> Result<Table, DataError> {
    let file = regular_file::open(path).map_err(DataError::read(path))?;
    csv_table::parse(file).map_err(|error: TableError| match error.source() {
        Some(source) => DataError::invalid(path, format!("{error}: {source}")),
        None => DataError::invalid(path, error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let prefix = folder.path().display().to_string();
        let files = DatasetFiles::find(folder.path()).unwrap().unwrap();
        Dataset::from_tables(&files).map_err(|error| error.to_string().replace(&prefix, "DIR"))
    }

    #[test]
    fn tables_of_both_splits_are_joined() {
        let dataset = read(&[
            ("mnist_train.csv", "7,1,2,3,4\n3,5,6,7,8\n7,1,1,1,1\n"),
            ("mnist_test.csv", "3,9,9,9,9\n"),
        ])
        .unwrap();
        assert_eq!(dataset.info.classes, ["3", "7"]);
        assert_eq!((dataset.train.len(), dataset.test.len()), (3, 1));
    }

    #[test]
    fn a_table_without_labels_is_not_used() {
        let rows: String = (0..40)
            .map(|row| format!("{},{row},2,3,4\n", row % 2))
            .collect();
        let dataset = read(&[
            (
                "train.csv",
                &format!("label,pixel0,pixel1,pixel2,pixel3\n{rows}"),
            ),
            ("test.csv", "pixel0,pixel1,pixel2,pixel3\n1,2,3,4\n"),
            ("sample_submission.csv", "ImageId,Label\n1,0\n"),
        ])
        .unwrap();
        assert_eq!(dataset.train.len() + dataset.test.len(), 40);
        assert!(dataset.notes[0].ends_with("test.csv: not used, since its images have no labels"));
    }

    #[test]
    fn letters_of_emnist_are_upright_and_named() {
        let dataset = read(&[
            ("emnist-letters-train.csv", "1,1,2,3,4\n26,5,6,7,8\n"),
            ("emnist-letters-test.csv", "2,9,9,9,9\n"),
        ]);
        assert_eq!(
            dataset.unwrap_err(),
            "DIR/emnist-letters-test.csv: label B of image 0, expected one of the classes A, Z"
        );
        let dataset = read(&[
            ("emnist-letters-train.csv", "26,1,2,3,4\n1,5,6,7,8\n"),
            ("emnist-letters-test.csv", "26,9,9,9,9\n"),
        ])
        .unwrap();
        assert_eq!(dataset.info.classes, ["A", "Z"]);
        assert_eq!(dataset.train.pixels(0).unwrap()[..], [1, 3, 2, 4]);
    }

    #[test]
    fn a_wrong_row_is_named_with_its_file() {
        let error = read(&[("train.csv", "label,a,b,c,d\n1,2,3,4,5\n1,2,300,4,5\n")]).unwrap_err();
        assert_eq!(
            error,
            "DIR/train.csv: line 3: column 3: found \"300\", expected a pixel as a whole number from 0 to 255"
        );
    }
}
