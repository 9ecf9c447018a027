//! The affinities of t-SNE: how likely vectors are neighbors.

use rayon::prelude::*;

/// Number of neighbors per unit of perplexity; the affinities beyond are negligible (van der Maaten 2014).
const NEIGHBORS: f64 = 3.0;
/// Steps of the search for the precision of a Gaussian kernel.
const SEARCH_STEPS: usize = 100;
/// Vectors whose distances are computed together, such that they stay in the cache.
const BLOCK: usize = 1024;

/// The symmetric probabilities that two vectors are neighbors, `p[i][j] = (p(j|i) + p(i|j)) / 2n`, as a sparse matrix. They sum
/// to 1.
#[derive(Debug)]
pub(super) struct Affinities {
    /// Index and affinity of the neighbors of each vector.
    rows: Vec<Vec<(u32, f64)>>,
}

impl Affinities {
    /// Computes the affinities of vectors. The probabilities p(j|i) are those of a Gaussian kernel around vector i, as wide as
    /// its neighborhood has the perplexity.
    ///
    /// # Panics
    /// Panics if there are fewer than two vectors, or their lengths differ.
    pub(super) fn of(vectors: &[Vec<f32>], perplexity: f64) -> Self {
        let count = vectors.len();
        let neighbors = ((NEIGHBORS * perplexity) as usize).clamp(1, count - 1);
        let columns: Vec<Vec<f32>> = (0..vectors[0].len())
            .map(|feature| vectors.iter().map(|vector| vector[feature]).collect())
            .collect();
        let conditional: Vec<Vec<(u32, f64)>> = (0..count)
            .into_par_iter()
            .map(|own| {
                let nearest = nearest(&columns, own, count, neighbors);
                let distances: Vec<f64> = nearest.iter().map(|near| near.0.into()).collect();
                let probabilities = probabilities(&distances, perplexity);
                let indices = nearest.iter().map(|near| near.1);
                indices.zip(probabilities).collect()
            })
            .collect();
        let mut rows = vec![Vec::new(); count];
        for (own, neighbors) in (0..).zip(&conditional) {
            for &(other, probability) in neighbors {
                let half = probability / (2.0 * count as f64);
                rows[own as usize].push((other, half));
                rows[other as usize].push((own, half));
            }
        }
        rows.par_iter_mut().for_each(|row| {
            row.sort_by_key(|(other, _)| *other);
            row.dedup_by(|(other, half), (kept, sum)| {
                let is_same = other == kept;
                *sum += if is_same { *half } else { 0.0 };
                is_same
            });
        });
        Self { rows }
    }

    /// Returns the neighbors of a vector with their affinities.
    pub(super) fn of_vector(&self, index: usize) -> &[(u32, f64)] {
        &self.rows[index]
    }
}

/// Returns the squared distances and the indices of the nearest vectors, nearest first; equally near ones by their index.
fn nearest(columns: &[Vec<f32>], own: usize, count: usize, neighbors: usize) -> Vec<(f32, u32)> {
    let mut all: Vec<(f32, u32)> = Vec::with_capacity(count);
    let mut distances = [0.0f32; BLOCK];
    for start in (0..count).step_by(BLOCK) {
        let end = (start + BLOCK).min(count);
        let distances = &mut distances[..end - start];
        distances.fill(0.0);
        for column in columns {
            let own = column[own];
            for (distance, value) in distances.iter_mut().zip(&column[start..end]) {
                *distance += (value - own) * (value - own);
            }
        }
        all.extend(distances.iter().copied().zip(start as u32..));
    }
    all.swap_remove(own);
    let order = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if neighbors < all.len() {
        all.select_nth_unstable_by(neighbors, order);
        all.truncate(neighbors);
    }
    all.sort_unstable_by(order);
    all
}

/// Returns probabilities proportional to exp(-β d) of squared distances d, with the β for which their entropy is the logarithm of
/// the perplexity, by bisection.
fn probabilities(distances: &[f64], perplexity: f64) -> Vec<f64> {
    let target = perplexity.ln();
    let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    let mut precision = if mean > nearest {
        1.0 / (mean - nearest)
    } else {
        1.0
    };
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut weights = Vec::new();
    for _ in 0..SEARCH_STEPS {
        // Relative to the nearest, of which exp is 1.
        let weight = |distance: &f64| (-precision * (distance - nearest)).exp();
        weights = distances.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let terms = weights.iter().zip(distances);
        let energy: f64 = terms.map(|(w, d)| w * precision * (d - nearest)).sum();
        let entropy = sum.ln() + energy / sum;
        weights.iter_mut().for_each(|weight| *weight /= sum);
        if (entropy - target).abs() < 1e-6 {
            break;
        }
        match entropy > target {
            true => low = precision,
            false => high = precision,
        }
        precision = match high.is_finite() {
            true => 0.5 * (low + high),
            false => (2.0 * precision).min(1e300),
        };
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy(probabilities: &[f64]) -> f64 {
        -probabilities.iter().map(|p| p * p.ln()).sum::<f64>()
    }

    #[test]
    fn the_entropy_is_the_logarithm_of_the_perplexity() {
        for scale in [1e-12, 1.0, 1e12] {
            let distances: Vec<f64> = (1..=30).map(|at| scale * f64::from(at * at)).collect();
            let found = probabilities(&distances, 8.0);
            assert!((entropy(&found) - 8.0f64.ln()).abs() < 1e-5, "{scale}");
            assert!(found.is_sorted_by(|a, b| a >= b));
        }
        // Equal distances: no kernel has the perplexity.
        assert_eq!(probabilities(&[4.0; 5], 2.0), [0.2; 5]);
    }

    #[test]
    fn affinities_are_symmetric_and_sum_to_one() {
        // More than a block of vectors, on a circle.
        let vectors: Vec<Vec<f32>> = (0..1500)
            .map(|at| vec![(0.37 * at as f32).sin(), (0.37 * at as f32).cos(), 1.0])
            .collect();
        let affinities = Affinities::of(&vectors, 5.0);
        let mut sum = 0.0;
        for own in 0..vectors.len() {
            let row = affinities.of_vector(own);
            assert!(row.len() >= 15 && row.is_sorted_by_key(|(other, _)| *other));
            for &(other, affinity) in row {
                sum += affinity;
                let back = affinities.of_vector(other as usize).iter();
                let back = back.clone().find(|(index, _)| *index as usize == own);
                assert_eq!(back.unwrap().1, affinity);
            }
        }
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn the_nearest_vectors_are_found_in_order() {
        let column: Vec<f32> = (0..2000).map(|at| at as f32).collect();
        let near = nearest(&[column], 1500, 2000, 4);
        let indices: Vec<u32> = near.iter().map(|near| near.1).collect();
        assert_eq!(indices, [1499, 1501, 1498, 1502]);
        assert_eq!(near[3].0, 4.0);
    }
}
