//! Random changes of brightness, contrast, saturation and hue.

use crate::sample::Sample;

/// Weights of red, green and blue in the luma of ITU-R BT.601, as in torchvision.
pub(crate) const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// Color changes of an image, applied in the order of the fields, with the formulas of torchvision's
/// `ColorJitter` for floating-point images. Values are rounded once, after the last change.
///
/// Images of one channel have no saturation and no hue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ColorJitter {
    /// Factor of all values; 1 for no change.
    pub(crate) brightness: f32,
    /// Factor of the differences from the mean luma of the image.
    pub(crate) contrast: f32,
    /// Factor of the differences from the luma of the pixel.
    pub(crate) saturation: f32,
    /// Rotation of the hue as a fraction of the circle; 0 for no change.
    pub(crate) hue: f32,
}

impl ColorJitter {
    /// The change that leaves images as they are.
    pub(crate) const IDENTITY: Self = Self {
        brightness: 1.0,
        contrast: 1.0,
        saturation: 1.0,
        hue: 0.0,
    };

    /// Changes the colors of an image.
    pub(crate) fn apply(&self, sample: &mut Sample) {
        if *self == Self::IDENTITY {
            return;
        }
        let plane = sample.height * sample.width;
        let mut values: Vec<f32> = sample.pixels.iter().copied().map(f32::from).collect();
        if self.brightness != 1.0 {
            for value in &mut values {
                *value = (self.brightness * *value).clamp(0.0, 255.0);
            }
        }
        if self.contrast != 1.0 {
            let mean = mean_luma(&values, plane);
            for value in &mut values {
                *value = blend(self.contrast, *value, mean);
            }
        }
        if let [red, green, blue] = &mut *values.chunks_exact_mut(plane).collect::<Vec<_>>() {
            let pixels = red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut());
            for ((red, green), blue) in pixels {
                let mut pixel = [*red, *green, *blue];
                if self.saturation != 1.0 {
                    let luma = luma(pixel);
                    pixel = pixel.map(|value| blend(self.saturation, value, luma));
                }
                if self.hue != 0.0 {
                    pixel = rotate_hue(pixel, self.hue);
                }
                [*red, *green, *blue] = pixel;
            }
        }
        for (pixel, value) in sample.pixels.iter_mut().zip(values) {
            *pixel = (value + 0.5) as u8;
        }
    }
}

/// Moves `value` away from `center` by a factor.
fn blend(factor: f32, value: f32, center: f32) -> f32 {
    (factor * value + (1.0 - factor) * center).clamp(0.0, 255.0)
}

fn luma([red, green, blue]: [f32; 3]) -> f32 {
    LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
}

/// Computes the mean luma of an image, from values rounded to integers: their sum does not depend on its
/// order, so every device computes the same mean.
fn mean_luma(values: &[f32], plane: usize) -> f32 {
    let round = |value: f32| i64::from((value + 0.5) as i32);
    let sum: i64 = match *values.chunks_exact(plane).collect::<Vec<_>>() {
        [red, green, blue] => {
            let pixels = red.iter().zip(green).zip(blue);
            pixels
                .map(|((&red, &green), &blue)| round(luma([red, green, blue])))
                .sum()
        }
        _ => values[..plane].iter().map(|&value| round(value)).sum(),
    };
    sum as f32 / plane as f32
}

/// Rotates the hue of a pixel by a fraction of the circle.
///
/// The hue is measured in sixths of the circle. Each channel is the maximum less a part of the chroma that is
/// a trapezoid of the hue, with another phase for each channel.
fn rotate_hue([red, green, blue]: [f32; 3], fraction: f32) -> [f32; 3] {
    let max = red.max(green).max(blue);
    let chroma = max - red.min(green).min(blue);
    let divisor = if chroma == 0.0 { 1.0 } else { chroma };
    let hue = if max == red {
        (green - blue) / divisor
    } else if max == green {
        (blue - red) / divisor + 2.0
    } else {
        (red - green) / divisor + 4.0
    };
    let hue = hue + fraction * 6.0;
    HUE_PHASES.map(|phase| {
        let angle = hue + phase;
        // The angle is positive, so the conversion to an integer needs no call of `floor`.
        let angle = angle - (angle / 6.0) as i32 as f32 * 6.0;
        max - chroma * angle.min(4.0 - angle).clamp(0.0, 1.0)
    })
}

/// Phases of red, green and blue in the hue, in sixths of the circle. The turn of 6 keeps their sum with a
/// rotated hue positive.
pub(crate) const HUE_PHASES: [f32; 3] = [11.0, 9.0, 7.0];

#[cfg(test)]
mod tests {
    use super::*;

    fn jittered(channels: usize, pixels: &[u8], jitter: ColorJitter) -> Vec<u8> {
        let mut sample = Sample {
            channels,
            height: 2,
            width: 3,
            pixels: pixels.to_vec(),
            label: 0,
        };
        jitter.apply(&mut sample);
        sample.pixels
    }

    /// The expected values were computed with torchvision's formulas in 64 bits, and Python's `colorsys` for the hue.
    /// None is within 0.009 of the limit between two integers.
    #[test]
    fn colors_are_those_of_torchvision() {
        let pixels = [
            200, 10, 5, 128, 255, 77, 30, 240, 60, 128, 200, 12, 30, 90, 250, 128, 0, 140,
        ];
        let same = ColorJitter::IDENTITY;
        let [brightness, contrast] = [1.33, 0.6];
        for (jitter, expected) in [
            (same, pixels),
            (
                ColorJitter { brightness, ..same },
                [
                    255, 13, 7, 170, 255, 102, 40, 255, 80, 170, 255, 16, 40, 120, 255, 170, 0, 186,
                ],
            ),
            (
                ColorJitter { contrast, ..same },
                [
                    165, 51, 48, 121, 198, 91, 63, 189, 81, 121, 165, 52, 63, 99, 195, 121, 45, 129,
                ],
            ),
            (
                ColorJitter {
                    contrast: 1.7,
                    ..same
                },
                [
                    255, 0, 0, 140, 255, 53, 0, 255, 24, 140, 255, 0, 0, 75, 255, 140, 0, 160,
                ],
            ),
            (
                ColorJitter {
                    saturation: 1.5,
                    ..same
                },
                [
                    255, 0, 0, 128, 255, 92, 5, 255, 57, 128, 203, 0, 5, 58, 255, 128, 0, 187,
                ],
            ),
            (
                ColorJitter { hue: 0.2, ..same },
                [
                    166, 10, 244, 128, 4, 140, 200, 114, 5, 128, 255, 12, 30, 240, 250, 128, 0, 49,
                ],
            ),
            (
                ColorJitter { hue: -0.43, ..same },
                [
                    30, 240, 202, 128, 52, 21, 129, 10, 250, 128, 0, 140, 200, 63, 5, 128, 255, 12,
                ],
            ),
            (
                ColorJitter {
                    brightness: 1.15,
                    contrast: 0.8,
                    saturation: 1.4,
                    hue: -0.1,
                },
                [
                    253, 65, 8, 142, 243, 23, 34, 255, 227, 142, 69, 38, 165, 0, 255, 142, 0, 188,
                ],
            ),
        ] {
            assert_eq!(jittered(3, &pixels, jitter), expected, "{jitter:?}");
        }
    }

    #[test]
    fn gray_images_keep_their_saturation_and_hue() {
        let pixels = [10, 20, 30, 40, 250, 60];
        let colored = ColorJitter {
            saturation: 0.1,
            hue: 0.3,
            ..ColorJitter::IDENTITY
        };
        assert_eq!(jittered(1, &pixels, colored), pixels);
        let jitter = ColorJitter {
            brightness: 0.8,
            contrast: 1.5,
            ..colored
        };
        assert_eq!(jittered(1, &pixels, jitter), [0, 0, 9, 21, 255, 45]);
    }
}
