//! File formats, detected by content.

use std::path::Path;

use crate::{keras, onnx, pytorch};

/// First line of PyTorch's legacy files in pickle protocol 0: their magic number.
const TEXT_PICKLE: &[u8] = b"L119547037146038801333356L\n";

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PyTorch, as written by `torch.save`.
    PyTorch,
    /// safetensors, by Hugging Face.
    Safetensors,
    /// HDF5 as written by Keras: `.weights.h5` or `.h5`.
    KerasWeights,
    /// `.keras`, a zip archive that contains a `.weights.h5`.
    KerasArchive,
    /// burnpack, Burn's own format.
    Burnpack,
    /// ONNX.
    Onnx,
}

impl Format {
    /// Detects the format from the content. `named`, the format of the file's extension, decides only between
    /// zip archives whose directory cannot be read.
    pub(crate) fn of_content(bytes: &[u8], named: Option<Self>) -> Option<Self> {
        if bytes.starts_with(b"PK") {
            let archive = pytorch::open_archive(bytes);
            let is_pytorch = archive.as_ref().is_ok_and(pytorch::is_archive);
            let is_keras = archive.map(|archive| archive.index_for_name(keras::ENTRY).is_some());
            match (is_keras, named) {
                // The directory is at the end of an archive. The reader reports that it is truncated.
                (Err(_), Some(Self::KerasArchive)) | (Ok(true), _) => Some(Self::KerasArchive),
                (Err(_), _) => Some(Self::PyTorch),
                (Ok(false), _) => is_pytorch.then_some(Self::PyTorch),
            }
        } else if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
            Some(Self::KerasWeights)
        } else if bytes.starts_with(&burn_pack::MAGIC_NUMBER.to_le_bytes()) {
            Some(Self::Burnpack)
        } else if onnx::is_model(bytes) {
            Some(Self::Onnx)
        } else if bytes.get(8) == Some(&b'{') {
            // A JSON header after its length in 8 bytes.
            Some(Self::Safetensors)
        } else if matches!(bytes.first(), Some(0x80 | b'(' | b'c'))
            || bytes.starts_with(TEXT_PICKLE)
        {
            Some(Self::PyTorch)
        } else {
            None
        }
    }

    /// Returns the format of the file extension, if it is a known one.
    pub(crate) fn of_extension(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()? {
            "pt" | "pth" => Self::PyTorch,
            "safetensors" => Self::Safetensors,
            "h5" | "hdf5" => Self::KerasWeights,
            "keras" => Self::KerasArchive,
            burn_pack::EXTENSION => Self::Burnpack,
            "onnx" => Self::Onnx,
            _ => return None,
        })
    }

    /// Returns the name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::PyTorch => "PyTorch",
            Self::Safetensors => "safetensors",
            Self::KerasWeights => "Keras weights (HDF5)",
            Self::KerasArchive => "a Keras archive",
            Self::Burnpack => "burnpack",
            Self::Onnx => "ONNX",
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::PyTorch => "pt",
            Self::Safetensors => "safetensors",
            Self::KerasWeights => "weights.h5",
            Self::KerasArchive => "keras",
            Self::Burnpack => burn_pack::EXTENSION,
            Self::Onnx => "onnx",
        }
    }
}

/// Number of bytes that are inspected for text.
const INSPECTED: usize = 1024;

/// Returns whether a file begins with text.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(INSPECTED)];
    let is_valid = match str::from_utf8(start) {
        Ok(_) => true,
        // A character may be cut.
        Err(error) => error.error_len().is_none(),
    };
    let is_printable = |byte: &u8| *byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t');
    is_valid && !start.is_empty() && start.iter().all(is_printable)
}
