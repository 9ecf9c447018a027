//! What a network does with images: predictions, mistakes, and what it takes for what.

use data::picture::to_png;

use super::Figure;
use super::chart::{Axes, Scale};
use super::drawing::{Anchor, Area, Drawing, Font, colour};
use crate::inference::classifier::Probabilities;
use crate::inference::evaluation::{ClassMetrics, Evaluation};

const MARGIN: f64 = 14.0;
const TILE: f64 = 112.0;
/// Probabilities that are shown of each mistake.
const SHOWN: usize = 3;

/// A labelled image and what the network made of it.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// Its place in the test split.
    pub(crate) index: usize,
    pub(crate) pixels: Vec<u8>,
    /// `[channels, height, width]`.
    pub(crate) shape: [usize; 3],
    pub(crate) label: usize,
    pub(crate) probabilities: Probabilities,
}

impl Judged {
    fn is_right(&self) -> bool {
        self.probabilities.best().0 == self.label
    }

    /// The image, in a frame that tells whether it was recognised, and two lines above it.
    fn draw(&self, drawing: &mut Drawing, x: f64, y: f64, classes: &[String]) {
        let (predicted, _) = self.probabilities.best();
        let (colour, frame) = match self.is_right() {
            true => (colour::INK, 1.0),
            false => (colour::RED, 3.0),
        };
        let font = Font::new(12.0, Anchor::Middle);
        let middle = x + TILE / 2.0;
        let line =
            |what: &str, class: usize| font.fit(&format!("{what} {}", classes[class]), TILE + 20.0);
        drawing.text(middle, y + 12.0, font, &line("true", self.label));
        let predicted = line("predicted", predicted);
        drawing.text(middle, y + 28.0, font.coloured(colour), &predicted);
        let [channels, height, width] = self.shape;
        let area = Area {
            x,
            y: y + 36.0,
            width: TILE,
            height: TILE,
        }
        .shaped(height, width);
        drawing.pixels(area, &to_png(&self.pixels, channels, height, width));
        drawing.frame(area, colour, frame);
        let font = Font::new(10.0, Anchor::Middle).coloured(colour::FAINT);
        let number = format!("image {}", self.index);
        drawing.text(middle, y + 36.0 + TILE + 14.0, font, &number);
    }
}

/// Some images with what they are and what they are taken for.
pub(crate) fn predictions(images: &[Judged], classes: &[String]) -> Figure {
    let right = images.iter().filter(|image| image.is_right()).count();
    let title = format!("{} random test images: {right} right", images.len());
    let columns = images.len().clamp(1, 5);
    let rows = images.len().div_ceil(columns);
    let (column, row) = (TILE + 22.0, TILE + 62.0);
    let width = 2.0 * MARGIN + columns as f64 * column - 22.0;
    let mut drawing = Drawing::new(&title, width.max(300.0), 36.0 + rows as f64 * row + 4.0);
    for (at, image) in images.iter().enumerate() {
        let x = MARGIN + (at % columns) as f64 * column;
        image.draw(&mut drawing, x, 34.0 + (at / columns) as f64 * row, classes);
    }
    let name = "predictions".into();
    Figure { name, drawing }
}

/// The images that were mistaken most surely, the worst first, with the likeliest classes.
pub(crate) fn mistakes(worst: &[Judged], of: usize, classes: &[String]) -> Figure {
    let title = match of {
        0 => "No mistake on the test split".into(),
        _ => format!("The {} worst of {of} mistakes, by loss", worst.len()),
    };
    let columns = worst.len().clamp(1, 5);
    let rows = worst.len().div_ceil(columns);
    let (column, row) = (TILE + 22.0, TILE + 70.0 + 17.0 * SHOWN as f64);
    let width = 2.0 * MARGIN + columns as f64 * column - 22.0;
    let mut drawing = Drawing::new(&title, width.max(340.0), 40.0 + rows as f64 * row);
    for (at, image) in worst.iter().enumerate() {
        let x = MARGIN + (at % columns) as f64 * column;
        let y = 34.0 + (at / columns) as f64 * row;
        image.draw(&mut drawing, x, y, classes);
        let mut y = y + TILE + 58.0;
        for (class, probability) in image.probabilities.ranked().into_iter().take(SHOWN) {
            let bar = Area {
                x,
                y: y - 1.0,
                width: TILE * f64::from(probability),
                height: 14.0,
            };
            let colour = match class == image.label {
                true => colour::BLUE,
                false => colour::RED,
            };
            drawing.fill(bar, colour, 0.3);
            let font = Font::new(11.0, Anchor::Start);
            let name = font.fit(&classes[class], TILE - 46.0);
            drawing.text(x + 4.0, y + 10.0, font, &name);
            let font = Font::new(11.0, Anchor::End);
            let percent = format!("{:.1}%", 100.0 * probability);
            drawing.text(x + TILE - 2.0, y + 10.0, font, &percent);
            y += 17.0;
        }
    }
    let name = "mistakes".into();
    Figure { name, drawing }
}

/// How many images of each class were taken for which. Of more than 40 classes, counts are shades
/// alone.
pub(crate) fn confusion(evaluation: &Evaluation) -> Figure {
    let classes = evaluation.classes.len();
    let counts = || evaluation.confusion.iter().flatten();
    let digits = counts().max().map_or(1, |most| most.to_string().len()) as f64;
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
    // Names that do not fit above a column rise from it.
    let is_slanted = names > cell - 2.0;
    let side = cell * classes as f64;
    let area = Area {
        x: MARGIN + 22.0 + names,
        y: 70.0 + if is_slanted { 0.75 * names } else { 0.0 },
        width: side,
        height: side,
    };
    let title = format!(
        "Confusion matrix: {} test images, {:.2}% right",
        evaluation.examples,
        100.0 * evaluation.accuracy
    );
    let right = MARGIN + if is_slanted { 0.75 * names } else { 0.0 };
    let width = f64::max(area.x + side + right, 430.0);
    let mut drawing = Drawing::new(&title, width, area.y + side + 30.0);
    let head = Font::new(12.0, Anchor::Start).coloured(colour::FAINT);
    drawing.text(
        12.0,
        40.0,
        head,
        "row: the class, column: what it was taken for",
    );

    let below_middle = font.size * 0.36;
    for (at, class) in evaluation.classes.iter().enumerate() {
        let name = font.fit(&class.class, names);
        let centre = (at as f64 + 0.5) * cell;
        let above = (area.x + centre, area.y - 7.0);
        match is_slanted {
            true => drawing.slanted(above.0, above.1, font.anchored(Anchor::Start), &name),
            false => drawing.text(above.0, above.1, font, &name),
        }
        let left = (area.x - 7.0, area.y + centre + below_middle);
        drawing.text(left.0, left.1, font.anchored(Anchor::End), &name);
    }
    for line in 0..=classes {
        let along = line as f64 * cell;
        let (x, y) = (area.x + along, area.y + along);
        drawing.line((x, area.y), (x, area.y + side), colour::GRID, "");
        drawing.line((area.x, y), (area.x + side, y), colour::GRID, "");
    }
    let is_mistake = |(at, _): &(usize, &u64)| at / classes != at % classes;
    let mistakes = counts().enumerate().filter(is_mistake);
    let most_mistaken = mistakes.map(|(_, &count)| count).max().unwrap_or(0).max(1);
    for (at, &count) in counts().enumerate().filter(|(_, count)| **count > 0) {
        let (row, column) = (at / classes, at % classes);
        let (shade, part) = match row == column {
            true => (colour::BLUE, 0.45 * evaluation.classes[row].recall),
            false => (
                colour::RED,
                0.75 * (count as f64 / most_mistaken as f64).sqrt(),
            ),
        };
        let cell_area = Area {
            x: area.x + column as f64 * cell,
            y: area.y + row as f64 * cell,
            width: cell,
            height: cell,
        };
        drawing.fill(cell_area, shade, part);
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

/// The part of each class's images that were recognised.
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
    let judged = evaluation.classes.iter().filter(|class| class.support > 0);
    let judged = judged.map(|class| 100.0 * class.recall);
    let all = judged.chain([100.0 * evaluation.accuracy, 100.0]);
    let axes = Axes {
        area,
        x: Scale::of(all, 8).up_to(100.0),
        y: Scale::whole(0, evaluation.classes.len()),
    };
    let title = "Accuracy of each class on the test split, %";
    let mut drawing = Drawing::new(
        title,
        area.x + area.width + 66.0,
        area.y + area.height + 44.0,
    );
    axes.draw_below(&mut drawing, "dashed: all classes together");
    let (mean, _) = axes.place(100.0 * evaluation.accuracy, 0.0);
    let bottom = area.y + area.height;
    drawing.line((mean, area.y), (mean, bottom), colour::FAINT, "5,4");
    for (at, (class, percent)) in evaluation.classes.iter().zip(percents).enumerate() {
        let y = area.y + (at as f64 + 0.5) * row;
        drawing.text(area.x - 8.0, y + 4.0, font, &font.fit(&class.class, names));
        drawing.line((area.x, y), (area.x + area.width, y), colour::GRID, "");
        if class.support > 0 {
            let (x, _) = axes.place(percent, 0.0);
            drawing.dot(x, y, colour::BLUE, true);
        }
        let figure = match class.support {
            0 => "no image".into(),
            _ => format!("{percent:.2}"),
        };
        let font = Font::new(11.0, Anchor::End);
        drawing.text(area.x + area.width + 54.0, y + 4.0, font, &figure);
    }
    let name = "classes".into();
    Figure { name, drawing }
}
