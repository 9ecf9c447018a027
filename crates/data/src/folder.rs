//! Folders of pictures: a sub-folder per class, or `train` and `test` with such sub-folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use crate::dataset::{ImageDataset, Images};
use crate::digest::sha256_hex;
use crate::info::DatasetInfo;
use crate::listing::{is_passed_over, pictures, sub_folders};
use crate::loader::permutation;
use crate::picture::{Picture, PictureError};
use crate::preparation::Preparation;
use crate::source::{DataError, Splits};

/// Of a folder without `test`, one picture in so many of each class is a test picture.
const TEST_PART: usize = 5;
/// Decides which, and the order of the others.
const SPLIT_SEED: u64 = 0;
/// To be raised when pictures are decoded or prepared in another way.
const DECODING: u32 = 1;
/// A label is a byte.
const MAX_CLASSES: usize = 256;
/// Errors that are named in another.
const NAMED: usize = 5;
/// What a folder should look like.
const EXPECTED: &str = "expected a sub-folder of pictures (PNG, JPEG, BMP, GIF, WebP) per class, or \
                        train and test with such sub-folders, or the four IDX files of MNIST";
/// Names of folders that hold splits, not classes.
const SPLITS: [&str; 7] = [
    "train",
    "training",
    "test",
    "testing",
    "val",
    "valid",
    "validation",
];

/// The pictures of a folder, found but not yet read.
#[derive(Debug)]
pub struct PictureFolder {
    path: PathBuf,
    /// Names of the classes, in the order of their labels.
    classes: Vec<String>,
    train: Vec<File>,
    test: Vec<File>,
    /// Folders that could not be searched, and why.
    unsearched: Vec<String>,
    /// Whether the pictures to judge by have a folder of their own.
    pub is_divided: bool,
}

/// How pictures are brought to the network.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How they are prepared.
    pub preparation: Preparation,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
}

/// The pictures of a folder, decoded.
#[derive(Debug)]
pub struct Pictures {
    /// Those to learn from.
    pub train: ImageDataset,
    /// Those to judge by.
    pub test: ImageDataset,
    /// Those that could not be read, and why: a line each.
    pub unreadable: Vec<String>,
    /// Whether the system could not read some of them: another time it may.
    pub is_incomplete: bool,
}

/// A picture's file and class.
#[derive(Debug)]
struct File {
    path: PathBuf,
    label: u8,
}

/// A decoded picture, `[channels, height, width]`, and its class.
type Labelled = (Vec<u8>, u8);

/// The pictures under each class.
type Classes = BTreeMap<ClassName, Vec<PathBuf>>;

/// Sorted as people do: 2 comes before 10, and numbers before words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClassName(u64, String);

impl PictureFolder {
    /// Lists a folder.
    ///
    /// # Errors
    /// When there are no pictures of at least two classes, or the test pictures are of others.
    pub fn list(path: &Path) -> Result<Self, DataError> {
        let error = |message: String| DataError::Pictures {
            folder: path.to_path_buf(),
            message,
        };
        let mut unsearched = Vec::new();
        let is_divided = is_divided(path)?;
        let train = match is_divided {
            true => classes(&path.join("train"), &mut unsearched)?,
            false => classes(path, &mut unsearched)?,
        };
        if let Some((ClassName(_, name), _)) = train.iter().find(|(_, files)| files.is_empty()) {
            return Err(error(format!(
                "no picture in class folder {name}; {EXPECTED}"
            )));
        }
        match train.len() {
            0 => return Err(error(format!("no sub-folders; {EXPECTED}"))),
            1 => return Err(error(format!("a single class; {EXPECTED}"))),
            count if count > MAX_CLASSES => {
                return Err(error(format!(
                    "{count} classes, expected 2 to {MAX_CLASSES}"
                )));
            }
            _ => {}
        }
        let mut folder = Self {
            path: path.to_path_buf(),
            classes: train
                .keys()
                .map(|ClassName(_, name)| name.clone())
                .collect(),
            train: Vec::new(),
            test: Vec::new(),
            unsearched: Vec::new(),
            is_divided,
        };
        for (label, files) in train.into_values().enumerate() {
            let label = label as u8;
            let mut is_test = vec![false; files.len()];
            if !is_divided {
                let order = permutation(files.len(), SPLIT_SEED, u64::from(label));
                for &at in &order[..files.len() / TEST_PART] {
                    is_test[at as usize] = true;
                }
            }
            for (path, is_test) in files.into_iter().zip(is_test) {
                let split = match is_test {
                    true => &mut folder.test,
                    false => &mut folder.train,
                };
                split.push(File { path, label });
            }
        }
        if is_divided {
            for (ClassName(_, name), files) in classes(&path.join("test"), &mut unsearched)? {
                let Some(label) = folder.classes.iter().position(|class| *class == name) else {
                    return Err(error(format!(
                        "test has a class {name} that train has not: {}",
                        folder.classes.join(", ")
                    )));
                };
                let label = label as u8;
                folder
                    .test
                    .extend(files.into_iter().map(|path| File { path, label }));
            }
        }
        if folder.test.is_empty() {
            return Err(error(format!(
                "no picture is left to test with; expected {TEST_PART} or more of some class, \
                 or a sub-folder test"
            )));
        }
        // The first of them, or the last, shall be of all classes.
        let mut shuffled: Vec<Option<File>> = folder.train.into_iter().map(Some).collect();
        let order = permutation(shuffled.len(), SPLIT_SEED, u64::MAX);
        let next = |at: u32| shuffled[at as usize].take();
        folder.train = order.into_iter().filter_map(next).collect();
        folder.unsearched = unsearched;
        Ok(folder)
    }

    /// Whether a folder is one of pictures: it has sub-folders, but none of MNIST's files.
    pub fn is_at(path: &Path) -> bool {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut folders = entries.filter(|entry| entry.path().is_dir());
        folders.any(|entry| !is_passed_over(&entry.file_name())) && !Splits::is_at(path)
    }

    /// How many pictures there are.
    pub fn count(&self) -> usize {
        self.train.len() + self.test.len()
    }

    /// Names the pictures as they are now, brought to the network in this way: other files, dates
    /// or sizes make another name.
    pub fn fingerprint(&self, wanted: Wanted) -> String {
        let mut lines = vec![format!("{DECODING} {wanted:?}\n")];
        for (split, files) in [("train", &self.train), ("test", &self.test)] {
            for File { path, label } in files {
                let metadata = fs::metadata(path).ok();
                let modified = metadata
                    .as_ref()
                    .and_then(|metadata| metadata.modified().ok());
                let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let bytes = metadata.map(|metadata| metadata.len());
                lines.push(format!("{split} {label} {path:?} {bytes:?} {modified:?}\n"));
            }
        }
        sha256_hex(lines)
    }

    /// Decodes all pictures, on all cores. Of [`Preparation::Picture`] they have three channels, or
    /// one if no training picture has colour; otherwise one. `progress` is called after each.
    ///
    /// # Errors
    /// When a split or a class has no picture that can be read. Otherwise those that cannot are
    /// left out, and told of.
    pub fn decode(
        &self,
        wanted: Wanted,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Pictures, DataError> {
        let Wanted {
            preparation,
            height,
            width,
        } = wanted;
        let channels = match preparation {
            Preparation::Picture => 3,
            Preparation::Handwriting | Preparation::Object => 1,
        };
        let decode = |file: &File| -> Result<Labelled, (String, bool)> {
            let decoded = Picture::open(&file.path)
                .and_then(|picture| preparation.prepare(&picture, [channels, height, width]));
            progress();
            let told = |error: PictureError| {
                let is_of_system = matches!(error, PictureError::Read(_));
                (
                    format!("{}: {}", file.path.display(), error.with_source()),
                    is_of_system,
                )
            };
            Ok((decoded.map_err(told)?, file.label))
        };
        let mut unreadable = self.unsearched.clone();
        let mut is_incomplete = !unreadable.is_empty();
        let mut read = |files: &[File]| {
            let decoded: Vec<_> = files.par_iter().map(decode).collect();
            let mut pictures = Vec::with_capacity(decoded.len());
            for picture in decoded {
                match picture {
                    Ok(picture) => pictures.push(picture),
                    Err((message, is_of_system)) => {
                        unreadable.push(message);
                        is_incomplete |= is_of_system;
                    }
                }
            }
            pictures
        };
        let (train, test) = (read(&self.train), read(&self.test));
        let is_missing = |class: &usize| {
            let mut labels = train.iter().map(|(_, label)| usize::from(*label));
            !labels.any(|label| label == *class)
        };
        let missing = (0..self.classes.len()).find(is_missing);
        if missing.is_some() || test.is_empty() {
            let what = match missing {
                Some(class) => format!("class {}", self.classes[class]),
                None => "the test split".into(),
            };
            let named = unreadable[..unreadable.len().min(NAMED)].join("; ");
            let more = match unreadable.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            return Err(DataError::Pictures {
                folder: self.path.clone(),
                message: format!("no readable picture of {what}: {named}{more}"),
            });
        }
        let dataset = |pictures| dataset(pictures, channels, height, width);
        let (mut train, mut test) = (dataset(train), dataset(test));
        if channels == 3 && train.is_grey() {
            (train, test) = (train.with_channels(1), test.with_channels(1));
        }
        Ok(Pictures {
            train,
            test,
            unreadable,
            is_incomplete,
        })
    }

    /// What is to be known about the pictures, once they are decoded.
    pub fn splits(self, preparation: Preparation, pictures: Pictures) -> Splits {
        let Pictures {
            train,
            test,
            unreadable,
            ..
        } = pictures;
        let info = DatasetInfo::measured(&self.path, self.classes, preparation, &train);
        Splits {
            info,
            train,
            test,
            unreadable,
        }
    }
}

/// Whether `train` and `test` are above the classes.
fn is_divided(folder: &Path) -> Result<bool, DataError> {
    let found: Vec<String> = sub_folders(folder)?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let is_split = |name: &&String| SPLITS.contains(&name.to_lowercase().as_str());
    let mut splits: Vec<&str> = found.iter().filter(is_split).map(String::as_str).collect();
    splits.sort_unstable();
    match splits.as_slice() {
        [] => Ok(false),
        ["test", "train"] if found.len() == 2 => Ok(true),
        _ => Err(DataError::Pictures {
            folder: folder.to_path_buf(),
            message: format!(
                "sub-folders {}: expected either train and test, each with a sub-folder per class, \
                 or the classes alone; validation is set aside from train by --validation",
                found.join(", ")
            ),
        }),
    }
}

/// The sub-folders of a folder, and the pictures anywhere under each.
fn classes(folder: &Path, unsearched: &mut Vec<String>) -> Result<Classes, DataError> {
    let mut classes = Classes::new();
    for (name, path) in sub_folders(folder)? {
        let (files, errors) = pictures(&path);
        unsearched.extend(errors);
        let number = name.parse().unwrap_or(u64::MAX);
        classes.insert(ClassName(number, name), files);
    }
    Ok(classes)
}

/// Decoded pictures as a dataset.
fn dataset(pictures: Vec<Labelled>, channels: usize, height: usize, width: usize) -> ImageDataset {
    let mut pixels = Vec::with_capacity(pictures.len() * channels * height * width);
    let mut labels = Vec::with_capacity(pictures.len());
    for (picture, label) in pictures {
        pixels.extend(picture);
        labels.push(label);
    }
    let images = Images {
        channels,
        height,
        width,
        pixels,
    };
    ImageDataset::new(images, labels).expect("a label for each picture")
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;
    use crate::picture::tests::file;

    /// A folder with files in it.
    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn grey(value: u8) -> Vec<u8> {
        file(
            GrayImage::from_pixel(10, 12, Luma([value])),
            ImageFormat::Png,
        )
    }

    fn wanted(side: usize) -> Wanted {
        Wanted {
            preparation: Preparation::Picture,
            height: side,
            width: side,
        }
    }

    fn load(folder: &Path) -> Result<(Splits, Vec<String>), DataError> {
        let list = PictureFolder::list(folder)?;
        let pictures = list.decode(wanted(8), &|| {})?;
        let unreadable = pictures.unreadable.clone();
        Ok((list.splits(Preparation::Picture, pictures), unreadable))
    }

    #[track_caller]
    fn error(files: &[(&str, Vec<u8>)]) -> String {
        let folder = folder(files);
        let message = load(folder.path()).unwrap_err().to_string();
        let path = folder.path().display().to_string();
        message
            .strip_prefix(&format!("{path}: "))
            .unwrap_or(&message)
            .into()
    }

    #[test]
    fn a_fifth_of_each_class_is_for_testing() {
        let names: Vec<String> = ["10", "9", "cat"]
            .iter()
            .flat_map(|class| (0..10).map(move |at| format!("{class}/sub{}/{at}.PNG", at % 2)))
            .collect();
        let files: Vec<(&str, Vec<u8>)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), grey(at as u8)))
            .chain([
                ("cat/notes.txt", vec![1]),
                ("cat/._0.png", vec![1]),
                (".git/config", vec![2]),
                ("__MACOSX/cat/0.png", vec![3]),
            ])
            .collect();
        let folder = folder(&files);
        assert!(PictureFolder::is_at(folder.path()));
        let (splits, _) = load(folder.path()).unwrap();
        // Numbers in their order, then words.
        assert_eq!(splits.info.classes, ["9", "10", "cat"]);
        assert_eq!(splits.info.shape(), [1, 8, 8]);
        assert_eq!(splits.info.preparation, Preparation::Picture);
        assert_eq!((splits.train.len(), splits.test.len()), (24, 6));
        let tested: Vec<u8> = (0..6).map(|at| splits.test.label(at)).collect();
        assert_eq!(tested, [0, 0, 1, 1, 2, 2]);
        // The first of the others are of all classes.
        let mut learned: Vec<u8> = (0..8).map(|at| splits.train.label(at)).collect();
        learned.sort_unstable();
        learned.dedup();
        assert_eq!(learned, [0, 1, 2]);
        for split in [&splits.train, &splits.test] {
            for at in 0..split.len() {
                let expected = [1, 0, 2][usize::from(split.pixels(at)[0] / 10)];
                assert_eq!(split.label(at), expected);
            }
        }
        let (again, _) = load(folder.path()).unwrap();
        assert_eq!(again.test.pixels(3), splits.test.pixels(3));
    }

    #[test]
    fn train_and_test_are_taken_as_they_are() {
        let red = RgbImage::from_pixel(10, 10, Rgb([200, 0, 0]));
        let folder = folder(&[
            ("train/a/1.png", grey(1)),
            ("train/a/2.png", b"no picture".to_vec()),
            ("train/b/1.bmp", file(red, ImageFormat::Bmp)),
            ("test/b/1.png", grey(9)),
        ]);
        let (splits, unreadable) = load(folder.path()).unwrap();
        // One picture has colour.
        assert_eq!(splits.info.shape(), [3, 8, 8]);
        assert_eq!((splits.train.len(), splits.test.len()), (2, 1));
        assert_eq!(splits.test.label(0), 1);
        assert_eq!(splits.train.pixels(1)[63..66], [200, 0, 0]);
        assert_eq!(unreadable.len(), 1);
        assert!(
            unreadable[0].ends_with("2.png: not a picture: expected PNG, JPEG, BMP, GIF or WebP")
        );
    }

    #[test]
    fn other_pictures_make_another_fingerprint() {
        let files = [
            ("a/1.png", grey(1)),
            ("b/1.png", grey(2)),
            ("b/2.png", grey(2)),
        ];
        let folder = folder(&files);
        for number in 3..9 {
            fs::write(folder.path().join(format!("a/{number}.png")), grey(number)).unwrap();
        }
        let fingerprint = |side| {
            PictureFolder::list(folder.path())
                .unwrap()
                .fingerprint(wanted(side))
        };
        let first = fingerprint(8);
        assert_eq!(fingerprint(8), first);
        assert_ne!(fingerprint(9), first);
        fs::write(
            folder.path().join("a/1.png"),
            file(GrayImage::new(99, 1), ImageFormat::Bmp),
        )
        .unwrap();
        assert_ne!(fingerprint(8), first);
    }

    #[test]
    fn folders_that_cannot_be_learned_from() {
        assert!(error(&[("1.png", grey(1))]).starts_with("no sub-folders; expected"));
        assert!(error(&[("a/1.png", grey(1))]).starts_with("a single class; expected"));
        let message = error(&[("a/1.png", grey(1)), ("b/1.txt", vec![])]);
        assert!(
            message.starts_with("no picture in class folder b; expected"),
            "{message}"
        );
        for other in ["val", "Train", "validation"] {
            let name = format!("{other}/cat/1.png");
            let message = error(&[("train/cat/1.png", grey(1)), (&name, grey(1))]);
            assert!(
                message.contains(": expected either train and test"),
                "{message}"
            );
        }
        let message = error(&[("a\n/1.png", grey(1)), ("b/1.png", grey(1))]);
        assert_eq!(message, "sub-folder \"a\\n\": not a name that can be shown");
        assert!(
            error(&[("a/1.png", grey(1)), ("b/1.png", grey(1))])
                .starts_with("no picture is left to test with; expected 5 or more")
        );
        assert_eq!(
            error(&[
                ("train/a/1.png", grey(1)),
                ("train/b/1.png", grey(1)),
                ("test/c/1.png", grey(1)),
            ]),
            "test has a class c that train has not: a, b"
        );
        let message = error(&[
            ("train/a/1.png", grey(1)),
            ("train/b/1.png", vec![]),
            ("test/a/1.png", grey(1)),
        ]);
        assert!(
            message.starts_with("no readable picture of class b: "),
            "{message}"
        );
        assert!(message.ends_with("1.png: empty file"), "{message}");
    }
}
