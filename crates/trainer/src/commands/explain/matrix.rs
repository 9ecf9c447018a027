//! Small matrices: what a convolution and a pool make of them, step by step.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Device, Tensor, TensorData};

/// Rows and columns of an image, at most: what a person can follow.
const MAX_SIDE: usize = 32;

/// Numbers in rows of equal length, at least one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix(pub(crate) Vec<Vec<f64>>);

impl Matrix {
    /// A matrix of these rows.
    pub(crate) fn of<const ROWS: usize, const COLUMNS: usize>(
        rows: [[f64; COLUMNS]; ROWS],
    ) -> Self {
        Self(rows.map(|row| row.to_vec()).to_vec())
    }

    /// How many rows there are.
    pub(crate) fn height(&self) -> usize {
        self.0.len()
    }

    /// How many columns there are.
    pub(crate) fn width(&self) -> usize {
        self.0[0].len()
    }

    /// The largest of its numbers, without their signs.
    pub(crate) fn largest(&self) -> f64 {
        let numbers = self.0.iter().flatten();
        numbers.fold(0.0, |most, number| most.max(number.abs()))
    }

    /// The matrix with each number replaced.
    pub(crate) fn map(&self, with: impl Fn(f64) -> f64 + Copy) -> Self {
        let rows = self.0.iter();
        Self(
            rows.map(|row| row.iter().map(|&value| with(value)).collect())
                .collect(),
        )
    }

    /// The matrix as a batch of one image of one channel, or as one filter.
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<4> {
        let shape = [1, 1, self.height(), self.width()];
        let numbers: Vec<f32> = self.0.concat().into_iter().map(|n| n as f32).collect();
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    /// The pixels under a kernel of this size at a place, row by row.
    fn window(&self, row: usize, column: usize, size: usize) -> impl Iterator<Item = f64> {
        let rows = self.0[row..row + size].iter();
        rows.flat_map(move |pixels| pixels[column..column + size].iter().copied())
    }

    /// The places of a kernel of this size.
    fn places(&self, size: usize, stride: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let columns = self.width() + 1 - size;
        let rows = (0..self.height() + 1 - size).step_by(stride);
        rows.flat_map(move |row| {
            (0..columns)
                .step_by(stride)
                .map(move |column| (row, column))
        })
    }

    /// The sums of products with a square kernel, at each place where it fits.
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

    /// How each of those sums comes about.
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
        self.places(size, 1).map(step).collect()
    }

    /// The largest of each 2x2 window, or `None` where no such window fits.
    pub(crate) fn pool(&self) -> Option<Self> {
        if self.height() < 2 || self.width() < 2 {
            return None;
        }
        let most = |row: usize, column: usize| {
            self.window(2 * row, 2 * column, 2)
                .fold(f64::NEG_INFINITY, f64::max)
        };
        let columns = 0..self.width() / 2;
        let rows = 0..self.height() / 2;
        Some(Self(
            rows.map(|row| columns.clone().map(|column| most(row, column)).collect())
                .collect(),
        ))
    }

    /// How each of those comes about.
    pub(crate) fn pool_steps(&self) -> Vec<String> {
        let step = |(row, column)| {
            let window: Vec<f64> = self.window(row, column, 2).collect();
            let most = window.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let numbers: Vec<String> = window.iter().map(|&n| Number(n).to_string()).collect();
            let (row, column) = (row / 2, column / 2);
            format!(
                "row {row}, column {column}: max({}) = {}",
                numbers.join(", "),
                Number(most)
            )
        };
        self.places(2, 2).map(step).collect()
    }
}

/// A number without needless digits.
struct Number(f64);

/// The same in parentheses if it is negative.
struct Signed(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Four digits, and no minus before zero.
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
                "row {row} has {found} numbers, the first has {width}"
            ));
        }
        if !(1..=MAX_SIDE).contains(&width) || rows.len() > MAX_SIDE {
            return Err(format!("expected 1 to {MAX_SIDE} rows and columns"));
        }
        let is_sensible = |value: &f64| value.abs() <= 1000.0;
        if !rows.iter().flatten().all(is_sensible) {
            return Err("expected numbers from -1000 to 1000".into());
        }
        Ok(Self(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_read_as_people_write_them() {
        let expected = Matrix::of([[1.0, -2.5], [3.0, 4.0]]);
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
