//! Reproducible random permutations.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Returns a random permutation of `0..count`.
///
/// It depends only on `(seed, stream)` and is identical on every machine.
pub fn permutation(count: usize, seed: u64, stream: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.shuffle(&mut rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_is_identical_on_every_machine() {
        assert_eq!(permutation(8, 42, 1), [6, 4, 5, 3, 2, 1, 0, 7]);
    }
}
