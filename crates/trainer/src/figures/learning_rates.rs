//! The loss over the learning rates of a range test.

use super::Figure;
use super::chart::{Axes, Scale};
use super::drawing::{Anchor, Area, Drawing, Font, colour};
use crate::training::range_test::Point;

const AREA: Area = Area {
    x: 62.0,
    y: 66.0,
    width: 520.0,
    height: 280.0,
};
const MARGIN: f64 = 20.0;
/// Below the curve: its axis.
const BOTTOM: f64 = 46.0;

/// A curve, with the rate at which the loss is lowest and the suggested one.
pub(crate) fn learning_rates(points: &[Point], lowest: Point, suggested: f64) -> Figure {
    let title = format!("Learning rate range test: {suggested:.1e} is suggested");
    let mut drawing = Drawing::new(
        &title,
        AREA.x + AREA.width + MARGIN,
        AREA.y + AREA.height + BOTTOM,
    );
    let rates = points.iter().map(|point| point.learning_rate);
    // What follows the lowest loss may be several times the first, and is cut off.
    let first = points.first().map_or(1.0, |point| point.loss);
    let top = 1.3 * first;
    let axes = Axes {
        area: AREA,
        x: Scale::powers(rates),
        y: Scale::of([0.0, top], 5).up_to(top),
    };
    axes.draw(&mut drawing, "learning rate", "loss, running mean");
    let marks = [
        (
            suggested,
            colour::BLUE,
            format!("suggested: {suggested:.1e}"),
        ),
        (
            lowest.learning_rate,
            colour::RED,
            format!("lowest: {:.1e}", lowest.learning_rate),
        ),
    ];
    for (row, (rate, colour, words)) in marks.into_iter().enumerate() {
        let (x, _) = axes.place(rate, 0.0);
        drawing.line((x, AREA.y), (x, AREA.y + AREA.height), colour, "5,4");
        let font = Font::new(11.0, Anchor::End).coloured(colour);
        // Above the curve, which begins below the top.
        let y = AREA.y + 13.0 + 16.0 * row as f64;
        drawing.text(x - 5.0, y, font, &words);
    }
    let shown = points.iter().filter(|point| point.loss <= top);
    let places = shown.map(|point| axes.place(point.learning_rate, point.loss));
    drawing.curve(&places.collect::<Vec<_>>(), colour::INK, "");
    let name = "learning-rates".into();
    Figure { name, drawing }
}
