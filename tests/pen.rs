//! Characters that are drawn as pen strokes.

use std::fs;

use image::{GrayImage, Luma};

use crate::support::project;

/// Side of the picture of a character.
pub(crate) const SIDE: u32 = 112;

/// A generator of numbers that are the same on every machine: xorshift, Marsaglia 2003.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns a number from `low` to `high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + (high - low) * (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// The strokes of a character: whether each is a smooth curve, and its points from 0 to 1.
pub(crate) type Strokes = Vec<(bool, Vec<[f32; 2]>)>;

/// Reads the characters of a file in `tests/confidence`, each with its strokes.
pub(crate) fn characters(file: &str) -> Vec<(char, Strokes)> {
    let text = fs::read_to_string(project("tests/confidence").join(file)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let point = |word: &str| {
        let (x, y) = word.split_once(',').unwrap();
        [x, y].map(|number| number.parse::<f32>().unwrap() / 100.0)
    };
    let stroke = |stroke: &str| {
        let is_smooth = stroke.contains('~');
        let words = stroke.split_whitespace().filter(|word| *word != "~");
        (is_smooth, words.map(point).collect())
    };
    let character = |line: &str| {
        let name = line.chars().next().unwrap();
        (name, line[1..].split(';').map(stroke).collect())
    };
    lines.map(character).collect()
}

/// Returns points on a smooth curve through the points (Catmull-Rom).
fn curve(points: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let at = |index: isize| points[index.clamp(0, points.len() as isize - 1) as usize];
    let mut curve = Vec::new();
    for index in 0..points.len() as isize - 1 {
        let [a, b, c, d] = [-1, 0, 1, 2].map(|offset| at(index + offset));
        for step in 0..10 {
            let t = step as f32 / 10.0;
            curve.push([0, 1].map(|axis| {
                let [a, b, c, d] = [a, b, c, d].map(|point| point[axis]);
                let cubic = (3.0 * (b - c) + d - a) * t * t * t;
                let square = (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t;
                0.5 * (2.0 * b + (c - a) * t + square + cubic)
            }));
        }
    }
    curve.extend(points.last());
    curve
}

/// Draws a character as someone would with a pen: dark on white, slanted, turned and shaken at random.
pub(crate) fn drawn(strokes: &Strokes, random: &mut Random) -> GrayImage {
    let slant = random.between(-0.3, 0.3);
    let angle = random.between(-0.2, 0.2);
    let width = random.between(0.65, 1.1);
    let size = 0.6 * SIDE as f32;
    let pen = size * random.between(0.08, 0.16) / 2.0;
    let mut segments = Vec::new();
    for (is_smooth, points) in strokes {
        let shaken = points
            .iter()
            .map(|point| point.map(|value| value + random.between(-0.06, 0.06)));
        let shaken: Vec<[f32; 2]> = shaken.collect();
        let points = if *is_smooth { curve(&shaken) } else { shaken };
        let placed: Vec<[f32; 2]> = points
            .into_iter()
            .map(|[x, y]| {
                let (x, y) = ((x - 0.5) * width - slant * (y - 0.5), y - 0.5);
                let turned = [
                    x * angle.cos() - y * angle.sin(),
                    x * angle.sin() + y * angle.cos(),
                ];
                turned.map(|value| SIDE as f32 / 2.0 + size * value)
            })
            .collect();
        segments.extend(placed.windows(2).map(|pair| [pair[0], pair[1]]));
    }
    GrayImage::from_fn(SIDE, SIDE, |x, y| {
        let distances = segments
            .iter()
            .map(|segment| distance([x as f32, y as f32], *segment));
        let nearest = distances.fold(f32::INFINITY, f32::min);
        let ink = (pen + 0.5 - nearest).clamp(0.0, 1.0);
        Luma([(255.0 * (1.0 - ink)) as u8])
    })
}

/// Returns the distance of a point from a segment.
fn distance(point: [f32; 2], [a, b]: [[f32; 2]; 2]) -> f32 {
    let minus = |p: [f32; 2], q: [f32; 2]| [p[0] - q[0], p[1] - q[1]];
    let dot = |p: [f32; 2], q: [f32; 2]| p[0] * q[0] + p[1] * q[1];
    let (along, to) = (minus(b, a), minus(point, a));
    let share = (dot(to, along) / dot(along, along).max(1e-9)).clamp(0.0, 1.0);
    let rest = minus(to, along.map(|value| share * value));
    dot(rest, rest).sqrt()
}
