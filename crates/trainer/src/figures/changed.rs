//! What training images look like after their random changes.

use data::picture::to_png;

use super::Figure;
use super::drawing::{Anchor, Area, Drawing, Font, colour};

const TILE: f64 = 64.0;
const GAP: f64 = 6.0;
const MARGIN: f64 = 14.0;
/// Below the title, and the line over the columns.
const TOP: f64 = 56.0;

/// An image `[channels, height, width]`, and what it becomes.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) original: Vec<u8>,
    pub(crate) changes: Vec<Vec<u8>>,
}

/// A row for each image: as it is, and as a network sees it in some epochs.
pub(crate) fn augmentation(images: &[Changed], [channels, height, width]: [usize; 3]) -> Figure {
    let columns = images.first().map_or(0, |image| image.changes.len());
    let step = TILE + GAP;
    // The first column stands apart.
    let left =
        |column: usize| MARGIN + column as f64 * step + if column > 0 { 3.0 * GAP } else { 0.0 };
    let mut drawing = Drawing::new(
        "Augmentation: training images, changed at random in each epoch",
        left(columns + 1) - GAP + MARGIN,
        TOP + images.len() as f64 * step + MARGIN - GAP,
    );
    let font = Font::new(11.0, Anchor::Middle).coloured(colour::FAINT);
    drawing.text(left(0) + TILE / 2.0, TOP - 8.0, font, "as it is");
    for column in 1..=columns {
        drawing.text(
            left(column) + TILE / 2.0,
            TOP - 8.0,
            font,
            &format!("epoch {column}"),
        );
    }
    for (row, image) in images.iter().enumerate() {
        for (column, pixels) in std::iter::once(&image.original)
            .chain(&image.changes)
            .enumerate()
        {
            let area = Area {
                x: left(column),
                y: TOP + row as f64 * step,
                width: TILE,
                height: TILE,
            }
            .shaped(height, width);
            drawing.pixels(area, &to_png(pixels, channels, height, width));
            drawing.frame(area, colour::FAINT, 0.5);
        }
    }
    let name = "augmentation".into();
    Figure { name, drawing }
}
