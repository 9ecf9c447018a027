//! A drawing of lines, text and images, as SVG and as PNG. Text is escaped: XML forbids most control characters.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};
use svg::node::element::{Circle, Image, Line, Path, Polyline, Rectangle, Text, Title};
use svg::{Document, Node};

use crate::process::printable::printable;

/// The colors of all figures.
///
/// The style sheet of the report maps each of them to a shade for dark pages, so figures use no
/// others. Data series have the colors of Okabe and Ito, which are distinguishable for color-blind
/// readers: <https://jfly.uni-koeln.de/color/>.
pub(crate) mod color {
    /// Text and axes.
    pub(crate) const INK: &str = "#222222";
    /// Secondary text.
    pub(crate) const FAINT: &str = "#666666";
    /// Grid lines behind data.
    pub(crate) const GRID: &str = "#dddddd";
    /// Background.
    pub(crate) const PAPER: &str = "#ffffff";
    /// First data series; correct predictions.
    pub(crate) const BLUE: &str = "#0072b2";
    /// Second data series; wrong predictions.
    pub(crate) const RED: &str = "#d55e00";
    /// Colors of classes, in order: `category10` of D3, legible on light and dark pages. More classes reuse them.
    pub(crate) const CLASSES: [&str; 10] = [
        "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
        "#bcbd22", "#17becf",
    ];
    /// Colors of several runs, in order. More runs reuse them with another dash pattern.
    pub(crate) const SERIES: [&str; 6] = [BLUE, RED, "#009e73", "#cc79a7", "#b8860b", "#56b4e9"];
}

/// PNG pixels per unit of the drawing, for high-resolution screens and print.
const PNG_SCALE: f32 = 2.0;
/// Average width of a character at font size 1.
const CHARACTER_WIDTH: f64 = 0.52;

/// A drawing on a white background. Units are CSS pixels (1/96 inch).
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    document: Document,
    width: f64,
    height: f64,
}

/// The point of a text that lies at its x coordinate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Size, alignment and color of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Font {
    pub(crate) size: f64,
    pub(crate) anchor: Anchor,
    pub(crate) color: &'static str,
}

impl Font {
    /// Returns a font in the default text color.
    pub(crate) fn new(size: f64, anchor: Anchor) -> Self {
        Self {
            size,
            anchor,
            color: color::INK,
        }
    }

    /// Returns the font with another alignment.
    pub(crate) fn with_anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// Returns the font in another color.
    pub(crate) fn with_color(self, color: &'static str) -> Self {
        Self { color, ..self }
    }

    fn element(self, text: &str) -> Text {
        let anchor = match self.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        Text::new(printable(text).to_string())
            .set("font-size", self.size)
            .set("text-anchor", anchor)
            .set("fill", self.color)
    }

    /// Estimates the width of a text.
    pub(crate) fn width(self, text: &str) -> f64 {
        let text = printable(text).to_string();
        text.chars().count() as f64 * self.size * CHARACTER_WIDTH
    }

    /// Shortens a text to `width`, with an ellipsis in place of the rest.
    pub(crate) fn fit(self, text: &str, width: f64) -> String {
        let text = printable(text).to_string();
        if self.width(&text) <= width {
            return text;
        }
        let count = (width / (self.size * CHARACTER_WIDTH)) as usize;
        let start: String = text.chars().take(count.saturating_sub(1)).collect();
        format!("{start}…")
    }
}

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Area {
    /// Returns the largest centered part with the aspect ratio of `height` x `width` pixels.
    pub(crate) fn fit_image(self, height: usize, width: usize) -> Self {
        let (rows, columns) = (height as f64, width as f64);
        let scale = (self.width / columns).min(self.height / rows);
        Self {
            x: self.x + (self.width - columns * scale) / 2.0,
            y: self.y + (self.height - rows * scale) / 2.0,
            width: columns * scale,
            height: rows * scale,
        }
    }
}

impl Drawing {
    /// Creates a drawing with a title, which is also its accessible name.
    pub(crate) fn new(title: &str, width: f64, height: f64) -> Self {
        let document = Document::new()
            .set("viewBox", (0, 0, width, height))
            .set("width", width)
            .set("height", height)
            .set("role", "img")
            .set("font-family", "Ubuntu, Helvetica, Arial, sans-serif")
            .add(Title::new(printable(title).to_string()));
        let mut drawing = Self {
            document,
            width,
            height,
        };
        let paper = Area {
            x: 0.0,
            y: 0.0,
            width,
            height,
        };
        drawing.fill(paper, color::PAPER, 1.0);
        let font = Font::new(15.0, Anchor::Start);
        drawing.text(12.0, 22.0, font, &font.fit(title, width - 24.0));
        drawing
    }

    fn add(&mut self, node: impl Into<Box<dyn Node>>) {
        self.document.append(node);
    }

    /// Draws a text with its baseline at `y`.
    pub(crate) fn text(&mut self, x: f64, y: f64, font: Font, text: &str) {
        let text = font.element(text);
        self.add(text.set("x", rounded(x)).set("y", rounded(y)));
    }

    /// Draws a text that rises by 45 degrees from a point.
    pub(crate) fn slanted_text(&mut self, x: f64, y: f64, font: Font, text: &str) {
        let transform = format!("translate({} {}) rotate(-45)", rounded(x), rounded(y));
        self.add(font.element(text).set("transform", transform));
    }

    /// Draws a filled rectangle.
    pub(crate) fn fill(&mut self, area: Area, color: &str, opacity: f64) {
        let rectangle = rectangle(area).set("fill", color).set("stroke", "none");
        self.add(match opacity {
            1.0 => rectangle,
            _ => rectangle.set("fill-opacity", rounded(opacity)),
        });
    }

    /// Draws the outline of a rectangle.
    pub(crate) fn frame(&mut self, area: Area, color: &str, width: f64) {
        let outline = rectangle(area).set("fill", "none").set("stroke", color);
        self.add(outline.set("stroke-width", width));
    }

    /// Draws a straight line; an empty `dash` means solid.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, dash: &str) {
        let line = Line::new()
            .set("x1", rounded(from.0))
            .set("y1", rounded(from.1))
            .set("x2", rounded(to.0))
            .set("y2", rounded(to.1))
            .set("stroke", color)
            .set("stroke-width", 1);
        self.add(match dash {
            "" => line,
            dash => line.set("stroke-dasharray", dash),
        });
    }

    /// Draws a line through points; an empty `dash` means solid.
    pub(crate) fn curve(&mut self, points: &[(f64, f64)], color: &str, dash: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|&(x, y)| format!("{},{}", rounded(x), rounded(y)))
            .collect();
        let curve = Polyline::new()
            .set("points", points.join(" "))
            .set("fill", "none")
            .set("stroke", color)
            .set("stroke-width", 2);
        self.add(match dash {
            "" => curve,
            dash => curve.set("stroke-dasharray", dash),
        });
    }

    /// Draws a filled or hollow dot.
    pub(crate) fn dot(&mut self, x: f64, y: f64, color: &str, is_filled: bool) {
        let dot = Circle::new()
            .set("cx", rounded(x))
            .set("cy", rounded(y))
            .set("r", 3.5)
            .set("stroke", color)
            .set("stroke-width", 1.5);
        let fill = if is_filled { color } else { color::PAPER };
        self.add(dot.set("fill", fill));
    }

    /// Draws many dots as one path, which keeps the file small.
    pub(crate) fn dots(&mut self, points: &[(f64, f64)], color: &str, diameter: f64) {
        // Short lines with round ends.
        let path = marks(points, "h.01");
        let path = path.set("stroke", color).set("stroke-opacity", 0.75);
        let path = path.set("stroke-width", rounded(diameter));
        self.add(path.set("stroke-linecap", "round"));
    }

    /// Draws many diagonal crosses as one path, with a margin in the color of the background.
    pub(crate) fn crosses(&mut self, points: &[(f64, f64)], color: &str, size: f64) {
        let side = rounded(2.0 * size);
        let corner = -0.5 * side;
        let cross = format!("m{corner},{corner}l{side},{side}m-{side},0l{side},-{side}");
        for (color, width) in [(color::PAPER, 2.6), (color, 1.2)] {
            self.add(
                marks(points, &cross)
                    .set("stroke", color)
                    .set("stroke-width", width),
            );
        }
    }

    /// Draws a text with a margin in the color of the background, legible on data.
    pub(crate) fn label(&mut self, x: f64, y: f64, font: Font, text: &str) {
        let text = font.element(text).set("x", rounded(x)).set("y", rounded(y));
        let text = text.set("stroke", color::PAPER).set("stroke-width", 4);
        self.add(
            text.set("stroke-linejoin", "round")
                .set("paint-order", "stroke"),
        );
    }

    /// Draws a PNG image, scaled without interpolation.
    pub(crate) fn image(&mut self, area: Area, png: &[u8]) {
        let image = Image::new()
            .set("x", rounded(area.x))
            .set("y", rounded(area.y))
            .set("width", rounded(area.width))
            .set("height", rounded(area.height))
            .set("preserveAspectRatio", "none")
            .set("style", "image-rendering: pixelated")
            .set(
                "href",
                format!("data:image/png;base64,{}", STANDARD.encode(png)),
            );
        self.add(image);
    }

    /// Returns the drawing as an SVG file.
    pub(crate) fn to_svg(&self) -> String {
        let mut svg = self.document.to_string();
        svg.push('\n');
        svg
    }

    /// Returns the drawing as a PNG file.
    ///
    /// # Errors
    /// Returns an error if the drawing is too large to rasterize.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>> {
        static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
            let mut fonts = fontdb::Database::new();
            fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
            Arc::new(fonts)
        });
        let options = usvg::Options {
            font_family: "Ubuntu".into(),
            fontdb: Arc::clone(&FONTS),
            ..usvg::Options::default()
        };
        let tree = usvg::Tree::from_str(&self.to_svg(), &options)?;
        let pixels = |units: f64| (units as f32 * PNG_SCALE).ceil() as u32;
        let (width, height) = (pixels(self.width), pixels(self.height));
        let mut pixmap = Pixmap::new(width, height)
            .with_context(|| format!("a PNG of {width}x{height} pixels is too large"))?;
        let scale = Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut pixmap.as_mut());
        Ok(pixmap.encode_png()?)
    }
}

/// Returns a path that has a mark at each point, in coordinates relative to it.
fn marks(points: &[(f64, f64)], mark: &str) -> Path {
    let mark = |(x, y): &(f64, f64)| format!("M{},{}{mark}", rounded(*x), rounded(*y));
    let path: String = points.iter().map(mark).collect();
    Path::new().set("d", path).set("fill", "none")
}

fn rectangle(area: Area) -> Rectangle {
    Rectangle::new()
        .set("x", rounded(area.x))
        .set("y", rounded(area.y))
        .set("width", rounded(area.width))
        .set("height", rounded(area.height))
}

/// Rounds to hundredths, finer than any screen.
fn rounded(number: f64) -> f64 {
    (100.0 * number).round() / 100.0
}
