//! A picture of lines, words and pixels, as SVG and as PNG.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};
use svg::node::element::{Circle, Image, Line, Polyline, Rectangle, Text, Title};
use svg::{Document, Node};

/// What is written and drawn with. The report shows these in other shades where the reader prefers
/// a dark page, so nothing else may be used. Data is told apart by Okabe and Ito's colours, which
/// colour-blind people tell apart too: <https://jfly.uni-koeln.de/color/>.
pub(crate) mod colour {
    /// Words and axes.
    pub(crate) const INK: &str = "#222222";
    /// Words of less weight.
    pub(crate) const FAINT: &str = "#666666";
    /// ProgressLines behind data.
    pub(crate) const GRID: &str = "#dddddd";
    /// What is drawn on.
    pub(crate) const PAPER: &str = "#ffffff";
    /// Data, and what is right.
    pub(crate) const BLUE: &str = "#0072b2";
    /// Other data, and what is wrong.
    pub(crate) const RED: &str = "#d55e00";
    /// Of several runs, in their order; beyond these they repeat, with other dashes.
    pub(crate) const SERIES: [&str; 6] = [BLUE, RED, "#009e73", "#cc79a7", "#b8860b", "#56b4e9"];
}

/// Pixels of a PNG for each unit of the drawing: sharp on a fine screen and on paper.
const PNG_SCALE: f32 = 2.0;
/// Width of a letter, on average, for a font size of 1.
const LETTER: f64 = 0.52;

/// A picture under construction, on white. Units are those of a web page, pixels of 1/96 inch.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    document: Document,
    width: f64,
    height: f64,
}

/// Which part of a text its x coordinate is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Font {
    pub(crate) size: f64,
    pub(crate) anchor: Anchor,
    pub(crate) colour: &'static str,
}

impl Font {
    pub(crate) fn new(size: f64, anchor: Anchor) -> Self {
        Self {
            size,
            anchor,
            colour: colour::INK,
        }
    }

    pub(crate) fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub(crate) fn coloured(self, colour: &'static str) -> Self {
        Self { colour, ..self }
    }

    fn write(self, words: &str) -> Text {
        let anchor = match self.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        Text::new(words)
            .set("font-size", self.size)
            .set("text-anchor", anchor)
            .set("fill", self.colour)
    }

    /// How wide a text is, about.
    pub(crate) fn width(self, text: &str) -> f64 {
        text.chars().count() as f64 * self.size * LETTER
    }

    /// As much of a text as fits, with an ellipsis for the rest.
    pub(crate) fn fit(self, text: &str, width: f64) -> String {
        if self.width(text) <= width {
            return text.into();
        }
        let letters = (width / (self.size * LETTER)) as usize;
        let kept: String = text.chars().take(letters.saturating_sub(1)).collect();
        format!("{kept}…")
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
    /// The largest area in this one, centred, in the shape of an image of `height` x `width`.
    pub(crate) fn shaped(self, height: usize, width: usize) -> Self {
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
    /// White paper with a title that is written at its top, and read to who does not see it.
    pub(crate) fn new(title: &str, width: f64, height: f64) -> Self {
        let document = Document::new()
            .set("viewBox", (0, 0, width, height))
            .set("width", width)
            .set("height", height)
            .set("role", "img")
            .set("font-family", "Ubuntu, Helvetica, Arial, sans-serif")
            .add(Title::new(title));
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
        drawing.fill(paper, colour::PAPER, 1.0);
        let font = Font::new(15.0, Anchor::Start);
        drawing.text(12.0, 22.0, font, &font.fit(title, width - 24.0));
        drawing
    }

    fn add(&mut self, node: impl Into<Box<dyn Node>>) {
        self.document.append(node);
    }

    /// Words, on a line at `y`.
    pub(crate) fn text(&mut self, x: f64, y: f64, font: Font, words: &str) {
        self.add(font.write(words).set("x", rounded(x)).set("y", rounded(y)));
    }

    /// Words that begin at a point and rise from there, to save width.
    pub(crate) fn slanted(&mut self, x: f64, y: f64, font: Font, words: &str) {
        let place = format!("translate({} {}) rotate(-45)", rounded(x), rounded(y));
        self.add(font.write(words).set("transform", place));
    }

    /// A filled rectangle.
    pub(crate) fn fill(&mut self, area: Area, colour: &str, opacity: f64) {
        let rectangle = rectangle(area).set("fill", colour).set("stroke", "none");
        self.add(match opacity {
            1.0 => rectangle,
            _ => rectangle.set("fill-opacity", rounded(opacity)),
        });
    }

    /// A rectangle's outline.
    pub(crate) fn frame(&mut self, area: Area, colour: &str, width: f64) {
        let outline = rectangle(area).set("fill", "none").set("stroke", colour);
        self.add(outline.set("stroke-width", width));
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, dash: &str) {
        let line = Line::new()
            .set("x1", rounded(from.0))
            .set("y1", rounded(from.1))
            .set("x2", rounded(to.0))
            .set("y2", rounded(to.1))
            .set("stroke", colour)
            .set("stroke-width", 1);
        self.add(match dash {
            "" => line,
            dash => line.set("stroke-dasharray", dash),
        });
    }

    /// A line through points.
    pub(crate) fn curve(&mut self, points: &[(f64, f64)], colour: &str, dash: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|&(x, y)| format!("{},{}", rounded(x), rounded(y)))
            .collect();
        let curve = Polyline::new()
            .set("points", points.join(" "))
            .set("fill", "none")
            .set("stroke", colour)
            .set("stroke-width", 2);
        self.add(match dash {
            "" => curve,
            dash => curve.set("stroke-dasharray", dash),
        });
    }

    /// A dot, full or hollow.
    pub(crate) fn dot(&mut self, x: f64, y: f64, colour: &str, is_full: bool) {
        let dot = Circle::new()
            .set("cx", rounded(x))
            .set("cy", rounded(y))
            .set("r", 3.5)
            .set("stroke", colour)
            .set("stroke-width", 1.5);
        let inside = if is_full { colour } else { colour::PAPER };
        self.add(dot.set("fill", inside));
    }

    /// An image, given as a PNG, its pixels as squares.
    pub(crate) fn pixels(&mut self, area: Area, png: &[u8]) {
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

    /// The drawing as an SVG file.
    pub(crate) fn to_svg(&self) -> String {
        let mut svg = self.document.to_string();
        svg.push('\n');
        svg
    }

    /// The drawing as a PNG file.
    ///
    /// # Errors
    /// When it is too large for the memory.
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
        let mut pixmap = Pixmap::new(pixels(self.width), pixels(self.height))
            .context("no memory for so large a figure")?;
        let scale = Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut pixmap.as_mut());
        Ok(pixmap.encode_png()?)
    }
}

fn rectangle(area: Area) -> Rectangle {
    Rectangle::new()
        .set("x", rounded(area.x))
        .set("y", rounded(area.y))
        .set("width", rounded(area.width))
        .set("height", rounded(area.height))
}

/// Hundredths are finer than any screen.
fn rounded(number: f64) -> f64 {
    (100.0 * number).round() / 100.0
}
