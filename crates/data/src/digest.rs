//! SHA-256 checksums as text.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Returns the SHA-256 of the concatenated `parts` as lower-case hexadecimal digits.
pub fn sha256_hex(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    hex(&digest.finalize())
}

/// Returns the first 64 bits of the SHA-256 of `bytes`.
pub(crate) fn first_64_bits(bytes: impl AsRef<[u8]>) -> u64 {
    let digest = Sha256::digest(bytes);
    let first = digest.iter().take(8);
    first.fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// Returns bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
