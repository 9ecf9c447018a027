//! Heat maps over gray images, and their color bars.

use data::picture::to_png;

use crate::figures::axes::MINUS;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::inference::heat_map::HeatMap;

/// Colors of positive and of negative values: [`color::RED`] and [`color::BLUE`].
const POSITIVE: [f32; 3] = [213.0, 94.0, 0.0];
const NEGATIVE: [f32; 3] = [0.0, 114.0, 178.0];
/// Gray of a black pixel below a heat map. Colors would be hard to tell apart on black.
const DARKEST: f32 = 90.0;
/// Opacity of the largest value.
const OPACITY: f32 = 0.95;
/// Number of colors of a color bar.
const BAR_STEPS: usize = 128;
/// Height of a color bar, and of the numbers below it.
const BAR: f64 = 8.0;
pub(crate) const BAR_HEIGHT: f64 = BAR + 16.0;

/// The range of the values of a heat map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// From 0.
    Positive,
    /// Both signs.
    Signed,
}

/// Returns an image, `[channels, height, width]`, in gray with a heat map over it, as PNG: orange for positive values and blue
/// for negative ones, transparent for 0.
pub(crate) fn overlay(pixels: &[u8], map: &HeatMap) -> Vec<u8> {
    let plane = map.height * map.width;
    let channels = pixels.len() / plane;
    let largest = map.largest();
    let mut colors = vec![0; 3 * plane];
    for (at, &value) in map.values.iter().enumerate() {
        let sum: f32 = (0..channels)
            .map(|channel| f32::from(pixels[channel * plane + at]))
            .sum();
        let gray = sum / channels as f32;
        let mixed = mix(gray, fraction(value, largest));
        for (channel, mixed) in mixed.into_iter().enumerate() {
            colors[channel * plane + at] = mixed;
        }
    }
    to_png(&colors, 3, map.height, map.width)
}

/// Draws a color bar of the values of a heat map, with numbers at its ends.
pub(crate) fn draw_bar(drawing: &mut Drawing, area: Area, map: &HeatMap, range: Range) {
    let largest = map.largest();
    let start = match range {
        Range::Positive => 0.0,
        Range::Signed => -1.0,
    };
    let mut colors = vec![0; 3 * BAR_STEPS];
    for step in 0..BAR_STEPS {
        let position = step as f32 / (BAR_STEPS - 1) as f32;
        let mixed = mix(127.0, start + (1.0 - start) * position);
        for (channel, mixed) in mixed.into_iter().enumerate() {
            colors[channel * BAR_STEPS + step] = mixed;
        }
    }
    let bar = Area {
        height: BAR,
        ..area
    };
    drawing.image(bar, &to_png(&colors, 3, 1, BAR_STEPS));
    drawing.frame(bar, color::FAINT, 0.5);
    let y = area.y + BAR + 12.0;
    let font = Font::new(10.0, Anchor::Start);
    let (middle, end) = (area.x + area.width / 2.0, area.x + area.width);
    drawing.text(end, y, font.with_anchor(Anchor::End), &short(largest));
    match range {
        Range::Positive => drawing.text(area.x, y, font, "0"),
        Range::Signed => {
            drawing.text(area.x, y, font, &short(-largest));
            drawing.text(middle, y, font.with_anchor(Anchor::Middle), "0");
        }
    }
}

/// Returns a value as a part of the largest one, -1 to 1.
fn fraction(value: f32, largest: f32) -> f32 {
    match value.is_finite() && largest > 0.0 {
        true => value / largest,
        false => 0.0,
    }
}

/// Mixes the gray of a pixel with the color of a value, -1 to 1.
fn mix(gray: f32, value: f32) -> [u8; 3] {
    let gray = DARKEST + (255.0 - DARKEST) * gray / 255.0;
    let color = if value < 0.0 { NEGATIVE } else { POSITIVE };
    let opacity = OPACITY * value.abs();
    color.map(|color| (gray + opacity * (color - gray)).round() as u8)
}

/// Formats a number with about two digits.
pub(crate) fn short(value: f32) -> String {
    let text = match value.abs() {
        0.0 => "0".into(),
        100.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        0.01.. => format!("{value:.2}"),
        0.001.. => format!("{value:.3}"),
        _ => format!("{value:.0e}"),
    };
    text.replace('-', MINUS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_between_gray_and_their_color() {
        assert_eq!(mix(255.0, 0.0), [255; 3]);
        assert_eq!(mix(0.0, 0.0), [90; 3]);
        let [red, _, blue] = mix(255.0, 1.0);
        assert!(red > 200 && blue < 20);
        let [red, _, blue] = mix(255.0, -1.0);
        assert!(red < 20 && blue > 170);
        // A map without evidence leaves the image gray.
        assert_eq!(fraction(0.0, 0.0), 0.0);
        assert_eq!(fraction(f32::NAN, 1.0), 0.0);
    }

    #[test]
    fn numbers_have_about_two_digits() {
        let values = [0.0, -0.0, 123.4, -1.25, 0.256, 0.0042, -0.00002];
        assert_eq!(
            values.map(short),
            [
                "0",
                "0",
                "123",
                "\u{2212}1.2",
                "0.26",
                "0.004",
                "\u{2212}2e\u{2212}5"
            ]
        );
    }
}
