//! Training images and their random variants.

use data::picture::to_png;

use crate::figures::Figure;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};

const TILE: f64 = 64.0;
const GAP: f64 = 6.0;
const MARGIN: f64 = 14.0;
/// Height of the title and the column heads.
const TOP: f64 = 56.0;

/// A training image and its variant in each epoch; pixels are `[channels, height, width]`.
#[derive(Clone, Debug)]
pub(crate) struct AugmentedImage {
    pub(crate) original: Vec<u8>,
    pub(crate) variants: Vec<Vec<u8>>,
}

/// Draws one row per image: the original, then its variants by epoch.
pub(crate) fn augmentation(
    images: &[AugmentedImage],
    [channels, height, width]: [usize; 3],
) -> Figure {
    let columns = images.first().map_or(0, |image| image.variants.len());
    let step = TILE + GAP;
    // A wider gap separates the originals.
    let left =
        |column: usize| MARGIN + column as f64 * step + if column > 0 { 3.0 * GAP } else { 0.0 };
    let mut drawing = Drawing::new(
        "Augmentation: training images and their random variants",
        left(columns + 1) - GAP + MARGIN,
        TOP + images.len() as f64 * step + MARGIN - GAP,
    );
    let font = Font::new(11.0, Anchor::Middle).with_color(color::FAINT);
    drawing.text(left(0) + TILE / 2.0, TOP - 8.0, font, "original");
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
            .chain(&image.variants)
            .enumerate()
        {
            let area = Area {
                x: left(column),
                y: TOP + row as f64 * step,
                width: TILE,
                height: TILE,
            }
            .fit_image(height, width);
            drawing.image(area, &to_png(pixels, channels, height, width));
            drawing.frame(area, color::FAINT, 0.5);
        }
    }
    let name = "augmentation".into();
    Figure { name, drawing }
}
