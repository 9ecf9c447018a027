//! Images with their labels and predictions.

use anyhow::Result;
use data::ImageDataset;
use data::picture::to_png;

use crate::figures::Figure;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::inference::labeled_prediction::LabeledPrediction;

const MARGIN: f64 = 14.0;
const TILE: f64 = 112.0;
/// Number of class probabilities drawn below each mistake.
const TOP_CLASSES: usize = 3;

/// Draws an image below its label and predicted class. A red frame marks a mistake.
///
/// # Errors
/// Returns an error if the image cannot be read.
fn draw_image(
    drawing: &mut Drawing,
    x: f64,
    y: f64,
    prediction: &LabeledPrediction,
    images: &ImageDataset,
    classes: &[String],
) -> Result<()> {
    let (predicted, _) = prediction.probabilities.best();
    let (color, frame) = match prediction.is_correct() {
        true => (color::INK, 1.0),
        false => (color::RED, 3.0),
    };
    let font = Font::new(12.0, Anchor::Middle);
    let middle = x + TILE / 2.0;
    let line =
        |name: &str, class: usize| font.fit(&format!("{name} {}", classes[class]), TILE + 20.0);
    drawing.text(middle, y + 12.0, font, &line("true", prediction.label));
    let predicted = line("predicted", predicted);
    drawing.text(middle, y + 28.0, font.with_color(color), &predicted);
    let [channels, height, width] = [images.channels(), images.height(), images.width()];
    let area = Area {
        x,
        y: y + 36.0,
        width: TILE,
        height: TILE,
    }
    .fit_image(height, width);
    let pixels = images.pixels(prediction.index)?;
    drawing.image(area, &to_png(&pixels, channels, height, width));
    drawing.frame(area, color, frame);
    let font = Font::new(10.0, Anchor::Middle).with_color(color::FAINT);
    let number = format!("image {}", prediction.index);
    drawing.text(middle, y + 36.0 + TILE + 14.0, font, &number);
    Ok(())
}

/// Draws a random selection of test images with their labels and predictions.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn predictions(
    predictions: &[&LabeledPrediction],
    images: &ImageDataset,
    classes: &[String],
) -> Result<Figure> {
    let count = predictions.len();
    let is_correct = |prediction: &&&LabeledPrediction| prediction.is_correct();
    let correct = predictions.iter().filter(is_correct).count();
    let title = format!("{count} random test images: {correct} correct");
    let columns = count.clamp(1, 5);
    let rows = count.div_ceil(columns);
    let (column, row) = (TILE + 22.0, TILE + 62.0);
    let width = 2.0 * MARGIN + columns as f64 * column - 22.0;
    let mut drawing = Drawing::new(&title, width.max(300.0), 36.0 + rows as f64 * row + 4.0);
    for (place, prediction) in predictions.iter().enumerate() {
        let x = MARGIN + (place % columns) as f64 * column;
        let y = 34.0 + (place / columns) as f64 * row;
        draw_image(&mut drawing, x, y, prediction, images, classes)?;
    }
    let name = "predictions".into();
    Ok(Figure { name, drawing })
}

/// Draws the mistakes with the highest loss, out of `total`, with their most likely classes.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn mistakes(
    worst: &[&LabeledPrediction],
    total: usize,
    images: &ImageDataset,
    classes: &[String],
) -> Result<Figure> {
    let title = match total {
        0 => "No mistakes on the test split".into(),
        _ => format!("{} of {total} mistakes, highest loss first", worst.len()),
    };
    let columns = worst.len().clamp(1, 5);
    let rows = worst.len().div_ceil(columns);
    let (column, row) = (TILE + 22.0, TILE + 70.0 + 17.0 * TOP_CLASSES as f64);
    let width = 2.0 * MARGIN + columns as f64 * column - 22.0;
    let mut drawing = Drawing::new(&title, width.max(340.0), 40.0 + rows as f64 * row);
    for (place, prediction) in worst.iter().enumerate() {
        let x = MARGIN + (place % columns) as f64 * column;
        let y = 34.0 + (place / columns) as f64 * row;
        draw_image(&mut drawing, x, y, prediction, images, classes)?;
        let mut y = y + TILE + 58.0;
        let ranked = prediction.probabilities.ranked().into_iter();
        for (class, probability) in ranked.take(TOP_CLASSES) {
            let bar = Area {
                x,
                y: y - 1.0,
                width: TILE * f64::from(probability),
                height: 14.0,
            };
            let color = match class == prediction.label {
                true => color::BLUE,
                false => color::RED,
            };
            drawing.fill(bar, color, 0.3);
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
    Ok(Figure { name, drawing })
}
