//! How loss and accuracy went over the epochs of a run, or of several.

use super::Figure;
use super::chart::{Axes, Scale};
use super::drawing::{Anchor, Area, Drawing, Font, colour};
use crate::run::epoch::{Epoch, best_epoch};
use crate::run::metrics::Metrics;

/// A panel of curves, and what is around it.
const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 46.0;

/// A line through the epochs.
struct Curve {
    name: String,
    colour: &'static str,
    dash: &'static str,
    /// Epoch, loss and accuracy.
    points: Vec<(f64, Metrics)>,
    /// The epoch whose weights were kept.
    best: Option<usize>,
}

impl Curve {
    fn of(
        name: impl Into<String>,
        colour: &'static str,
        dash: &'static str,
        epochs: &[Epoch],
        figures: impl Fn(&Epoch) -> Option<Metrics>,
    ) -> Self {
        let point = |epoch: &Epoch| Some((epoch.number as f64, figures(epoch)?));
        Self {
            name: name.into(),
            colour,
            dash,
            points: epochs.iter().filter_map(point).collect(),
            best: best_epoch(epochs).map(|best| best.number),
        }
    }
}

/// Loss and accuracy of a run, on each of its splits, with its best epoch.
pub(crate) fn curves(epochs: &[Epoch]) -> Figure {
    let curves = [
        Curve::of("train", colour::BLUE, "", epochs, |epoch| Some(epoch.train)),
        Curve::of("validation", colour::RED, "7,4", epochs, |epoch| {
            epoch.validation
        }),
        Curve::of(
            "test, reported only",
            colour::SERIES[2],
            "2,3",
            epochs,
            |epoch| epoch.test,
        ),
    ];
    let curves: Vec<Curve> = curves
        .into_iter()
        .filter(|c| !c.points.is_empty())
        .collect();
    let best = best_epoch(epochs).map(|best| best.number);
    let title = match best {
        Some(best) => format!("Loss and accuracy by epoch; the weights are those of epoch {best}"),
        None => "Loss and accuracy by epoch".into(),
    };
    let drawing = panels(&title, &curves, best);
    let name = "curves".into();
    Figure { name, drawing }
}

/// Loss and accuracy of several runs: on validation, or on training for those without it.
pub(crate) fn compared(runs: &[(String, &[Epoch])]) -> Figure {
    let dashes = ["", "7,4", "2,3"];
    let curves: Vec<Curve> = runs
        .iter()
        .enumerate()
        .map(|(at, (name, epochs))| {
            let colours = colour::SERIES.len();
            let colour = colour::SERIES[at % colours];
            let dash = dashes[at / colours % dashes.len()];
            let is_validated = epochs.iter().any(|epoch| epoch.validation.is_some());
            match is_validated {
                true => Curve::of(name, colour, dash, epochs, |epoch| epoch.validation),
                false => {
                    let name = format!("{name} (train)");
                    Curve::of(name, colour, dash, epochs, |epoch| Some(epoch.train))
                }
            }
        })
        .collect();
    let title = format!(
        "{} runs by epoch, on validation where there is one",
        runs.len()
    );
    let drawing = panels(&title, &curves, None);
    let name = "comparison".into();
    Figure { name, drawing }
}

/// A panel for loss and one for accuracy, their legend above.
fn panels(title: &str, curves: &[Curve], best: Option<usize>) -> Drawing {
    let full_width = 2.0 * (LEFT + WIDTH) + 42.0;
    let font = Font::new(12.0, Anchor::Start);
    let mut entries = Vec::new();
    let (mut x, mut line) = (LEFT, 0.0);
    for curve in curves {
        let name = font.fit(&curve.name, 300.0);
        let width = font.width(&name) + 64.0;
        if x > LEFT && x + width > full_width {
            (x, line) = (LEFT, line + 1.0);
        }
        entries.push((x, 44.0 + 18.0 * line, name));
        x += width;
    }
    let top = TOP + 18.0 * line;
    let mut drawing = Drawing::new(title, full_width, top + HEIGHT + BOTTOM);
    for (curve, (x, y, name)) in curves.iter().zip(entries) {
        drawing.curve(
            &[(x, y - 4.0), (x + 30.0, y - 4.0)],
            curve.colour,
            curve.dash,
        );
        drawing.dot(x + 15.0, y - 4.0, curve.colour, curve.dash.is_empty());
        drawing.text(x + 38.0, y, font, &name);
    }
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let last = points()
        .map(|(epoch, _)| *epoch as usize)
        .max()
        .unwrap_or(1);
    for (panel, name) in ["loss", "accuracy, %"].into_iter().enumerate() {
        let value = |figures: &Metrics| match panel {
            0 => figures.loss,
            _ => 100.0 * figures.accuracy,
        };
        let area = Area {
            x: LEFT + panel as f64 * (WIDTH + LEFT + 16.0),
            y: top,
            width: WIDTH,
            height: HEIGHT,
        };
        let y = Scale::of(points().map(|(_, figures)| value(figures)), 5);
        let axes = Axes {
            area,
            x: Scale::whole(1, last),
            y: if panel == 1 { y.up_to(100.0) } else { y },
        };
        axes.draw(&mut drawing, "epoch", name);
        if let Some(best) = best {
            let (x, _) = axes.place(best as f64, 0.0);
            drawing.line((x, top), (x, top + HEIGHT), colour::FAINT, "5,4");
            // Beside the line, where there is room: losses fall, accuracies rise.
            let y = [top + 13.0, top + HEIGHT - 7.0][panel];
            let (anchor, x) = match x < area.x + area.width / 2.0 {
                true => (Anchor::Start, x + 5.0),
                false => (Anchor::End, x - 5.0),
            };
            let font = Font::new(11.0, anchor).coloured(colour::FAINT);
            drawing.text(x, y, font, "best");
        }
        for curve in curves {
            let place = |(x, figures): &(f64, Metrics)| axes.place(*x, value(figures));
            let places: Vec<(f64, f64)> = curve.points.iter().map(place).collect();
            drawing.curve(&places, curve.colour, curve.dash);
            // Many epochs are a line; few are points.
            let is_few = curve.points.len() <= 30;
            for ((epoch, _), &(x, y)) in curve.points.iter().zip(&places) {
                let is_best = curve.best == Some(*epoch as usize);
                if is_few || is_best {
                    drawing.dot(x, y, curve.colour, curve.dash.is_empty());
                }
            }
        }
    }
    drawing
}
