//! The report on a data set: its splits, its classes, and images that occur twice.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use anyhow::Result;
use data::digest::sha256_hex;
use data::similar::{Fingerprint, fingerprints, similar_pairs};
use data::{ImageDataset, picture_size};
use rayon::prelude::*;
use serde::Serialize;

use crate::process::printable::printable;
use crate::process::table::Table;
use crate::run::class_weights::counts;
use crate::run::images::DataSplit;

/// Number of pairs, files or sizes that a text lists.
const MAX_LISTED: usize = 10;
/// The names of the splits, in the order of the images of a report.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// The images to report on.
pub(crate) struct ReportedImages<'a> {
    pub(crate) classes: &'a [String],
    pub(crate) split: &'a DataSplit,
    pub(crate) unreadable: &'a [String],
}

/// A report on a data set.
#[derive(Debug, Serialize)]
pub(crate) struct DataReport {
    /// Shape of the images that a network gets: channels, height, width.
    pub(crate) shape: [usize; 3],
    pub(crate) classes: Vec<ClassCounts>,
    /// Widths and heights of pictures, if they are files of their own.
    pub(crate) sizes: Option<PictureSizes>,
    /// Number of images with color.
    pub(crate) with_color: usize,
    pub(crate) unreadable: Vec<String>,
    /// Pairs of images with equal content, those of different splits first.
    pub(crate) equal: Vec<Pair>,
    /// Pairs of images that resemble each other, those of different splits first.
    pub(crate) similar: Vec<Pair>,
}

/// The number of images of a class in each split.
#[derive(Debug, Serialize)]
pub(crate) struct ClassCounts {
    pub(crate) class: String,
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
}

/// Sizes of picture files, in pixels.
#[derive(Debug, Serialize)]
pub(crate) struct PictureSizes {
    pub(crate) smallest: [u32; 2],
    pub(crate) median: [u32; 2],
    pub(crate) largest: [u32; 2],
}

/// Two images.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) first: Place,
    pub(crate) second: Place,
}

/// An image of a data set.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Place {
    pub(crate) split: &'static str,
    /// Index in the split.
    pub(crate) index: usize,
    /// The file, or the split and the index.
    pub(crate) name: String,
    pub(crate) class: String,
}

impl ReportedImages<'_> {
    /// Iterates over the splits with their names.
    pub(crate) fn splits(&self) -> impl Iterator<Item = (&'static str, &ImageDataset)> {
        let DataSplit {
            train,
            validation,
            test,
        } = self.split;
        SPLITS.into_iter().zip([train, validation, test])
    }

    /// Returns the images of a split.
    pub(crate) fn images(&self, split: &str) -> &ImageDataset {
        match split {
            "train" => &self.split.train,
            "validation" => &self.split.validation,
            _ => &self.split.test,
        }
    }
}

impl DataReport {
    /// Examines images; `folder` is that of picture files.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn of(images: &ReportedImages<'_>, folder: &Path) -> Result<Self> {
        let DataSplit {
            train,
            validation,
            test,
        } = images.split;
        let [of_train, of_validation, of_test] =
            [train, validation, test].map(|split| counts(split, images.classes.len()));
        let classes = images.classes.iter().enumerate();
        let classes = classes.map(|(index, class)| ClassCounts {
            class: class.clone(),
            train: of_train[index],
            validation: of_validation[index],
            test: of_test[index],
        });
        let places = places(images);
        let mut digests = Vec::with_capacity(places.len());
        let mut prints = Vec::with_capacity(places.len());
        let mut with_color = 0;
        for (_, images) in images.splits() {
            digests.extend(content_digests(images)?);
            prints.extend(fingerprints(images)?);
            with_color += count_with_color(images)?;
        }
        let equal = equal_pairs(&digests);
        // Of images with equal content, the first one is compared with the others.
        let repeated: HashSet<usize> = equal.iter().map(|&(_, index)| index).collect();
        let unique = prints.into_iter().enumerate();
        let unique = unique.filter(|(index, _)| !repeated.contains(index));
        let (unique, prints): (Vec<usize>, Vec<Fingerprint>) = unique.unzip();
        let similar = similar_pairs(&prints).into_iter();
        let similar = similar
            .map(|pair| (unique[pair.first], unique[pair.second]))
            .collect();
        Ok(Self {
            shape: [train.channels(), train.height(), train.width()],
            classes: classes.collect(),
            sizes: sizes(images, folder),
            with_color,
            unreadable: images.unreadable.to_vec(),
            equal: pairs(equal, &places),
            similar: pairs(similar, &places),
        })
    }

    /// Returns the number of images.
    pub(crate) fn images(&self) -> usize {
        let classes = self.classes.iter();
        classes
            .map(|class| class.train + class.validation + class.test)
            .sum()
    }
}

impl Pair {
    /// Whether one image is in the training or validation split and the other one in the test split.
    pub(crate) fn leaks(&self) -> bool {
        (self.first.split == "test") != (self.second.split == "test")
    }

    /// Whether the images have different labels.
    pub(crate) fn contradicts(&self) -> bool {
        self.first.class != self.second.class
    }
}

/// Returns the names of images: their files, or the split and the index.
pub(crate) fn image_names(images: &ImageDataset, split: &str) -> Vec<String> {
    match images.files() {
        Some(files) => files.map(|file| file.path.clone()).collect(),
        None => (0..images.len())
            .map(|index| format!("{split}:{index}"))
            .collect(),
    }
}

/// Lists all images.
fn places(images: &ReportedImages<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    for (split, part) in images.splits() {
        let names = image_names(part, split).into_iter().enumerate();
        places.extend(names.map(|(index, name)| Place {
            split,
            index,
            name,
            class: images.classes[usize::from(part.label(index))].clone(),
        }));
    }
    places
}

/// Returns a digest of the file of each image, or of its pixels.
fn content_digests(images: &ImageDataset) -> Result<Vec<String>> {
    if let Some(files) = images.files() {
        return Ok(files.map(|file| file.sha256.clone()).collect());
    }
    let indices = (0..images.len()).into_par_iter();
    indices
        .map(|index| Ok(sha256_hex([images.pixels(index)?])))
        .collect()
}

fn count_with_color(images: &ImageDataset) -> Result<usize> {
    if images.channels() == 1 {
        return Ok(0);
    }
    let plane = images.height() * images.width();
    let has_color = |index: usize| -> Result<usize> {
        let pixels = images.pixels(index)?;
        let (red, rest) = pixels.split_at(plane);
        Ok(usize::from(
            rest.chunks(plane).any(|channel| channel != red),
        ))
    };
    let counts = (0..images.len()).into_par_iter().map(has_color);
    counts.try_reduce(|| 0, |a, b| Ok(a + b))
}

/// Returns pairs of equal digests: each image with the first one of its content.
fn equal_pairs(digests: &[String]) -> Vec<(usize, usize)> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut pairs = Vec::new();
    for (index, digest) in digests.iter().enumerate() {
        let earlier = *first.entry(digest).or_insert(index);
        if earlier != index {
            pairs.push((earlier, index));
        }
    }
    pairs
}

/// Names the images of pairs; pairs across splits come first.
fn pairs(indices: Vec<(usize, usize)>, places: &[Place]) -> Vec<Pair> {
    let pair = |(first, second): (usize, usize)| Pair {
        first: places[first].clone(),
        second: places[second].clone(),
    };
    let mut pairs: Vec<Pair> = indices.into_iter().map(pair).collect();
    pairs.sort_by_key(|pair| (!pair.leaks(), !pair.contradicts()));
    pairs
}

/// Reads the sizes of picture files.
fn sizes(images: &ReportedImages<'_>, folder: &Path) -> Option<PictureSizes> {
    let mut paths = Vec::new();
    for (_, images) in images.splits() {
        paths.extend(images.files()?.map(|file| folder.join(&file.path)));
    }
    let sizes = paths.par_iter().filter_map(|path| picture_size(path));
    let mut sizes: Vec<[u32; 2]> = sizes.collect();
    sizes.sort_by_key(|[width, height]| u64::from(*width) * u64::from(*height));
    Some(PictureSizes {
        smallest: *sizes.first()?,
        median: sizes[sizes.len() / 2],
        largest: *sizes.last()?,
    })
}

impl DataReport {
    /// Returns the number and form of the images in one line.
    pub(crate) fn headline(&self) -> String {
        let [channels, height, width] = self.shape;
        let kind = if channels == 1 { "gray" } else { "color" };
        format!(
            "{} images of {} classes; a network gets {width}x{height} pixels in {kind}",
            self.images(),
            self.classes.len()
        )
    }

    /// Returns lines about the pictures, and each list with its heading. Names in lists are not escaped.
    pub(crate) fn findings(&self) -> Vec<(String, Vec<String>)> {
        let mut findings = Vec::new();
        if let Some(PictureSizes {
            smallest,
            median,
            largest,
        }) = &self.sizes
        {
            let [smallest, median, largest] =
                [smallest, median, largest].map(|[width, height]| format!("{width}x{height}"));
            let line = format!("pictures: {smallest} to {largest} pixels, {median} in the median");
            findings.push((line, Vec::new()));
        }
        if self.shape[0] > 1 {
            let gray = self.images() - self.with_color;
            let line = format!("{} images have color, {gray} are gray", self.with_color);
            findings.push((line, Vec::new()));
        }
        findings.push((
            format!("{} unreadable files", self.unreadable.len()),
            self.unreadable.clone(),
        ));
        for (name, pairs) in [("equal", &self.equal), ("similar", &self.similar)] {
            let leaks = pairs.iter().filter(|pair| pair.leaks()).count();
            let contradictions = pairs.iter().filter(|pair| pair.contradicts()).count();
            let heading = format!(
                "{} pairs of {name} images, {leaks} of them across the test split, {contradictions} with different labels",
                pairs.len()
            );
            findings.push((heading, pairs.iter().map(Pair::to_string).collect()));
        }
        findings
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.headline())?;
        let mut table = Table::new(["class", "train", "validation", "test"]);
        for class in &self.classes {
            let counts = [class.train, class.validation, class.test].map(|count| count.to_string());
            table.row([class.class.clone()].into_iter().chain(counts));
        }
        let total = |count: fn(&ClassCounts) -> usize| {
            self.classes.iter().map(count).sum::<usize>().to_string()
        };
        table.row([
            "total".into(),
            total(|class| class.train),
            total(|class| class.validation),
            total(|class| class.test),
        ]);
        writeln!(f, "{table}\n")?;
        for (heading, lines) in self.findings() {
            writeln!(f, "{heading}")?;
            for line in lines.iter().take(MAX_LISTED) {
                writeln!(f, "  {}", printable(line))?;
            }
            if let Some(more @ 1..) = lines.len().checked_sub(MAX_LISTED) {
                writeln!(f, "  and {more} more")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second } = self;
        write!(
            f,
            "{} ({}, {})  {} ({}, {})",
            first.name, first.split, first.class, second.name, second.split, second.class
        )
    }
}
