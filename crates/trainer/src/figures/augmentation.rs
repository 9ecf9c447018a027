//! Training images and their random variants.

use data::picture::to_png;

use crate::figures::Figure;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};

const TILE: f64 = 64.0;
const GAP: f64 = 6.0;
const MARGIN: f64 = 14.0;
/// Height of the title and the column heads.
const TOP: f64 = 56.0;

/// Height of the line with the weights of mixed images.
const WEIGHTS: f64 = 14.0;

/// Training images in one epoch.
#[derive(Clone, Debug)]
pub(crate) struct AugmentedEpoch {
    /// Pixels of each image, `[channels, height, width]`.
    pub(crate) images: Vec<Vec<u8>>,
    /// Weight of the second class, if the images are mixed with each other.
    pub(crate) second_weight: Option<f64>,
}

/// Draws one row per image: the original, then its variants by epoch. With mixed images, a line has the
/// weights of the two classes in each epoch.
pub(crate) fn augmentation(
    originals: &[&[u8]],
    epochs: &[AugmentedEpoch],
    [channels, height, width]: [usize; 3],
) -> Figure {
    let columns = epochs.len();
    let is_mixed = epochs.iter().any(|epoch| epoch.second_weight.is_some());
    let top = if is_mixed { TOP + WEIGHTS } else { TOP };
    let step = TILE + GAP;
    // A wider gap separates the originals.
    let left =
        |column: usize| MARGIN + column as f64 * step + if column > 0 { 3.0 * GAP } else { 0.0 };
    let mut drawing = Drawing::new(
        "Augmentation: training images and their random variants",
        left(columns + 1) - GAP + MARGIN,
        top + originals.len() as f64 * step + MARGIN - GAP,
    );
    let font = Font::new(11.0, Anchor::Middle).with_color(color::FAINT);
    drawing.text(left(0) + TILE / 2.0, TOP - 8.0, font, "original");
    for (column, epoch) in (1..).zip(epochs) {
        let middle = left(column) + TILE / 2.0;
        drawing.text(middle, TOP - 8.0, font, &format!("epoch {column}"));
        if let Some(weight) = epoch.second_weight {
            let second = (100.0 * weight).round();
            let weights = format!("{}% + {second}%", 100.0 - second);
            drawing.text(middle, top - 8.0, font, &weights);
        }
    }
    for (row, &original) in originals.iter().enumerate() {
        let variants = epochs.iter().map(|epoch| epoch.images[row].as_slice());
        for (column, pixels) in std::iter::once(original).chain(variants).enumerate() {
            let area = Area {
                x: left(column),
                y: top + row as f64 * step,
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
