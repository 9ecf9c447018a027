//! Pages about a data set: samples of its classes, pairs of copies, and probable label errors. Each is one self-contained file.

use anyhow::Result;
use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::ImageDataset;
use data::picture::to_png;

use crate::figures::contact_sheet::{Grid, contact_sheet};
use crate::process::printable::printable;
use crate::run::data_report::{ClassCounts, DataReport, Pair, Place, ReportedImages};
use crate::training::label_errors::LabelError;

/// Number of images of a class on a contact sheet.
const SHEET: usize = 40;
/// Number of images in a row of a contact sheet.
const COLUMNS: usize = 20;
/// Number of pairs or label errors on a page.
const MAX_GROUPS: usize = 100;

/// Data of the template `data.html`.
#[derive(Template)]
#[template(path = "data.html")]
struct Page {
    name: String,
    lines: Vec<String>,
    classes: Vec<ClassSample>,
    sections: Vec<Section>,
}

/// A class with its images, which are PNG files in Base64.
struct ClassSample {
    name: String,
    counts: [usize; 3],
    mean: String,
    sheet: String,
}

/// Images under a heading.
struct Section {
    title: String,
    note: String,
    groups: Vec<Group>,
}

/// Images that belong together, and what is said about them.
struct Group {
    images: Vec<InlineImage>,
    lines: Vec<String>,
    mark: Option<&'static str>,
}

/// A PNG file in Base64.
struct InlineImage {
    name: String,
    png: String,
}

/// Renders the page of a report.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn page(name: &str, report: &DataReport, images: &ReportedImages<'_>) -> Result<String> {
    let headings = report.findings().into_iter().map(|(heading, _)| heading);
    let lines = [report.headline()].into_iter().chain(headings);
    let sample = |(index, class): (usize, &ClassCounts)| {
        let train = &images.split.train;
        let of_class: Vec<usize> = (0..train.len())
            .filter(|&image| usize::from(train.label(image)) == index)
            .collect();
        anyhow::Ok(ClassSample {
            name: class.class.clone(),
            counts: [class.train, class.validation, class.test],
            mean: mean_image(train, &of_class)?,
            sheet: STANDARD.encode(contact_sheet(
                train,
                &of_class[..of_class.len().min(SHEET)],
                Grid {
                    columns: COLUMNS,
                    gap: 1,
                    reduction: 1,
                },
            )?),
        })
    };
    let section = |title: &str, pairs: &[Pair]| {
        let groups = pairs
            .iter()
            .take(MAX_GROUPS)
            .map(|pair| group(pair, images));
        anyhow::Ok(Section {
            title: title.into(),
            note: shown(pairs.len()),
            groups: groups.collect::<Result<_>>()?,
        })
    };
    let mut sections = Vec::new();
    for (title, pairs) in [
        ("Equal images", &report.equal),
        ("Similar images", &report.similar),
    ] {
        if !pairs.is_empty() {
            sections.push(section(title, pairs)?);
        }
    }
    let page = Page {
        name: name.into(),
        lines: lines.collect(),
        classes: report
            .classes
            .iter()
            .enumerate()
            .map(sample)
            .collect::<Result<_>>()?,
        sections,
    };
    Ok(page.render()?)
}

/// Renders the page of probable label errors.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn label_error_page(
    errors: &[LabelError],
    images: &ImageDataset,
    names: &[String],
    classes: &[String],
) -> Result<String> {
    let group = |error: &LabelError| {
        anyhow::Ok(Group {
            images: vec![InlineImage {
                name: names[error.index].clone(),
                png: png_of(images, error.index)?,
            }],
            lines: vec![
                format!(
                    "label: {}, {:.2}%",
                    classes[error.label],
                    100.0 * error.probability_of_label
                ),
                format!(
                    "suggested: {}, {:.2}%",
                    classes[error.suggested],
                    100.0 * error.probability
                ),
            ],
            mark: None,
        })
    };
    let page = Page {
        name: "Probable label errors".into(),
        lines: vec![format!(
            "{} of {} training images",
            errors.len(),
            images.len()
        )],
        classes: Vec::new(),
        sections: vec![Section {
            title: "The likeliest first".into(),
            note: shown(errors.len()),
            groups: errors
                .iter()
                .take(MAX_GROUPS)
                .map(group)
                .collect::<Result<_>>()?,
        }],
    };
    Ok(page.render()?)
}

fn shown(count: usize) -> String {
    match count > MAX_GROUPS {
        true => format!("{count}, of which the first {MAX_GROUPS} are shown"),
        false => count.to_string(),
    }
}

fn group(pair: &Pair, images: &ReportedImages<'_>) -> Result<Group> {
    let image = |place: &Place| {
        anyhow::Ok(InlineImage {
            name: format!("{} ({}, {})", place.name, place.split, place.class),
            png: png_of(images.images(place.split), place.index)?,
        })
    };
    Ok(Group {
        images: vec![image(&pair.first)?, image(&pair.second)?],
        lines: Vec::new(),
        mark: match (pair.contradicts(), pair.leaks()) {
            (true, _) => Some("different labels"),
            (_, true) => Some("in the test split and in another one"),
            _ => None,
        },
    })
}

fn png_of(images: &ImageDataset, index: usize) -> Result<String> {
    let pixels = images.pixels(index)?;
    let png = to_png(&pixels, images.channels(), images.height(), images.width());
    Ok(STANDARD.encode(png))
}

/// Averages images.
fn mean_image(images: &ImageDataset, indices: &[usize]) -> Result<String> {
    let (channels, height, width) = (images.channels(), images.height(), images.width());
    let mut sums = vec![0u64; channels * height * width];
    for &index in indices {
        for (sum, &pixel) in sums.iter_mut().zip(images.pixels(index)?.iter()) {
            *sum += u64::from(pixel);
        }
    }
    let count = indices.len().max(1) as u64;
    let mean: Vec<u8> = sums.iter().map(|sum| (sum / count) as u8).collect();
    Ok(STANDARD.encode(to_png(&mean, channels, height, width)))
}
