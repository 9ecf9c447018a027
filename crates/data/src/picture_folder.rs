//! A folder of pictures: a sub-folder per class, or `train` and `test` with such sub-folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::idx_folder::is_idx_folder;
use crate::listing::{is_ignored, picture_files, sub_folders};
use crate::shuffle::permutation;

/// Without a folder `test`, one in this many pictures of each class is a test picture.
const TEST_DIVISOR: usize = 5;
/// Seed of the test split and of the order of the training pictures.
const SPLIT_SEED: u64 = 0;
/// Labels are `u8`.
const MAX_CLASSES: usize = 256;
/// The supported layouts, as part of error messages.
const EXPECTED: &str = "expected a sub-folder of pictures (PNG, JPEG, BMP, GIF, WebP) per class, or \
                        train and test with such sub-folders, or the four IDX files of MNIST";
/// Names of folders that hold a split, not a class.
const SPLIT_NAMES: [&str; 7] = [
    "train",
    "training",
    "test",
    "testing",
    "val",
    "valid",
    "validation",
];

/// The files of a folder of pictures, listed but not decoded.
#[derive(Debug)]
pub struct PictureFolder {
    pub(crate) path: PathBuf,
    /// Class names, in the order of the labels.
    pub(crate) classes: Vec<String>,
    /// Training pictures, shuffled.
    pub(crate) train: Vec<LabeledFile>,
    /// Test pictures, ordered by class.
    pub(crate) test: Vec<LabeledFile>,
    /// One message for each folder or file that cannot be accessed.
    pub(crate) listing_errors: Vec<String>,
    /// Whether the test pictures have a folder of their own.
    pub has_test_folder: bool,
}

/// The path and label of a picture.
#[derive(Debug)]
pub(crate) struct LabeledFile {
    pub(crate) path: PathBuf,
    pub(crate) label: u8,
}

/// The picture files of each class.
type Classes = BTreeMap<ClassName, Vec<PathBuf>>;

/// The numeric value of a class name and the name: `2` sorts before `10`, and numbers sort before
/// words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClassName(u64, String);

impl PictureFolder {
    /// Lists the pictures of a folder, and splits them into training and test pictures.
    ///
    /// # Errors
    /// Returns an error if the folder has fewer than two classes, a class without pictures or no
    /// test pictures, or if `test` has a class that `train` does not have.
    pub fn list(path: &Path) -> Result<Self, DataError> {
        let error = |message: String| DataError::Pictures {
            folder: path.to_path_buf(),
            message,
        };
        let mut listing_errors = Vec::new();
        let has_test_folder = has_test_folder(path)?;
        let classes = match has_test_folder {
            true => list_classes(&path.join("train"), &mut listing_errors)?,
            false => list_classes(path, &mut listing_errors)?,
        };
        check_classes(&classes).map_err(error)?;
        let names = classes.keys().map(|ClassName(_, name)| name.clone());
        let names: Vec<String> = names.collect();
        let (train, test) = match has_test_folder {
            true => {
                let test = list_classes(&path.join("test"), &mut listing_errors)?;
                let train = classes.into_values().enumerate();
                let train = train.flat_map(|(label, files)| labeled(label, files));
                (train.collect(), label_test(test, &names).map_err(error)?)
            }
            false => split_classes(classes),
        };
        if test.is_empty() {
            return Err(error(format!(
                "found no test pictures; expected {TEST_DIVISOR} or more pictures of some class, \
                 or a sub-folder test"
            )));
        }
        Ok(Self {
            path: path.to_path_buf(),
            classes: names,
            train: shuffled(train),
            test,
            listing_errors,
            has_test_folder,
        })
    }

    /// Returns whether a folder is laid out as a folder of pictures: it has sub-folders, but none
    /// of the four IDX files.
    pub fn is_at(path: &Path) -> bool {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut folders = entries.filter(|entry| entry.path().is_dir());
        folders.any(|entry| !is_ignored(&entry.file_name())) && !is_idx_folder(path)
    }

    /// Returns the number of pictures.
    pub fn count(&self) -> usize {
        self.train.len() + self.test.len()
    }
}

/// Returns whether the folder has the sub-folders `train` and `test` above its classes.
fn has_test_folder(folder: &Path) -> Result<bool, DataError> {
    let names: Vec<String> = sub_folders(folder)?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let is_split = |name: &&String| SPLIT_NAMES.contains(&name.to_lowercase().as_str());
    let mut splits: Vec<&str> = names.iter().filter(is_split).map(String::as_str).collect();
    splits.sort_unstable();
    match splits.as_slice() {
        [] => Ok(false),
        ["test", "train"] if names.len() == 2 => Ok(true),
        _ => Err(DataError::Pictures {
            folder: folder.to_path_buf(),
            message: format!(
                "sub-folders {}: expected either train and test, each with a sub-folder per class, \
                 or only a sub-folder per class; validation images are taken from train",
                names.join(", ")
            ),
        }),
    }
}

/// Lists the class folders in a folder, and the picture files of each.
fn list_classes(folder: &Path, listing_errors: &mut Vec<String>) -> Result<Classes, DataError> {
    let mut classes = Classes::new();
    for (name, path) in sub_folders(folder)? {
        let (files, errors) = picture_files(&path);
        listing_errors.extend(errors);
        let number = name.parse().unwrap_or(u64::MAX);
        classes.insert(ClassName(number, name), files);
    }
    Ok(classes)
}

/// Returns an error message if the classes cannot be used for training.
fn check_classes(classes: &Classes) -> Result<(), String> {
    if let Some((ClassName(_, name), _)) = classes.iter().find(|(_, files)| files.is_empty()) {
        return Err(format!(
            "found no picture in class folder {name}; {EXPECTED}"
        ));
    }
    match classes.len() {
        0 => Err(format!("found no sub-folders; {EXPECTED}")),
        1 => Err(format!("found a single class; {EXPECTED}")),
        2..=MAX_CLASSES => Ok(()),
        count => Err(format!(
            "found {count} classes, expected 2 to {MAX_CLASSES}"
        )),
    }
}

fn labeled(label: usize, files: Vec<PathBuf>) -> impl Iterator<Item = LabeledFile> {
    let label = label as u8;
    files
        .into_iter()
        .map(move |path| LabeledFile { path, label })
}

/// Splits each class at random into training and test pictures, both in the order of the files.
fn split_classes(classes: Classes) -> (Vec<LabeledFile>, Vec<LabeledFile>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (label, files) in classes.into_values().enumerate() {
        let mut is_test = vec![false; files.len()];
        let order = permutation(files.len(), SPLIT_SEED, label as u64);
        for &at in &order[..files.len() / TEST_DIVISOR] {
            is_test[at as usize] = true;
        }
        for (file, is_test) in labeled(label, files).zip(is_test) {
            match is_test {
                true => test.push(file),
                false => train.push(file),
            }
        }
    }
    (train, test)
}

/// Labels the test pictures by the class names of the training pictures.
fn label_test(test: Classes, names: &[String]) -> Result<Vec<LabeledFile>, String> {
    let mut labeled_files = Vec::new();
    for (ClassName(_, name), files) in test {
        let Some(label) = names.iter().position(|class| *class == name) else {
            return Err(format!(
                "test has class {name}, expected one of the classes of train: {}",
                names.join(", ")
            ));
        };
        labeled_files.extend(labeled(label, files));
    }
    Ok(labeled_files)
}

/// Shuffles the training pictures, so that the first or last part of them has pictures of all
/// classes.
fn shuffled(files: Vec<LabeledFile>) -> Vec<LabeledFile> {
    let mut files: Vec<Option<LabeledFile>> = files.into_iter().map(Some).collect();
    let order = permutation(files.len(), SPLIT_SEED, u64::MAX);
    let next = |at: u32| files[at as usize].take();
    order.into_iter().filter_map(next).collect()
}
