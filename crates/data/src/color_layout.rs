//! The order of color values in images that are stored as plain numbers.

use crate::image_dataset::Images;

/// Number of images that are compared.
const EXAMINED: usize = 50;

/// Finds the shape of images of `size` values each: square, gray or RGB. Returns the channels and the side.
pub(crate) fn square(size: usize) -> Option<(usize, usize)> {
    let side =
        |pixels: usize| Some(pixels.isqrt()).filter(|side| *side > 0 && side * side == pixels);
    let rgb = || size.is_multiple_of(3).then(|| side(size / 3)).flatten();
    side(size)
        .map(|side| (1, side))
        .or_else(|| rgb().map(|side| (3, side)))
}

/// Converts images `[height, width, channels]` to `[channels, height, width]`, one image at a time.
pub(crate) fn to_channels_first(mut pixels: Vec<u8>, channels: usize, plane: usize) -> Vec<u8> {
    if channels > 1 {
        let mut converted = vec![0; channels * plane];
        for image in pixels.chunks_exact_mut(channels * plane) {
            for (at, values) in image.chunks_exact(channels).enumerate() {
                for (channel, &value) in values.iter().enumerate() {
                    converted[channel * plane + at] = value;
                }
            }
            image.copy_from_slice(&converted);
        }
    }
    pixels
}

/// Makes images of flattened pixels, interleaved (`[height, width, channels]`) or planar (`[channels, height, width]`). Files do
/// not say which; the order in which neighboring pixels differ less is chosen.
pub(crate) fn from_flat(pixels: Vec<u8>, (channels, side): (usize, usize)) -> Images {
    let plane = side * side;
    let pixels = match channels {
        3 if is_interleaved(&pixels, plane, side) => to_channels_first(pixels, channels, plane),
        _ => pixels,
    };
    Images {
        channels,
        height: side,
        width: side,
        pixels,
    }
}

fn is_interleaved(pixels: &[u8], plane: usize, side: usize) -> bool {
    let examined = pixels.len().min(EXAMINED * 3 * plane);
    let planar = &pixels[..examined];
    roughness(&to_channels_first(planar.to_vec(), 3, plane), side) <= roughness(planar, side)
}

/// Returns the sum of differences of vertical neighbors in planes of square images.
fn roughness(planes: &[u8], side: usize) -> u64 {
    let planes = planes.chunks_exact(side * side);
    let differences = planes.flat_map(|plane| {
        plane
            .iter()
            .zip(&plane[side..])
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
    });
    differences.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_gray_or_color() {
        assert_eq!(square(784), Some((1, 28)));
        assert_eq!(square(3072), Some((3, 32)));
        assert_eq!((square(783), square(0)), (None, None));
    }

    #[test]
    fn order_of_color_values_is_detected() {
        let side = 12;
        let planes: Vec<u8> = (0..4 * 3 * side * side)
            .map(|at| {
                let (channel, row, column) = (at / (side * side) % 3, at / side % side, at % side);
                (60 * channel + 4 * row + 3 * column) as u8
            })
            .collect();
        let interleaved: Vec<u8> = planes
            .chunks(3 * side * side)
            .flat_map(|image| {
                (0..side * side).flat_map(move |at| {
                    (0..3).map(move |channel| image[channel * side * side + at])
                })
            })
            .collect();
        for pixels in [planes.clone(), interleaved] {
            assert_eq!(from_flat(pixels, (3, side)).pixels, planes);
        }
    }
}
