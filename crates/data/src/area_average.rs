//! Reduction of a picture by averaging areas, without a copy of the whole picture.

use image::RgbImage;

/// Reduces RGB pixels, in rows of `source` width and height, to the `target` width and height. Each
/// pixel of the result is the exact mean of the area that it covers, rounded.
///
/// # Panics
/// Panics if a side of `target` is 0 or longer than that of `source`, or if there are fewer `pixels` than
/// that.
pub(crate) fn area_average(
    mut pixels: impl Iterator<Item = [u8; 3]>,
    source: (u32, u32),
    target: (u32, u32),
) -> RgbImage {
    if source == target {
        let pixels = pixels.flatten().collect();
        return RgbImage::from_raw(target.0, target.1, pixels).expect("a pixel for each position");
    }
    let area = u64::from(source.0) * u64::from(source.1);
    let mean = |sum: u64| ((sum + area / 2) / area) as u8;
    let mut result = Vec::with_capacity(3 * target.0 as usize * target.1 as usize);
    // Sums of the current row of the result, and of one row of the source.
    let mut sums = vec![[0; 3]; target.0 as usize];
    let mut line = sums.clone();
    for row in Overlaps::new(source.1, target.1) {
        line.fill([0; 3]);
        for column in Overlaps::new(source.0, target.0) {
            let pixel = pixels.next().expect("a pixel for each position");
            add(
                &mut line[column.target],
                pixel.map(u64::from),
                column.length,
            );
            if column.rest > 0 {
                add(
                    &mut line[column.target + 1],
                    pixel.map(u64::from),
                    column.rest,
                );
            }
        }
        let weighted = |sums: &mut [[u64; 3]], weight| {
            let pairs = sums.iter_mut().zip(&line);
            pairs.for_each(|(sums, &line)| add(sums, line, weight));
        };
        weighted(&mut sums, row.length);
        if row.is_last {
            result.extend(sums.as_flattened().iter().map(|&sum| mean(sum)));
            sums.fill([0; 3]);
            weighted(&mut sums, row.rest);
        }
    }
    RgbImage::from_raw(target.0, target.1, result).expect("a row for each row of the target")
}

fn add(sums: &mut [u64; 3], values: [u64; 3], weight: u64) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// The overlap of one pixel of the source with the pixels of the result, along one axis. Lengths are
/// integers: a pixel of the source is as long as the target has pixels, and vice versa.
struct Overlap {
    /// Index of the first pixel of the result that it overlaps.
    target: usize,
    /// Length within that pixel.
    length: u64,
    /// Length within the next pixel.
    rest: u64,
    /// Whether it is the last one to overlap its first pixel.
    is_last: bool,
}

/// The overlaps of the pixels of the source, in order.
struct Overlaps {
    source: u64,
    target: u64,
    /// Number of pixels of the source to come.
    pixels: u32,
    index: usize,
    /// Length left in pixel `index` of the result.
    free: u64,
}

impl Overlaps {
    fn new(source: u32, target: u32) -> Self {
        assert!(
            (1..=source).contains(&target),
            "{source} to {target} pixels"
        );
        Self {
            source: source.into(),
            target: target.into(),
            pixels: source,
            index: 0,
            free: source.into(),
        }
    }
}

impl Iterator for Overlaps {
    type Item = Overlap;

    fn next(&mut self) -> Option<Overlap> {
        self.pixels = self.pixels.checked_sub(1)?;
        let length = self.target.min(self.free);
        let rest = self.target - length;
        let overlap = Overlap {
            target: self.index,
            length,
            rest,
            is_last: length == self.free,
        };
        self.free -= length;
        if overlap.is_last {
            self.index += 1;
            self.free = self.source - rest;
        }
        Some(overlap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reduces gray values.
    fn reduced(values: &[u8], source: (u32, u32), target: (u32, u32)) -> Vec<u8> {
        let pixels = values.iter().map(|&value| [value, 255 - value, 7]);
        let reduced = area_average(pixels, source, target);
        assert_eq!(reduced.dimensions(), target);
        let pixels = reduced.pixels().map(|pixel| {
            let [red, green, blue] = pixel.0;
            assert_eq!(blue, 7);
            assert!((u16::from(red) + u16::from(green)).abs_diff(255) <= 1);
            red
        });
        pixels.collect()
    }

    #[test]
    fn pixels_are_the_means_of_their_areas() {
        assert_eq!(reduced(&[0, 90, 180], (3, 1), (2, 1)), [30, 150]);
        assert_eq!(reduced(&[0, 90, 180], (1, 3), (1, 2)), [30, 150]);
        assert_eq!(reduced(&[0, 90, 180], (3, 1), (1, 1)), [90]);
        // The factor of the width is 5/3, that of the height 2.
        let rows = [[0, 30, 60, 90, 120], [100, 130, 160, 190, 220]];
        assert_eq!(reduced(rows.as_flattened(), (5, 2), (3, 1)), [62, 110, 158]);
        assert_eq!(reduced(&[1, 2], (2, 1), (1, 1)), [2]);
    }

    #[test]
    fn a_picture_of_the_target_size_is_unchanged() {
        let values: Vec<u8> = (0..=255).collect();
        assert_eq!(reduced(&values, (32, 8), (32, 8)), values);
    }

    #[test]
    fn stripes_of_any_period_keep_their_mean() {
        for period in 2..9 {
            let values: Vec<u8> = (0..3 * 504)
                .map(|x| if x % period == 0 { 255 } else { 0 })
                .collect();
            for width in [1, 2, 7, 336, 503, 504] {
                let reduced = reduced(&values, (504, 3), (width, 2));
                let sum: f64 = reduced.iter().copied().map(f64::from).sum();
                let mean = sum / reduced.len() as f64;
                let expected = 255.0 / period as f64;
                assert!((mean - expected).abs() < 0.6, "{period} {width}: {mean}");
            }
        }
    }
}
