//! Random transforms of training images.

use std::f32::consts::PI;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::elastic::Displacements;
use crate::sample::Sample;
use crate::warp::Warp;

/// The ranges of the random transforms of training images. A value of 0 disables a transform.
///
/// Pixels from outside of the image are black.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Maximum rotation in degrees, in both directions.
    pub rotation: f64,
    /// Maximum translation, as a fraction of the height and width.
    pub translation: f64,
    /// Maximum relative change of the size.
    pub scale: f64,
    /// Maximum shear in degrees, in both directions.
    pub shear: f64,
    /// Standard deviation of the elastic displacements, as a fraction of the longer side.
    pub elastic: f64,
    /// Probability of erasing a rectangle of 2 to 20% of the image.
    pub erasing: f64,
    /// Whether to mirror images horizontally, with probability 0.5.
    pub flip: bool,
}

impl Augmentation {
    /// Returns whether all transforms are disabled.
    pub fn is_identity(&self) -> bool {
        *self == Self::default()
    }

    /// Transforms image `index` for epoch `epoch` of a training run with this seed.
    ///
    /// The transform depends only on `(seed, epoch, index)`.
    pub fn apply(&self, sample: &mut Sample, seed: u64, epoch: u64, index: usize) {
        let size = [sample.height, sample.width];
        let transform = Transform::draw(self, size, seed, epoch, index);
        transform.apply(sample);
    }
}

/// The random transform of one image.
pub(crate) struct Transform {
    pub(crate) warp: Warp,
    /// Pixels to erase. Empty if there are none.
    erased: Rectangle,
}

impl Transform {
    /// Draws the transform of image `index` of size `[height, width]` for epoch `epoch`.
    pub(crate) fn draw(
        ranges: &Augmentation,
        size: [usize; 2],
        seed: u64,
        epoch: u64,
        index: usize,
    ) -> Self {
        let random = &mut random_generator(seed, epoch, index);
        let warp = draw_warp(ranges, size, random);
        let erased = match random.random::<f64>() < ranges.erasing {
            true => Rectangle::draw(size, random),
            false => Rectangle::default(),
        };
        Self { warp, erased }
    }

    fn apply(&self, sample: &mut Sample) {
        sample.pixels = self.warp.apply(sample);
        self.erased.erase(sample);
    }

    /// Iterates over ten numbers: the affine map, row-major, and the top, left, bottom and right of
    /// the erased rectangle.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = f32> {
        let Rectangle { rows, columns } = &self.erased;
        let corners = [rows.start, columns.start, rows.end, columns.end];
        let affine = self.warp.affine.as_flattened().iter().copied();
        affine.chain(corners.map(|at| at as f32))
    }
}

/// Returns the random number generator of one image in one epoch, which does not depend on the
/// numbers drawn for other images.
fn random_generator(seed: u64, epoch: u64, index: usize) -> ChaCha8Rng {
    let mut key = *b"........augmentation of images..";
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    random.set_stream(epoch);
    // An image needs far fewer than 2^16 words.
    random.set_word_pos((index as u128) << 16);
    random
}

fn draw_warp(ranges: &Augmentation, [height, width]: [usize; 2], random: &mut ChaCha8Rng) -> Warp {
    // Always draws all parameters, so that each is independent of the other ranges.
    let mut symmetric = |range: f64| range as f32 * random.random_range(-1.0..=1.0f32);
    let angle = symmetric(ranges.rotation) * PI / 180.0;
    let shear = (symmetric(ranges.shear) * PI / 180.0).tan();
    let scale = 1.0 + symmetric(ranges.scale);
    let right = symmetric(ranges.translation) * width as f32;
    let down = symmetric(ranges.translation) * height as f32;
    let mirror = if ranges.flip && random.random() {
        -1.0
    } else {
        1.0
    };
    // The map from the result to the source is the inverse rotation, then the inverse shear.
    let (sin, cos) = (angle.sin() / scale, angle.cos() / scale);
    let rows = [[cos + shear * sin, sin - shear * cos], [-sin, cos]];
    let affine = rows.map(|[x, y]| [x, y, -(x * right + y * down)]);
    let affine = [affine[0].map(|factor| mirror * factor), affine[1]];
    let elastic = (ranges.elastic > 0.0).then(|| {
        let deviation = ranges.elastic as f32 * height.max(width) as f32;
        Displacements::draw([height, width], deviation, random)
    });
    Warp { affine, elastic }
}

/// A rectangle of pixels.
#[derive(Default)]
struct Rectangle {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Rectangle {
    /// Draws a rectangle of 2 to 20% of the image with an aspect ratio of at most 3.
    fn draw([height, width]: [usize; 2], random: &mut ChaCha8Rng) -> Self {
        let area = (height * width) as f32 * random.random_range(0.02..=0.2f32);
        let aspect = 3.0_f32.powf(random.random_range(-0.5..=0.5f32));
        let size = |length: f32, max: usize| (length.round() as usize).clamp(1, max);
        let rows = size((area * aspect).sqrt(), height);
        let columns = size((area / aspect).sqrt(), width);
        let top = random.random_range(0..=height - rows);
        let left = random.random_range(0..=width - columns);
        Self {
            rows: top..top + rows,
            columns: left..left + columns,
        }
    }

    /// Sets its pixels to 0.
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

    /// Returns an image of a cross on black, off center.
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

    fn augmented(augmentation: Augmentation, index: usize) -> Vec<u8> {
        let mut sample = cross();
        augmentation.apply(&mut sample, 7, 3, index);
        sample.pixels
    }

    fn mass(pixels: &[u8]) -> f64 {
        pixels.iter().map(|&pixel| f64::from(pixel)).sum()
    }

    /// Returns the center of mass, `[x, y]`.
    fn center(pixels: &[u8]) -> [f64; 2] {
        let total = mass(pixels);
        let mean = |coordinate: fn(usize) -> usize| {
            let pixels = pixels.iter().enumerate();
            pixels
                .map(|(at, &pixel)| coordinate(at) as f64 * f64::from(pixel))
                .sum::<f64>()
                / total
        };
        [mean(|at| at % 20), mean(|at| at / 20)]
    }

    const IDENTITY: Augmentation = Augmentation {
        rotation: 0.0,
        translation: 0.0,
        scale: 0.0,
        shear: 0.0,
        elastic: 0.0,
        erasing: 0.0,
        flip: false,
    };

    #[test]
    fn identity_leaves_images_unchanged() {
        assert!(IDENTITY.is_identity());
        for index in 0..20 {
            assert_eq!(augmented(IDENTITY, index), cross().pixels);
        }
    }

    #[test]
    fn transform_depends_only_on_seed_epoch_and_index() {
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
    fn transforms_cover_their_ranges() {
        let [x, y] = center(&cross().pixels);
        let translated = Augmentation {
            translation: 0.1,
            ..IDENTITY
        };
        let offsets: Vec<[f64; 2]> = (0..200)
            .map(|index| center(&augmented(translated, index)))
            .collect();
        for (axis, (middle, limit)) in [(x, 2.0), (y, 2.8)].into_iter().enumerate() {
            let offsets = offsets.iter().map(|offset| offset[axis] - middle);
            let (min, max) = offsets.fold((0.0f64, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
            assert!(min > -limit - 0.1 && min < 0.1 - limit, "{min} {limit}");
            assert!(max < limit + 0.1 && max > limit - 0.1, "{max} {limit}");
        }
        let scaled = Augmentation {
            scale: 0.2,
            ..IDENTITY
        };
        let ratios: Vec<f64> = (0..200)
            .map(|index| (mass(&augmented(scaled, index)) / mass(&cross().pixels)).sqrt())
            .collect();
        let min = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let max = ratios.iter().copied().fold(0.0, f64::max);
        assert!(
            (0.75..0.85).contains(&min) && (1.15..1.25).contains(&max),
            "{min} {max}"
        );
        // Rotation and shear around the center of the image, in both directions.
        for ranges in [
            Augmentation {
                rotation: 30.0,
                ..IDENTITY
            },
            Augmentation {
                shear: 30.0,
                ..IDENTITY
            },
        ] {
            let sides: Vec<bool> = (0..50)
                .map(|index| center(&augmented(ranges, index))[0] > x)
                .collect();
            assert!(sides.contains(&true) && sides.contains(&false));
            let mut ratios =
                (0..50).map(|index| mass(&augmented(ranges, index)) / mass(&cross().pixels));
            assert!(ratios.all(|ratio| (0.9..1.1).contains(&ratio)));
        }
    }

    #[test]
    fn flip_mirrors_half_of_the_images() {
        let mirrored = Augmentation {
            flip: true,
            ..IDENTITY
        };
        let mut expected = cross().pixels;
        expected.chunks_mut(20).for_each(<[u8]>::reverse);
        let images: Vec<Vec<u8>> = (0..200).map(|index| augmented(mirrored, index)).collect();
        let count = images.iter().filter(|image| **image == expected).count();
        assert!((80..120).contains(&count), "{count}");
        assert!(
            images
                .iter()
                .all(|image| *image == expected || *image == cross().pixels)
        );
    }

    #[test]
    fn erasing_blackens_a_rectangle_with_its_probability() {
        let mut white = cross();
        white.pixels.fill(255);
        let erasing = Augmentation {
            erasing: 0.5,
            ..IDENTITY
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
