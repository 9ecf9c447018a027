//! Loss and accuracy by epoch, of one run or of several.

use crate::figures::Figure;
use crate::figures::axes::{Axes, Scale};
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::run::epoch::{Epoch, best_epoch};
use crate::run::metrics::Metrics;

/// Size of a panel of curves, and the room around it.
const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 46.0;
/// Curves with more points are drawn without dots.
const MAX_DOTS: usize = 30;

/// The metrics of one split by epoch.
struct Curve {
    name: String,
    color: &'static str,
    dash: &'static str,
    points: Vec<(usize, Metrics)>,
    /// The best epoch, always drawn with a dot.
    best: Option<usize>,
}

impl Curve {
    /// Creates a curve of the epochs for which `metrics` returns some.
    fn new(
        name: impl Into<String>,
        color: &'static str,
        dash: &'static str,
        epochs: &[Epoch],
        metrics: impl Fn(&Epoch) -> Option<Metrics>,
    ) -> Self {
        let point = |epoch: &Epoch| Some((epoch.number, metrics(epoch)?));
        Self {
            name: name.into(),
            color,
            dash,
            points: epochs.iter().filter_map(point).collect(),
            best: best_epoch(epochs).map(|best| best.number),
        }
    }
}

/// Draws the loss and accuracy of a run on each split, and marks the best epoch.
pub(crate) fn curves(epochs: &[Epoch]) -> Figure {
    let curves = [
        Curve::new("train", color::BLUE, "", epochs, |epoch| Some(epoch.train)),
        Curve::new("validation", color::RED, "7,4", epochs, |epoch| {
            epoch.validation
        }),
        Curve::new(
            "test, reported only",
            color::SERIES[2],
            "2,3",
            epochs,
            |epoch| epoch.test,
        ),
    ];
    let curves: Vec<Curve> = curves
        .into_iter()
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let best = best_epoch(epochs).map(|best| best.number);
    let title = match best {
        Some(best) => format!("Loss and accuracy by epoch; saved weights: epoch {best}"),
        None => "Loss and accuracy by epoch".into(),
    };
    let drawing = draw_panels(&title, &curves, best);
    let name = "curves".into();
    Figure { name, drawing }
}

/// Draws the validation metrics of several runs; training metrics of runs without validation.
pub(crate) fn comparison(runs: &[(String, &[Epoch])]) -> Figure {
    let dashes = ["", "7,4", "2,3"];
    let curves: Vec<Curve> = runs
        .iter()
        .enumerate()
        .map(|(index, (name, epochs))| {
            let colors = color::SERIES.len();
            let color = color::SERIES[index % colors];
            let dash = dashes[index / colors % dashes.len()];
            let has_validation = epochs.iter().any(|epoch| epoch.validation.is_some());
            match has_validation {
                true => Curve::new(name, color, dash, epochs, |epoch| epoch.validation),
                false => {
                    let name = format!("{name} (train)");
                    Curve::new(name, color, dash, epochs, |epoch| Some(epoch.train))
                }
            }
        })
        .collect();
    let title = format!(
        "{} runs by epoch: validation metrics, or training metrics of runs without validation",
        runs.len()
    );
    let drawing = draw_panels(&title, &curves, None);
    let name = "comparison".into();
    Figure { name, drawing }
}

/// Draws a panel for the loss and one for the accuracy, below a legend.
fn draw_panels(title: &str, curves: &[Curve], best: Option<usize>) -> Drawing {
    let full_width = 2.0 * (LEFT + WIDTH) + 42.0;
    let font = Font::new(12.0, Anchor::Start);
    let mut legend = Vec::new();
    let (mut x, mut line) = (LEFT, 0.0);
    for curve in curves {
        let name = font.fit(&curve.name, 300.0);
        let width = font.width(&name) + 64.0;
        if x > LEFT && x + width > full_width {
            (x, line) = (LEFT, line + 1.0);
        }
        legend.push((x, 44.0 + 18.0 * line, name));
        x += width;
    }
    let top = TOP + 18.0 * line;
    let mut drawing = Drawing::new(title, full_width, top + HEIGHT + BOTTOM);
    for (curve, (x, y, name)) in curves.iter().zip(legend) {
        drawing.curve(
            &[(x, y - 4.0), (x + 30.0, y - 4.0)],
            curve.color,
            curve.dash,
        );
        drawing.dot(x + 15.0, y - 4.0, curve.color, curve.dash.is_empty());
        drawing.text(x + 38.0, y, font, &name);
    }
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let last = points().map(|(epoch, _)| *epoch).max().unwrap_or(1);
    for (panel, name) in ["loss", "accuracy, %"].into_iter().enumerate() {
        let value = |metrics: &Metrics| match panel {
            0 => metrics.loss,
            _ => 100.0 * metrics.accuracy,
        };
        let area = Area {
            x: LEFT + panel as f64 * (WIDTH + LEFT + 16.0),
            y: top,
            width: WIDTH,
            height: HEIGHT,
        };
        let y = Scale::linear(points().map(|(_, metrics)| value(metrics)), 5);
        let axes = Axes {
            area,
            x: Scale::integers(1, last),
            y: if panel == 1 { y.up_to(100.0) } else { y },
        };
        axes.draw(&mut drawing, "epoch", name);
        if let Some(best) = best {
            let x = axes.x_of(best as f64);
            drawing.line((x, top), (x, top + HEIGHT), color::FAINT, "5,4");
            // Losses fall and accuracies rise, which leaves room at the top and at the bottom.
            let y = [top + 13.0, top + HEIGHT - 7.0][panel];
            let (anchor, x) = match x < area.x + area.width / 2.0 {
                true => (Anchor::Start, x + 5.0),
                false => (Anchor::End, x - 5.0),
            };
            let font = Font::new(11.0, anchor).with_color(color::FAINT);
            drawing.text(x, y, font, "best");
        }
        for curve in curves {
            let point =
                |(epoch, metrics): &(usize, Metrics)| axes.point(*epoch as f64, value(metrics));
            let points: Vec<(f64, f64)> = curve.points.iter().map(point).collect();
            drawing.curve(&points, curve.color, curve.dash);
            let has_dots = points.len() <= MAX_DOTS;
            for (&(epoch, _), (x, y)) in curve.points.iter().zip(points) {
                if has_dots || curve.best == Some(epoch) {
                    drawing.dot(x, y, curve.color, curve.dash.is_empty());
                }
            }
        }
    }
    drawing
}
