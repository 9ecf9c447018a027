//! Accuracy under corruptions and attacks, as curves.

use crate::figures::Figure;
use crate::figures::axes::{Axes, Scale};
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::inference::adversarial::AdversarialAccuracy;
use crate::inference::robustness::CorruptionAccuracy;

/// The area of the curves. The names of the curves are to the right of it.
const AREA: Area = Area {
    x: 48.0,
    y: 62.0,
    width: 440.0,
    height: 300.0,
};
/// Width of the lines from the curves to their names, and of the names.
const LEADER: f64 = 26.0;
const NAMES: f64 = 190.0;
/// Smallest distance between the baselines of two names.
const LINE_HEIGHT: f64 = 17.0;
/// Dash patterns of curves after the colors are used up.
const DASHES: [&str; 2] = ["", "7,4"];

/// A curve of accuracies with its name.
struct Curve {
    name: String,
    /// Values of the x axis, and accuracies from 0 to 1.
    points: Vec<(f64, f64)>,
}

/// Draws the accuracy under each corruption by its strength.
pub(crate) fn corruptions(accuracy: &CorruptionAccuracy) -> Figure {
    let curves = accuracy.corruptions.iter().map(|row| {
        let accuracies = [accuracy.clean_accuracy].into_iter().chain(row.accuracy);
        Curve {
            name: format!("{}, mean {:.1}%", row.corruption, 100.0 * row.mean_accuracy),
            points: (0..).map(f64::from).zip(accuracies).collect(),
        }
    });
    let title = format!(
        "Accuracy under corruptions of {} test images; mean of all {:.2}%",
        accuracy.images,
        100.0 * accuracy.mean_accuracy
    );
    let curves: Vec<Curve> = curves.collect();
    let last = data::corruption::STRENGTHS;
    Figure {
        name: "corruptions".into(),
        drawing: draw(&title, Scale::integers(0, last), "strength", &curves),
    }
}

/// Draws the accuracy on adversarial images by epsilon.
pub(crate) fn adversarial(accuracy: &AdversarialAccuracy) -> Figure {
    let clean = (0.0, accuracy.clean_accuracy);
    let rows = || accuracy.epsilons.iter();
    let curves = [
        Curve {
            name: "FGSM".into(),
            points: [clean]
                .into_iter()
                .chain(rows().map(|row| (row.epsilon, row.fgsm)))
                .collect(),
        },
        Curve {
            name: format!("PGD, {} steps", accuracy.pgd_steps),
            points: [clean]
                .into_iter()
                .chain(rows().map(|row| (row.epsilon, row.pgd)))
                .collect(),
        },
    ];
    let title = format!(
        "Accuracy on adversarial images ({} test images)",
        accuracy.images
    );
    let x = Scale::linear(curves[0].points.iter().map(|point| point.0), 5);
    let x_name = "epsilon: largest change of a pixel, of its range";
    Figure {
        name: "adversarial".into(),
        drawing: draw(&title, x, x_name, &curves),
    }
}

/// Draws curves of accuracies, each with its name at its end.
fn draw(title: &str, x: Scale, x_name: &str, curves: &[Curve]) -> Drawing {
    let width = AREA.x + AREA.width + LEADER + NAMES;
    let mut drawing = Drawing::new(title, width, AREA.y + AREA.height + 48.0);
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let accuracies = points().map(|(_, accuracy)| 100.0 * accuracy);
    let axes = Axes {
        area: AREA,
        x,
        y: Scale::linear(accuracies, 6).up_to(100.0),
    };
    axes.draw(&mut drawing, x_name, "accuracy, %");
    let on_drawing = |curve: &Curve| -> Vec<(f64, f64)> {
        let points = curve.points.iter();
        points
            .map(|&(x, accuracy)| axes.point(x, 100.0 * accuracy))
            .collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = curves.iter().map(on_drawing).collect();
    let ends = lines.iter().filter_map(|line| line.last());
    let ends: Vec<f64> = ends.map(|&(_, y)| y).collect();
    let bottom = AREA.y + AREA.height;
    let font = Font::new(12.0, Anchor::Start);
    let names_x = AREA.x + AREA.width + LEADER;
    for (index, (curve, line)) in curves.iter().zip(&lines).enumerate() {
        let colors = color::SERIES.len();
        let color = color::SERIES[index % colors];
        let dash = DASHES[index / colors % DASHES.len()];
        let name_y = spread(&ends, LINE_HEIGHT, bottom)[index];
        if let Some(&end) = line.last() {
            drawing.curve(&[end, (names_x, name_y)], color, "1,3");
        }
        drawing.curve(line, color, dash);
        for &(x, y) in line {
            drawing.dot(x, y, color, dash.is_empty());
        }
        drawing.text(names_x + 6.0, name_y + 4.0, font, &curve.name);
    }
    drawing
}

/// Moves positions apart to a minimum distance, in their order and above `bottom`.
fn spread(positions: &[f64], distance: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|&a, &b| positions[a].total_cmp(&positions[b]));
    let mut spread = positions.to_vec();
    let mut next = f64::NEG_INFINITY;
    for &index in &order {
        spread[index] = spread[index].max(next);
        next = spread[index] + distance;
    }
    let mut last = bottom;
    for &index in order.iter().rev() {
        spread[index] = spread[index].min(last);
        last = spread[index] - distance;
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_overlap_and_stay_above_the_axis() {
        assert_eq!(spread(&[10.0, 50.0], 15.0, 100.0), [10.0, 50.0]);
        assert_eq!(spread(&[12.0, 10.0, 11.0], 15.0, 100.0), [40.0, 10.0, 25.0]);
        assert_eq!(
            spread(&[99.0, 98.0, 97.0], 15.0, 100.0),
            [100.0, 85.0, 70.0]
        );
    }
}
