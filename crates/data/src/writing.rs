//! A picture of several characters in a row, such as a number, cut into pieces.
//!
//! A character consists of one or more neighboring pieces of a line; a classifier of characters decides which. This is known
//! as over-segmentation (LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
//! 1998, section V).

use image::{DynamicImage, GrayImage, Rgb};

use crate::components::{Bounds, Component, large, typical_height};
use crate::picture::{Picture, PictureError, to_png};
use crate::plane::Plane;
use crate::seams::seams;

/// Maximum width and height of the picture that is cut, in which a character of a line of twenty has the size of MNIST's.
const MAX_SIDE: u32 = 640;
/// Components with less than this fraction of the typical mass are dust.
const DUST: f64 = 0.06;
/// Maximum number of characters that is cut: a picture with more is something else.
const MAX_MARKS: usize = 300;
/// Components that have this fraction of the narrower one's columns in common are one character, until it is cut.
const COMMON_COLUMNS: f64 = 0.6;
/// Components with this fraction of the lower one's rows in common are in one line.
const COMMON_ROWS: f64 = 0.4;
/// Pieces are joined up to this width, in heights of the line.
const MAX_WIDTH: f64 = 1.5;
/// Maximum number of pieces of a character.
const MAX_PIECES: usize = 16;

/// Color of the frame around a character.
const FRAME: Rgb<u8> = Rgb([0xd5, 0x5e, 0x00]);

/// A gray picture of handwriting.
#[derive(Clone, Debug)]
pub struct Page {
    gray: GrayImage,
    /// Width and height of the picture in its file.
    size: (u32, u32),
}

/// The ink of a page, as lines of pieces.
#[derive(Clone, Debug)]
pub struct Writing {
    ink: Plane,
    /// Pixels of the file per pixel of `ink`, along x and y.
    scale: [f64; 2],
    lines: Vec<Line>,
}

/// A line of writing.
#[derive(Clone, Debug)]
pub struct Line {
    /// From left to right.
    pieces: Vec<Piece>,
    /// Typical height of its characters, in pixels.
    height: usize,
}

/// A character or a part of it.
#[derive(Clone, Debug)]
struct Piece {
    component: Component,
    /// How it is connected with the piece before.
    joint: Joint,
}

/// The connection of a piece with the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Joint {
    /// Paper between the two, in heights of the line. Negative where one is partly above the other.
    Gap(f32),
    /// A cut through connected ink: the length of the path within ink, in heights of the line.
    Cut(f32),
}

/// Neighboring pieces of a line that may be a character.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Index of the first piece in its line.
    pub start: usize,
    /// Index after the last piece.
    pub end: usize,
    /// The character in the style of MNIST, `[height, width]`.
    pub image: Vec<u8>,
    /// Width and height, in heights of the line.
    pub size: [f32; 2],
    /// Left, top, width and height in pixels of the picture.
    pub area: [u32; 4],
}

impl Page {
    /// Converts a picture.
    pub fn new(picture: &Picture) -> Self {
        Self {
            gray: picture.to_gray_within(MAX_SIDE),
            size: picture.size(),
        }
    }

    /// Returns the page as a PNG file, with a frame around each area: left, top, width and height in pixels of the picture.
    pub fn framed_png(&self, areas: &[[u32; 4]]) -> Vec<u8> {
        let (width, height) = self.gray.dimensions();
        let scale = f64::from(width) / f64::from(self.size.0);
        let mut page = DynamicImage::from(self.gray.clone()).into_rgb8();
        for area in areas {
            let [left, top, columns, rows] =
                area.map(|value| (f64::from(value) * scale).round() as u32);
            let (right, bottom) = (left + columns, top + rows);
            let frame = (left..=right)
                .flat_map(|x| [(x, top), (x, bottom)])
                .chain((top..=bottom).flat_map(|y| [(left, y), (right, y)]));
            for (x, y) in frame.filter(|&(x, y)| x < width && y < height) {
                page.put_pixel(x, y, FRAME);
            }
        }
        let planes = (0..3).flat_map(|channel| page.pixels().map(move |pixel| pixel.0[channel]));
        to_png(
            &planes.collect::<Vec<u8>>(),
            3,
            height as usize,
            width as usize,
        )
    }

    /// Cuts the ink into lines of pieces.
    ///
    /// # Errors
    /// Returns [`PictureError::Blank`] without ink, and [`PictureError::TooManyMarks`] for textures.
    pub fn writing(&self) -> Result<Writing, PictureError> {
        let ink = Plane::from_gray(&self.gray)
            .extract_ink()
            .ok_or(PictureError::Blank)?
            .remove_rules();
        let marks = ink.marks()?;
        let lines = lines(marks)
            .into_iter()
            .map(|characters| Line::new(&ink, characters))
            .collect();
        let (width, height) = self.size;
        let scale = [
            f64::from(width) / ink.width as f64,
            f64::from(height) / ink.height as f64,
        ];
        Ok(Writing { ink, scale, lines })
    }
}

impl Plane {
    /// Returns the components without dust.
    fn marks(&self) -> Result<Vec<Component>, PictureError> {
        let mut components = self.components(|at| self.values[at] > 0.0);
        let mut masses: Vec<f64> = large(&components).map(|it| it.mass).collect();
        masses.sort_by(f64::total_cmp);
        let typical = masses.get(masses.len() / 2).copied();
        let typical = typical.ok_or(PictureError::Blank)?;
        components.retain(|component| component.mass >= DUST * typical);
        match components.len() {
            found if found > MAX_MARKS => Err(PictureError::TooManyMarks {
                found,
                max: MAX_MARKS,
            }),
            _ => Ok(components),
        }
    }
}

/// Groups components into lines, from the top down. A line may rise or fall: each component is compared with the last one.
fn lines(mut components: Vec<Component>) -> Vec<Vec<Component>> {
    let height = typical_height(&components).unwrap_or(1);
    components.sort_by_key(|it| (it.bounds.left + it.bounds.right, it.bounds.top));
    let (large, small): (Vec<_>, Vec<_>) = components
        .into_iter()
        .partition(|it| 2 * it.bounds.height() >= height);
    let mut lines: Vec<Vec<Component>> = Vec::new();
    for component in large {
        let common = |line: &Vec<Component>| {
            line.last().map_or(0.0, |last| {
                let lower = last.bounds.height().min(component.bounds.height());
                last.bounds.common_rows(component.bounds) as f64 / lower as f64
            })
        };
        let best =
            (0..lines.len()).max_by(|&a, &b| common(&lines[a]).total_cmp(&common(&lines[b])));
        match best.filter(|&line| common(&lines[line]) >= COMMON_ROWS) {
            Some(line) => lines[line].push(component),
            None => lines.push(vec![component]),
        }
    }
    // Bars and dots belong to the nearest character, unless they are far from all.
    for component in small {
        let distance = |line: &Vec<Component>| {
            let rows = |other: &Component| {
                let (top, bottom) = (other.bounds.top, other.bounds.bottom);
                let above = top.saturating_sub(component.bounds.bottom);
                let below = component.bounds.top.saturating_sub(bottom);
                let columns = other.bounds.gap(component.bounds).max(0) as usize;
                above.max(below) + columns
            };
            line.iter().map(rows).min().unwrap_or(usize::MAX)
        };
        let nearest = (0..lines.len()).min_by_key(|&line| distance(&lines[line]));
        if let Some(line) = nearest.filter(|&line| 2 * distance(&lines[line]) <= height) {
            lines[line].push(component);
        }
    }
    let top = |line: &Vec<Component>| {
        let middles = line.iter().map(|it| it.bounds.top + it.bounds.bottom);
        middles.sum::<usize>() / line.len()
    };
    lines.sort_by_key(top);
    lines
}

impl Line {
    fn new(ink: &Plane, components: Vec<Component>) -> Self {
        let height = typical_height(&components).unwrap_or(1);
        let mut pieces: Vec<Piece> = Vec::new();
        for character in joined(ink, components) {
            for (number, (component, cut)) in cut(ink, &character, height).into_iter().enumerate() {
                let joint = match pieces.last() {
                    _ if number > 0 => Joint::Cut(cut / height as f32),
                    None => Joint::Gap(f32::INFINITY),
                    Some(last) => {
                        let gap = last.component.bounds.gap(component.bounds);
                        Joint::Gap(gap as f32 / height as f32)
                    }
                };
                pieces.push(Piece { component, joint });
            }
        }
        Self { pieces, height }
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Returns how a piece is connected with the one before.
    ///
    /// # Panics
    /// Panics if `piece` is out of bounds.
    pub fn joint(&self, piece: usize) -> Joint {
        self.pieces[piece].joint
    }

    /// Returns the rectangle of pieces.
    fn bounds(&self, start: usize, end: usize) -> Option<Bounds> {
        let pieces = self.pieces[start..end].iter();
        pieces
            .map(|piece| piece.component.bounds)
            .reduce(Bounds::union)
    }
}

/// Joins components above each other, such as the bar of a five and the rest of it. Sorted from left to right.
fn joined(ink: &Plane, mut components: Vec<Component>) -> Vec<Component> {
    components.sort_by_key(|it| it.bounds.left + it.bounds.right);
    let mut joined: Vec<Component> = Vec::new();
    for component in components {
        let is_above = |other: &Component| {
            let narrower = other.bounds.width().min(component.bounds.width()) as f64;
            -other.bounds.gap(component.bounds) as f64 >= COMMON_COLUMNS * narrower
        };
        match joined.last_mut().filter(|other| is_above(other)) {
            Some(other) => {
                let mut pixels = std::mem::take(&mut other.pixels);
                pixels.extend(component.pixels);
                *other = Component::new(pixels, ink);
            }
            None => joined.push(component),
        }
    }
    joined
}

/// Cuts a character into pieces, each with the ink of the cut before it.
fn cut(ink: &Plane, character: &Component, height: usize) -> Vec<(Component, f32)> {
    let bounds = character.bounds;
    let values = ink.part(&[character], bounds);
    let seams = seams(&values.values, bounds, height);
    let mut parts: Vec<Vec<usize>> = vec![Vec::new(); seams.len() + 1];
    for &at in &character.pixels {
        let (x, y) = (at % ink.width - bounds.left, at / ink.width - bounds.top);
        let part = seams.iter().filter(|seam| seam.is_left_of(x, y)).count();
        parts[part].push(at);
    }
    let mut pieces: Vec<(Component, f32)> = Vec::new();
    for (number, pixels) in parts.into_iter().enumerate() {
        if !pixels.is_empty() {
            let cut = number.checked_sub(1).map_or(0.0, |seam| seams[seam].ink);
            pieces.push((Component::new(pixels, ink), cut));
        }
    }
    pieces
}

impl Plane {
    /// Returns a rectangle with the ink of some components.
    fn part(&self, components: &[&Component], bounds: Bounds) -> Self {
        let (width, height) = (bounds.width(), bounds.height());
        let mut values = vec![0.0; width * height];
        for &at in components.iter().flat_map(|component| &component.pixels) {
            let (x, y) = (at % self.width - bounds.left, at / self.width - bounds.top);
            values[y * width + x] = self.values[at];
        }
        Self {
            width,
            height,
            values,
        }
    }
}

impl Writing {
    /// The lines, from the top down.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Returns each group of neighboring pieces of a line that may be a character, as an image of `height` x `width` pixels.
    pub fn segments(&self, line: &Line, [height, width]: [usize; 2]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for start in 0..line.pieces.len() {
            for end in start + 1..=line.pieces.len().min(start + MAX_PIECES) {
                let Some(bounds) = line.bounds(start, end) else {
                    continue;
                };
                let is_wide = bounds.width() as f64 > MAX_WIDTH * line.height as f64;
                if is_wide && end > start + 1 {
                    break;
                }
                let components: Vec<&Component> = line.pieces[start..end]
                    .iter()
                    .map(|piece| &piece.component)
                    .collect();
                let ink = self.ink.part(&components, bounds);
                segments.push(Segment {
                    start,
                    end,
                    image: ink.thicken().center(height, width),
                    size: [bounds.width(), bounds.height()]
                        .map(|side| side as f32 / line.height as f32),
                    area: self.area(bounds),
                });
            }
        }
        segments
    }

    /// Converts a rectangle of pixels into one of the picture: left, top, width and height.
    fn area(&self, bounds: Bounds) -> [u32; 4] {
        let [x, y] = self.scale;
        let (left, top) = (bounds.left as f64 * x, bounds.top as f64 * y);
        let (right, bottom) = (bounds.right as f64 * x, bounds.bottom as f64 * y);
        [left, top, right - left, bottom - top].map(|value| value.round() as u32)
    }
}
