//! Datasets in files of NumPy: `.npz` archives and pickles with several arrays, or `.npy` files of one array.
//!
//! The names of arrays and files state what they contain: `x_train`, `train_images`, `X_test`, `labels`.

use std::collections::BTreeMap;
use std::path::Path;

use zip::ZipArchive;

use crate::dataset::Dataset;
use crate::dataset_files::{DatasetFiles, FileKind};
use crate::error::DataError;
use crate::image_dataset::Images;
use crate::labels::Labels;
use crate::npy::{Array, ArrayError};
use crate::parts::{Part, Parts};
use crate::pickled_arrays::{self, NamedArray};
use crate::regular_file;
use crate::split_name::{Split, words};

/// Compressed arrays of more bytes may not be this many times larger than their compressed size.
const MAX_RATIO: u64 = 200;
const LARGE: u64 = 256 << 20;

/// What an array contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Images,
    Labels,
    ClassNames,
}

/// The arrays read so far.
#[derive(Default)]
struct Arrays {
    images: BTreeMap<Option<Split>, (String, Images)>,
    labels: BTreeMap<Option<Split>, (String, Labels)>,
    classes: Option<Vec<String>>,
    /// Names of the others.
    unused: Vec<String>,
}

impl Dataset {
    /// Reads arrays of NumPy.
    ///
    /// # Errors
    /// Returns an error if an array cannot be read, or images or labels of the training split are missing.
    pub(crate) fn from_numpy(files: &DatasetFiles) -> Result<Self, DataError> {
        let mut arrays = Arrays::default();
        for file in &files.files {
            match file.kind {
                FileKind::Npz => arrays.read_archive(&file.path)?,
                FileKind::Pickle => {
                    let outer = words(&stem(&file.path));
                    for NamedArray { name, array } in pickled_arrays::read(&file.path)? {
                        arrays.add(&file.path, &name, &outer, || array)?;
                    }
                }
                _ => {
                    let stream = open(&file.path)?;
                    arrays.add(&file.path, &stem(&file.path), &[], || Array::read(stream))?;
                }
            }
        }
        arrays.into_parts(&files.path)?.into_dataset()
    }
}

impl Arrays {
    fn read_archive(&mut self, path: &Path) -> Result<(), DataError> {
        let damaged = |error: zip::result::ZipError| {
            DataError::invalid(path, format!("a damaged archive: {error}"))
        };
        let mut archive = ZipArchive::new(open(path)?).map_err(damaged)?;
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(damaged)?;
            let Some(name) = entry
                .name()
                .map_err(damaged)?
                .strip_suffix(".npy")
                .map(String::from)
            else {
                continue;
            };
            if entry.size() > LARGE && entry.size() / entry.compressed_size().max(1) > MAX_RATIO {
                let message =
                    format!("array {name}: expands to more than {MAX_RATIO} times its size");
                return Err(DataError::invalid(path, message));
            }
            self.add(path, &name, &words(&stem(path)), || Array::read(entry))?;
        }
        Ok(())
    }

    /// Reads an array if its name, or the words of its file, state what it contains.
    fn add(
        &mut self,
        path: &Path,
        name: &str,
        outer: &[String],
        read: impl FnOnce() -> Result<Array, ArrayError>,
    ) -> Result<(), DataError> {
        let error = |error: ArrayError| DataError::invalid(path, format!("array {name}: {error}"));
        let inner = words(name);
        let split = [&inner, outer]
            .into_iter()
            .find_map(|words| words.iter().find_map(|word| Split::of_word(word)));
        let Some(role) = role(&inner).or_else(|| role(outer)) else {
            self.unused.push(name.to_string());
            return Ok(());
        };
        let array = read().map_err(error)?;
        let earlier = match role {
            Role::Images => {
                let images = array.into_images().map_err(error)?;
                self.images
                    .insert(split, (name.to_string(), images))
                    .map(|(earlier, _)| earlier)
            }
            Role::Labels => {
                let labels = array.to_labels().map_err(error)?;
                self.labels
                    .insert(split, (name.to_string(), labels))
                    .map(|(earlier, _)| earlier)
            }
            Role::ClassNames => {
                self.classes = Some(array.to_names().map_err(error)?);
                None
            }
        };
        match earlier {
            Some(earlier) => {
                let message = format!("arrays {earlier} and {name} have names of the same content");
                Err(DataError::invalid(path, message))
            }
            None => Ok(()),
        }
    }

    /// Joins the images and labels of each split.
    fn into_parts(mut self, path: &Path) -> Result<Parts, DataError> {
        let splits: Vec<Option<Split>> = self.images.keys().copied().collect();
        let mut parts = BTreeMap::new();
        for split in splits {
            if let (Some((name, images)), Some((_, labels))) =
                (self.images.remove(&split), self.labels.remove(&split))
            {
                parts.insert(
                    split,
                    Part {
                        // Named with its array in messages.
                        path: format!("{}, {name}", path.display()).into(),
                        images,
                        labels,
                    },
                );
            }
        }
        let Some(train) = parts
            .remove(&Some(Split::Train))
            .or_else(|| parts.remove(&None))
        else {
            let mut names: Vec<String> = self.unused;
            names.extend(self.images.into_values().map(|(name, _)| name));
            names.extend(self.labels.into_values().map(|(name, _)| name));
            let message = format!(
                "found no images with labels to train on, but the arrays {}; expected names such as x_train and y_train, \
                 or images and labels",
                names.join(", ")
            );
            return Err(DataError::invalid(path, message));
        };
        let are_numbered = |labels: &Labels, count: usize| {
            labels
                .names()
                .all(|name| name.parse::<usize>().is_ok_and(|number| number < count))
        };
        // Numbers are indices of the names.
        let classes = self
            .classes
            .filter(|classes| are_numbered(&train.labels, classes.len()));
        let named = |part: Part| part.named(classes.as_deref());
        Ok(Parts {
            path: path.to_path_buf(),
            train: named(train),
            validation: parts.remove(&Some(Split::Validation)).map(named),
            test: parts.remove(&Some(Split::Test)).map(named),
            classes: classes.clone(),
            notes: Vec::new(),
        })
    }
}

/// Returns what the words of a name state.
fn role(words: &[String]) -> Option<Role> {
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    if has(&["names", "classes", "categories"]) {
        Some(Role::ClassNames)
    } else if has(&["y", "labels", "label", "targets", "target", "lbls"]) {
        Some(Role::Labels)
    } else if has(&[
        "x", "images", "image", "imgs", "img", "data", "features", "pixels", "inputs",
    ]) {
        Some(Role::Images)
    } else {
        None
    }
}

fn open(path: &Path) -> Result<std::fs::File, DataError> {
    regular_file::open(path).map_err(DataError::read(path))
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::npy::tests::npy;

    /// Returns an archive of arrays.
    fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in arrays {
            archive
                .start_file(format!("{name}.npy"), SimpleFileOptions::default())
                .unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    fn images(count: usize, first: u8) -> Vec<u8> {
        let pixels: Vec<u8> = (0..4 * count).map(|at| first + at as u8).collect();
        npy("'|u1'", &format!("({count}, 2, 2)"), &pixels)
    }

    fn labels(values: &[u8]) -> Vec<u8> {
        npy("'|u1'", &format!("({}, 1)", values.len()), values)
    }

    fn read(files: &[(&str, Vec<u8>)]) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let files = DatasetFiles::find(folder.path()).unwrap().unwrap();
        let prefix = folder.path().display().to_string();
        Dataset::from_numpy(&files).map_err(|error| error.to_string().replace(&prefix, "DIR"))
    }

    #[test]
    fn names_of_arrays_state_their_content() {
        let split = |names: [&'static str; 4]| {
            let contents = [
                images(3, 0),
                labels(&[1, 0, 1]),
                images(1, 50),
                labels(&[1]),
            ];
            names.into_iter().zip(contents).collect::<Vec<_>>()
        };
        for names in [
            ["x_train", "y_train", "x_test", "y_test"],
            ["train_images", "train_labels", "test_images", "test_labels"],
            ["X_train", "Y_train", "X_test", "Y_test"],
            ["trainX", "trainY", "testX", "testY"],
        ] {
            let dataset = read(&[("mnist.npz", npz(&split(names)))]).unwrap();
            assert_eq!(
                (dataset.train.len(), dataset.test.len()),
                (3, 1),
                "{names:?}"
            );
            assert_eq!(dataset.train.labels().collect::<Vec<_>>(), [1, 0, 1]);
        }
        let files = split(["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"]);
        assert_eq!(read(&files).unwrap().train.len(), 3);
        let files = split([
            "k-train-imgs.npz",
            "k-train-labels.npz",
            "k-test-imgs.npz",
            "k-test-labels.npz",
        ]);
        let files: Vec<_> = files
            .into_iter()
            .map(|(name, bytes)| (name, npz(&[("arr_0", bytes)])))
            .collect();
        assert_eq!(read(&files).unwrap().test.len(), 1);
    }

    #[test]
    fn validation_images_and_class_names_are_used() {
        let names = npy(
            "'<U3'",
            "(2,)",
            &"catdog"
                .bytes()
                .flat_map(|letter| [letter, 0, 0, 0])
                .collect::<Vec<_>>(),
        );
        let dataset = read(&[(
            "pets.npz",
            npz(&[
                ("train_images", images(3, 0)),
                ("train_labels", labels(&[1, 0, 1])),
                ("val_images", images(2, 30)),
                ("val_labels", labels(&[0, 1])),
                ("test_images", images(1, 50)),
                ("test_labels", labels(&[0])),
                ("class_names", names),
            ]),
        )])
        .unwrap();
        assert_eq!(dataset.info.classes, ["cat", "dog"]);
        assert_eq!(
            dataset.validation.unwrap().labels().collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(dataset.train.labels().collect::<Vec<_>>(), [1, 0, 1]);
    }

    #[test]
    fn wrong_archives_are_described() {
        let error = |arrays: &[(&str, Vec<u8>)]| read(&[("a.npz", npz(arrays))]).unwrap_err();
        assert_eq!(
            error(&[("first", images(1, 0)), ("y_train", labels(&[1]))]),
            "DIR: found no images with labels to train on, but the arrays first, y_train; expected names such as x_train \
             and y_train, or images and labels"
        );
        assert_eq!(
            error(&[
                ("x_train", images(3, 0)),
                ("y_train", npy("'|O'", "(3,)", b"\x80\x04."))
            ]),
            "DIR/a.npz: array y_train: Python objects, which could run code: save it as an array of numbers"
        );
        assert_eq!(
            error(&[("x_train", images(3, 0)), ("y_train", labels(&[1, 2]))]),
            "DIR, x_train: 3 images, but 2 labels"
        );
        assert_eq!(
            error(&[("x_train", images(3, 0)), ("train_images", images(3, 0))]),
            "DIR/a.npz: arrays x_train and train_images have names of the same content"
        );
        let message = read(&[("a.npz", b"PK no archive".to_vec())]).unwrap_err();
        assert!(
            message.starts_with("DIR/a.npz: a damaged archive: "),
            "{message}"
        );
    }
}
