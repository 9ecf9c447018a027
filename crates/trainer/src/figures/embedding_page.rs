//! The map of the test images as a page: one self-contained file, with the picture of each point.

use anyhow::Result;
use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::ImageDataset;
use serde::Serialize;

use crate::figures::contact_sheet::{Grid, contact_sheet, reduced_size};
use crate::figures::embedding::{MAX_LABELED, axes, class_color, headline};
use crate::inference::embedding::Embedding;
use crate::process::printable::printable;

/// Largest number of pixel values of all pictures before they are compressed.
const MAX_VALUES: usize = 32_000_000;
/// Largest size of all pictures together, compressed.
const MAX_BYTES: usize = 6_500_000;
/// Pictures are not reduced below this side.
const MIN_SIDE: usize = 16;

/// Data of the template `embedding.html`.
#[derive(Template)]
#[template(path = "embedding.html")]
struct Page<'a> {
    name: String,
    headline: String,
    axes: String,
    mistakes: usize,
    classes: Vec<ListedClass<'a>>,
    /// JSON of [`Data`].
    data: String,
    /// PNG file in Base64.
    pictures: String,
}

/// A row of the legend.
struct ListedClass<'a> {
    name: &'a str,
    color: &'static str,
    count: usize,
}

/// What the script of the page reads. Each list has a value for each point.
#[derive(Serialize)]
struct Data {
    /// Coordinates from 0 to 1, to the right and down.
    x: Vec<f64>,
    y: Vec<f64>,
    label: Vec<usize>,
    predicted: Vec<usize>,
    probability: Vec<f64>,
    name: Vec<String>,
    classes: Vec<Class>,
    /// Whether the names of the classes are on the map.
    is_labeled: bool,
    /// Arrangement of the pictures.
    columns: usize,
    height: usize,
    width: usize,
}

#[derive(Serialize)]
struct Class {
    name: String,
    color: &'static str,
    center: Option<[f64; 2]>,
}

/// Renders the page of a map. `names` are those of all images.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn page(
    name: &str,
    embedding: &Embedding,
    images: &ImageDataset,
    names: &[String],
    classes: &[String],
) -> Result<String> {
    let (png, grid) = pictures(embedding, images)?;
    let counts = embedding.counts(classes.len());
    let listed = classes.iter().zip(counts).enumerate();
    let listed = listed.map(|(class, (name, count))| ListedClass {
        name,
        color: class_color(class),
        count,
    });
    let page = Page {
        name: format!("{name}: test images by their features"),
        headline: headline(embedding),
        axes: axes(embedding),
        mistakes: embedding.mistakes(),
        classes: listed.collect(),
        data: script_json(&data(embedding, images, names, classes, grid))?,
        pictures: STANDARD.encode(png),
    };
    Ok(page.render()?)
}

/// Draws the pictures of all points, reduced as far as the size of the page requires.
fn pictures(embedding: &Embedding, images: &ImageDataset) -> Result<(Vec<u8>, Grid)> {
    let indices: Vec<usize> = embedding.images.iter().map(|image| image.index).collect();
    let columns = (indices.len() as f64).sqrt().ceil() as usize;
    let mut grid = Grid {
        columns,
        gap: 0,
        reduction: 1,
    };
    loop {
        let [height, width] = reduced_size(images, grid.reduction);
        let values = indices.len() * images.channels() * height * width;
        let is_smallest = height.min(width) <= MIN_SIDE;
        if values <= MAX_VALUES || is_smallest {
            let png = contact_sheet(images, &indices, grid)?;
            if png.len() <= MAX_BYTES || is_smallest {
                return Ok((png, grid));
            }
        }
        grid.reduction += 1;
    }
}

fn data(
    embedding: &Embedding,
    images: &ImageDataset,
    names: &[String],
    classes: &[String],
    grid: Grid,
) -> Data {
    let (center, half) = embedding.square();
    // Five digits: finer than any screen, and 100 kB less than all of them.
    let unit = |value: f64| (1e5 * value).round() / 1e5;
    let place = |[x, y]: [f64; 2]| {
        [x - center[0], center[1] - y].map(|offset| unit(0.5 + 0.5 * offset / half))
    };
    let places: Vec<[f64; 2]> = embedding
        .images
        .iter()
        .map(|image| place(image.position))
        .collect();
    let all = || embedding.images.iter();
    let [height, width] = reduced_size(images, grid.reduction);
    let centers = embedding.centers(classes.len()).into_iter();
    let class = |((index, name), center): ((usize, &String), Option<[f64; 2]>)| Class {
        name: printable(name).to_string(),
        color: class_color(index),
        center: center.map(place),
    };
    Data {
        x: places.iter().map(|place| place[0]).collect(),
        y: places.iter().map(|place| place[1]).collect(),
        label: all().map(|image| image.label).collect(),
        predicted: all().map(|image| image.predicted).collect(),
        probability: all().map(|image| unit(image.probability.into())).collect(),
        name: all()
            .map(|image| printable(&names[image.index]).to_string())
            .collect(),
        classes: classes.iter().enumerate().zip(centers).map(class).collect(),
        is_labeled: classes.len() <= MAX_LABELED,
        columns: grid.columns,
        height,
        width,
    }
}

/// Writes JSON that can be in a `script` element: without `<`, it cannot end the element.
fn script_json(data: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(data)?.replace('<', "\\u003c"))
}

#[cfg(test)]
mod tests {
    use data::Images;
    use serde_json::Value;

    use super::*;
    use crate::inference::embedding::{EmbeddedImage, Quality};

    /// Returns a map of noise, and the images: `count` images of a side.
    fn noise(count: usize, channels: usize, side: usize) -> (Embedding, ImageDataset) {
        let image = |index: usize| EmbeddedImage {
            index,
            label: index % 2,
            predicted: 0,
            probability: 0.25,
            position: [index as f64, 10.0],
        };
        let mut state = 1u32;
        let noise = std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let images = Images {
            channels,
            height: side,
            width: side,
            pixels: noise.take(count * channels * side * side).collect(),
        };
        let labels = (0..count).map(|at| (at % 2) as u8).collect();
        let embedding = Embedding {
            images: (0..count).map(image).collect(),
            quality: Quality::Tsne {
                perplexity: 30.0,
                divergence: 0.5,
            },
            features: 4,
            total: count,
        };
        (embedding, ImageDataset::new(images, labels).unwrap())
    }

    /// Returns the data in a page.
    fn data_of(page: &str) -> Value {
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn names_do_not_become_markup() {
        let (embedding, images) = noise(3, 1, 8);
        let attack = "</script><script>alert(1)</script>\"'<!--";
        let names = [attack, "עברית/🙂.png", "a\u{202e}b\n.png"].map(String::from);
        let classes = [attack.to_string(), "数字 & \"b\"".into(), "without".into()];
        let page = page(attack, &embedding, &images, &names, &classes).unwrap();
        // The data, and the script.
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(!page.contains("<!--"));
        let data = data_of(&page);
        assert_eq!(data["name"][0], attack);
        assert_eq!(data["name"][1], "עברית/🙂.png");
        assert_eq!(data["name"][2], "a\\u{202e}b\\n.png");
        assert_eq!(data["classes"][0]["name"], attack);
        assert_eq!(data["classes"][2]["center"], Value::Null);
        assert_eq!(data["x"], serde_json::json!([0.0, 0.5, 1.0]));
        assert_eq!(data["y"], serde_json::json!([0.5, 0.5, 0.5]));
        // Nothing is loaded from elsewhere.
        for (at, _) in page
            .match_indices("src=\"")
            .chain(page.match_indices("href=\""))
        {
            let rest = &page[at..];
            assert!(rest.split('"').nth(1).unwrap().starts_with("data:"));
        }
        for part in ["@import", "url(", "http:", "https:", "fetch("] {
            assert!(!page.contains(part), "{part}");
        }
    }

    #[test]
    fn large_pictures_are_reduced() {
        // 12 MB of noise, which cannot be compressed.
        let (embedding, images) = noise(1000, 3, 64);
        let (png, grid) = pictures(&embedding, &images).unwrap();
        assert!(
            grid.reduction == 2 && png.len() < MAX_BYTES,
            "{}",
            png.len()
        );
        let (embedding, images) = noise(1000, 1, 28);
        assert_eq!(pictures(&embedding, &images).unwrap().1.reduction, 1);
    }
}
