//! The files of a dataset that keeps many images in each file: IDX files, tables and arrays, found by their names.
//!
//! A file name is split into words. In `emnist-letters-train-images-idx3-ubyte.gz`, `train` is the split, `images` the content,
//! and `emnist-letters` the name of the dataset.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use crate::csv_table;
use crate::error::DataError;
use crate::listing::{is_folder, is_ignored, sub_folders};
use crate::regular_file;
use crate::split_name::{Split, words};

/// Depth of sub-folders that are searched: torchvision writes `MNIST/raw/train-images-idx3-ubyte`.
const MAX_DEPTH: usize = 3;
/// A folder of more entries holds pictures, and its sub-folders are not searched.
const MAX_ENTRIES: usize = 64;
/// A folder of more files and folders holds pictures, and no files of many images.
const MAX_FILES: usize = 1000;
/// Number of datasets that a message lists.
const MAX_LISTED: usize = 8;

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    IdxImages,
    IdxLabels,
    /// Names of the classes of IDX labels.
    IdxMapping,
    /// Comma-separated values with labels.
    Table,
    /// The same without labels.
    UnlabeledTable,
    /// A single array of NumPy.
    Npy,
    /// Arrays of NumPy.
    Npz,
    /// Arrays of NumPy in a pickle of Python.
    Pickle,
    /// Images and labels of CIFAR, as fixed records.
    CifarBinary,
    /// Images and labels of CIFAR, as pickles of Python.
    CifarPickle,
}

/// A format of datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    Idx,
    Cifar,
    Numpy,
    Table,
}

/// A file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatasetFile {
    pub(crate) path: PathBuf,
    pub(crate) kind: FileKind,
    pub(crate) split: Option<Split>,
}

/// The files of one dataset and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatasetFiles {
    /// The folder that was chosen, or the folder and the name of the dataset.
    pub(crate) path: PathBuf,
    /// The words that name the dataset.
    pub(crate) name: String,
    pub(crate) format: Format,
    /// Sorted by path.
    pub(crate) files: Vec<DatasetFile>,
}

impl FileKind {
    fn format(self) -> Format {
        match self {
            Self::IdxImages | Self::IdxLabels | Self::IdxMapping => Format::Idx,
            Self::Table | Self::UnlabeledTable => Format::Table,
            Self::Npy | Self::Npz | Self::Pickle => Format::Numpy,
            Self::CifarBinary | Self::CifarPickle => Format::Cifar,
        }
    }
}

impl DatasetFiles {
    /// Finds the dataset in a folder: of several formats the first in the order of [`Format`]. `path` may also be a folder
    /// followed by the name of one of its datasets, such as `gzip/emnist-letters`. Returns `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the folder holds several datasets of a format.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>, DataError> {
        let mut found: Vec<Found> = Vec::new();
        let folder = match (path.parent(), path.file_name()) {
            _ if path.is_dir() => {
                search(path, 0, &mut found);
                path
            }
            (Some(folder), Some(name)) => {
                let name = name.to_string_lossy();
                found.extend(files_in(folder, 0));
                found.retain(|file| file.is_of(&name));
                folder
            }
            _ => return Ok(None),
        };
        let mut sets: BTreeMap<(Format, PathBuf, String), Vec<Found>> = BTreeMap::new();
        for file in found {
            let key = (
                file.file.kind.format(),
                file.home.clone(),
                file.name.clone(),
            );
            sets.entry(key).or_default().push(file);
        }
        sets.retain(|(format, ..), files| {
            *format != Format::Idx
                || files
                    .iter()
                    .any(|file| file.file.kind != FileKind::IdxMapping)
        });
        let Some(format) = sets.keys().map(|(format, ..)| *format).min() else {
            return Ok(None);
        };
        sets.retain(|(other, ..), _| *other == format);
        // Files beside a folder of their copies count, not the folder.
        let least_depth = sets.values().flatten().map(|file| file.depth).min();
        if format != Format::Idx || sets.keys().any(|(_, home, _)| home == folder) {
            sets.retain(|_, files| files.iter().any(|file| Some(file.depth) == least_depth));
        }
        if sets.len() > 1 {
            let names = sets.keys().map(|(_, home, name)| match name.as_str() {
                "" => home.display().to_string(),
                name => home.join(name).display().to_string(),
            });
            let mut names: Vec<String> = names.take(MAX_LISTED + 1).collect();
            if names.len() > MAX_LISTED {
                names[MAX_LISTED] = "...".into();
            }
            let message = format!(
                "found several datasets; choose one with --data: {}",
                names.join(", ")
            );
            return Err(DataError::invalid(folder, message));
        }
        Ok(sets
            .into_iter()
            .next()
            .map(|((format, _, name), files)| Self::new(path, name, format, files)))
    }

    fn new(path: &Path, name: String, format: Format, mut found: Vec<Found>) -> Self {
        // Copies of a file: the one nearest to the folder counts, and uncompressed before compressed.
        found.sort_by_key(|found| (found.depth, found.file.path.clone()));
        let mut files: Vec<DatasetFile> = Vec::new();
        let mut stems: Vec<String> = Vec::new();
        for Found { file, stem, .. } in found {
            let is_copy = stems.contains(&stem)
                && matches!(
                    file.kind,
                    FileKind::IdxImages
                        | FileKind::IdxLabels
                        | FileKind::Table
                        | FileKind::UnlabeledTable
                );
            if !is_copy {
                stems.push(stem);
                files.push(file);
            }
        }
        Self {
            path: path.to_path_buf(),
            name,
            format,
            files,
        }
    }

    /// Returns the first file of a kind and split.
    pub(crate) fn get(&self, kind: FileKind, split: Option<Split>) -> Option<&Path> {
        let is_wanted =
            |file: &&DatasetFile| file.kind == kind && (split.is_none() || file.split == split);
        self.files
            .iter()
            .find(is_wanted)
            .map(|file| file.path.as_path())
    }
}

/// A file with what groups it.
#[derive(Debug)]
struct Found {
    file: DatasetFile,
    /// The words that name the dataset.
    name: String,
    /// All words except `gz`.
    stem: String,
    /// The folder of the dataset.
    home: PathBuf,
    depth: usize,
}

/// Returns the words that name the dataset of a file, joined by hyphens.
pub(crate) fn dataset_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    dataset_words(&words(&stem)).join("-")
}

/// Whether a file has the name of one of IDX images or labels, compressed or not.
pub(crate) fn is_idx_file(path: &Path) -> bool {
    let found = Found::of(path.to_path_buf(), 0);
    found.is_some_and(|found| matches!(found.file.kind, FileKind::IdxImages | FileKind::IdxLabels))
}

/// Finds files in a folder, and if there are none, in its sub-folders.
fn search(folder: &Path, depth: usize, found: &mut Vec<Found>) {
    let files = files_in(folder, depth);
    let folders = sub_folders(folder).unwrap_or_default();
    if files.is_empty() && folders.len() <= MAX_ENTRIES && depth < MAX_DEPTH {
        for (_, folder) in &folders {
            search(folder, depth + 1, found);
        }
    }
    // What has the name of a missing file is reported when it is read.
    let misplaced = folders
        .into_iter()
        .filter_map(|(_, path)| Found::of(path, depth));
    let misplaced = misplaced
        .filter(|other| matches!(other.file.kind, FileKind::IdxImages | FileKind::IdxLabels));
    let misplaced = misplaced.filter(|other| !files.iter().any(|file| file.stem == other.stem));
    let misplaced: Vec<Found> = misplaced.filter(|_| !files.is_empty()).collect();
    found.extend(files);
    found.extend(misplaced);
}

/// Finds the files in a folder, unless it holds too many.
fn files_in(folder: &Path, depth: usize) -> Vec<Found> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries: Vec<DirEntry> = entries.take(MAX_FILES + 1).collect();
    if entries.len() > MAX_FILES {
        return Vec::new();
    }
    let entries = entries.into_iter();
    let files = entries.filter(|entry| !is_folder(entry) && !is_ignored(&entry.file_name()));
    files
        .filter_map(|entry| Found::of(entry.path(), depth))
        .collect()
}

impl Found {
    /// Whether the file belongs to the dataset of this name, such as `emnist-letters`.
    fn is_of(&self, name: &str) -> bool {
        !self.name.is_empty() && words(name).join("-") == self.name
    }

    /// Recognizes a file by its name.
    fn of(path: PathBuf, depth: usize) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let mut words = words(name);
        let extension = words.last().cloned()?;
        if extension == "gz" {
            words.pop();
        }
        let kind = match kind(&words, name)? {
            FileKind::Table => table_kind(&path)?,
            kind => kind,
        };
        let split = words.iter().find_map(|word| Split::of_word(word));
        let split = match kind {
            FileKind::CifarBinary | FileKind::CifarPickle if words[0] == "data" => {
                Some(Split::Train)
            }
            _ => split,
        };
        let home = home(&path, kind);
        Some(Self {
            name: match kind {
                FileKind::CifarBinary | FileKind::CifarPickle => String::new(),
                _ => dataset_words(&words).join("-"),
            },
            stem: words.join("-"),
            file: DatasetFile { path, kind, split },
            home,
            depth,
        })
    }
}

/// Returns whether the images of a table have labels; `None` for other tables.
fn table_kind(path: &Path) -> Option<FileKind> {
    let file = regular_file::open(path).ok()?;
    Some(match csv_table::has_labels(file)? {
        true => FileKind::Table,
        false => FileKind::UnlabeledTable,
    })
}

/// Returns the content that a file name states; `None` for other files.
fn kind(words: &[String], name: &str) -> Option<FileKind> {
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let is_batch = |suffix: &str| {
        let stem = name.strip_suffix(suffix);
        stem.is_some_and(|stem| {
            stem == "test_batch"
                || stem.starts_with("data_batch_")
                || matches!(stem, "train" | "test")
        })
    };
    match words.last()?.as_str() {
        "csv" | "tsv" => Some(FileKind::Table),
        "npy" => Some(FileKind::Npy),
        "npz" => Some(FileKind::Npz),
        "pkl" | "pickle" => Some(FileKind::Pickle),
        "bin" if is_batch(".bin") => Some(FileKind::CifarBinary),
        _ if is_batch("") => Some(FileKind::CifarPickle),
        _ if has(&["idx1", "idx2", "idx3", "ubyte"]) && has(&["images", "image", "imgs"]) => {
            Some(FileKind::IdxImages)
        }
        _ if has(&["idx1", "idx2", "idx3", "ubyte"]) && has(&["labels", "label"]) => {
            Some(FileKind::IdxLabels)
        }
        "txt" if has(&["mapping"]) => Some(FileKind::IdxMapping),
        _ => None,
    }
}

/// Returns the words of a dataset's name: those that are no split, content or format.
fn dataset_words(words: &[String]) -> Vec<String> {
    const OTHERS: [&str; 34] = [
        "pkl",
        "pickle",
        "class",
        "names",
        "categories",
        "lbls",
        "pixels",
        "images",
        "image",
        "imgs",
        "img",
        "labels",
        "label",
        "idx1",
        "idx2",
        "idx3",
        "ubyte",
        "int",
        "mapping",
        "txt",
        "csv",
        "tsv",
        "npy",
        "npz",
        "x",
        "y",
        "data",
        "target",
        "targets",
        "features",
        "set",
        "dataset",
        "gz",
        "inputs",
    ];
    let is_name =
        |word: &&String| Split::of_word(word).is_none() && !OTHERS.contains(&word.as_str());
    words.iter().filter(is_name).cloned().collect()
}

/// Returns the folder that a file belongs to. Some archives have a folder for each IDX file, with its name.
fn home(path: &Path, kind: FileKind) -> PathBuf {
    let parent = path.parent().unwrap_or(path);
    let is_wrapper = matches!(kind, FileKind::IdxImages | FileKind::IdxLabels)
        && parent
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| {
                let words = words(name);
                self::kind(&words, name) == Some(kind)
            });
    match (is_wrapper, parent.parent()) {
        (true, Some(outer)) => outer.to_path_buf(),
        _ => parent.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the dataset in a folder with these files: its name and the kinds, splits and relative paths of its files.
    fn find(files: &[&str], data: &str) -> Result<Option<(String, Vec<String>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content = match *file {
                "test.csv" => "pixel0,pixel1,pixel2,pixel3\n",
                "labels.csv" => "path,label\na/1.png,cat\n",
                _ => "label,pixel0,pixel1,pixel2,pixel3\n",
            };
            fs::write(path, content).unwrap();
        }
        let prefix = format!("{}/", folder.path().display());
        let path = match data {
            "" => folder.path().to_path_buf(),
            name => folder.path().join(name),
        };
        let found = DatasetFiles::find(&path);
        let found = found.map_err(|error| {
            error
                .to_string()
                .replace(&prefix, "")
                .replace(prefix.trim_end_matches('/'), "DIR")
        })?;
        Ok(found.map(|found| {
            let line = |file: &DatasetFile| {
                let path = file.path.display().to_string().replace(&prefix, "");
                format!("{:?} {:?} {path}", file.kind, file.split)
            };
            (found.name.clone(), found.files.iter().map(line).collect())
        }))
    }

    const MNIST: [&str; 4] = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ];

    fn in_folder(folder: &str, files: &[&str]) -> Vec<String> {
        files.iter().map(|file| format!("{folder}{file}")).collect()
    }

    #[test]
    fn idx_files_have_many_names() {
        let dotted = MNIST.map(|name| name.replace("-idx", ".idx"));
        let folders = MNIST.map(|name| format!("{name}/{name}"));
        let both = [
            dotted.clone(),
            MNIST.map(|name| format!("{name}/{}", name.replace("-idx", ".idx"))),
        ]
        .concat();
        for files in [
            MNIST.map(String::from).to_vec(),
            in_folder(
                "",
                &MNIST
                    .map(|name| format!("{name}.gz"))
                    .each_ref()
                    .map(String::as_str),
            ),
            dotted.to_vec(),
            folders.to_vec(),
            both,
            in_folder("MNIST/raw/", &MNIST),
            in_folder("raw/", &MNIST),
        ] {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let (name, found) = find(&files, "").unwrap().unwrap();
            assert_eq!(name, "", "{files:?}");
            let kinds: Vec<&str> = found
                .iter()
                .map(|line| line.split(" ").next().unwrap())
                .collect();
            assert_eq!(
                kinds.iter().filter(|kind| **kind == "IdxImages").count(),
                2,
                "{found:?}"
            );
            assert_eq!(kinds.len(), 4, "{found:?}");
        }
    }

    #[test]
    fn one_of_several_datasets_is_chosen_by_its_name() {
        let letters =
            MNIST.map(|name| format!("gzip/emnist-letters-{}.gz", name.replace("t10k", "test")));
        let digits =
            MNIST.map(|name| format!("gzip/emnist-digits-{}.gz", name.replace("t10k", "test")));
        let mapping = ["gzip/emnist-letters-mapping.txt".to_string()];
        let files = [&letters[..], &digits, &mapping].concat();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        assert_eq!(
            find(&files, "").unwrap_err(),
            "DIR: found several datasets; choose one with --data: gzip/emnist-digits, gzip/emnist-letters"
        );
        let (name, found) = find(&files, "gzip/emnist-letters").unwrap().unwrap();
        assert_eq!((name.as_str(), found.len()), ("emnist-letters", 5));
        let torchvision = [
            in_folder("MNIST/raw/", &MNIST),
            in_folder("FashionMNIST/raw/", &MNIST),
        ]
        .concat();
        let torchvision: Vec<&str> = torchvision.iter().map(String::as_str).collect();
        assert!(
            find(&torchvision, "")
                .unwrap_err()
                .ends_with("--data: FashionMNIST/raw, MNIST/raw")
        );
    }

    #[test]
    fn files_of_other_formats_are_recognized() {
        for (files, expected) in [
            (
                vec!["train.csv", "test.csv"],
                vec![
                    "UnlabeledTable Some(Test) test.csv",
                    "Table Some(Train) train.csv",
                ],
            ),
            (
                vec!["x_train.npy", "y_train.npy"],
                vec!["Npy Some(Train) x_train.npy", "Npy Some(Train) y_train.npy"],
            ),
            (vec!["mnist.npz"], vec!["Npz None mnist.npz"]),
            (
                vec![
                    "cifar-10-batches-bin/data_batch_1.bin",
                    "cifar-10-batches-bin/test_batch.bin",
                ],
                vec![
                    "CifarBinary Some(Train) cifar-10-batches-bin/data_batch_1.bin",
                    "CifarBinary Some(Test) cifar-10-batches-bin/test_batch.bin",
                ],
            ),
        ] {
            assert_eq!(find(&files, "").unwrap().unwrap().1, expected);
        }
        for files in [
            vec!["a/1.png", "b/1.png"],
            vec!["notes.txt", "train/a/1.png"],
            vec!["labels.csv", "a/1.png"],
        ] {
            assert_eq!(find(&files, "").unwrap(), None, "{files:?}");
        }
    }
}
