//! Weights of classes: factors of the loss, so that rare classes count.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::{ImageDataset, regular_file};

/// The weights that the numbers of images give.
const BALANCED: &str = "balanced";
/// Largest accepted table, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Computes the weights that `how` asks for: `balanced`, or those of a table.
///
/// # Errors
/// Returns an error if a class has no training images, or the table cannot be read or does not have the classes.
pub(crate) fn class_weights(
    how: &str,
    train: &ImageDataset,
    classes: &[String],
) -> Result<Vec<f64>> {
    match how {
        BALANCED => balanced(train, classes),
        path => read(Path::new(path), classes).with_context(|| path.to_string()),
    }
}

/// Returns `images / (classes * images of the class)`, the mean of which over the images is 1; King and Zeng, "Logistic
/// Regression in Rare Events Data" (2001).
fn balanced(train: &ImageDataset, classes: &[String]) -> Result<Vec<f64>> {
    let counts = counts(train, classes.len());
    if let Some(empty) = counts.iter().position(|count| *count == 0) {
        bail!(
            "--class-weights balanced: no training images of class {}",
            classes[empty]
        );
    }
    let weight = |&count: &usize| train.len() as f64 / (classes.len() * count) as f64;
    Ok(counts.iter().map(weight).collect())
}

/// Counts the images of each class.
pub(crate) fn counts(images: &ImageDataset, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for label in images.labels() {
        counts[usize::from(label)] += 1;
    }
    counts
}

/// Reads a table with the columns class and weight.
fn read(path: &Path, classes: &[String]) -> Result<Vec<f64>> {
    let text = regular_file::read_to_string(path, MAX_BYTES)
        .context("cannot read the table of class weights")?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut weights: HashMap<String, f64> = HashMap::new();
    for (at, row) in reader.records().enumerate() {
        let row = row?;
        let line = row.position().map_or(1, csv::Position::line);
        let (Some(class), Some(weight), 2) = (row.get(0), row.get(1), row.len()) else {
            bail!("line {line}: expected a class and a weight");
        };
        let weight = match weight.parse::<f64>() {
            Ok(weight) if (1e-6..=1e6).contains(&weight) => weight,
            // A header.
            Err(_) if at == 0 => continue,
            _ => {
                bail!("line {line}: weight {weight:?}: expected a number from 0.000001 to 1000000")
            }
        };
        ensure!(
            classes.iter().any(|known| known == class),
            "line {line}: class {class:?}: expected one of {}",
            classes.join(", ")
        );
        ensure!(
            weights.insert(class.into(), weight).is_none(),
            "line {line}: class {class:?} has a second weight"
        );
    }
    let weight = |class: &String| {
        weights
            .get(class)
            .copied()
            .with_context(|| format!("no weight of class {class}"))
    };
    classes.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use data::Images;

    use super::*;

    fn images(labels: &[u8]) -> ImageDataset {
        let images = Images {
            channels: 1,
            height: 1,
            width: 1,
            pixels: vec![0; labels.len()],
        };
        ImageDataset::new(images, labels.to_vec()).unwrap()
    }

    #[test]
    fn balanced_weights_have_the_mean_1() {
        let classes = ["a", "b"].map(String::from);
        let weights = class_weights("balanced", &images(&[0, 0, 0, 1]), &classes).unwrap();
        assert_eq!(weights, [4.0 / 6.0, 2.0]);
        let error = class_weights("balanced", &images(&[0, 0]), &classes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--class-weights balanced: no training images of class b"
        );
    }

    #[test]
    fn a_table_has_a_weight_for_each_class() {
        let classes = ["a", "b"].map(String::from);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            super::read(&path, &classes).map_err(|error| error.to_string())
        };
        assert_eq!(read("class,weight\nb,2\na,0.5\n"), Ok(vec![0.5, 2.0]));
        assert_eq!(read("b,2\na,1\n"), Ok(vec![1.0, 2.0]));
        for (text, expected) in [
            ("a,1\n", "no weight of class b"),
            ("a,1\nc,2\n", "line 2: class \"c\": expected one of a, b"),
            (
                "a,1\nb,-2\n",
                "line 2: weight \"-2\": expected a number from 0.000001 to 1000000",
            ),
            ("a,1\na,2\n", "line 2: class \"a\" has a second weight"),
        ] {
            assert_eq!(read(text), Err(expected.to_string()), "{text}");
        }
    }
}
