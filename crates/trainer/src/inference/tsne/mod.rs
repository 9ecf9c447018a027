//! t-SNE: a map of vectors on which neighbors stay neighbors (van der Maaten and Hinton 2008), approximated by the cells of
//! Barnes and Hut (van der Maaten 2014).
//!
//! The map y minimizes the Kullback-Leibler divergence Σ p log(p / q) between the affinities p of the vectors and those of the map,
//! qij = wij / Z, with wij = 1 / (1 + |yi - yj|²) and Z the sum of w over all pairs. Its gradient is
//! 4 Σj (pij - qij) wij (yi - yj). Gradient descent with momentum and a gain per coordinate starts from the principal
//! components, scaled to a standard deviation of 1e-4 (Kobak and Berens 2019). In the first quarter of the steps, p is multiplied
//! by 12. The learning rate is n / 12, at least 50, and includes the factor 4 (Belkina et al. 2019).
//!
//! Each point's force is a sum in a fixed order: the map does not depend on the number of threads. The crate `bhtsne` has other maps
//! in each run, because it sums in the order in which threads finish.

mod affinities;
mod tree;

use rayon::prelude::*;

use affinities::Affinities;
use tree::{Point, Tree, difference};

/// Number of gradient steps.
pub(crate) const STEPS: usize = 1000;
/// Number of steps with exaggerated affinities, and with little momentum.
const EARLY_STEPS: usize = 250;
const EXAGGERATION: f64 = 12.0;
const EARLY_MOMENTUM: f64 = 0.5;
const MOMENTUM: f64 = 0.8;
const MIN_LEARNING_RATE: f64 = 50.0;
/// Standard deviation of the first coordinate at the start.
const START_DEVIATION: f64 = 1e-4;
const MIN_GAIN: f64 = 0.01;
/// Number of points that a thread takes at a time.
const CHUNK: usize = 32;

/// A map in the making.
#[derive(Debug)]
pub(crate) struct Tsne {
    affinities: Affinities,
    tree: Tree,
    points: Vec<Point>,
    velocities: Vec<Point>,
    gains: Vec<Point>,
    steps: usize,
}

impl Tsne {
    /// Starts a map of vectors from their first two values, which should be principal components.
    ///
    /// # Panics
    /// Panics if there are fewer than two vectors, a vector is empty, or their lengths differ.
    pub(crate) fn new(vectors: &[Vec<f32>], perplexity: f64) -> Self {
        let value =
            |vector: &Vec<f32>, axis: usize| f64::from(vector.get(axis).copied().unwrap_or(0.0));
        let squares = vectors.iter().map(|vector| value(vector, 0).powi(2));
        let deviation = (squares.sum::<f64>() / vectors.len() as f64).sqrt();
        let scale = START_DEVIATION / deviation.max(f64::MIN_POSITIVE);
        let point = |vector| [scale * value(vector, 0), scale * value(vector, 1)];
        Self {
            affinities: Affinities::of(vectors, perplexity),
            tree: Tree::default(),
            points: vectors.iter().map(point).collect(),
            velocities: vec![[0.0; 2]; vectors.len()],
            gains: vec![[1.0; 2]; vectors.len()],
            steps: 0,
        }
    }

    /// Takes a step of gradient descent.
    pub(crate) fn step(&mut self) {
        let (exaggeration, momentum) = match self.steps < EARLY_STEPS {
            true => (EXAGGERATION, EARLY_MOMENTUM),
            false => (1.0, MOMENTUM),
        };
        self.steps += 1;
        let learning_rate = (self.points.len() as f64 / EXAGGERATION).max(MIN_LEARNING_RATE);
        self.tree.build(&self.points);
        // In the order of the tree: points near each other read the same cells.
        let forces = self.tree.points().par_iter().with_min_len(CHUNK);
        let forces = forces.map(|&(point, index)| {
            let attraction = self.attraction(point, index as usize);
            (attraction, self.tree.repulsion(point))
        });
        let forces: Vec<(Point, (Point, f64))> = forces.collect();
        let sum: f64 = forces.iter().map(|(_, (_, weight))| weight).sum();
        for ((attraction, (repulsion, _)), (_, index)) in forces.iter().zip(self.tree.points()) {
            let index = *index as usize;
            for axis in 0..2 {
                let gradient = exaggeration * attraction[axis] - repulsion[axis] / sum;
                let velocity = &mut self.velocities[index][axis];
                let gain = &mut self.gains[index][axis];
                // More as long as the direction stays (Jacobs 1988).
                *gain = match gradient * *velocity > 0.0 {
                    true => (0.8 * *gain).max(MIN_GAIN),
                    false => *gain + 0.2,
                };
                *velocity = momentum * *velocity - learning_rate * *gain * gradient;
                self.points[index][axis] += *velocity;
            }
        }
        self.center();
    }

    /// Returns the sum over the neighbors j of p w (y - yj).
    fn attraction(&self, point: Point, index: usize) -> Point {
        let mut force = [0.0; 2];
        for &(other, affinity) in self.affinities.of_vector(index) {
            let [x, y] = difference(point, self.points[other as usize]);
            let factor = affinity / (1.0 + x * x + y * y);
            force[0] += factor * x;
            force[1] += factor * y;
        }
        force
    }

    /// Moves the mean of the map to the origin.
    fn center(&mut self) {
        let count = self.points.len() as f64;
        for axis in 0..2 {
            let mean = self.points.iter().map(|point| point[axis]).sum::<f64>() / count;
            self.points.iter_mut().for_each(|point| point[axis] -= mean);
        }
    }

    /// Computes the Kullback-Leibler divergence.
    pub(crate) fn divergence(&mut self) -> f64 {
        self.tree.build(&self.points);
        let weights = self.tree.points().iter();
        let sum: f64 = weights
            .map(|(point, _)| self.tree.repulsion(*point).1)
            .sum();
        let mut divergence = 0.0;
        for (index, &point) in self.points.iter().enumerate() {
            for &(other, affinity) in self.affinities.of_vector(index) {
                let [x, y] = difference(point, self.points[other as usize]);
                let q = 1.0 / (1.0 + x * x + y * y) / sum;
                // A neighbor so far away that its probability rounds to 0 adds nothing.
                if affinity > 0.0 {
                    divergence += affinity * (affinity / q).ln();
                }
            }
        }
        divergence
    }

    /// Returns the map.
    pub(crate) fn points(&self) -> &[[f64; 2]] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns three clusters of points around distant centers, in ten dimensions.
    fn clusters(count: usize) -> Vec<Vec<f32>> {
        let vector = |at: usize| {
            let value = |axis: usize| {
                let center = if axis == at % 3 { 6.0 } else { 0.0 };
                // The sum of twelve uniform values is nearly Gaussian.
                let uniform = (0..12).map(|term| {
                    let phase = (at * 7919 + axis * 104_729 + term * 1_299_709) as f64;
                    (phase * 0.618_033_988_749_895).fract() - 0.5
                });
                (center + uniform.sum::<f64>()) as f32
            };
            (0..10).map(value).collect()
        };
        (0..count).map(vector).collect()
    }

    fn map(vectors: &[Vec<f32>], steps: usize) -> Tsne {
        let mut tsne = Tsne::new(vectors, 20.0);
        (0..steps).for_each(|_| tsne.step());
        tsne
    }

    #[test]
    fn separated_clusters_stay_separated() {
        let vectors = clusters(300);
        let mut tsne = Tsne::new(&vectors, 20.0);
        let start = tsne.divergence();
        (0..400).for_each(|_| tsne.step());
        let middle = tsne.divergence();
        (0..200).for_each(|_| tsne.step());
        let end = tsne.divergence();
        assert!(
            start > 2.0 * middle && middle > end && end > 0.0,
            "{start} {middle} {end}"
        );
        // All points of a cluster are nearer to its mean than all others.
        let points = tsne.points();
        for cluster in 0..3 {
            let (own, others): (Vec<usize>, Vec<usize>) =
                (0..300).partition(|at| at % 3 == cluster);
            let mean =
                [0, 1].map(|axis| own.iter().map(|&at| points[at][axis]).sum::<f64>() / 100.0);
            let distance = |at: usize| {
                let [x, y] = difference(points[at], mean);
                x.hypot(y)
            };
            let farthest = own.into_iter().map(distance).fold(0.0, f64::max);
            let nearest = others
                .into_iter()
                .map(distance)
                .fold(f64::INFINITY, f64::min);
            assert!(nearest > farthest, "{cluster}: {nearest} {farthest}");
        }
    }

    #[test]
    fn the_map_does_not_depend_on_the_number_of_threads() {
        let vectors = clusters(200);
        let maps = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| map(&vectors, 60).points)
        });
        assert_eq!(maps[0], maps[1]);
    }

    #[test]
    fn few_equal_and_collinear_vectors_have_a_map() {
        let line: Vec<Vec<f32>> = (0..9).map(|at| vec![at as f32]).collect();
        for (vectors, perplexity) in [
            (clusters(3), 1.0),
            (vec![vec![0.0, 0.0]; 50], 5.0),
            (line, 2.0),
        ] {
            let mut tsne = Tsne::new(&vectors, perplexity);
            (0..STEPS).for_each(|_| tsne.step());
            let values = tsne.points().as_flattened();
            assert!(values.iter().all(|value| value.abs() < 1e4), "{values:?}");
        }
    }
}
