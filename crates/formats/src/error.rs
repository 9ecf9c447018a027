//! Errors of reading a file.

use std::error::Error;
use std::io;

/// An error of a format's own reader.
pub type FormatError = Box<dyn Error + Send + Sync>;

/// Number of characters of a text file that an error quotes.
const QUOTED: usize = 40;

/// The reason why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// An I/O error, or the path names a folder, a device, a pipe or a file above [`MAX_BYTES`](crate::MAX_BYTES).
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The content has no known format.
    #[error(
        "unknown file format: expected PyTorch (.pt, .pth), safetensors, Keras (.weights.h5, .keras, .h5), \
         ONNX (.onnx) or burnpack (.bpk)"
    )]
    UnknownFormat,
    /// The file extension belongs to another format than the content.
    #[error(
        "the content is {content}, but the file extension is that of {named}; rename it to .{extension}"
    )]
    WrongExtension {
        /// Name of the content's format.
        content: &'static str,
        /// Name of the format with the file's extension.
        named: &'static str,
        /// Extension of the content's format.
        extension: &'static str,
    },
    /// The content is text. Weights have binary formats.
    #[error(
        "a text file, but the file extension is that of {named}: it begins with {start:?}{hint}"
    )]
    Text {
        /// Name of the format with the file's extension.
        named: &'static str,
        /// Start of the content.
        start: String,
        /// A remedy.
        hint: &'static str,
    },
    /// The file is damaged or holds something else than weights: the name of the format, and the reason.
    #[error("cannot be read as {0}: {1}")]
    Malformed(&'static str, FormatError),
    /// The pickles would call Python functions that weights do not need.
    #[error(
        "refused without running it: the pickle references {0}, which weights do not need; \
         save only the weights, with torch.save(model.state_dict(), ...)"
    )]
    UnsafePickle(String),
}

impl ReadError {
    /// Returns the error for a text file.
    pub(crate) fn text(named: &'static str, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes.get(..4 * QUOTED).unwrap_or(bytes));
        let line = text.lines().next().unwrap_or_default();
        Self::Text {
            named,
            start: line.chars().take(QUOTED).collect(),
            hint: match line.starts_with("version https://git-lfs") {
                true => "; `git lfs pull` replaces this pointer by the file",
                false => "",
            },
        }
    }
}
