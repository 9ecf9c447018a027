//! Vectors in 32 bits, and the principal components of many of them by subspace iteration:
//! `directions = orthonormal(covariance_product(rows, directions))`, repeated (Golub and Van Loan, Matrix Computations, section 8.2.4).

/// Directions in which vectors vary less, relative to the length of a vector, are rounding errors.
const MIN_DEVIATION: f32 = 1e-4;

/// Multiplies the covariance matrix of centered vectors with directions. Each product depends on its own direction only, to the bit.
pub fn covariance_product(rows: &[Vec<f32>], directions: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let features = rows.first().map_or(0, Vec::len);
    let mut products = vec![vec![0.0; features]; directions.len()];
    for row in rows {
        for (product, direction) in products.iter_mut().zip(directions) {
            add(product, row, dot(row, direction) / rows.len() as f32);
        }
    }
    products
}

/// Orthonormalizes vectors (Gram-Schmidt), without the linearly dependent ones.
pub fn orthonormal(vectors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut basis: Vec<Vec<f32>> = Vec::with_capacity(vectors.len());
    for mut vector in vectors {
        let length = dot(&vector, &vector).sqrt();
        // Twice, against rounding errors.
        for direction in basis.iter().chain(&basis) {
            let along = dot(&vector, direction);
            add(&mut vector, direction, -along);
        }
        let rest = dot(&vector, &vector).sqrt();
        if rest > MIN_DEVIATION * length && rest > MIN_DEVIATION * MIN_DEVIATION {
            normalize(&mut vector);
            basis.push(vector);
        }
    }
    basis
}

/// Adds `factor * other` to a vector.
pub(crate) fn add(vector: &mut [f32], other: &[f32], factor: f32) {
    for (value, other) in vector.iter_mut().zip(other) {
        *value += factor * other;
    }
}

/// Scales a vector to length 1; zero stays zero.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

/// Returns the inner product. Eight sums, so that it is computed with vector instructions.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.into_iter().chain(rest).sum()
}
