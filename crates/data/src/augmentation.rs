//! Random transforms of training images.
//!
//! The transforms of an image follow each other in this order:
//!
//! 1. brightness, contrast, saturation and hue,
//! 2. resized crop, rotation, shear, scale, translation, flip and elastic distortion, as one bilinear
//!    interpolation; the flip alone moves pixels exactly,
//! 3. crop after padding, which moves pixels exactly,
//! 4. random erasing,
//! 5. cutout.
//!
//! Colors come first: they enlarge differences of pixels, such as that between the roundings of two devices.
//!
//! mixup and CutMix then mix the normalized images of a batch, see [`mixing`](crate::mixing).

use std::f32::consts::PI;

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::color_jitter::ColorJitter;
use crate::crop::{Crop, CropPadding};
use crate::elastic::Displacements;
use crate::flip::Flip;
use crate::random::generator;
use crate::rectangle::Rectangle;
use crate::sample::Sample;
use crate::warp::{Outside, Warp};

/// The ranges of the random transforms of training images. A value of 0 disables a transform.
///
/// Unless a transform says otherwise, pixels from outside of the image are black.
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
    /// Maximum relative change of the brightness.
    pub brightness: f64,
    /// Maximum relative change of the contrast.
    pub contrast: f64,
    /// Maximum relative change of the saturation. Without effect on gray images.
    pub saturation: f64,
    /// Maximum rotation of the hue as a fraction of the circle, in both directions. Without effect on gray
    /// images.
    pub hue: f64,
    /// Minimum area of a random crop that is resized to the size of the image, as a fraction of the image.
    /// The aspect ratio is 3/4 to 4/3.
    pub resized_crop: f64,
    /// How images are mirrored left to right.
    pub flip: Flip,
    /// Number of pixels that the image is padded by on each side, before a random crop of its size. At most
    /// the size less 1 has an effect.
    pub crop: usize,
    /// The pixels that a crop shows around the image.
    pub crop_padding: CropPadding,
    /// Probability of erasing a rectangle of 2 to 20% of the image.
    pub erasing: f64,
    /// Side in pixels of a square around a random pixel that is masked (DeVries and Taylor 2017).
    pub cutout: usize,
    /// Parameter of the beta distribution of mixup's weights (Zhang et al. 2018).
    pub mixup: f64,
    /// Parameter of the beta distribution of CutMix's areas (Yun et al. 2019).
    pub cutmix: f64,
}

impl Augmentation {
    /// Returns whether all transforms of single images are disabled.
    pub fn is_identity(&self) -> bool {
        let only_these = Self {
            mixup: self.mixup,
            cutmix: self.cutmix,
            crop_padding: self.crop_padding,
            ..Self::default()
        };
        *self == only_these
    }

    /// Transforms image `index` for epoch `epoch` of a training run with this seed. Cutout fills with the
    /// pixel value `fill` of each channel; a gray image has the first one.
    ///
    /// The transform depends only on `(seed, epoch, index)`.
    pub fn apply(&self, sample: &mut Sample, fill: [u8; 3], seed: u64, epoch: u64, index: usize) {
        let size = [sample.height, sample.width];
        let transform = Transform::draw(self, size, seed, epoch, index);
        transform.apply(sample, fill);
    }

    /// Returns whether images are interpolated.
    fn has_warp(&self) -> bool {
        let ranges = [
            self.rotation,
            self.translation,
            self.scale,
            self.shear,
            self.elastic,
            self.resized_crop,
        ];
        ranges.iter().any(|&range| range > 0.0)
    }
}

/// The random transform of one image.
pub(crate) struct Transform {
    pub(crate) color: ColorJitter,
    pub(crate) warp: Option<Warp>,
    pub(crate) crop: Crop,
    /// Black pixels. Empty if there are none.
    pub(crate) erased: Rectangle,
    /// Masked pixels. Empty if there are none.
    pub(crate) cutout: Rectangle,
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
        let random = &mut generator(b"augmentation of images..", seed, epoch, index);
        let affine = draw_affine(ranges, size, random);
        let is_mirrored = ranges.flip.draw(random, seed, epoch, index);
        let elastic = (ranges.elastic > 0.0).then(|| {
            let deviation = ranges.elastic as f32 * size[0].max(size[1]) as f32;
            Displacements::draw(size, deviation, random)
        });
        let erased = match random.random::<f64>() < ranges.erasing {
            true => Rectangle::draw(size, random),
            false => Rectangle::default(),
        };
        // Later versions draw from another generator, which leaves the numbers above as they were.
        let random = &mut generator(b"crops, colors and cutout", seed, epoch, index);
        let offset = draw_offset(ranges.crop, size, random);
        let color = draw_color(ranges, random);
        let cutout = draw_cutout(ranges.cutout, size, random);
        let resized_crop = draw_resized_crop(ranges.resized_crop, size, random);

        let warp = ranges.has_warp().then(|| {
            let affine = if is_mirrored {
                mirrored(affine)
            } else {
                affine
            };
            Warp {
                affine: compose(resized_crop, affine),
                elastic,
            }
        });
        let crop = Crop {
            is_mirrored: is_mirrored && warp.is_none(),
            offset,
            padding: ranges.crop_padding,
        };
        Self {
            color,
            warp,
            crop,
            erased,
            cutout,
        }
    }

    fn apply(&self, sample: &mut Sample, fill: [u8; 3]) {
        self.color.apply(sample);
        if let Some(warp) = &self.warp {
            sample.pixels = warp.apply(sample, Outside::Black);
        }
        self.crop.apply(sample);
        self.erased.fill(sample, [0; 3]);
        self.cutout.fill(sample, fill);
    }
}

/// A map of coordinates relative to the center, `[source x or y][x, y, 1]`.
type Affine = [[f32; 3]; 2];

/// Draws rotation, shear, scale and translation: the map from the result to the source.
fn draw_affine(
    ranges: &Augmentation,
    [height, width]: [usize; 2],
    random: &mut impl Rng,
) -> Affine {
    // Always draws all parameters, so that each is independent of the other ranges.
    let mut symmetric = |range: f64| range as f32 * random.random_range(-1.0..=1.0f32);
    let angle = symmetric(ranges.rotation) * PI / 180.0;
    let shear = (symmetric(ranges.shear) * PI / 180.0).tan();
    let scale = 1.0 + symmetric(ranges.scale);
    let right = symmetric(ranges.translation) * width as f32;
    let down = symmetric(ranges.translation) * height as f32;
    // The map is the inverse rotation, then the inverse shear.
    let (sin, cos) = (angle.sin() / scale, angle.cos() / scale);
    let rows = [[cos + shear * sin, sin - shear * cos], [-sin, cos]];
    rows.map(|[x, y]| [x, y, -(x * right + y * down)])
}

/// Mirrors the source of a map left to right.
fn mirrored([x, y]: Affine) -> Affine {
    [x.map(|factor| -factor), y]
}

/// Draws the offset of a crop after padding by `padding` pixels.
fn draw_offset(padding: usize, size: [usize; 2], random: &mut impl Rng) -> [isize; 2] {
    size.map(|size| {
        let padding = padding.min(size - 1);
        let at = random.random::<f32>() * (2 * padding + 1) as f32;
        // The product may be rounded up to its limit.
        (at as usize).min(2 * padding) as isize - padding as isize
    })
}

fn draw_color(ranges: &Augmentation, random: &mut impl Rng) -> ColorJitter {
    let mut symmetric = |range: f64| range as f32 * random.random_range(-1.0..=1.0f32);
    ColorJitter {
        brightness: 1.0 + symmetric(ranges.brightness),
        contrast: 1.0 + symmetric(ranges.contrast),
        saturation: 1.0 + symmetric(ranges.saturation),
        hue: symmetric(ranges.hue),
    }
}

/// Draws a square with `side` pixels per side around any pixel. It may extend beyond the image.
fn draw_cutout(side: usize, size: [usize; 2], random: &mut impl Rng) -> Rectangle {
    let center = size.map(|size| {
        let at = random.random::<f32>() * size as f32;
        (at as usize).min(size - 1)
    });
    match side {
        0 => Rectangle::default(),
        _ => Rectangle::around(center, [side; 2], size),
    }
}

/// A crop that is resized to the size of the image, as factor and offset of source coordinates relative to
/// the center, x and y.
type ResizedCrop = [[f32; 2]; 2];

/// Draws a crop of `min_area` to 1 of the image with an aspect ratio of 3/4 to 4/3, as torchvision's
/// `RandomResizedCrop`: after ten crops that do not fit, it is the whole image. `None` if `min_area` is 0.
///
/// Edge pixels of the result map to edge pixels of the crop, so no pixel outside of the image is sampled.
fn draw_resized_crop(
    min_area: f64,
    [height, width]: [usize; 2],
    random: &mut impl Rng,
) -> Option<ResizedCrop> {
    if min_area == 0.0 {
        return None;
    }
    let size = [width, height].map(|size| size as f32);
    for _ in 0..10 {
        let area = random.random_range(min_area as f32..=1.0) * size[0] * size[1];
        let aspect = (4.0_f32 / 3.0).powf(random.random_range(-1.0..=1.0f32));
        let sides = [(area * aspect).sqrt(), (area / aspect).sqrt()];
        if sides[0] <= size[0] && sides[1] <= size[1] {
            return Some([0, 1].map(|axis| {
                let free = size[axis] - sides[axis];
                let start = free * random.random::<f32>();
                let factor = (sides[axis] - 1.0).max(0.0) / (size[axis] - 1.0).max(1.0);
                [factor, start - free / 2.0]
            }));
        }
    }
    None
}

/// Applies a resized crop to the source coordinates of a map.
fn compose(crop: Option<ResizedCrop>, [x, y]: Affine) -> Affine {
    let Some([crop_x, crop_y]) = crop else {
        return [x, y];
    };
    let row = |[factor, offset]: [f32; 2], row: [f32; 3]| {
        let [x, y, constant] = row.map(|value| factor * value);
        [x, y, constant + offset]
    };
    [row(crop_x, x), row(crop_y, y)]
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

    fn identity() -> Augmentation {
        Augmentation::default()
    }

    fn augmented(augmentation: Augmentation, index: usize) -> Vec<u8> {
        let mut sample = cross();
        augmentation.apply(&mut sample, [0; 3], 7, 3, index);
        sample.pixels
    }

    /// Returns an image `[channels, 4, 4]` with pixels that count from 1.
    fn ramp(channels: usize) -> Sample {
        Sample {
            channels,
            height: 4,
            width: 4,
            pixels: (1..=channels as u8 * 16).collect(),
            label: 0,
        }
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

    #[test]
    fn identity_leaves_images_unchanged() {
        assert!(identity().is_identity());
        for index in 0..20 {
            assert_eq!(augmented(identity(), index), cross().pixels);
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
            flip: Flip::Random,
            ..identity()
        };
        let with = |seed, epoch, index| {
            let mut sample = cross();
            all.apply(&mut sample, [0; 3], seed, epoch, index);
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
            ..identity()
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
            ..identity()
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
                ..identity()
            },
            Augmentation {
                shear: 30.0,
                ..identity()
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
            flip: Flip::Random,
            ..identity()
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
            ..identity()
        };
        let mut erased = 0;
        for index in 0..200 {
            let mut sample = white.clone();
            erasing.apply(&mut sample, [0; 3], 7, 1, index);
            let black = sample.pixels.iter().filter(|&&pixel| pixel == 0).count();
            if black > 0 {
                erased += 1;
                assert!((0.01..0.23).contains(&(black as f64 / 560.0)), "{black}");
            }
        }
        assert!((80..120).contains(&erased), "{erased}");
    }

    #[test]
    fn alternating_flip_shows_both_sides_of_each_image_in_two_epochs() {
        let alternating = Augmentation {
            flip: Flip::Alternating,
            ..identity()
        };
        let is_mirrored = |seed, epoch, index| {
            let mut sample = ramp(1);
            alternating.apply(&mut sample, [0; 3], seed, epoch, index);
            match sample.pixels[..4] {
                [1, 2, 3, 4] => false,
                [4, 3, 2, 1] => true,
                _ => panic!("{:?}", sample.pixels),
            }
        };
        for index in 0..100 {
            let first = is_mirrored(7, 1, index);
            let epochs = (1..=5).map(|epoch| is_mirrored(7, epoch, index));
            assert!(epochs.eq([first, !first, first, !first, first]));
        }
        let count = (0..200).filter(|&index| is_mirrored(7, 1, index)).count();
        assert!((80..120).contains(&count), "{count}");
        let same = (0..200).filter(|&index| is_mirrored(7, 1, index) == is_mirrored(8, 1, index));
        assert!((80..120).contains(&same.count()));
    }

    #[test]
    fn crop_moves_the_image_by_each_offset_equally_often() {
        let cropped = Augmentation {
            crop: 2,
            crop_padding: CropPadding::Zero,
            ..identity()
        };
        let mut counts = [[0; 5]; 2];
        for index in 0..1000 {
            let mut sample = ramp(2);
            cropped.apply(&mut sample, [0; 3], 7, 1, index);
            let transform = Transform::draw(&cropped, [4, 4], 7, 1, index);
            let [down, right] = transform.crop.offset;
            counts[0][(down + 2) as usize] += 1;
            counts[1][(right + 2) as usize] += 1;
            let expected = (0..32).map(|at| {
                let (row, column) = (at / 4 % 4 + down, at % 4 + right);
                let is_inside = (0..4).contains(&row) && (0..4).contains(&column);
                if is_inside {
                    (at / 16 * 16 + row * 4 + column + 1) as u8
                } else {
                    0
                }
            });
            assert!(expected.eq(sample.pixels), "{down} {right}");
        }
        assert!(
            counts
                .as_flattened()
                .iter()
                .all(|count| (150..250).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn cutout_masks_a_square_around_any_pixel() {
        let cutout = Augmentation {
            cutout: 2,
            ..identity()
        };
        let mut seen = [[false; 4]; 4];
        for index in 0..300 {
            let mut sample = ramp(2);
            cutout.apply(&mut sample, [99; 3], 7, 1, index);
            let mask: Vec<bool> = sample.pixels.iter().map(|&pixel| pixel == 99).collect();
            assert_eq!(mask[..16], mask[16..]);
            // A square of 2x2 pixels reaches from the pixel before its center to the center itself.
            let last = mask[..16].iter().rposition(|&is_masked| is_masked).unwrap();
            let (row, column) = (last / 4, last % 4);
            seen[row][column] = true;
            for (at, &is_masked) in mask[..16].iter().enumerate() {
                let is_inside = (row.max(1) - 1..=row).contains(&(at / 4))
                    && (column.max(1) - 1..=column).contains(&(at % 4));
                assert_eq!(is_masked, is_inside);
            }
        }
        assert_eq!(seen, [[true; 4]; 4]);
    }

    #[test]
    fn resized_crop_covers_its_range_and_stays_inside_of_the_image() {
        let ranges = Augmentation {
            resized_crop: 0.25,
            ..identity()
        };
        let (mut min_area, mut max_area) = (1.0_f32, 0.0_f32);
        for index in 0..500 {
            let warp = Transform::draw(&ranges, [32, 48], 7, 1, index)
                .warp
                .unwrap();
            let [[a, b, x], [c, d, y]] = warp.affine;
            assert_eq!((b, c), (0.0, 0.0));
            // The corners of the image show pixels of the image.
            assert!(a * 23.5 + x.abs() < 23.501 && d * 15.5 + y.abs() < 15.501);
            let [width, height] = [a * 47.0 + 1.0, d * 31.0 + 1.0];
            assert!((0.74..1.34).contains(&(width / height)) || (a, d) == (1.0, 1.0));
            min_area = min_area.min(width * height / 1536.0);
            max_area = max_area.max(width * height / 1536.0);
        }
        assert!((0.25..0.27).contains(&min_area), "{min_area}");
        assert!(max_area > 0.8, "{max_area}");
        // No black pixel enters a white image.
        let mut white = cross();
        white.pixels.fill(255);
        for index in 0..50 {
            let mut sample = white.clone();
            ranges.apply(&mut sample, [0; 3], 7, 1, index);
            assert_eq!(sample, white);
        }
    }
}
