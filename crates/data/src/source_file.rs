//! The identity of the file that an image was decoded from.

use serde::{Deserialize, Serialize};

/// The identity of the file that an image was decoded from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path relative to the data folder, with `/` between the names.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
}
