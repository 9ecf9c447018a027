//! A folder of pictures: a sub-folder per class, or `train` and perhaps `val` and `test` with such sub-folders.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use crate::class_name::ClassName;
use crate::dataset::Dataset;
use crate::digest::first_64_bits;
use crate::error::DataError;
use crate::folder_layout::FolderLayout;
use crate::hash_split::{TEST_DIVISOR, select_by_hash};
use crate::image_dataset::ImageDataset;
use crate::info::DatasetInfo;
use crate::label_table::LabeledPicture;
use crate::labels::MAX_CLASSES;
use crate::listing::{picture_files, relative_path, sub_folders};
use crate::picture_files::{DecodedPictures, LabeledFile, PictureFiles};
use crate::preparation::Preparation;
use crate::shuffle::permutation;
use crate::split_name::Split;

/// Seed of the test split and of the order of the training pictures.
const SPLIT_SEED: u64 = 0;
/// The supported layouts, as part of error messages.
const EXPECTED: &str = "expected a sub-folder of pictures (PNG, JPEG, TIFF and others) per class, or \
                        train, and perhaps val and test, with such sub-folders, or IDX, CSV, NumPy or CIFAR files";
/// One in this many training pictures, or fewer, with color is reported.
const FEW_IN_COLOR: usize = 10;
/// Maximum number of decoding errors listed in an error message.
const MAX_LISTED_ERRORS: usize = 5;

/// The files of a folder of pictures, listed but not decoded.
#[derive(Debug)]
pub struct PictureFolder {
    /// The data folder.
    pub path: PathBuf,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Training pictures, shuffled.
    pub train: Vec<LabeledFile>,
    /// Validation pictures that have a folder of their own, ordered by class.
    pub validation: Option<Vec<LabeledFile>>,
    /// Test pictures, ordered by class.
    pub test: Vec<LabeledFile>,
    /// One message for each folder or file that cannot be accessed.
    pub listing_errors: Vec<String>,
    /// Warnings about folders and files that are not used.
    pub notes: Vec<String>,
    /// Whether the test pictures have a folder of their own.
    pub has_test_folder: bool,
}

/// The choice of test pictures in a folder without a sub-folder `test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestSelection {
    /// By the hash of each file's path alone, so that adding or removing files does not change it for
    /// other files.
    ByPath,
    /// A fifth of each class, at random, which depends on the number of files. Runs without a record of
    /// their test files chose them this way.
    Shuffled,
}

/// The picture files of each class, as paths relative to the data folder.
type Classes = BTreeMap<ClassName, Vec<String>>;

impl PictureFolder {
    /// Lists the pictures of a folder with a sub-folder per class, and splits them into training and test pictures.
    ///
    /// # Errors
    /// Returns an error if the folder has fewer than two classes, a class without pictures or no
    /// test pictures, or if `test` has a class that `train` does not have.
    pub fn list(path: &Path, selection: TestSelection) -> Result<Self, DataError> {
        let FolderLayout {
            train,
            validation,
            test,
            notes,
        } = FolderLayout::of(path)?;
        let mut lister = Lister {
            root: path,
            errors: Vec::new(),
            notes,
            others: BTreeMap::new(),
        };
        let splits = Splits {
            train: lister.classes(&train)?,
            validation: validation
                .map(|folder| lister.classes(&folder))
                .transpose()?,
            test: test.map(|folder| lister.classes(&folder)).transpose()?,
        };
        splits.into_folder(path, selection, lister.notes(), lister.errors)
    }

    /// Splits pictures whose labels a table or the names of their files state.
    ///
    /// # Errors
    /// Returns the errors of [`list`](Self::list).
    pub(crate) fn labeled(
        path: &Path,
        pictures: Vec<LabeledPicture>,
        notes: Vec<String>,
    ) -> Result<Self, DataError> {
        let mut splits: BTreeMap<Split, Classes> = BTreeMap::new();
        for LabeledPicture { path, class, split } in pictures {
            let class = ClassName::new(class.nfc().collect());
            let classes = splits.entry(split.unwrap_or(Split::Train)).or_default();
            classes.entry(class).or_default().push(path);
        }
        let splits = Splits {
            train: splits.remove(&Split::Train).unwrap_or_default(),
            validation: splits.remove(&Split::Validation),
            test: splits.remove(&Split::Test),
        };
        splits.into_folder(path, TestSelection::ByPath, notes, Vec::new())
    }

    /// Returns all pictures: first those of the training split, then those of the others.
    pub fn all_files(&self) -> PictureFiles {
        let validation = self.validation.as_deref().unwrap_or_default();
        PictureFiles {
            folder: self.path.clone(),
            files: [self.train.as_slice(), validation, &self.test].concat(),
        }
    }

    /// Returns the pictures of the test split.
    pub fn test_files(&self) -> PictureFiles {
        PictureFiles {
            folder: self.path.clone(),
            files: self.test.clone(),
        }
    }

    /// Returns a message for each picture that could not be listed or decoded.
    pub fn unreadable(&self, pictures: &DecodedPictures) -> Vec<String> {
        let decoding = pictures.unreadable.iter().map(|picture| {
            let path = self.path.join(&picture.path);
            format!("{}: {}", path.display(), picture.reason)
        });
        self.listing_errors
            .iter()
            .cloned()
            .chain(decoding)
            .collect()
    }

    /// Combines the folder and its decoded [pictures](Self::all_files) to a dataset. The images are RGB
    /// if a training picture has color.
    ///
    /// # Errors
    /// Returns an error if a class or the test split has no readable picture, or a decoded picture
    /// cannot be read.
    pub fn into_dataset(
        self,
        preparation: Preparation,
        pictures: DecodedPictures,
    ) -> Result<Dataset, DataError> {
        let unreadable = self.unreadable(&pictures);
        let images = pictures.images;
        let select = |files: &[LabeledFile]| {
            let wanted: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
            let files = images.files().into_iter().flatten().enumerate();
            let wanted = files.filter(|(_, file)| wanted.contains(file.path.as_str()));
            images.select(wanted.map(|(index, _)| index))
        };
        let (train, test) = (select(&self.train), select(&self.test));
        let validation = self.validation.as_deref().map(select);
        self.check_coverage(&train, &test, &unreadable)?;
        let in_color = train.count_with_color();
        let channels = if in_color == 0 { 1 } else { 3 };
        let mut notes = Vec::new();
        if in_color > 0 && in_color * FEW_IN_COLOR <= train.len() {
            let have = if in_color == 1 { "has" } else { "have" };
            notes.push(format!(
                "{in_color} of the {} training pictures {have} color, so all become RGB images; --channels 1 makes them gray",
                train.len()
            ));
        }
        let (train, test) = (train.with_channels(channels), test.with_channels(channels));
        let validation = validation.map(|images| images.with_channels(channels));
        let info = DatasetInfo::measured(&self.path, self.classes, preparation, &train)?;
        Ok(Dataset {
            info,
            train,
            validation,
            test,
            unreadable,
            notes,
            has_test_split: self.has_test_folder,
            is_stratified: true,
        })
    }

    /// Returns an error if a class or the test split has no readable picture.
    fn check_coverage(
        &self,
        train: &ImageDataset,
        test: &ImageDataset,
        unreadable: &[String],
    ) -> Result<(), DataError> {
        let is_missing = |class: &usize| !train.labels().any(|label| usize::from(label) == *class);
        let part = match (0..self.classes.len()).find(is_missing) {
            Some(class) => format!("class {}", self.classes[class]),
            None if test.is_empty() => "the test split".into(),
            None => return Ok(()),
        };
        let listed = unreadable[..unreadable.len().min(MAX_LISTED_ERRORS)].join("; ");
        let more = match unreadable.len().saturating_sub(MAX_LISTED_ERRORS) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Err(DataError::Pictures {
            folder: self.path.clone(),
            message: format!("no readable picture of {part}: {listed}{more}"),
        })
    }
}

/// The classes of each split.
struct Splits {
    train: Classes,
    validation: Option<Classes>,
    test: Option<Classes>,
}

impl Splits {
    /// Labels the pictures, and chooses test pictures where there are none.
    fn into_folder(
        self,
        path: &Path,
        selection: TestSelection,
        mut notes: Vec<String>,
        listing_errors: Vec<String>,
    ) -> Result<PictureFolder, DataError> {
        let error = |message: String| DataError::Pictures {
            folder: path.to_path_buf(),
            message,
        };
        check_classes(&self.train).map_err(error)?;
        let names = self.train.keys().cloned().map(ClassName::into_string);
        let names: Vec<String> = names.collect();
        let labeled_split =
            |classes: Classes, split: &str| label_split(split, classes, &names).map_err(error);
        let validation = self
            .validation
            .map(|classes| labeled_split(classes, "the validation split"));
        let validation = validation.transpose()?;
        let has_test_folder = self.test.is_some();
        let (train, test) = match self.test {
            Some(classes) => {
                let train = self.train.into_values().enumerate();
                let train = train.flat_map(|(label, files)| labeled(label, files));
                (train.collect(), labeled_split(classes, "test")?)
            }
            None => split_classes(self.train, selection),
        };
        if test.is_empty() {
            return Err(error(
                "found no test pictures; expected two or more pictures of some class, or a \
                 sub-folder test"
                    .into(),
            ));
        }
        if validation.is_some() && !has_test_folder {
            notes.push(format!(
                "{}: no test split; about a fifth of the training pictures are test pictures",
                path.display()
            ));
        }
        Ok(PictureFolder {
            path: path.to_path_buf(),
            classes: names,
            train: shuffled(train),
            validation: validation.filter(|files| !files.is_empty()),
            test,
            has_test_folder,
            notes,
            listing_errors,
        })
    }
}

/// Lists the pictures of classes.
struct Lister<'a> {
    /// The data folder.
    root: &'a Path,
    errors: Vec<String>,
    notes: Vec<String>,
    /// Number of files that are no pictures, by extension.
    others: BTreeMap<String, usize>,
}

impl Lister<'_> {
    /// Lists the class folders in `folder`, and the picture files of each. Classes without pictures are left out.
    fn classes(&mut self, folder: &Path) -> Result<Classes, DataError> {
        let mut classes = Classes::new();
        for (name, path) in sub_folders(folder)? {
            let listing = picture_files(&path);
            self.errors.extend(listing.errors);
            for (extension, count) in listing.others {
                *self.others.entry(extension).or_default() += count;
            }
            if listing.files.is_empty() {
                self.notes
                    .push(format!("{}: no pictures, and so no class", path.display()));
                continue;
            }
            // Systems encode accents differently.
            let name: String = name.nfc().collect();
            let paths = classes.entry(ClassName::new(name)).or_default();
            for file in listing.files {
                match relative_path(self.root, &file) {
                    Some(path) => paths.push(path),
                    None => self
                        .errors
                        .push(format!("{}: not valid UTF-8", file.display())),
                }
            }
        }
        Ok(classes)
    }

    /// Returns the warnings, with the number of files that are no pictures.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        let total: usize = self.others.values().sum();
        if total > 0 {
            let mut others: Vec<(&String, &usize)> = self.others.iter().collect();
            others.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let kind = |(extension, count): &(&String, &usize)| match extension.as_str() {
                "" => format!("{count} without extension"),
                extension => format!("{count} .{extension}"),
            };
            let kinds: Vec<String> = others.iter().take(MAX_LISTED_ERRORS).map(kind).collect();
            notes.push(format!(
                "{}: {total} files have no extension of a picture and are not used: {}",
                self.root.display(),
                kinds.join(", ")
            ));
        }
        notes
    }
}

/// Returns an error message if the classes cannot be used for training.
fn check_classes(classes: &Classes) -> Result<(), String> {
    match classes.len() {
        0 => Err(format!("found no sub-folder with pictures; {EXPECTED}")),
        1 => Err(format!("found a single class; {EXPECTED}")),
        2..=MAX_CLASSES => Ok(()),
        count => Err(format!(
            "found {count} classes, expected 2 to {MAX_CLASSES}"
        )),
    }
}

fn labeled(label: usize, paths: Vec<String>) -> impl Iterator<Item = LabeledFile> {
    let label = label as u8;
    paths
        .into_iter()
        .map(move |path| LabeledFile { path, label })
}

/// Splits each class into training and test pictures, both in the order of the files.
fn split_classes(
    classes: Classes,
    selection: TestSelection,
) -> (Vec<LabeledFile>, Vec<LabeledFile>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (label, paths) in classes.into_values().enumerate() {
        let is_test = match selection {
            TestSelection::ByPath => select_by_path(&paths),
            TestSelection::Shuffled => select_shuffled(paths.len(), label),
        };
        for (file, is_test) in labeled(label, paths).zip(is_test) {
            match is_test {
                true => test.push(file),
                false => train.push(file),
            }
        }
    }
    (train, test)
}

/// Returns for each picture of a class whether it is a test picture, by the hash of its path.
fn select_by_path(paths: &[String]) -> Vec<bool> {
    let hashes: Vec<u64> = paths.iter().map(first_64_bits).collect();
    select_by_hash(&hashes)
}

/// Returns for each of `count` pictures of a class whether it is a test picture, at random.
fn select_shuffled(count: usize, label: usize) -> Vec<bool> {
    let mut is_test = vec![false; count];
    let order = permutation(count, SPLIT_SEED, label as u64);
    for &at in &order[..count / TEST_DIVISOR] {
        is_test[at as usize] = true;
    }
    is_test
}

/// Labels the pictures of a split by the class names of the training pictures.
fn label_split(
    split: &str,
    classes: Classes,
    names: &[String],
) -> Result<Vec<LabeledFile>, String> {
    let mut labeled_files = Vec::new();
    for (name, files) in classes {
        let name = name.into_string();
        let Some(label) = names.iter().position(|class| *class == name) else {
            return Err(format!(
                "{split} has class {name}, expected one of the classes of train: {}",
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;
    use crate::digest::sha256_hex;
    use crate::picture::tests::file;
    use crate::picture_files::DecodeOptions;
    use crate::picture_store::PictureStore;

    /// Creates a temporary folder with the given files.
    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn gray(value: u8) -> Vec<u8> {
        file(
            GrayImage::from_pixel(10, 12, Luma([value])),
            ImageFormat::Png,
        )
    }

    fn options(side: usize) -> DecodeOptions {
        DecodeOptions {
            preparation: Preparation::Picture,
            height: side,
            width: side,
        }
    }

    fn load(folder: &Path) -> Result<Dataset, DataError> {
        let folder = PictureFolder::list(folder, TestSelection::ByPath)?;
        let files = folder.all_files();
        let mut store = PictureStore::in_memory([8, 8]);
        let unreadable = files.decode(options(8), &mut store, &|| {})?;
        let images = files.images(store);
        folder.into_dataset(Preparation::Picture, DecodedPictures { images, unreadable })
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
    fn lists_classes_and_splits_each_of_them() {
        let names: Vec<String> = ["10", "9", "cat"]
            .iter()
            .flat_map(|class| (0..10).map(move |at| format!("{class}/sub{}/{at}.PNG", at % 2)))
            .collect();
        let files: Vec<(&str, Vec<u8>)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), gray(at as u8)))
            .chain([
                ("cat/notes.txt", vec![1]),
                ("cat/._0.png", vec![1]),
                (".git/config", vec![2]),
                ("__MACOSX/cat/0.png", vec![3]),
            ])
            .collect();
        let folder = folder(&files);
        let dataset = load(folder.path()).unwrap();
        // Numbers in numeric order, then words.
        assert_eq!(dataset.info.classes, ["9", "10", "cat"]);
        assert_eq!(dataset.info.shape(), [1, 8, 8]);
        assert_eq!(dataset.info.preparation, Preparation::Picture);
        assert_eq!(dataset.train.len() + dataset.test.len(), 30);
        // The first training images cover all classes.
        let mut first: Vec<u8> = dataset.train.labels().take(8).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first, [0, 1, 2]);
        for split in [&dataset.train, &dataset.test] {
            for (at, file) in split.files().unwrap().enumerate() {
                let pixel = split.pixels(at).unwrap()[0];
                assert_eq!(split.label(at), [1, 0, 2][usize::from(pixel / 10)]);
                assert_eq!(file.path, names[usize::from(pixel)]);
                let bytes = fs::read(folder.path().join(&file.path)).unwrap();
                assert_eq!(file.bytes, bytes.len() as u64);
                assert_eq!(file.sha256, sha256_hex([&bytes]));
            }
        }
        let again = load(folder.path()).unwrap();
        assert_eq!(again.test.sha256().unwrap(), dataset.test.sha256().unwrap());
    }

    // Other systems do not accept such names.
    #[cfg(target_os = "linux")]
    #[test]
    fn file_names_that_are_not_unicode_are_reported() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;

        let names = ["a/1.png", "a/2.png", "b/1.png", "b/2.png"];
        let folder = folder(&names.map(|name| (name, gray(1))));
        let name = OsStr::from_bytes(b"a/\xff.png");
        fs::write(folder.path().join(name), gray(1)).unwrap();
        let dataset = load(folder.path()).unwrap();
        assert_eq!(dataset.train.len() + dataset.test.len(), 4);
        assert!(
            dataset.unreadable[0].ends_with("not valid UTF-8"),
            "{:?}",
            dataset.unreadable
        );
    }

    /// The paths of the test pictures of a class.
    fn test_pictures(paths: &[String]) -> Vec<&String> {
        let is_test = select_by_path(paths);
        let selected = paths.iter().zip(is_test).filter(|(_, is_test)| *is_test);
        selected.map(|(path, _)| path).collect()
    }

    #[test]
    fn a_file_is_a_test_picture_by_its_path_alone() {
        let paths: Vec<String> = (0..1000).map(|at| format!("cat/{at}.png")).collect();
        let all = test_pictures(&paths);
        assert!((160..240).contains(&all.len()), "{}", all.len());
        // Half of the files, in another order: the same decision for each.
        let half: Vec<String> = paths.iter().rev().step_by(2).cloned().collect();
        let expected: Vec<&String> = half.iter().filter(|path| all.contains(path)).collect();
        assert_eq!(test_pictures(&half), expected);
    }

    #[test]
    fn each_class_has_a_training_and_a_test_picture() {
        for class in 0..300 {
            let paths = |count: usize| -> Vec<String> {
                (0..count).map(|at| format!("{class}/{at}.png")).collect()
            };
            assert_eq!(test_pictures(&paths(0)).len(), 0);
            assert_eq!(test_pictures(&paths(1)).len(), 0);
            assert_eq!(test_pictures(&paths(2)).len(), 1);
            let three = test_pictures(&paths(3)).len();
            assert!((1..3).contains(&three), "{three}");
        }
    }

    #[test]
    fn hashes_of_paths_stay_the_same() {
        // The first half of `printf cat/1.png | sha256sum`.
        assert_eq!(first_64_bits("cat/1.png"), 0x6a3b_843c_f66c_4612);
    }

    #[test]
    fn train_and_test_folders_become_the_splits() {
        let red = RgbImage::from_pixel(10, 10, Rgb([200, 0, 0]));
        let folder = folder(&[
            ("train/a/1.png", gray(1)),
            ("train/a/2.png", b"no picture".to_vec()),
            ("train/b/1.bmp", file(red, ImageFormat::Bmp)),
            ("test/b/1.png", gray(9)),
        ]);
        let dataset = load(folder.path()).unwrap();
        // One picture has color.
        assert_eq!(dataset.info.shape(), [3, 8, 8]);
        assert_eq!((dataset.train.len(), dataset.test.len()), (2, 1));
        assert_eq!(dataset.test.label(0), 1);
        assert_eq!(dataset.train.pixels(1).unwrap()[63..66], [200, 0, 0]);
        assert_eq!(dataset.unreadable.len(), 1);
        assert!(dataset.unreadable[0].contains("2.png: not a picture: expected PNG, JPEG, "));
    }

    #[test]
    fn a_validation_folder_becomes_the_validation_split() {
        let names = ["train/a", "train/b", "val/b", "val/a"];
        let files = names.map(|folder| [format!("{folder}/1.png"), format!("{folder}/2.png")]);
        let files = files.as_flattened().iter().zip(0..);
        let files: Vec<_> = files
            .map(|(name, value)| (name.as_str(), gray(value)))
            .collect();
        let folder = folder(&files);
        let dataset = load(folder.path()).unwrap();
        let validation = dataset.validation.unwrap();
        let labels = |images: &ImageDataset| images.labels().collect::<Vec<u8>>();
        assert_eq!(labels(&validation), [0, 0, 1, 1]);
        assert_eq!(validation.pixels(0).unwrap()[0], 6);
        // Without a folder, the test pictures come from the training pictures.
        assert_eq!(
            (dataset.train.len(), labels(&dataset.test)),
            (2, vec![0, 1])
        );
        let notes = PictureFolder::list(folder.path(), TestSelection::ByPath)
            .unwrap()
            .notes;
        assert!(
            notes[0].ends_with("a fifth of the training pictures are test pictures"),
            "{notes:?}"
        );
    }

    #[test]
    fn classes_have_the_same_name_in_each_encoding_and_others_are_noted() {
        let folder = folder(&[
            ("train/e\u{301}/1.png", gray(1)),
            ("train/b/1.png", gray(2)),
            ("train/empty/Thumbs.db", vec![1]),
            ("train/b/notes.txt", vec![1]),
            ("train/b/2.PSD", vec![1]),
            ("train/b/3.psd", vec![1]),
            ("test/\u{e9}/1.png", gray(3)),
        ]);
        let listed = PictureFolder::list(folder.path(), TestSelection::ByPath).unwrap();
        assert_eq!(listed.classes, ["b", "\u{e9}"]);
        assert_eq!(listed.test[0].label, 1);
        let root = folder.path().display();
        assert_eq!(
            listed.notes,
            [
                format!("{root}/train/empty: no pictures, and so no class"),
                format!(
                    "{root}: 3 files have no extension of a picture and are not used: 2 .psd, 1 .txt"
                ),
            ]
        );
    }

    #[test]
    fn rejects_unusable_folders() {
        assert!(
            error(&[("1.png", gray(1))]).starts_with("found no sub-folder with pictures; expected")
        );
        assert!(error(&[("a/1.png", gray(1))]).starts_with("found a single class; expected"));
        let message = error(&[("a/1.png", gray(1)), ("b/1.txt", vec![])]);
        assert!(
            message.starts_with("found a single class; expected"),
            "{message}"
        );
        let message = error(&[("a\n/1.png", gray(1)), ("b/1.png", gray(1))]);
        assert_eq!(
            message,
            "sub-folder \"a\\n\": expected a name in Unicode without control characters"
        );
        assert!(
            error(&[("a/1.png", gray(1)), ("b/1.png", gray(1))])
                .starts_with("found no test pictures; expected two or more pictures of some class")
        );
        assert_eq!(
            error(&[
                ("train/a/1.png", gray(1)),
                ("train/b/1.png", gray(1)),
                ("test/c/1.png", gray(1)),
            ]),
            "test has class c, expected one of the classes of train: a, b"
        );
        let message = error(&[
            ("train/a/1.png", gray(1)),
            ("train/b/1.png", vec![]),
            ("test/a/1.png", gray(1)),
        ]);
        assert!(
            message.starts_with("no readable picture of class b: "),
            "{message}"
        );
        assert!(message.ends_with("1.png: empty file"), "{message}");
    }
}
