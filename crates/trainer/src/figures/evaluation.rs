//! An evaluation: the confusion matrix and the accuracy of each class.

use crate::figures::Figure;
use crate::figures::axes::{Axes, Scale};
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::inference::calibration::wilson_interval;
use crate::inference::evaluation::{ClassMetrics, Evaluation};

const MARGIN: f64 = 14.0;

/// Draws the confusion matrix. With more than 40 classes, cells are shaded but have no counts.
pub(crate) fn confusion(evaluation: &Evaluation) -> Figure {
    let classes = evaluation.classes.len();
    let counts = || evaluation.confusion.iter().flatten();
    let digits = counts().max().map_or(1, |max| max.to_string().len()) as f64;
    let (cell, size) = match classes {
        0..=12 => (f64::max(40.0, 8.0 * digits + 12.0), 12.0),
        13..=40 => (f64::max(24.0, 6.0 * digits + 6.0), 9.0),
        _ => (10.0, 8.0),
    };
    let font = Font::new(size, Anchor::Middle);
    let name_width = |row: &ClassMetrics| font.width(&row.class);
    let names = evaluation
        .classes
        .iter()
        .map(name_width)
        .fold(20.0, f64::max)
        .min(120.0);
    // Names wider than a column are slanted.
    let is_slanted = names > cell - 2.0;
    let side = cell * classes as f64;
    let area = Area {
        x: MARGIN + 22.0 + names,
        y: 70.0 + if is_slanted { 0.75 * names } else { 0.0 },
        width: side,
        height: side,
    };
    let title = format!(
        "Confusion matrix: {} test images, {:.2}% correct",
        evaluation.examples,
        100.0 * evaluation.accuracy
    );
    let right = MARGIN + if is_slanted { 0.75 * names } else { 0.0 };
    let width = f64::max(area.x + side + right, 430.0);
    let mut drawing = Drawing::new(&title, width, area.y + side + 30.0);
    let legend = Font::new(12.0, Anchor::Start).with_color(color::FAINT);
    let text = "rows: true class, columns: predicted class";
    drawing.text(12.0, 40.0, legend, text);

    let below_middle = font.size * 0.36;
    for (index, class) in evaluation.classes.iter().enumerate() {
        let name = font.fit(&class.class, names);
        let center = (index as f64 + 0.5) * cell;
        let above = (area.x + center, area.y - 7.0);
        match is_slanted {
            true => drawing.slanted_text(above.0, above.1, font.with_anchor(Anchor::Start), &name),
            false => drawing.text(above.0, above.1, font, &name),
        }
        let left = (area.x - 7.0, area.y + center + below_middle);
        drawing.text(left.0, left.1, font.with_anchor(Anchor::End), &name);
    }
    for line in 0..=classes {
        let offset = line as f64 * cell;
        let (x, y) = (area.x + offset, area.y + offset);
        drawing.line((x, area.y), (x, area.y + side), color::GRID, "");
        drawing.line((area.x, y), (area.x + side, y), color::GRID, "");
    }
    let is_mistake = |(cell, _): &(usize, &u64)| cell / classes != cell % classes;
    let mistakes = counts().enumerate().filter(is_mistake);
    let most_mistakes = mistakes.map(|(_, &count)| count).max().unwrap_or(0).max(1);
    for (index, &count) in counts().enumerate().filter(|(_, count)| **count > 0) {
        let (row, column) = (index / classes, index % classes);
        let (shade, opacity) = match row == column {
            true => (color::BLUE, 0.45 * evaluation.classes[row].recall),
            false => (
                color::RED,
                0.75 * (count as f64 / most_mistakes as f64).sqrt(),
            ),
        };
        let cell_area = Area {
            x: area.x + column as f64 * cell,
            y: area.y + row as f64 * cell,
            width: cell,
            height: cell,
        };
        drawing.fill(cell_area, shade, opacity);
        if classes <= 40 {
            let middle = (
                cell_area.x + cell / 2.0,
                cell_area.y + cell / 2.0 + below_middle,
            );
            drawing.text(middle.0, middle.1, font, &count.to_string());
        }
    }
    let name = "confusion".into();
    Figure { name, drawing }
}

/// Returns the 95% confidence interval of the accuracy of a class.
fn interval(class: &ClassMetrics) -> [f64; 2] {
    let hits = (class.recall * class.support as f64).round();
    wilson_interval(hits as u64, class.support)
}

/// Draws the accuracy of each class, the fraction of its images that are classified correctly, with its 95% confidence interval.
pub(crate) fn class_accuracies(evaluation: &Evaluation) -> Figure {
    let font = Font::new(12.0, Anchor::End);
    let names = evaluation.classes.iter().map(|row| font.width(&row.class));
    let names = names.fold(20.0, f64::max).min(160.0);
    let row = 24.0;
    let area = Area {
        x: MARGIN + names + 14.0,
        y: 58.0,
        width: 440.0,
        height: row * evaluation.classes.len() as f64,
    };
    let percents = evaluation.classes.iter().map(|class| 100.0 * class.recall);
    let with_images = evaluation.classes.iter().filter(|class| class.support > 0);
    let recalls = with_images.flat_map(interval).map(|bound| 100.0 * bound);
    let values = recalls.chain([100.0 * evaluation.accuracy, 100.0]);
    let axes = Axes {
        area,
        x: Scale::linear(values, 8).up_to(100.0),
        y: Scale::integers(0, evaluation.classes.len()),
    };
    let title = "Accuracy per class on the test split, %";
    let mut drawing = Drawing::new(
        title,
        area.x + area.width + 66.0,
        area.y + area.height + 44.0,
    );
    axes.draw_x_axis(
        &mut drawing,
        "dashed: accuracy over all classes; lines: 95% confidence intervals",
    );
    let mean = axes.x_of(100.0 * evaluation.accuracy);
    let bottom = area.y + area.height;
    drawing.line((mean, area.y), (mean, bottom), color::FAINT, "5,4");
    for (index, (class, percent)) in evaluation.classes.iter().zip(percents).enumerate() {
        let y = area.y + (index as f64 + 0.5) * row;
        drawing.text(area.x - 8.0, y + 4.0, font, &font.fit(&class.class, names));
        drawing.line((area.x, y), (area.x + area.width, y), color::GRID, "");
        if class.support > 0 {
            let [low, high] = interval(class).map(|bound| axes.x_of(100.0 * bound));
            drawing.line((low, y), (high, y), color::BLUE, "");
            drawing.dot(axes.x_of(percent), y, color::BLUE, true);
        }
        let text = match class.support {
            0 => "no images".into(),
            _ => format!("{percent:.2}"),
        };
        let font = Font::new(11.0, Anchor::End);
        drawing.text(area.x + area.width + 54.0, y + 4.0, font, &text);
    }
    let name = "classes".into();
    Figure { name, drawing }
}
