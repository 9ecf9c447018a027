//! Filters of a convolution block, and its feature maps of an image.

use data::picture::to_png;

use crate::figures::Figure;
use crate::figures::axes::MINUS;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};

/// Distance between tiles.
const CELL: f64 = 84.0;
const TILE: f64 = 70.0;
/// Height of a line of text above or below a tile.
const CAPTION: f64 = 20.0;
const MARGIN: f64 = 14.0;
/// Height of the title and the legend.
const TOP: f64 = 54.0;

/// A two-dimensional slice of a tensor: one filter for one input channel, or one feature map.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    /// Index of the filter or feature map.
    pub(crate) index: usize,
    /// `[height, width]`.
    pub(crate) values: Vec<f32>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Plane {
    /// Draws the values in gray, from black (smallest) to white (largest), with the range below.
    fn draw(&self, drawing: &mut Drawing, area: Area) {
        let (min, max) = self.range();
        let gray = |value: &f32| {
            let fraction = (value - min) / (max - min).max(f32::MIN_POSITIVE);
            (255.0 * fraction).round() as u8
        };
        let pixels: Vec<u8> = self.values.iter().map(gray).collect();
        let image_area = area.fit_image(self.height, self.width);
        drawing.image(image_area, &to_png(&pixels, 1, self.height, self.width));
        drawing.frame(image_area, color::FAINT, 0.5);
        let font = Font::new(10.0, Anchor::Middle);
        let middle = area.x + area.width / 2.0;
        let range = format!("{} to {}", format_short(min), format_short(max));
        drawing.text(middle, area.y + area.height + 13.0, font, &range);
    }

    fn range(&self) -> (f32, f32) {
        let start = (f32::INFINITY, f32::NEG_INFINITY);
        let values = self.values.iter();
        values.fold(start, |(min, max), &value| (min.min(value), max.max(value)))
    }
}

/// Formats a number in about four characters.
fn format_short(value: f32) -> String {
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

/// Draws the filters of block `block`, counted from 1, for input channel `channel` of `channels`.
pub(crate) fn filters(block: usize, channel: usize, channels: usize, filters: &[Plane]) -> Figure {
    let size = filters.first().map_or(0, |filter| filter.width);
    let of_channel = match channels {
        1 => String::new(),
        _ => format!(", input channel {channel} of 0 to {}", channels - 1),
    };
    let title = format!(
        "Block {block}: {} filters of {size}x{size}{of_channel}",
        filters.len()
    );
    let rows = filters.len().div_ceil(8) as f64;
    let width = 8.0 * CELL + 2.0 * MARGIN - (CELL - TILE);
    let mut drawing = Drawing::new(&title, width, TOP + rows * (CELL + CAPTION - 8.0) + MARGIN);
    draw_legend(
        &mut drawing,
        "black: smallest weight of each filter, white: largest; range below",
    );
    for (place, filter) in filters.iter().enumerate() {
        filter.draw(
            &mut drawing,
            Area {
                x: MARGIN + (place % 8) as f64 * CELL,
                y: TOP + (place / 8) as f64 * (CELL + CAPTION - 8.0),
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

/// A filter of color images.
#[derive(Clone, Debug)]
pub(crate) struct ColorFilter {
    /// Weights for red, green and blue, `[3, height, width]`.
    pub(crate) values: Vec<f32>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl ColorFilter {
    /// Returns the weights as a color picture: gray for 0, and the largest absolute weight at the end of the range.
    fn to_png(&self) -> Vec<u8> {
        let largest = self.values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let shade = |weight: &f32| {
            let fraction = 0.5 + 0.5 * weight / largest.max(f32::MIN_POSITIVE);
            (255.0 * fraction).round() as u8
        };
        let pixels: Vec<u8> = self.values.iter().map(shade).collect();
        to_png(&pixels, 3, self.height, self.width)
    }
}

/// Draws the filters of block `block`, counted from 1, which sees color images.
pub(crate) fn color_filters(block: usize, filters: &[ColorFilter]) -> Figure {
    let size = filters.first().map_or(0, |filter| filter.width);
    let title = format!(
        "Block {block}: {} color filters of {size}x{size}",
        filters.len()
    );
    let rows = filters.len().div_ceil(8) as f64;
    let width = 8.0 * CELL + 2.0 * MARGIN - (CELL - TILE);
    let mut drawing = Drawing::new(&title, width, TOP + rows * CELL + MARGIN);
    draw_legend(
        &mut drawing,
        "weights for red, green and blue; gray: 0, each filter scaled to its largest weight",
    );
    for (place, filter) in filters.iter().enumerate() {
        let area = Area {
            x: MARGIN + (place % 8) as f64 * CELL,
            y: TOP + (place / 8) as f64 * CELL,
            width: TILE,
            height: TILE,
        }
        .fit_image(filter.height, filter.width);
        drawing.image(area, &filter.to_png());
        drawing.frame(area, color::FAINT, 0.5);
    }
    let name = format!("filters-block{block}");
    Figure { name, drawing }
}

/// Draws an image with its caption, and some of the `total` feature maps that block `block`, counted
/// from 1, computes of it.
pub(crate) fn feature_maps(
    block: usize,
    total: usize,
    image: (&[u8], [usize; 3]),
    caption: &str,
    maps: &[Plane],
) -> Figure {
    let (pixels, [channels, height, width]) = image;
    let size = maps
        .first()
        .map_or(String::new(), |map| format!("{}x{}", map.width, map.height));
    let count = maps.len();
    let title = format!("Block {block}: {count} of {total} feature maps, {size}");
    let columns = maps.len().clamp(1, 8).min(maps.len().div_ceil(2).max(4));
    let rows = maps.len().div_ceil(columns) as f64;
    let row = CELL + 2.0 * CAPTION - 4.0;
    let original = 2.0 * TILE;
    let left = MARGIN + original + 28.0;
    let full_width = left + columns as f64 * CELL - (CELL - TILE) + MARGIN;
    let full_height = TOP + f64::max(rows * row, original + 2.0 * CAPTION) + MARGIN - 8.0;
    let mut drawing = Drawing::new(&title, full_width.max(420.0), full_height);
    draw_legend(
        &mut drawing,
        "black: smallest value of each map, white: largest; range below",
    );
    let font = Font::new(13.0, Anchor::Middle);
    let caption = font.fit(caption, original + 24.0);
    drawing.text(MARGIN + original / 2.0, TOP + 12.0, font, &caption);
    let area = Area {
        x: MARGIN,
        y: TOP + CAPTION,
        width: original,
        height: original,
    }
    .fit_image(height, width);
    drawing.image(area, &to_png(pixels, channels, height, width));
    drawing.frame(area, color::FAINT, 0.5);
    for (place, map) in maps.iter().enumerate() {
        let x = left + (place % columns) as f64 * CELL;
        let y = TOP + (place / columns) as f64 * row;
        let font = Font::new(11.0, Anchor::Middle);
        let text = format!("map {}", map.index);
        drawing.text(x + TILE / 2.0, y + 12.0, font, &text);
        let area = Area {
            x,
            y: y + CAPTION,
            width: TILE,
            height: TILE,
        };
        map.draw(&mut drawing, area);
    }
    let name = format!("feature-maps-block{block}");
    Figure { name, drawing }
}

fn draw_legend(drawing: &mut Drawing, text: &str) {
    let font = Font::new(11.0, Anchor::Start).with_color(color::FAINT);
    drawing.text(12.0, 40.0, font, text);
}
