//! Small matrices, with convolution and max-pooling step by step.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Device, Tensor, TensorData};

/// Maximum number of rows and columns, for readable output.
const MAX_SIDE: usize = 32;

/// A matrix with at least one row and one column; its rows have equal length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix(pub(crate) Vec<Vec<f64>>);

impl Matrix {
    /// Creates a matrix from its rows.
    pub(crate) fn new<const ROWS: usize, const COLUMNS: usize>(
        rows: [[f64; COLUMNS]; ROWS],
    ) -> Self {
        Self(rows.map(|row| row.to_vec()).to_vec())
    }

    /// Returns the number of rows.
    pub(crate) fn height(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of columns.
    pub(crate) fn width(&self) -> usize {
        self.0[0].len()
    }

    /// Returns the largest absolute value.
    pub(crate) fn max_abs(&self) -> f64 {
        let numbers = self.0.iter().flatten();
        numbers.fold(0.0, |max, number| max.max(number.abs()))
    }

    /// Applies a function to each number.
    pub(crate) fn map(&self, function: impl Fn(f64) -> f64 + Copy) -> Self {
        let rows = self.0.iter();
        Self(
            rows.map(|row| row.iter().map(|&value| function(value)).collect())
                .collect(),
        )
    }

    /// Returns the matrix as a tensor `[1, 1, height, width]`: one image or one filter, with one channel.
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<4> {
        let shape = [1, 1, self.height(), self.width()];
        let numbers: Vec<f32> = self.0.concat().into_iter().map(|n| n as f32).collect();
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    /// Returns the `size` x `size` values at a position, row by row.
    fn window(&self, row: usize, column: usize, size: usize) -> impl Iterator<Item = f64> {
        let rows = self.0[row..row + size].iter();
        rows.flat_map(move |pixels| pixels[column..column + size].iter().copied())
    }

    /// Returns the positions of a `size` x `size` window, as row and column.
    fn positions(
        &self,
        size: usize,
        stride: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let columns = self.width() + 1 - size;
        let rows = (0..self.height() + 1 - size).step_by(stride);
        rows.flat_map(move |row| {
            (0..columns)
                .step_by(stride)
                .map(move |column| (row, column))
        })
    }

    /// Convolves the matrix with a square kernel, with stride 1 and without padding. The kernel is not
    /// flipped, as usual in deep learning.
    pub(crate) fn convolve(&self, kernel: &Self) -> Self {
        let size = kernel.height();
        let weights = kernel.0.concat();
        let value = |row, column| {
            let pixels = self.window(row, column, size);
            pixels
                .zip(&weights)
                .map(|(pixel, weight)| pixel * weight)
                .sum()
        };
        let columns = 0..self.width() + 1 - size;
        let rows = 0..self.height() + 1 - size;
        Self(
            rows.map(|row| columns.clone().map(|column| value(row, column)).collect())
                .collect(),
        )
    }

    /// Returns the calculation of each value of [`Self::convolve`].
    pub(crate) fn convolution_steps(&self, kernel: &Self) -> Vec<String> {
        let size = kernel.height();
        let weights = kernel.0.concat();
        let result = self.convolve(kernel);
        let step = |(row, column)| {
            let pixels = self.window(row, column, size).zip(&weights);
            let products =
                pixels.map(|(pixel, &weight)| format!("{}·{}", Number(pixel), Signed(weight)));
            let sum = products.collect::<Vec<_>>().join(" + ");
            format!(
                "row {row}, column {column}: {sum} = {}",
                Number(result.0[row][column])
            )
        };
        self.positions(size, 1).map(step).collect()
    }

    /// Returns the largest value of each 2x2 window, with stride 2; `None` if no window fits.
    pub(crate) fn pool(&self) -> Option<Self> {
        if self.height() < 2 || self.width() < 2 {
            return None;
        }
        let max = |row: usize, column: usize| {
            self.window(2 * row, 2 * column, 2)
                .fold(f64::NEG_INFINITY, f64::max)
        };
        let columns = 0..self.width() / 2;
        let rows = 0..self.height() / 2;
        Some(Self(
            rows.map(|row| columns.clone().map(|column| max(row, column)).collect())
                .collect(),
        ))
    }

    /// Returns the calculation of each value of [`Self::pool`].
    pub(crate) fn pooling_steps(&self) -> Vec<String> {
        let step = |(row, column)| {
            let window: Vec<f64> = self.window(row, column, 2).collect();
            let max = window.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let numbers: Vec<String> = window.iter().map(|&n| Number(n).to_string()).collect();
            let (row, column) = (row / 2, column / 2);
            format!(
                "row {row}, column {column}: max({}) = {}",
                numbers.join(", "),
                Number(max)
            )
        };
        self.positions(2, 2).map(step).collect()
    }
}

/// Formats a number with at most four decimals.
struct Number(f64);

/// Formats a number like [`Number`], in parentheses if it is negative.
struct Signed(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Adding 0 turns -0 into 0.
        let rounded = (self.0 * 1e4).round() / 1e4 + 0.0;
        write!(f, "{rounded}")
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 < 0.0 {
            true => write!(f, "({})", Number(self.0)),
            false => write!(f, "{}", Number(self.0)),
        }
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<Vec<String>> = self
            .0
            .iter()
            .map(|row| row.iter().map(|&value| Number(value).to_string()).collect())
            .collect();
        let width = texts.iter().flatten().map(String::len).max().unwrap_or(0);
        for row in texts {
            write!(f, " ")?;
            for text in row {
                write!(f, " {text:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl FromStr for Matrix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rows: Vec<Vec<f64>> = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(text).map_err(|error| error.to_string())?,
            false => {
                let number = |text: &str| {
                    let text = text.trim();
                    text.parse()
                        .map_err(|_| format!("{text:?}: expected a number"))
                };
                let row = |row: &str| row.split(',').map(number).collect();
                text.split(';').map(row).collect::<Result<_, String>>()?
            }
        };
        let width = rows.first().map_or(0, Vec::len);
        if let Some(row) = rows.iter().position(|row| row.len() != width) {
            let found = rows[row].len();
            return Err(format!(
                "row {row} has {found} numbers, expected {width} as in row 0"
            ));
        }
        if !(1..=MAX_SIDE).contains(&width) || rows.len() > MAX_SIDE {
            return Err(format!("expected 1 to {MAX_SIDE} rows and columns"));
        }
        let is_in_range = |value: &f64| value.abs() <= 1000.0;
        if !rows.iter().flatten().all(is_in_range) {
            return Err("expected numbers from -1000 to 1000".into());
        }
        Ok(Self(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_rows_and_json_and_rejects_other_text() {
        let expected = Matrix::new([[1.0, -2.5], [3.0, 4.0]]);
        for text in ["1,-2.5;3,4", " 1, -2.5 ; 3, 4 ", "[[1, -2.5], [3, 4]]"] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        }
        for text in [
            "",
            "1,2;3",
            "1,x",
            "[[1],[2,3]]",
            "[]",
            "[[]]",
            "1e4",
            "nan",
            "[1,2]",
        ] {
            assert!(text.parse::<Matrix>().is_err(), "{text}");
        }
    }
}
