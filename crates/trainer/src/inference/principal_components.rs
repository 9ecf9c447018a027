//! Principal component analysis: the directions in which vectors vary most.
//!
//! Subspace iteration finds a subspace that contains the first components; within it, the eigenvectors of the covariance matrix
//! are computed in 64 bits (the Rayleigh-Ritz method: Golub and Van Loan, Matrix Computations, section 8.3).

use classifier::{covariance_product, dot, orthonormal};
use rayon::prelude::*;

/// Repetitions of the subspace iteration.
const ITERATIONS: usize = 12;
/// Directions of the subspace beyond the components, which make the iteration converge faster.
const ADDITIONAL: usize = 8;
/// Rotations of the Jacobi method in units of all pairs; it converges quadratically, and needs fewer than ten.
const MAX_SWEEPS: usize = 30;

/// The first principal components of vectors.
#[derive(Clone, Debug)]
pub(crate) struct PrincipalComponents {
    /// The coordinates of each vector along the components: `[vectors][components]`.
    pub(crate) scores: Vec<Vec<f32>>,
    /// The share of each component in the variance, in descending order.
    pub(crate) shares: Vec<f64>,
}

impl PrincipalComponents {
    /// Computes `count` components, or fewer if the vectors vary in fewer directions. The largest value of a component, by
    /// magnitude, is positive. Returns `None` if all vectors are equal.
    ///
    /// # Panics
    /// Panics if the vectors have different lengths.
    pub(crate) fn of(mut rows: Vec<Vec<f32>>, count: usize) -> Option<Self> {
        let features = rows.first()?.len();
        let variance = center_and_scale(&mut rows, features);
        if !variance.is_finite() || variance == 0.0 {
            return None;
        }
        let size = (count + ADDITIONAL).min(features).min(rows.len());
        let mut directions = orthonormal(start(size, features));
        let part = directions.len().div_ceil(rayon::current_num_threads());
        for _ in 0..ITERATIONS {
            let products = directions
                .par_chunks(part.max(1))
                .flat_map_iter(|directions| covariance_product(&rows, directions));
            directions = orthonormal(products.collect());
        }
        // The coordinates of each vector in the subspace, and their covariance.
        let coordinates: Vec<Vec<f64>> = rows
            .par_iter()
            .map(|row| directions.iter().map(|d| dot(row, d).into()).collect())
            .collect();
        let size = directions.len();
        let mut covariance = vec![vec![0.0; size]; size];
        for row in &coordinates {
            for (a, line) in row.iter().zip(&mut covariance) {
                for (b, sum) in row.iter().zip(line) {
                    *sum += a * b / rows.len() as f64;
                }
            }
        }
        let mut components = eigenvectors(covariance);
        components.truncate(count);
        for (_, vector) in &mut components {
            let direction = combination(vector, &directions, features);
            let largest = direction.iter().max_by(|a, b| a.abs().total_cmp(&b.abs()));
            if largest.is_some_and(|&largest| largest < 0.0) {
                vector.iter_mut().for_each(|value| *value = -*value);
            }
        }
        let scale = variance.sqrt();
        let score = |row: &Vec<f64>, vector: &Vec<f64>| {
            let products = row.iter().zip(vector).map(|(a, b)| a * b);
            (scale * products.sum::<f64>()) as f32
        };
        let scores = coordinates.par_iter();
        Some(Self {
            scores: scores
                .map(|row| components.iter().map(|(_, v)| score(row, v)).collect())
                .collect(),
            // The vectors are scaled to a total variance of 1.
            shares: components.iter().map(|(value, _)| *value).collect(),
        })
    }
}

/// Subtracts the mean, divides by the square root of the total variance, and returns that variance.
fn center_and_scale(rows: &mut [Vec<f32>], features: usize) -> f64 {
    let count = rows.len() as f64;
    let mut mean = vec![0.0; features];
    for row in &*rows {
        for (mean, &value) in mean.iter_mut().zip(row) {
            *mean += f64::from(value) / count;
        }
    }
    let mut variance = 0.0;
    for row in &*rows {
        for (&mean, &value) in mean.iter().zip(row) {
            variance += (f64::from(value) - mean).powi(2) / count;
        }
    }
    // Rounding errors of the mean of equal values.
    let largest = mean.iter().copied().map(f64::abs).fold(0.0, f64::max);
    if variance <= (1e-7 * largest).powi(2) {
        return 0.0;
    }
    let factor = variance.sqrt().recip();
    for row in rows {
        for (value, mean) in row.iter_mut().zip(&mean) {
            *value = ((f64::from(*value) - mean) * factor) as f32;
        }
    }
    variance
}

/// Returns vectors of pseudorandom values between -1 and 1, which the iteration starts from.
fn start(count: usize, features: usize) -> Vec<Vec<f32>> {
    // SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
    let mut state = 0u64;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as i64 as f32 / i64::MAX as f32
    };
    (0..count)
        .map(|_| (0..features).map(|_| next()).collect())
        .collect()
}

/// Returns the sum of the directions, each multiplied with a coefficient.
fn combination(coefficients: &[f64], directions: &[Vec<f32>], features: usize) -> Vec<f64> {
    let mut sum = vec![0.0; features];
    for (coefficient, direction) in coefficients.iter().zip(directions) {
        for (sum, &value) in sum.iter_mut().zip(direction) {
            *sum += coefficient * f64::from(value);
        }
    }
    sum
}

/// Returns the eigenvalues of a symmetric matrix with their eigenvectors, in descending order, by the cyclic Jacobi method
/// (Golub and Van Loan, section 8.5).
fn eigenvectors(mut matrix: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let size = matrix.len();
    // Row i of `vectors` is eigenvector i.
    let mut vectors: Vec<Vec<f64>> = (0..size)
        .map(|row| (0..size).map(|at| f64::from(at == row)).collect())
        .collect();
    let scale: f64 = matrix.iter().flatten().map(|value| value.abs()).sum();
    for _ in 0..MAX_SWEEPS {
        let mut rest = 0.0;
        for p in 0..size {
            for q in p + 1..size {
                rest += matrix[p][q].abs();
                let [cosine, sine] = rotation(&matrix, p, q);
                for row in &mut matrix {
                    (row[p], row[q]) = turn(row[p], row[q], cosine, sine);
                }
                rotate_rows(&mut matrix, p, q, [cosine, sine]);
                rotate_rows(&mut vectors, p, q, [cosine, sine]);
            }
        }
        if rest <= 1e-15 * scale {
            break;
        }
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = (0..size).map(|at| matrix[at][at]).zip(vectors).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs
}

/// Returns cosine and sine of the rotation that makes the element at row p and column q zero.
fn rotation(matrix: &[Vec<f64>], p: usize, q: usize) -> [f64; 2] {
    if matrix[p][q] == 0.0 {
        return [1.0, 0.0];
    }
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = (tangent * tangent + 1.0).sqrt().recip();
    [cosine, tangent * cosine]
}

/// Rotates rows p and q, p before q.
fn rotate_rows(rows: &mut [Vec<f64>], p: usize, q: usize, [cosine, sine]: [f64; 2]) {
    let (start, end) = rows.split_at_mut(q);
    for (a, b) in start[p].iter_mut().zip(&mut end[0]) {
        (*a, *b) = turn(*a, *b, cosine, sine);
    }
}

fn turn(a: f64, b: f64, cosine: f64, sine: f64) -> (f64, f64) {
    (cosine * a - sine * b, sine * a + cosine * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_of_a_plane_agree_with_a_calculation_by_hand() {
        // The covariance matrix is [[2.5, 1.5], [1.5, 2.5]]: eigenvalues 4 and 1 along (1, 1) and (1, -1), divided by the
        // square root of 2.
        let points = [[3.0, 3.0], [-1.0, -1.0], [2.0, 0.0], [0.0, 2.0]];
        let points = [points, [[3.0, 3.0], [-1.0, -1.0], [2.0, 0.0], [0.0, 2.0]]].concat();
        let rows = points
            .iter()
            .map(|point| point.map(|x: f32| x + 7.0).to_vec());
        let components = PrincipalComponents::of(rows.collect(), 2).unwrap();
        let shares = &components.shares;
        assert!(
            (shares[0] - 0.8).abs() < 1e-6 && (shares[1] - 0.2).abs() < 1e-6,
            "{shares:?}"
        );
        let root = 2.0f32.sqrt();
        let expected = [[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        for (score, expected) in components.scores.iter().zip(expected) {
            assert!((score[0] - root * expected[0]).abs() < 1e-5, "{score:?}");
            // Both values of the second component have the same magnitude: either may be the positive one.
            assert!(
                (score[1].abs() - root * f32::abs(expected[1])).abs() < 1e-5,
                "{score:?}"
            );
        }
    }

    #[test]
    fn the_largest_value_of_a_component_is_positive() {
        // Along (-3, 1), so that the component is (3, -1) divided by the square root of 10.
        let rows: Vec<Vec<f32>> = (0..5).map(|at| vec![-3.0 * at as f32, at as f32]).collect();
        let components = PrincipalComponents::of(rows, 2).unwrap();
        let root = 10.0f32.sqrt();
        for (at, score) in components.scores.iter().enumerate() {
            assert!(
                (score[0] - root * (2.0 - at as f32)).abs() < 1e-4,
                "{score:?}"
            );
        }
        assert!((components.shares[0] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn many_features_agree_with_their_variances() {
        // Independent features with variances 64, 16, 4, 1, 1, ...: the components are the first axes.
        let noise = start(4000, 40);
        let deviation = |axis: usize| [8.0, 4.0, 2.0].get(axis).copied().unwrap_or(1.0f32);
        let rows: Vec<Vec<f32>> = noise
            .iter()
            .map(|row| {
                row.iter()
                    .enumerate()
                    .map(|(at, x)| deviation(at) * x)
                    .collect()
            })
            .collect();
        let components = PrincipalComponents::of(rows.clone(), 3).unwrap();
        let total = 64.0 + 16.0 + 4.0 + 37.0;
        for (share, variance) in components.shares.iter().zip([64.0, 16.0, 4.0]) {
            assert!(
                (share - variance / total).abs() < 0.02,
                "{:?}",
                components.shares
            );
        }
        // The variance of the scores is the share in the total variance, and scores are uncorrelated.
        let mean = |a: usize, b: usize| {
            let products = components.scores.iter().map(|s| f64::from(s[a] * s[b]));
            products.sum::<f64>() / 4000.0
        };
        assert!(
            (mean(0, 0) / mean(1, 1) - components.shares[0] / components.shares[1]).abs() < 1e-3
        );
        assert!(mean(0, 1).abs() < 1e-3 * mean(1, 1));
    }

    #[test]
    fn equal_vectors_have_no_components() {
        assert!(PrincipalComponents::of(vec![vec![0.1, 7.3]; 1000], 2).is_none());
        assert!(PrincipalComponents::of(vec![vec![0.0; 4]; 3], 2).is_none());
        assert!(PrincipalComponents::of(Vec::new(), 2).is_none());
    }
}
