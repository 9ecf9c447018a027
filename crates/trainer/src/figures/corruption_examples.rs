//! Test images under each corruption.

use data::corruption::{Corruption, STRENGTHS};
use data::picture::to_png;

use crate::figures::Figure;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};

const TILE: f64 = 72.0;
const GAP: f64 = 6.0;
const MARGIN: f64 = 14.0;
/// Width of the names of the corruptions.
const NAMES: f64 = 84.0;
/// Height of the title and the column heads.
const TOP: f64 = 56.0;

/// Draws an image, and one row for each corruption with its strengths. Pixels are `[channels, height, width]`.
pub(crate) fn corruption_examples(
    original: &[u8],
    corruptions: &[(Corruption, [Vec<u8>; STRENGTHS])],
    [channels, height, width]: [usize; 3],
    caption: &str,
) -> Figure {
    let step = TILE + GAP;
    let left = |column: usize| MARGIN + NAMES + column as f64 * step;
    let mut drawing = Drawing::new(
        &format!("Corruptions of a test image, {caption}, by strength"),
        left(STRENGTHS + 1) - GAP + MARGIN,
        TOP + corruptions.len() as f64 * step - GAP + MARGIN,
    );
    let head = Font::new(11.0, Anchor::Middle).with_color(color::FAINT);
    for column in 0..=STRENGTHS {
        drawing.text(
            left(column) + TILE / 2.0,
            TOP - 8.0,
            head,
            &column.to_string(),
        );
    }
    let name_font = Font::new(12.0, Anchor::Start);
    for (row, (corruption, strengths)) in corruptions.iter().enumerate() {
        let y = TOP + row as f64 * step;
        drawing.text(MARGIN, y + TILE / 2.0 + 4.0, name_font, corruption.name());
        let images = [original]
            .into_iter()
            .chain(strengths.iter().map(Vec::as_slice));
        for (column, pixels) in images.enumerate() {
            let area = Area {
                x: left(column),
                y,
                width: TILE,
                height: TILE,
            }
            .fit_image(height, width);
            drawing.image(area, &to_png(pixels, channels, height, width));
            drawing.frame(area, color::FAINT, 0.5);
        }
    }
    Figure {
        name: "corruption-examples".into(),
        drawing,
    }
}
