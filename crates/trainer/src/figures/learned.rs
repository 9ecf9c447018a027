//! What a network learned to look for, and what it finds: filters and feature maps.

use data::picture::to_png;

use super::Figure;
use super::chart::MINUS;
use super::drawing::{Anchor, Area, Drawing, Font, colour};

/// Room for one filter or map, and for the words under it.
const CELL: f64 = 84.0;
const TILE: f64 = 70.0;
const WORDS: f64 = 20.0;
const MARGIN: f64 = 14.0;
/// Below the title, and the line that explains.
const TOP: f64 = 54.0;

/// Numbers `[height, width]`, shown in grey.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which of several.
    pub(crate) number: usize,
    pub(crate) values: Vec<f32>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Seen {
    /// Draws the numbers, the least black and the most white, with both under it.
    fn draw(&self, drawing: &mut Drawing, area: Area) {
        let (least, most) = self.range();
        let grey = |value: &f32| {
            let part = (value - least) / (most - least).max(f32::MIN_POSITIVE);
            (255.0 * part).round() as u8
        };
        let pixels: Vec<u8> = self.values.iter().map(grey).collect();
        let shaped = area.shaped(self.height, self.width);
        drawing.pixels(shaped, &to_png(&pixels, 1, self.height, self.width));
        drawing.frame(shaped, colour::FAINT, 0.5);
        let font = Font::new(10.0, Anchor::Middle);
        let middle = area.x + area.width / 2.0;
        let range = format!("{} to {}", short(least), short(most));
        drawing.text(middle, area.y + area.height + 13.0, font, &range);
    }

    fn range(&self) -> (f32, f32) {
        let start = (f32::INFINITY, f32::NEG_INFINITY);
        let values = self.values.iter();
        values.fold(start, |(least, most), &value| {
            (least.min(value), most.max(value))
        })
    }
}

/// A number in about four letters, with a real minus sign.
fn short(value: f32) -> String {
    let text = match value.abs() {
        10.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match text.as_str() {
        "-0.00" => "0.00".into(),
        text => text.replace('-', MINUS),
    }
}

/// The filters of a block, for one of the channels before it: eight in a row.
pub(crate) fn filters(block: usize, channel: usize, channels: usize, filters: &[Seen]) -> Figure {
    let size = filters.first().map_or(0, |filter| filter.width);
    let of = match channels {
        1 => String::new(),
        _ => format!(", for channel {channel} of 0 to {}", channels - 1),
    };
    let title = format!(
        "Block {block}: its {} filters of {size}x{size}{of}",
        filters.len()
    );
    let rows = filters.len().div_ceil(8) as f64;
    let width = 8.0 * CELL + 2.0 * MARGIN - (CELL - TILE);
    let mut drawing = Drawing::new(&title, width, TOP + rows * (CELL + WORDS - 8.0) + MARGIN);
    explain(
        &mut drawing,
        "black: the least weight of a filter, white: the most; both under it",
    );
    for (at, filter) in filters.iter().enumerate() {
        filter.draw(
            &mut drawing,
            Area {
                x: MARGIN + (at % 8) as f64 * CELL,
                y: TOP + (at / 8) as f64 * (CELL + WORDS - 8.0),
                width: TILE,
                height: TILE,
            },
        );
    }
    let name = match channels {
        1 => format!("filters-block{block}"),
        _ => format!("filters-block{block}-channel{channel}"),
    };
    Figure { name, drawing }
}

/// An image, and what a block makes of it.
pub(crate) fn feature_maps(
    block: usize,
    maps_in_block: usize,
    image: (&[u8], [usize; 3]),
    caption: &str,
    maps: &[Seen],
) -> Figure {
    let (pixels, [channels, height, width]) = image;
    let size = maps
        .first()
        .map_or(String::new(), |map| format!("{}x{}", map.width, map.height));
    let shown = maps.len();
    let title = format!("Block {block}: {shown} of its {maps_in_block} feature maps, {size}");
    let columns = maps.len().clamp(1, 8).min(maps.len().div_ceil(2).max(4));
    let rows = maps.len().div_ceil(columns) as f64;
    let row = CELL + 2.0 * WORDS - 4.0;
    let original = 2.0 * TILE;
    let left = MARGIN + original + 28.0;
    let full_width = left + columns as f64 * CELL - (CELL - TILE) + MARGIN;
    let full_height = TOP + f64::max(rows * row, original + 2.0 * WORDS) + MARGIN - 8.0;
    let mut drawing = Drawing::new(&title, full_width.max(420.0), full_height);
    explain(
        &mut drawing,
        "black: the least value of a map, white: the most; both under it",
    );
    let font = Font::new(13.0, Anchor::Middle);
    let caption = font.fit(caption, original + 24.0);
    drawing.text(MARGIN + original / 2.0, TOP + 12.0, font, &caption);
    let area = Area {
        x: MARGIN,
        y: TOP + WORDS,
        width: original,
        height: original,
    }
    .shaped(height, width);
    drawing.pixels(area, &to_png(pixels, channels, height, width));
    drawing.frame(area, colour::FAINT, 0.5);
    for (at, map) in maps.iter().enumerate() {
        let x = left + (at % columns) as f64 * CELL;
        let y = TOP + (at / columns) as f64 * row;
        let font = Font::new(11.0, Anchor::Middle);
        drawing.text(
            x + TILE / 2.0,
            y + 12.0,
            font,
            &format!("map {}", map.number),
        );
        let area = Area {
            x,
            y: y + WORDS,
            width: TILE,
            height: TILE,
        };
        map.draw(&mut drawing, area);
    }
    let name = format!("feature-maps-block{block}");
    Figure { name, drawing }
}

fn explain(drawing: &mut Drawing, words: &str) {
    let font = Font::new(11.0, Anchor::Start).coloured(colour::FAINT);
    drawing.text(12.0, 40.0, font, words);
}
