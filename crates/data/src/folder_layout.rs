//! The levels of a folder of pictures: splits, perhaps, above the classes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::listing::{has_files, sub_folders};
use crate::split_name::Split;

/// Largest depth of folders that hold nothing but one folder.
const MAX_DEPTH: usize = 4;
/// Number of names that a message lists.
const MAX_NAMES: usize = 4;

/// The folders whose sub-folders are the classes.
#[derive(Debug, PartialEq)]
pub(crate) struct FolderLayout {
    /// Training pictures, or all pictures if there is no folder for the test pictures.
    pub(crate) train: PathBuf,
    pub(crate) validation: Option<PathBuf>,
    pub(crate) test: Option<PathBuf>,
    /// Warnings about folders that are not used.
    pub(crate) notes: Vec<String>,
}

impl FolderLayout {
    /// Finds the levels of a folder.
    ///
    /// # Errors
    /// Returns an error if folders cannot be read, or if it is not clear which level holds the classes.
    pub(crate) fn of(folder: &Path) -> Result<Self, DataError> {
        let error = |message: String| DataError::Pictures {
            folder: folder.to_path_buf(),
            message,
        };
        let root = inner(folder)?;
        let folders = sub_folders(&root)?;
        let splits = folders
            .iter()
            .filter_map(|(name, path)| Some((Split::of_folder(name)?, path)));
        let splits: Vec<(Split, &PathBuf)> = splits.collect();
        let mut layout = Self {
            train: root.clone(),
            validation: None,
            test: None,
            notes: Vec::new(),
        };
        if !splits.is_empty() {
            let unique = |split: Split| {
                let mut paths = splits.iter().filter(|(other, _)| *other == split);
                let first = paths.next().map(|(_, path)| path.as_path());
                match (first, paths.next()) {
                    (Some(first), Some((_, second))) => Err(error(format!(
                        "sub-folders {} and {} have names of the same split: choose one of them with --data",
                        file_name(first),
                        file_name(second)
                    ))),
                    (first, _) => Ok(first),
                }
            };
            let train = unique(Split::Train)?;
            let (validation, test) = (unique(Split::Validation)?, unique(Split::Test)?);
            let Some(train) = train.filter(|_| splits.len() == folders.len()) else {
                let names = folders.iter().map(|(name, _)| name.as_str());
                return Err(error(format!(
                    "sub-folders {}: expected train, and perhaps val and test, each with a sub-folder per class, or only a \
                     sub-folder per class",
                    shortened(names)
                )));
            };
            layout.train = inner(train)?;
            layout.validation = layout.labeled(validation)?;
            layout.test = layout.labeled(test)?;
        }
        let levels = [&layout.train].into_iter().chain(&layout.validation);
        for level in levels.chain(&layout.test) {
            if let Some(message) = deeper_classes(level)? {
                return Err(error(message));
            }
        }
        Ok(layout)
    }

    /// Returns the folder of a split with class folders; without them, its pictures have no labels.
    fn labeled(&mut self, split: Option<&Path>) -> Result<Option<PathBuf>, DataError> {
        let Some(split) = split else {
            return Ok(None);
        };
        let level = inner(split)?;
        if sub_folders(&level)?.is_empty() {
            self.notes.push(format!(
                "{}: not used, since it has no sub-folder per class, and so its pictures have no labels",
                split.display()
            ));
            return Ok(None);
        }
        Ok(Some(level))
    }
}

/// Returns the first folder within `folder` that holds something else than a folder with folders.
fn inner(folder: &Path) -> Result<PathBuf, DataError> {
    let mut folder = folder.to_path_buf();
    for _ in 0..MAX_DEPTH {
        let folders = sub_folders(&folder)?;
        let [(_, only)] = folders.as_slice() else {
            break;
        };
        // The pictures of the only class, or of a split, are no further level.
        if has_files(&folder) || (sub_folders(only)?.is_empty() && !is_repeated(&folder, only)) {
            break;
        }
        folder = only.clone();
    }
    Ok(folder)
}

/// Whether a folder holds a folder of its own name, as archives often do.
fn is_repeated(folder: &Path, only: &Path) -> bool {
    folder.file_name() == only.file_name()
}

/// Returns a message if the classes are a level below: if all sub-folders hold no files but the same sub-folders.
fn deeper_classes(level: &Path) -> Result<Option<String>, DataError> {
    let folders = sub_folders(level)?;
    let mut common: Option<BTreeSet<String>> = None;
    for (_, folder) in &folders {
        if has_files(folder) {
            return Ok(None);
        }
        let names: BTreeSet<String> = sub_folders(folder)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        // An empty folder has no say.
        if !names.is_empty() {
            common = Some(match common {
                None => names,
                Some(common) => common.intersection(&names).cloned().collect(),
            });
        }
    }
    let common = common.unwrap_or_default();
    if folders.len() < 2 || common.len() < 2 {
        return Ok(None);
    }
    let outer = shortened(folders.iter().map(|(name, _)| name.as_str()));
    let inner = shortened(common.iter().map(String::as_str));
    let example = &folders[0].1;
    Ok(Some(format!(
        "sub-folders {outer} all hold the sub-folders {inner}: if those are the classes, choose one folder, such as --data \
         {}, or join them to one folder per class",
        example.display()
    )))
}

/// Lists the first names.
fn shortened<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let mut names: Vec<&str> = names.take(MAX_NAMES).collect();
    if count > names.len() {
        names.push("...");
    }
    names.join(", ")
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns the layout of a folder with these files, its paths relative to the folder.
    fn layout(files: &[&str]) -> Result<FolderLayout, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            match file.ends_with('/') {
                true => fs::create_dir_all(path).unwrap(),
                false => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "").unwrap();
                }
            }
        }
        let root = folder.path();
        let relative = |path: PathBuf| path.strip_prefix(root).unwrap().to_path_buf();
        let prefix = format!("{}/", root.display());
        match FolderLayout::of(root) {
            Ok(layout) => Ok(FolderLayout {
                train: relative(layout.train),
                validation: layout.validation.map(relative),
                test: layout.test.map(relative),
                notes: layout
                    .notes
                    .iter()
                    .map(|note| note.replace(&prefix, ""))
                    .collect(),
            }),
            Err(error) => Err(error
                .to_string()
                .replace(&prefix, "")
                .replace(&format!("{}: ", root.display()), "")),
        }
    }

    fn expect(train: &str, validation: Option<&str>, test: Option<&str>) -> FolderLayout {
        FolderLayout {
            train: train.into(),
            validation: validation.map(PathBuf::from),
            test: test.map(PathBuf::from),
            notes: Vec::new(),
        }
    }

    #[test]
    fn names_of_folders_state_splits() {
        for (files, expected) in [
            (vec!["a/1", "b/1"], expect("", None, None)),
            (vec!["a/x/1", "b/y/1"], expect("", None, None)),
            (
                vec!["train/a/1", "train/b/1", "val/a/1"],
                expect("train", Some("val"), None),
            ),
            (
                vec!["Train/a/1", "VALID/a/1", "Test/a/1"],
                expect("Train", Some("VALID"), Some("Test")),
            ),
            (
                vec!["training/a/1", "testing/a/1"],
                expect("training", None, Some("testing")),
            ),
            (
                vec!["mnist_png/training/0/1", "mnist_png/testing/0/1"],
                expect("mnist_png/training", None, Some("mnist_png/testing")),
            ),
            (
                vec!["trainingSet/trainingSet/0/1", "trainingSet/trainingSet/1/1"],
                expect("trainingSet/trainingSet", None, None),
            ),
        ] {
            assert_eq!(layout(&files), Ok(expected), "{files:?}");
        }
    }

    #[test]
    fn pictures_without_labels_are_not_used() {
        let unlabeled = layout(&["train/0/1", "train/1/1", "testSet/testSet/1"]).unwrap();
        assert_eq!((unlabeled.train, unlabeled.test), ("train".into(), None));
        assert_eq!(
            unlabeled.notes,
            [
                "testSet: not used, since it has no sub-folder per class, and so its pictures have no labels"
            ]
        );
    }

    #[test]
    fn an_unclear_level_of_the_classes_is_an_error() {
        let kaggle = ["trainingSet/0/1", "trainingSample/0/1", "testSet/1"];
        assert_eq!(
            layout(&kaggle).unwrap_err(),
            "sub-folders trainingSample and trainingSet have names of the same split: choose one of them with --data"
        );
        let writers = [
            "ann/0/1", "ann/1/1", "bob/0/1", "bob/1/1", "bob/2/1", "empty/",
        ];
        assert_eq!(
            layout(&writers).unwrap_err(),
            "sub-folders ann, bob, empty all hold the sub-folders 0, 1: if those are the classes, choose one folder, such \
             as --data ann, or join them to one folder per class"
        );
        let splits = ["cat/train/1", "cat/test/1", "dog/train/1", "dog/test/1"];
        assert!(
            layout(&splits)
                .unwrap_err()
                .contains("all hold the sub-folders test, train")
        );
        for others in [&["train/a/1", "cat/1"][..], &["test/a/1", "val/a/1"]] {
            let message = layout(others).unwrap_err();
            assert!(
                message.contains(": expected train, and perhaps val"),
                "{message}"
            );
        }
    }
}
