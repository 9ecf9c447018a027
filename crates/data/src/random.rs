//! Random number generators of single images and batches.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Returns the random number generator of the image or batch `at` in one epoch.
///
/// Its numbers do not depend on those drawn for other images, batches, epochs and purposes, and are
/// identical on every machine.
pub(crate) fn generator(purpose: &[u8; 24], seed: u64, epoch: u64, at: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(purpose);
    let mut random = ChaCha8Rng::from_seed(key);
    random.set_stream(epoch);
    // An image or batch needs far fewer than 2^16 words.
    random.set_word_pos((at as u128) << 16);
    random
}
