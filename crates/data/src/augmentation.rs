//! Random changes of training images: other positions, other hands.

use std::f32::consts::PI;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batch::Sample;

/// How much training images are changed, at random and each time anew; 0 is not at all. What a change
/// moves in from outside is black.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Turned by up to so many degrees, to either side.
    pub rotation: f64,
    /// Moved by up to this part of its height and width.
    pub translation: f64,
    /// Larger or smaller by up to this part.
    pub scale: f64,
    /// Slanted by up to so many degrees, to either side.
    pub shear: f64,
    /// Distorted as by an unsteady hand: neighbouring pixels move alike, by this part of the longer side
    /// on average (as a standard deviation).
    pub elastic: f64,
    /// Probability that a rectangle of 2 to 20% of the image becomes black.
    pub erasing: f64,
    /// Whether one image of two is mirrored, left to right.
    pub flip: bool,
}

/// Points along the longer side whose displacements are drawn; those of the pixels between are a cubic
/// B-spline of them.
const POINTS: f32 = 4.0;
/// Standard deviation of such a B-spline in the plane whose points have one of 1: the mean of the squares
/// of its weights along one axis.
const SPLINE_DEVIATION: f32 = 151.0 / 315.0;

impl Augmentation {
    /// Whether it leaves images as they are.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Changes image `index` as in epoch `epoch` of a training with this seed, and in no other way.
    pub fn apply(&self, sample: &mut Sample, seed: u64, epoch: u64, index: usize) {
        let change = Change::draw(self, [sample.height, sample.width], seed, epoch, index);
        change.apply(sample);
    }
}

/// What is done with one image.
pub(crate) struct Change {
    pub(crate) map: Map,
    /// The pixels that become black, none of them where nothing is erased.
    erased: Rectangle,
}

impl Change {
    /// The change of image `index` in epoch `epoch` of a training with this seed.
    pub(crate) fn draw(
        ranges: &Augmentation,
        size: [usize; 2],
        seed: u64,
        epoch: u64,
        index: usize,
    ) -> Self {
        let random = &mut random(seed, epoch, index);
        let map = Map::draw(ranges, size, random);
        let erased = match random.random::<f64>() < ranges.erasing {
            true => Rectangle::draw(size, random),
            false => Rectangle::default(),
        };
        Self { map, erased }
    }

    fn apply(&self, sample: &mut Sample) {
        sample.pixels = self.map.warp(sample);
        self.erased.erase(sample);
    }

    /// The affine map, and the rectangle's top, left, bottom and right.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f32> {
        let Rectangle { rows, columns } = &self.erased;
        let corners = [rows.start, columns.start, rows.end, columns.end];
        let affine = self.map.affine.as_flattened().iter().copied();
        affine.chain(corners.map(|at| at as f32))
    }
}

/// The random numbers of an image in an epoch, whoever else was changed before.
fn random(seed: u64, epoch: u64, index: usize) -> ChaCha8Rng {
    let mut key = *b"........augmentation of images..";
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    random.set_stream(epoch);
    // Many more words than an image takes.
    random.set_word_pos((index as u128) << 16);
    random
}

/// Where the pixels of a changed image come from.
pub(crate) struct Map {
    /// Of an affine map around the centre, `[x or y][x, y, 1]`.
    affine: [[f32; 3]; 2],
    pub(crate) elastic: Option<Displacements>,
}

impl Map {
    fn draw(ranges: &Augmentation, [height, width]: [usize; 2], random: &mut ChaCha8Rng) -> Self {
        // All are drawn, so that each is the same whatever the others are.
        let mut either = |range: f64| range as f32 * random.random_range(-1.0..=1.0f32);
        let angle = either(ranges.rotation) * PI / 180.0;
        let slant = (either(ranges.shear) * PI / 180.0).tan();
        let scale = 1.0 + either(ranges.scale);
        let right = either(ranges.translation) * width as f32;
        let down = either(ranges.translation) * height as f32;
        let mirror = if ranges.flip && random.random() {
            -1.0
        } else {
            1.0
        };
        // The map of a changed pixel back to where it was: turned, then slanted, both the other way.
        let (sin, cos) = (angle.sin() / scale, angle.cos() / scale);
        let rows = [[cos + slant * sin, sin - slant * cos], [-sin, cos]];
        let affine = rows.map(|[x, y]| [x, y, -(x * right + y * down)]);
        let affine = [affine[0].map(|factor| mirror * factor), affine[1]];
        let side = height.max(width) as f32;
        let elastic = (ranges.elastic > 0.0).then(|| {
            let deviation = ranges.elastic as f32 * side / SPLINE_DEVIATION;
            Displacements::draw([height, width], side / POINTS, deviation, random)
        });
        Self { affine, elastic }
    }

    /// The pixels of the changed image, each between the four around the place where it comes from.
    fn warp(&self, sample: &Sample) -> Vec<u8> {
        let &Sample {
            channels,
            height,
            width,
            ..
        } = sample;
        let frame = Frame { height, width };
        let framed: Vec<Vec<f32>> = sample
            .pixels
            .chunks_exact(height * width)
            .map(|plane| frame.around(plane))
            .collect();
        let mut changed = vec![0; channels * height * width];
        let [centre_x, centre_y] = [width, height].map(|size| (size as f32 - 1.0) / 2.0);
        let [right, down] = self.affine;
        // A row at a time, each step for all of its pixels, so that the compiler can take several at once.
        let mut from = vec![[0.0; 2]; width];
        let mut places = vec![Place::default(); width];
        for row in 0..height {
            let y = row as f32 - centre_y;
            for (column, from) in from.iter_mut().enumerate() {
                let x = column as f32 - centre_x;
                *from = [
                    right[0] * x + right[1] * y + right[2] + centre_x,
                    down[0] * x + down[1] * y + down[2] + centre_y,
                ];
            }
            if let Some(elastic) = &self.elastic {
                elastic.add_to_row(row, &mut from);
            }
            for (place, &from) in places.iter_mut().zip(&from) {
                *place = frame.place(from);
            }
            for (channel, framed) in framed.iter().enumerate() {
                let start = (channel * height + row) * width;
                let changed = &mut changed[start..start + width];
                for (pixel, place) in changed.iter_mut().zip(&places) {
                    *pixel = place.value(framed, frame.pitch());
                }
            }
        }
        changed
    }
}

/// An image with a frame of black pixels, so that no place needs to be checked: those outside are moved to
/// the frame.
#[derive(Clone, Copy)]
struct Frame {
    height: usize,
    width: usize,
}

impl Frame {
    /// Framed columns: one before, and two after, the image.
    fn pitch(self) -> usize {
        self.width + 3
    }

    fn around(self, plane: &[u8]) -> Vec<f32> {
        let pitch = self.pitch();
        let mut framed = vec![0.0; (self.height + 3) * pitch];
        let rows = framed.chunks_exact_mut(pitch).skip(1);
        for (framed, row) in rows.zip(plane.chunks_exact(self.width)) {
            for (framed, &pixel) in framed[1..].iter_mut().zip(row) {
                *framed = f32::from(pixel);
            }
        }
        framed
    }

    fn place(self, [x, y]: [f32; 2]) -> Place {
        // From 0, so that whole numbers are cut off without a call.
        let x = x.clamp(-1.0, self.width as f32) + 1.0;
        let y = y.clamp(-1.0, self.height as f32) + 1.0;
        let (column, row) = (x as i32, y as i32);
        Place {
            at: row as usize * self.pitch() + column as usize,
            right: x - column as f32,
            down: y - row as f32,
        }
    }
}

/// A place between four pixels.
#[derive(Clone, Copy, Default)]
struct Place {
    /// The one above and to the left.
    at: usize,
    /// How far it is to the next column and row, from 0 to 1.
    right: f32,
    down: f32,
}

impl Place {
    /// The value there: of the pixels around it, each the more, the nearer.
    fn value(&self, framed: &[f32], pitch: usize) -> u8 {
        let along = |pair: &[f32]| pair[0] + self.right * (pair[1] - pair[0]);
        let above = along(&framed[self.at..self.at + 2]);
        let below = along(&framed[self.at + pitch..self.at + pitch + 2]);
        (above + self.down * (below - above) + 0.5) as u8
    }
}

/// How far each pixel is moved to the right and down: a cubic B-spline of displacements on a grid.
pub(crate) struct Displacements {
    /// What each row and column of pixels takes of the grid.
    rows: Vec<Spline>,
    columns: Vec<Spline>,
    /// `[rows of the grid, columns of the grid]`
    points: Vec<[f32; 2]>,
    pitch: usize,
}

impl Displacements {
    fn draw(
        [height, width]: [usize; 2],
        spacing: f32,
        deviation: f32,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let splines = |size: usize| {
            let places = (0..size).map(|at| Spline::at(at as f32 / spacing));
            places.collect::<Vec<_>>()
        };
        let (rows, columns) = (splines(height), splines(width));
        let count = |splines: &[Spline]| splines.last().map_or(0, |last| last.first + 4);
        let pitch = count(&columns);
        // Uniform numbers of that deviation.
        let most = deviation * 3.0_f32.sqrt();
        let mut point = || [0, 1].map(|_| random.random_range(-most..=most));
        Self {
            points: (0..count(&rows) * pitch).map(|_| point()).collect(),
            rows,
            columns,
            pitch,
        }
    }

    /// Displacements to the right, and then those down, row by row.
    pub(crate) fn points(&self) -> impl Iterator<Item = f32> {
        [0, 1]
            .into_iter()
            .flat_map(|axis| self.points.iter().map(move |point| point[axis]))
    }

    /// What pixels of each row, and of each column, take of the rows and columns of the grid, whose number
    /// goes with it: `[height, rows]` and `[width, columns]`.
    pub(crate) fn weights(&self) -> [(Vec<f32>, usize); 2] {
        let dense = |splines: &[Spline], points: usize| {
            let mut weights = vec![0.0; splines.len() * points];
            for (row, spline) in weights.chunks_exact_mut(points).zip(splines) {
                row[spline.first..spline.first + 4].copy_from_slice(&spline.weights);
            }
            (weights, points)
        };
        let rows = self.points.len() / self.pitch;
        [dense(&self.rows, rows), dense(&self.columns, self.pitch)]
    }

    /// Adds those of a row of pixels to where they come from.
    fn add_to_row(&self, row: usize, from: &mut [[f32; 2]]) {
        let spline = &self.rows[row];
        let grid = self.points.chunks_exact(self.pitch).skip(spline.first);
        let mut points = vec![[0.0; 2]; self.pitch];
        for (weight, grid) in spline.weights.into_iter().zip(grid) {
            for (point, [x, y]) in points.iter_mut().zip(grid) {
                *point = [point[0] + weight * x, point[1] + weight * y];
            }
        }
        for ([x, y], Spline { first, weights }) in from.iter_mut().zip(&self.columns) {
            for (weight, point) in weights.iter().zip(&points[*first..first + 4]) {
                *x += weight * point[0];
                *y += weight * point[1];
            }
        }
    }
}

/// What a uniform cubic B-spline takes of its points at a place.
#[derive(Clone, Copy)]
struct Spline {
    /// The first of four points.
    first: usize,
    weights: [f32; 4],
}

impl Spline {
    fn at(place: f32) -> Self {
        let first = place as usize;
        let t = place - first as f32;
        let rest = 1.0 - t;
        let inner = |t: f32| 3.0 * t * t * t - 6.0 * t * t + 4.0;
        let weights = [rest * rest * rest, inner(t), inner(rest), t * t * t];
        Self {
            first,
            weights: weights.map(|weight| weight / 6.0),
        }
    }
}

/// A part of an image.
#[derive(Default)]
struct Rectangle {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Rectangle {
    /// 2 to 20% of the image, up to three times as long as wide.
    fn draw([height, width]: [usize; 2], random: &mut ChaCha8Rng) -> Self {
        let area = (height * width) as f32 * random.random_range(0.02..=0.2f32);
        let longer = 3.0_f32.powf(random.random_range(-0.5..=0.5f32));
        let size = |length: f32, most: usize| (length.round() as usize).clamp(1, most);
        let rows = size((area * longer).sqrt(), height);
        let columns = size((area / longer).sqrt(), width);
        let top = random.random_range(0..=height - rows);
        let left = random.random_range(0..=width - columns);
        Self {
            rows: top..top + rows,
            columns: left..left + columns,
        }
    }

    /// Makes it black.
    fn erase(&self, sample: &mut Sample) {
        for channel in sample.pixels.chunks_mut(sample.height * sample.width) {
            for row in self.rows.clone() {
                channel[row * sample.width..][self.columns.clone()].fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cross on black, off centre.
    fn cross() -> Sample {
        let (height, width) = (28, 20);
        let pixels = (0..height * width).map(|at| {
            let (row, column) = (at / width, at % width);
            let is_inside = (6..20).contains(&row) && (5..15).contains(&column);
            if is_inside && (row == 12 || column == 8) {
                200
            } else {
                0
            }
        });
        Sample {
            channels: 1,
            height,
            width,
            pixels: pixels.collect(),
            label: 0,
        }
    }

    fn changed(augmentation: Augmentation, index: usize) -> Vec<u8> {
        let mut sample = cross();
        augmentation.apply(&mut sample, 7, 3, index);
        sample.pixels
    }

    fn mass(pixels: &[u8]) -> f64 {
        pixels.iter().map(|&pixel| f64::from(pixel)).sum()
    }

    /// The centre of mass, x and y.
    fn centre(pixels: &[u8]) -> [f64; 2] {
        let sum = |place: fn(usize) -> usize| {
            let each = pixels.iter().enumerate();
            each.map(|(at, &pixel)| place(at) as f64 * f64::from(pixel))
                .sum::<f64>()
                / mass(pixels)
        };
        [sum(|at| at % 20), sum(|at| at / 20)]
    }

    const NONE: Augmentation = Augmentation {
        rotation: 0.0,
        translation: 0.0,
        scale: 0.0,
        shear: 0.0,
        elastic: 0.0,
        erasing: 0.0,
        flip: false,
    };

    #[test]
    fn without_a_range_nothing_changes() {
        assert!(NONE.is_none());
        for index in 0..20 {
            assert_eq!(changed(NONE, index), cross().pixels);
        }
    }

    #[test]
    fn a_change_depends_on_seed_epoch_and_index_alone() {
        let all = Augmentation {
            rotation: 10.0,
            translation: 0.1,
            scale: 0.1,
            shear: 10.0,
            elastic: 0.02,
            erasing: 0.5,
            flip: true,
        };
        let with = |seed, epoch, index| {
            let mut sample = cross();
            all.apply(&mut sample, seed, epoch, index);
            sample.pixels
        };
        let one = with(1, 1, 1);
        assert_eq!(with(1, 1, 1), one);
        for other in [with(2, 1, 1), with(1, 2, 1), with(1, 1, 2)] {
            assert_ne!(other, one);
        }
    }

    #[test]
    fn each_change_is_within_its_range_and_reaches_its_ends() {
        let [x, y] = centre(&cross().pixels);
        let moved = Augmentation {
            translation: 0.1,
            ..NONE
        };
        let offsets: Vec<[f64; 2]> = (0..200)
            .map(|index| centre(&changed(moved, index)))
            .collect();
        for (axis, (middle, most)) in [(x, 2.0), (y, 2.8)].into_iter().enumerate() {
            let far = offsets.iter().map(|offset| offset[axis] - middle);
            let (least, largest) = far.fold((0.0f64, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
            assert!(least > -most - 0.1 && least < 0.1 - most, "{least} {most}");
            assert!(
                largest < most + 0.1 && largest > most - 0.1,
                "{largest} {most}"
            );
        }
        let scaled = Augmentation { scale: 0.2, ..NONE };
        let ratios: Vec<f64> = (0..200)
            .map(|index| (mass(&changed(scaled, index)) / mass(&cross().pixels)).sqrt())
            .collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        assert!(
            (0.75..0.85).contains(&least) && (1.15..1.25).contains(&most),
            "{least} {most}"
        );
        // Turned and slanted around the centre of the image, to both sides.
        for ranges in [
            Augmentation {
                rotation: 30.0,
                ..NONE
            },
            Augmentation {
                shear: 30.0,
                ..NONE
            },
        ] {
            let sides: Vec<bool> = (0..50)
                .map(|index| centre(&changed(ranges, index))[0] > x)
                .collect();
            assert!(sides.contains(&true) && sides.contains(&false));
            let kept = (0..50).map(|index| mass(&changed(ranges, index)) / mass(&cross().pixels));
            assert!(kept.into_iter().all(|kept| (0.9..1.1).contains(&kept)));
        }
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let mirrored = Augmentation { flip: true, ..NONE };
        let mut expected = cross().pixels;
        expected.chunks_mut(20).for_each(<[u8]>::reverse);
        let images: Vec<Vec<u8>> = (0..200).map(|index| changed(mirrored, index)).collect();
        let count = images.iter().filter(|image| **image == expected).count();
        assert!((80..120).contains(&count), "{count}");
        assert!(
            images
                .iter()
                .all(|image| *image == expected || *image == cross().pixels)
        );
    }

    #[test]
    fn displacements_have_their_deviation_and_neighbours_move_alike() {
        let deviation = 2.0;
        let mut squares = 0.0;
        for index in 0..100 {
            let mut random = random(5, 1, index);
            let grid =
                Displacements::draw([28, 28], 7.0, deviation / SPLINE_DEVIATION, &mut random);
            let mut row = [[0.0; 2]; 28];
            grid.add_to_row(11, &mut row);
            let ([x, _], [next, _]) = (row[9], row[10]);
            assert!((x - next).abs() < deviation);
            squares += x * x / 100.0;
        }
        assert!(
            (squares.sqrt() / deviation - 1.0).abs() < 0.25,
            "{}",
            squares.sqrt()
        );
        let place = Spline::at(3.25);
        assert_eq!(place.first, 3);
        assert!((place.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn some_images_lose_a_rectangle() {
        let mut white = cross();
        white.pixels.fill(255);
        let erasing = Augmentation {
            erasing: 0.5,
            ..NONE
        };
        let mut erased = 0;
        for index in 0..200 {
            let mut sample = white.clone();
            erasing.apply(&mut sample, 7, 1, index);
            let black = sample.pixels.iter().filter(|&&pixel| pixel == 0).count();
            if black > 0 {
                erased += 1;
                assert!((0.01..0.23).contains(&(black as f64 / 560.0)), "{black}");
            }
        }
        assert!((80..120).contains(&erased), "{erased}");
    }
}
