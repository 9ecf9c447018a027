//! A heat map over an image.

use anyhow::Result;
use burn::tensor::Tensor;
use serde::{Serialize, Serializer};

/// A number for each pixel of an image, `[height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeatMap {
    pub(crate) values: Vec<f32>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl HeatMap {
    /// Reads a map `[1, 1, height, width]` from its device.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub(crate) fn of_tensor(map: Tensor<4>) -> Result<Self> {
        let [_, _, height, width] = map.dims();
        let values = map.try_into_data()?.iter::<f32>().collect();
        Ok(Self {
            values,
            height,
            width,
        })
    }

    /// Returns the sum of all values.
    pub(crate) fn sum(&self) -> f64 {
        self.values.iter().map(|&value| f64::from(value)).sum()
    }

    /// Returns the largest absolute value; 0 if none is finite.
    pub(crate) fn largest(&self) -> f32 {
        let values = self.values.iter().map(|value| value.abs());
        values.filter(|value| value.is_finite()).fold(0.0, f32::max)
    }

    /// Scales the map by bilinear interpolation between the centers of its pixels, as PyTorch's `interpolate` with
    /// `align_corners=False`.
    pub(crate) fn resized(&self, height: usize, width: usize) -> Self {
        let rows: Vec<Between> = (0..height)
            .map(|row| Between::new(row, height, self.height))
            .collect();
        let columns: Vec<Between> = (0..width)
            .map(|column| Between::new(column, width, self.width))
            .collect();
        let value = |row: usize, column: usize| self.values[row * self.width + column];
        let values = rows.iter().flat_map(|row| {
            columns.iter().map(|column| {
                let above = column.mix(|x| value(row.first, x));
                let below = column.mix(|x| value(row.second, x));
                above + row.weight * (below - above)
            })
        });
        Self {
            values: values.collect(),
            height,
            width,
        }
    }
}

impl Serialize for HeatMap {
    /// Writes the rows.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values.chunks(self.width))
    }
}

/// A position between the centers of two neighboring pixels.
struct Between {
    first: usize,
    second: usize,
    /// Weight of the second pixel.
    weight: f32,
}

impl Between {
    /// Returns the position of the center of pixel `index` of `count` pixels on a line of `source` pixels.
    fn new(index: usize, count: usize, source: usize) -> Self {
        let scale = source as f32 / count as f32;
        let position = ((index as f32 + 0.5) * scale - 0.5).max(0.0);
        let first = (position as usize).min(source - 1);
        Self {
            first,
            second: (first + 1).min(source - 1),
            weight: position - first as f32,
        }
    }

    fn mix(&self, value: impl Fn(usize) -> f32) -> f32 {
        let [first, second] = [self.first, self.second].map(value);
        first + self.weight * (second - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32], height: usize, width: usize) -> HeatMap {
        HeatMap {
            values: values.to_vec(),
            height,
            width,
        }
    }

    #[test]
    fn resizing_interpolates_between_centers() {
        // torch.nn.functional.interpolate(x, size=..., mode="bilinear", align_corners=False)
        let row = map(&[0.0, 4.0], 1, 2);
        assert_eq!(row.resized(1, 4).values, [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(row.resized(2, 2).values, [0.0, 4.0, 0.0, 4.0]);
        let square = map(&[0.0, 4.0, 8.0, 12.0], 2, 2);
        assert_eq!(
            square.resized(4, 4).values[4..8],
            [2.0, 3.0, 5.0, 6.0],
            "a quarter between the rows"
        );
        assert_eq!(square.resized(1, 1).values, [6.0]);
        assert_eq!(square.resized(2, 2), square);
        assert_eq!(map(&[7.0], 1, 1).resized(2, 3).values, [7.0; 6]);
    }

    #[test]
    fn json_has_the_rows() {
        let json = serde_json::to_string(&map(&[1.0, 2.0, 3.5, 4.0], 2, 2)).unwrap();
        assert_eq!(json, "[[1.0,2.0],[3.5,4.0]]");
    }

    #[test]
    fn the_largest_value_is_finite() {
        assert_eq!(
            map(&[1.0, -3.0, f32::NAN, f32::INFINITY], 2, 2).largest(),
            3.0
        );
        assert_eq!(map(&[f32::NAN], 1, 1).largest(), 0.0);
    }
}
