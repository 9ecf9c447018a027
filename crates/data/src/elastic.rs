//! Elastic distortion: random, smooth displacement fields.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Number of grid intervals along the longer side.
const GRID_INTERVALS: f32 = 4.0;
/// Standard deviation of a two-dimensional uniform cubic B-spline whose control points have a
/// standard deviation of 1: the mean of the squared weights along one axis.
const SPLINE_DEVIATION: f32 = 151.0 / 315.0;

/// The displacement of each pixel in x and y: a uniform cubic B-spline of control points on a grid.
pub(crate) struct Displacements {
    /// Spline weights of each row and each column of pixels.
    rows: Vec<Spline>,
    columns: Vec<Spline>,
    /// Control points `[x, y]`, `[grid rows, grid columns]`.
    points: Vec<[f32; 2]>,
    grid_columns: usize,
}

impl Displacements {
    /// Draws a displacement field with the given standard deviation, in pixels.
    pub(crate) fn draw(
        [height, width]: [usize; 2],
        deviation: f32,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let spacing = height.max(width) as f32 / GRID_INTERVALS;
        let splines = |size: usize| {
            let splines = (0..size).map(|at| Spline::at(at as f32 / spacing));
            splines.collect::<Vec<_>>()
        };
        let (rows, columns) = (splines(height), splines(width));
        let count = |splines: &[Spline]| splines.last().map_or(0, |last| last.first + 4);
        let grid_columns = count(&columns);
        // A uniform distribution on -a..=a has the standard deviation a / sqrt(3).
        let max = deviation / SPLINE_DEVIATION * 3.0_f32.sqrt();
        let mut point = || [0, 1].map(|_| random.random_range(-max..=max));
        Self {
            points: (0..count(&rows) * grid_columns).map(|_| point()).collect(),
            rows,
            columns,
            grid_columns,
        }
    }

    /// Iterates over the control points, `[2, grid rows, grid columns]`: x, then y.
    pub(crate) fn points(&self) -> impl Iterator<Item = f32> {
        [0, 1]
            .into_iter()
            .flat_map(|axis| self.points.iter().map(move |point| point[axis]))
    }

    /// Returns the spline weights as dense matrices, `[height, grid rows]` and
    /// `[width, grid columns]`, each with its number of columns.
    pub(crate) fn weights(&self) -> [(Vec<f32>, usize); 2] {
        let dense = |splines: &[Spline], points: usize| {
            let mut weights = vec![0.0; splines.len() * points];
            for (row, spline) in weights.chunks_exact_mut(points).zip(splines) {
                row[spline.first..spline.first + 4].copy_from_slice(&spline.weights);
            }
            (weights, points)
        };
        let grid_rows = self.points.len() / self.grid_columns;
        [
            dense(&self.rows, grid_rows),
            dense(&self.columns, self.grid_columns),
        ]
    }

    /// Adds the displacements of row `row` to the coordinates `[x, y]` of its pixels.
    pub(crate) fn add_to_row(&self, row: usize, coordinates: &mut [[f32; 2]]) {
        let spline = &self.rows[row];
        let grid = self.points.chunks_exact(self.grid_columns);
        let mut points = vec![[0.0; 2]; self.grid_columns];
        for (weight, grid) in spline.weights.into_iter().zip(grid.skip(spline.first)) {
            for (point, [x, y]) in points.iter_mut().zip(grid) {
                *point = [point[0] + weight * x, point[1] + weight * y];
            }
        }
        for ([x, y], Spline { first, weights }) in coordinates.iter_mut().zip(&self.columns) {
            for (weight, point) in weights.iter().zip(&points[*first..first + 4]) {
                *x += weight * point[0];
                *y += weight * point[1];
            }
        }
    }
}

/// The weights of a uniform cubic B-spline at one position.
#[derive(Clone, Copy)]
struct Spline {
    /// Index of the first of four control points.
    first: usize,
    weights: [f32; 4],
}

impl Spline {
    /// Computes the weights at `position`, in grid intervals.
    fn at(position: f32) -> Self {
        let first = position as usize;
        let t = position - first as f32;
        let rest = 1.0 - t;
        let inner = |t: f32| 3.0 * t * t * t - 6.0 * t * t + 4.0;
        let weights = [rest * rest * rest, inner(t), inner(rest), t * t * t];
        Self {
            first,
            weights: weights.map(|weight| weight / 6.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn displacements_are_smooth_and_have_the_given_deviation() {
        let deviation = 2.0;
        let mut mean_square = 0.0;
        for seed in 0..100 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let displacements = Displacements::draw([28, 28], deviation, &mut random);
            let mut row = [[0.0; 2]; 28];
            displacements.add_to_row(11, &mut row);
            let ([x, _], [next, _]) = (row[9], row[10]);
            assert!((x - next).abs() < deviation);
            mean_square += x * x / 100.0;
        }
        assert!(
            (mean_square.sqrt() / deviation - 1.0).abs() < 0.25,
            "{}",
            mean_square.sqrt()
        );
    }

    #[test]
    fn spline_weights_sum_to_1() {
        let spline = Spline::at(3.25);
        assert_eq!(spline.first, 3);
        assert!((spline.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
