//! The evidence for a class in an image, and where the network looked in its mistakes.

use data::picture::to_png;

use crate::figures::Figure;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::figures::overlay::{BAR_HEIGHT, Range, draw_bar, overlay, short};
use crate::inference::explanation::Explanation;
use crate::inference::heat_map::HeatMap;
use crate::inference::nearest_images::SimilarImage;

const MARGIN: f64 = 14.0;
const GAP: f64 = 20.0;
/// Side of the image and of each heat map.
const PANEL: f64 = 168.0;
/// Height of the title, the legend and the names of the panels.
const TOP: f64 = 70.0;
/// Height of the two lines of notes below a panel.
const NOTES: f64 = 34.0;
/// Distance between similar images.
const TILE_GAP: f64 = 9.0;
/// Height of the heading above similar images and the two lines of text below them.
const TILE_TEXT: f64 = 62.0;

/// An image with its explanation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExplainedImage<'a> {
    /// `[channels, height, width]`.
    pub(crate) pixels: &'a [u8],
    pub(crate) shape: [usize; 3],
    /// Index of the class, if it is known.
    pub(crate) label: Option<usize>,
    pub(crate) explanation: &'a Explanation,
    /// The most similar training images, possibly none.
    pub(crate) nearest: &'a [SimilarImage],
}

/// A heat map with its name, and notes below it.
struct Panel<'a> {
    name: &'static str,
    map: &'a HeatMap,
    range: Range,
    notes: [String; 2],
}

impl<'a> Panel<'a> {
    /// Returns the panels of an explanation.
    fn all(explanation: &'a Explanation) -> Vec<Self> {
        let Explanation {
            grad_cam,
            integrated_gradients,
            occlusion,
            ..
        } = explanation;
        let grad_cam = grad_cam.as_ref().map(|grad_cam| {
            let [height, width] = grad_cam.maps_size;
            let without_evidence = match grad_cam.map.largest() {
                0.0 => "; 0 everywhere",
                _ => "",
            };
            Self {
                name: "Grad-CAM",
                map: &grad_cam.map,
                range: Range::Positive,
                notes: [
                    "evidence for the logit, in feature".into(),
                    format!("maps of {width}x{height}{without_evidence}"),
                ],
            }
        });
        let sum = short(integrated_gradients.map.sum() as f32);
        let difference = short(integrated_gradients.logit_difference as f32);
        let patch = occlusion.patch;
        let others = [
            Self {
                name: "integrated gradients",
                map: &integrated_gradients.map,
                range: Range::Signed,
                notes: [
                    format!("contributions to the logit, sum {sum}"),
                    format!("logit minus that of black: {difference}"),
                ],
            },
            Self {
                name: "occlusion",
                map: &occlusion.map,
                range: Range::Signed,
                notes: [
                    "decrease of the probability below".into(),
                    format!("a patch of {patch}x{patch} pixels"),
                ],
            },
        ];
        grad_cam.into_iter().chain(others).collect()
    }
}

/// Draws an image as the network sees it, the heat maps of its explanation, and the most similar training images. `prediction`
/// is its title.
pub(crate) fn explanation(
    prediction: &str,
    image: ExplainedImage<'_>,
    classes: &[String],
) -> Figure {
    let explanation = image.explanation;
    let panels = Panel::all(explanation);
    let left = |column: usize| MARGIN + column as f64 * (PANEL + GAP);
    let bottom = TOP + PANEL + 8.0 + BAR_HEIGHT + NOTES;
    let width = left(panels.len() + 1) - GAP + MARGIN;
    // Fewer images are not drawn larger than eight.
    let columns = image.nearest.len().max(8) as f64;
    let tile = (width - 2.0 * MARGIN + TILE_GAP) / columns - TILE_GAP;
    let similar = match image.nearest {
        [] => 0.0,
        _ => tile + TILE_TEXT,
    };
    let mut drawing = Drawing::new(prediction, width, bottom + similar);
    let font = Font::new(11.0, Anchor::Start).with_color(color::FAINT);
    let class = &classes[explanation.class];
    let mut legend = format!("orange: evidence for {class}; blue: evidence against it");
    if explanation.grad_cam.is_none() {
        legend.push_str("; no Grad-CAM, which needs convolutions");
    }
    drawing.text(12.0, 40.0, font, &font.fit(&legend, width - 24.0));

    draw_image(&mut drawing, left(0), image, classes);
    for (column, panel) in (1..).zip(&panels) {
        draw_panel(&mut drawing, left(column), panel, image.pixels);
    }
    if !image.nearest.is_empty() {
        draw_nearest(&mut drawing, bottom, tile, image, classes);
    }
    let name = "explanation".into();
    Figure { name, drawing }
}

/// Draws an image with its label.
fn draw_image(drawing: &mut Drawing, x: f64, image: ExplainedImage<'_>, classes: &[String]) {
    let [channels, height, width] = image.shape;
    let font = Font::new(12.0, Anchor::Middle);
    drawing.text(x + PANEL / 2.0, TOP - 8.0, font, "image");
    let area = panel_area(x).fit_image(height, width);
    drawing.image(area, &to_png(image.pixels, channels, height, width));
    drawing.frame(area, color::FAINT, 0.5);
    if let Some(label) = image.label {
        let label = font.fit(&format!("label {}", classes[label]), PANEL);
        drawing.text(x + PANEL / 2.0, TOP + PANEL + 20.0, font, &label);
    }
}

fn draw_panel(drawing: &mut Drawing, x: f64, panel: &Panel<'_>, pixels: &[u8]) {
    let font = Font::new(12.0, Anchor::Middle);
    drawing.text(x + PANEL / 2.0, TOP - 8.0, font, panel.name);
    let area = panel_area(x).fit_image(panel.map.height, panel.map.width);
    drawing.image(area, &overlay(pixels, panel.map));
    drawing.frame(area, color::FAINT, 0.5);
    let bar = Area {
        y: TOP + PANEL + 8.0,
        height: BAR_HEIGHT,
        ..panel_area(x)
    };
    draw_bar(drawing, bar, panel.map, panel.range);
    let font = Font::new(10.0, Anchor::Start).with_color(color::FAINT);
    for (line, note) in (0..).zip(&panel.notes) {
        let y = bar.y + BAR_HEIGHT + 10.0 + 13.0 * f64::from(line);
        drawing.text(x, y, font, note);
    }
}

fn panel_area(x: f64) -> Area {
    Area {
        x,
        y: TOP,
        width: PANEL,
        height: PANEL,
    }
}

/// Draws the most similar training images, each in a square of side `tile`, with their classes and similarities. A red frame marks another class than the
/// predicted one.
fn draw_nearest(
    drawing: &mut Drawing,
    y: f64,
    tile: f64,
    image: ExplainedImage<'_>,
    classes: &[String],
) {
    let heading = "nearest training images, by the cosine of the features before the dense layers";
    drawing.text(MARGIN, y + 16.0, Font::new(12.0, Anchor::Start), heading);
    let [channels, height, width] = image.shape;
    let (predicted, _) = image.explanation.answer.probabilities.best();
    for (place, similar) in image.nearest.iter().enumerate() {
        let area = Area {
            x: MARGIN + place as f64 * (tile + TILE_GAP),
            y: y + 26.0,
            width: tile,
            height: tile,
        };
        let middle = area.x + tile / 2.0;
        let (color, frame) = match similar.label == predicted {
            true => (color::INK, 0.5),
            false => (color::RED, 2.0),
        };
        let picture = area.fit_image(height, width);
        drawing.image(picture, &to_png(&similar.pixels, channels, height, width));
        drawing.frame(picture, color, frame);
        let font = Font::new(11.0, Anchor::Middle).with_color(color);
        let class = font.fit(&classes[similar.label], tile);
        drawing.text(middle, area.y + tile + 13.0, font, &class);
        let font = Font::new(10.0, Anchor::Middle).with_color(color::FAINT);
        let similarity = format!("{:.3}", similar.similarity);
        drawing.text(middle, area.y + tile + 26.0, font, &similarity);
    }
}

/// A misclassified image with Grad-CAM of the predicted class.
#[derive(Clone, Debug)]
pub(crate) struct ExplainedMistake {
    /// `[channels, height, width]`.
    pub(crate) pixels: Vec<u8>,
    /// Index of the image in its data set.
    pub(crate) index: usize,
    pub(crate) label: usize,
    pub(crate) predicted: usize,
    pub(crate) map: HeatMap,
}

/// Draws where the network looked in the mistakes with the highest loss.
pub(crate) fn grad_cam(
    mistakes: &[ExplainedMistake],
    [channels, height, width]: [usize; 3],
    classes: &[String],
) -> Figure {
    const SIDE: f64 = 104.0;
    const COLUMNS: usize = 3;
    let (column, row) = (2.0 * SIDE + 6.0 + 24.0, SIDE + 62.0);
    let columns = mistakes.len().clamp(1, COLUMNS);
    let full_width = 2.0 * MARGIN + columns as f64 * column - 24.0;
    let rows = mistakes.len().div_ceil(columns) as f64;
    let title = "Where the network looked in its worst mistakes";
    let mut drawing = Drawing::new(title, full_width.max(480.0), 52.0 + rows * row);
    let font = Font::new(11.0, Anchor::Start).with_color(color::FAINT);
    let legend = "orange: evidence for the predicted class (Grad-CAM), each scaled to its maximum";
    drawing.text(12.0, 40.0, font, legend);
    for (place, mistake) in mistakes.iter().enumerate() {
        let x = MARGIN + (place % columns) as f64 * column;
        let y = 48.0 + (place / columns) as f64 * row;
        let font = Font::new(12.0, Anchor::Start);
        let label = font.fit(&format!("true {}", classes[mistake.label]), 2.0 * SIDE);
        drawing.text(x, y + 14.0, font, &label);
        let predicted = format!("predicted {}", classes[mistake.predicted]);
        let predicted = font.fit(&predicted, 2.0 * SIDE);
        drawing.text(x, y + 30.0, font.with_color(color::RED), &predicted);
        let pictures = [
            to_png(&mistake.pixels, channels, height, width),
            overlay(&mistake.pixels, &mistake.map),
        ];
        for (x, picture) in [x, x + SIDE + 6.0].into_iter().zip(pictures) {
            let area = Area {
                x,
                y: y + 36.0,
                width: SIDE,
                height: SIDE,
            }
            .fit_image(height, width);
            drawing.image(area, &picture);
            drawing.frame(area, color::FAINT, 0.5);
        }
        let font = Font::new(10.0, Anchor::Start).with_color(color::FAINT);
        let number = format!("image {}", mistake.index);
        drawing.text(x, y + 36.0 + SIDE + 14.0, font, &number);
    }
    let name = "grad-cam".into();
    Figure { name, drawing }
}
