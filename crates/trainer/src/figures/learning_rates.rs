//! The loss over the learning rates of a range test.

use crate::figures::Figure;
use crate::figures::axes::{Axes, Scale};
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::training::range_test::Point;

const AREA: Area = Area {
    x: 62.0,
    y: 66.0,
    width: 520.0,
    height: 280.0,
};
const MARGIN: f64 = 20.0;
/// Height of the x axis.
const BOTTOM: f64 = 46.0;

/// Draws the loss curve, and marks the learning rate with the lowest loss and the suggested one.
pub(crate) fn learning_rates(points: &[Point], lowest: Point, suggested: f64) -> Figure {
    let title = format!("Learning rate range test: suggested learning rate {suggested:.1e}");
    let mut drawing = Drawing::new(
        &title,
        AREA.x + AREA.width + MARGIN,
        AREA.y + AREA.height + BOTTOM,
    );
    let rates = points.iter().map(|point| point.learning_rate);
    // The loss may diverge to several times its first value; the curve is cut off.
    let first = points.first().map_or(1.0, |point| point.loss);
    let top = 1.3 * first;
    let axes = Axes {
        area: AREA,
        x: Scale::logarithmic(rates),
        y: Scale::linear([0.0, top], 5).up_to(top),
    };
    axes.draw(&mut drawing, "learning rate", "loss, running mean");
    let marks = [
        (
            suggested,
            color::BLUE,
            format!("suggested: {suggested:.1e}"),
        ),
        (
            lowest.learning_rate,
            color::RED,
            format!("lowest loss: {:.1e}", lowest.learning_rate),
        ),
    ];
    for (row, (rate, color, text)) in marks.into_iter().enumerate() {
        let x = axes.x_of(rate);
        drawing.line((x, AREA.y), (x, AREA.y + AREA.height), color, "5,4");
        let font = Font::new(11.0, Anchor::End).with_color(color);
        // The curve starts below these lines of text.
        let y = AREA.y + 13.0 + 16.0 * row as f64;
        drawing.text(x - 5.0, y, font, &text);
    }
    let points = points.iter().filter(|point| point.loss <= top);
    let points = points.map(|point| axes.point(point.learning_rate, point.loss));
    drawing.curve(&points.collect::<Vec<_>>(), color::INK, "");
    let name = "learning-rates".into();
    Figure { name, drawing }
}
