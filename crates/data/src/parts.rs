//! Labeled images of tables and arrays by split, and the dataset that they form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::digest::first_64_bits;
use crate::error::DataError;
use crate::hash_split::select_by_hash;
use crate::image_dataset::{ImageDataset, Images};
use crate::info::{DatasetInfo, describe_known};
use crate::labels::{Labels, MAX_CLASSES};
use crate::picture_store::PixelError;
use crate::preparation::Preparation;
use crate::shuffle::permutation;

/// Seed of the order of images that are sorted by class.
const SHUFFLE_SEED: u64 = 0;
/// Number of images whose background is examined.
const EXAMINED: usize = 1000;
/// Largest value of most pixels on a dark background.
const DARK: u8 = 16;

/// Labeled images of a split.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The file of the images, for messages.
    pub(crate) path: PathBuf,
    pub(crate) images: Images,
    pub(crate) labels: Labels,
}

/// The splits of a dataset whose images are in memory.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The file or folder that the dataset is named after.
    pub(crate) path: PathBuf,
    /// The classes in the order of a file that lists them; else the sorted names of the training labels.
    pub(crate) classes: Option<Vec<String>>,
    pub(crate) train: Part,
    pub(crate) validation: Option<Part>,
    pub(crate) test: Option<Part>,
    /// Warnings about data that are not used.
    pub(crate) notes: Vec<String>,
}

impl Parts {
    /// Checks that the splits fit together, and divides the training images where there are no test images: images with
    /// equal pixels are then on the same side, so that no copy of a training image is a test image.
    ///
    /// # Errors
    /// Returns an error if images have different shapes, a label is no class, or there are less than two or too many classes.
    pub(crate) fn into_dataset(self) -> Result<Dataset, DataError> {
        let Self {
            path,
            classes,
            train,
            validation,
            test,
            mut notes,
        } = self;
        let classes = classes.unwrap_or_else(|| train.labels.classes());
        if !(2..=MAX_CLASSES).contains(&classes.len()) {
            let count = classes.len();
            let message =
                format!("found {count} different labels, expected 2 to {MAX_CLASSES} classes");
            return Err(DataError::invalid(&train.path, message));
        }
        let shape = train.images.shape();
        let train_path = train.path.clone();
        let load = |part: Part| {
            if part.images.shape() != shape {
                let message = format!(
                    "images of {:?} pixels (channels, height, width), but those of {} have {shape:?}",
                    part.images.shape(),
                    train_path.display()
                );
                return Err(DataError::invalid(&part.path, message));
            }
            part.into_images(&classes)
        };
        let train = load(train)?;
        let validation = validation.map(&load).transpose()?;
        let test = test.map(&load).transpose()?;
        let has_test_split = test.is_some();
        let (train, test) = match test {
            Some(test) => (train, test),
            None => {
                notes.push(format!(
                    "{}: no test images; about a fifth of the training images are test images",
                    path.display()
                ));
                split_by_pixels(&train)?
            }
        };
        let train = mixed(train);
        if test.is_empty() || train.is_empty() {
            let message = "too few images to train and to test with".into();
            return Err(DataError::invalid(&path, message));
        }
        let info = match describe_known(&path, &train)? {
            Some(info) => info,
            None => DatasetInfo::measured(&path, classes, preparation(&train)?, &train)?,
        };
        Ok(Dataset {
            info,
            train,
            validation: validation.filter(|images| !images.is_empty()),
            test,
            unreadable: Vec::new(),
            notes,
            has_test_split,
            is_stratified: true,
        })
    }
}

impl Part {
    /// Replaces labels that are indices of names by these names, if there are any.
    pub(crate) fn named(self, names: Option<&[String]>) -> Self {
        let Some(names) = names else {
            return self;
        };
        let name = |label: &str| {
            label
                .parse()
                .ok()
                .and_then(|at: usize| names.get(at).cloned())
        };
        Self {
            labels: self
                .labels
                .renamed(|label| name(label).unwrap_or_else(|| label.to_string())),
            ..self
        }
    }

    /// Adds images of the same shape.
    pub(crate) fn append(&mut self, other: Self) {
        self.images.pixels.extend(other.images.pixels);
        for label in other.labels.names() {
            self.labels.push(label);
        }
    }

    /// Returns the images with the indices of their classes.
    fn into_images(self, classes: &[String]) -> Result<ImageDataset, DataError> {
        let labels = self.labels.in_classes(classes).map_err(|(name, index)| {
            let known = classes.join(", ");
            let message =
                format!("label {name} of image {index}, expected one of the classes {known}");
            DataError::invalid(&self.path, message)
        })?;
        ImageDataset::new(self.images, labels).map_err(|(images, labels)| {
            DataError::invalid(&self.path, format!("{images} images, but {labels} labels"))
        })
    }
}

/// Divides the images of each class into training and test images, by the hash of their pixels.
fn split_by_pixels(images: &ImageDataset) -> Result<(ImageDataset, ImageDataset), DataError> {
    let hashes = (0..images.len()).into_par_iter();
    let hashes = hashes.map(|index| Ok(first_64_bits(images.pixels(index)?)));
    let hashes: Vec<u64> = hashes.collect::<Result<_, PixelError>>()?;
    let mut classes: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (index, label) in images.labels().enumerate() {
        classes.entry(label).or_default().push(index);
    }
    let mut is_test = vec![false; images.len()];
    for indices in classes.into_values() {
        let hashes: Vec<u64> = indices.iter().map(|&index| hashes[index]).collect();
        for (index, selected) in indices.into_iter().zip(select_by_hash(&hashes)) {
            is_test[index] = selected;
        }
    }
    let (test, train): (Vec<usize>, Vec<usize>) =
        (0..images.len()).partition(|&index| is_test[index]);
    Ok((images.select(train), images.select(test)))
}

/// Shuffles images that are sorted by class, so that the first or last part of them has images of all classes.
fn mixed(images: ImageDataset) -> ImageDataset {
    if !images.labels().is_sorted() {
        return images;
    }
    let order = permutation(images.len(), SHUFFLE_SEED, u64::MAX);
    images.select(order.into_iter().map(|index| index as usize))
}

/// Chooses how pictures are converted into such images: gray strokes on a dark background are taken for handwriting.
fn preparation(images: &ImageDataset) -> Result<Preparation, DataError> {
    if images.channels() != 1 {
        return Ok(Preparation::Picture);
    }
    let step = images.len().div_ceil(EXAMINED).max(1);
    let (mut dark, mut examined) = (0, 0);
    for index in (0..images.len()).step_by(step) {
        let pixels = images.pixels(index)?;
        let background = pixels.iter().filter(|&&pixel| pixel < DARK).count();
        dark += usize::from(2 * background > pixels.len());
        examined += 1;
    }
    Ok(if 10 * dark > 9 * examined {
        Preparation::Handwriting
    } else {
        Preparation::Picture
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(pixels: Vec<u8>, labels: &[&str]) -> Part {
        let images = Images {
            channels: 1,
            height: 1,
            width: 2,
            pixels,
        };
        Part {
            path: "t.csv".into(),
            images,
            labels: labels.iter().collect(),
        }
    }

    fn parts(train: Part, test: Option<Part>) -> Parts {
        Parts {
            path: "t.csv".into(),
            classes: None,
            train,
            validation: None,
            test,
            notes: Vec::new(),
        }
    }

    #[test]
    fn labels_are_indices_of_sorted_names() {
        let train = part(vec![1, 2, 3, 4, 5, 6], &["b", "a", "b"]);
        let test = part(vec![7, 8], &["a"]);
        let dataset = parts(train, Some(test)).into_dataset().unwrap();
        assert_eq!(dataset.info.classes, ["a", "b"]);
        assert_eq!(dataset.train.labels().collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(dataset.test.label(0), 0);
    }

    #[test]
    fn equal_images_are_on_the_same_side() {
        let count = 400;
        let pixels = (0..count).flat_map(|image| [image as u8 % 50, 7]).collect();
        let labels: Vec<&str> = (0..count)
            .map(|image| if image % 2 == 0 { "a" } else { "b" })
            .collect();
        let dataset = parts(part(pixels, &labels), None).into_dataset().unwrap();
        assert_eq!(dataset.notes.len(), 1);
        let (train, test) = (dataset.train, dataset.test);
        assert_eq!(train.len() + test.len(), count);
        assert!(
            test.len() >= count / 10 && test.len() < count / 3,
            "{}",
            test.len()
        );
        let pixels = |images: &ImageDataset| -> Vec<Vec<u8>> {
            (0..images.len())
                .map(|index| images.pixels(index).unwrap().into_owned())
                .collect()
        };
        let training = pixels(&train);
        assert!(pixels(&test).iter().all(|image| !training.contains(image)));
    }

    #[test]
    fn images_sorted_by_class_are_shuffled() {
        let labels: Vec<&str> = (0..100)
            .map(|image| if image < 50 { "a" } else { "b" })
            .collect();
        let test = part(vec![0, 1, 2, 3], &["a", "b"]);
        let train = part((0..200).collect(), &labels);
        let dataset = parts(train, Some(test)).into_dataset().unwrap();
        let first: Vec<u8> = dataset.train.labels().take(20).collect();
        assert!(first.contains(&0) && first.contains(&1));
    }

    #[test]
    fn rejects_splits_that_do_not_fit_together() {
        let train = || part(vec![1, 2, 3, 4], &["a", "b"]);
        let error = |train: Part, test: Part| {
            parts(train, Some(test))
                .into_dataset()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(train(), part(vec![1, 2], &["c"])),
            "t.csv: label c of image 0, expected one of the classes a, b"
        );
        assert_eq!(
            error(part(vec![1, 2], &["a"]), part(vec![1, 2], &["a"])),
            "t.csv: found 1 different labels, expected 2 to 256 classes"
        );
        let mut wide = part(vec![1, 2, 3], &["a"]);
        wide.images.width = 3;
        assert_eq!(
            error(train(), wide),
            "t.csv: images of [1, 1, 3] pixels (channels, height, width), but those of t.csv have [1, 1, 2]"
        );
    }
}
