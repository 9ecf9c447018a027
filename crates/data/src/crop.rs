//! Mirroring and cropping of an image, as exact moves of pixels.

use serde::{Deserialize, Serialize};

use crate::sample::Sample;

/// The pixels around an image that a random crop can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropPadding {
    /// The reflection of the image at its outermost pixels, which are not repeated.
    #[default]
    Reflect,
    /// Black.
    Zero,
}

/// A horizontal flip, then a crop of the original size from the padded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crop {
    pub(crate) is_mirrored: bool,
    /// Offset of the crop in pixels, down and to the right; each less than the size of the image.
    pub(crate) offset: [isize; 2],
    pub(crate) padding: CropPadding,
}

impl Crop {
    /// Returns whether the crop is the image itself.
    pub(crate) fn is_identity(&self) -> bool {
        !self.is_mirrored && self.offset == [0, 0]
    }

    /// Flips and crops an image.
    pub(crate) fn apply(&self, sample: &mut Sample) {
        if self.is_identity() {
            return;
        }
        let &mut Sample { height, width, .. } = sample;
        let [down, right] = self.offset;
        // A crop of the mirrored image is the mirrored crop at the opposite offset.
        let right = if self.is_mirrored { -right } else { right };
        let mut pixels = vec![0; sample.pixels.len()];
        let planes = sample.pixels.chunks_exact(height * width);
        for (source, plane) in planes.zip(pixels.chunks_exact_mut(height * width)) {
            for (row, pixels) in plane.chunks_exact_mut(width).enumerate() {
                let Some(row) = self.padding.source(row as isize + down, height) else {
                    continue;
                };
                let source = &source[row * width..][..width];
                self.padding.shift_row(source, right, pixels);
                if self.is_mirrored {
                    pixels.reverse();
                }
            }
        }
        sample.pixels = pixels;
    }
}

impl CropPadding {
    /// Returns the index of the pixel at coordinate `at` of `size` pixels; `None` if it is black.
    fn source(self, at: isize, size: usize) -> Option<usize> {
        let last = size as isize - 1;
        match self {
            _ if (0..=last).contains(&at) => Some(at as usize),
            Self::Reflect => Some((last - (last - at.abs()).abs()) as usize),
            Self::Zero => None,
        }
    }

    /// Copies the row that begins `right` pixels after the start of `source` to `pixels`, which are black.
    fn shift_row(self, source: &[u8], right: isize, pixels: &mut [u8]) {
        let width = source.len();
        let start = right.min(0).unsigned_abs();
        let end = width - right.max(0).unsigned_abs();
        let first = (start as isize + right) as usize;
        pixels[start..end].copy_from_slice(&source[first..first + end - start]);
        for column in (0..start).chain(end..width) {
            if let Some(at) = self.source(column as isize + right, width) {
                pixels[column] = source[at];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crops an image `[1, 3, 4]` with the pixels 1 to 12.
    fn cropped(is_mirrored: bool, offset: [isize; 2], padding: CropPadding) -> Vec<u8> {
        let mut sample = Sample {
            channels: 1,
            height: 3,
            width: 4,
            pixels: (1..=12).collect(),
            label: 0,
        };
        let crop = Crop {
            is_mirrored,
            offset,
            padding,
        };
        crop.apply(&mut sample);
        sample.pixels
    }

    #[test]
    fn crops_are_those_of_numpy() {
        use CropPadding::{Reflect, Zero};
        assert_eq!(
            cropped(false, [0, 0], Reflect),
            (1..=12).collect::<Vec<_>>()
        );
        // np.pad(np.arange(1, 13).reshape(3, 4), 2, "reflect")[1:4, 4:8]
        assert_eq!(
            cropped(false, [-1, 2], Reflect),
            [7, 8, 7, 6, 3, 4, 3, 2, 7, 8, 7, 6]
        );
        // np.pad(np.arange(1, 13).reshape(3, 4), 2)[4:7, 1:5]
        assert_eq!(
            cropped(false, [2, -1], Zero),
            [0, 9, 10, 11, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            cropped(true, [0, 0], Zero),
            [4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9]
        );
        // np.pad(np.arange(1, 13).reshape(3, 4)[:, ::-1], 2, "reflect")[0:3, 3:7]
        assert_eq!(
            cropped(true, [-2, 1], Reflect),
            [11, 10, 9, 10, 7, 6, 5, 6, 3, 2, 1, 2]
        );
        assert_eq!(
            cropped(true, [0, -3], Zero),
            [0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 12]
        );
    }
}
