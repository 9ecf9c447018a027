//! The weights of a file of any known format.

use std::path::Path;

use data::digest::sha256_hex;
use data::regular_file;

use crate::error::ReadError;
use crate::format::Format;
use crate::layout::Layout;
use crate::limits::MAX_BYTES;
use crate::tensor::Tensors;
use crate::translation::Architecture;
use crate::{burnpack, keras, onnx, pytorch, safetensors};

/// The weights of a file.
#[derive(Debug)]
pub struct Weights {
    /// Format of the file.
    pub format: Format,
    /// Memory layout of the tensors.
    pub layout: Layout,
    /// Tensors by their names in the file.
    pub tensors: Tensors,
    /// The network, if the file describes it; an error if this project has no such network.
    pub architecture: Option<Result<Architecture, String>>,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Reads the weights of a file.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, damaged, of an unknown format or of another format
/// than its extension says, or if it would call Python functions that weights do not need.
pub fn read(path: &Path) -> Result<Weights, ReadError> {
    let bytes = regular_file::read(path, MAX_BYTES)?;
    let named = Format::of_extension(path);
    let format = Format::of_content(&bytes, named).ok_or(ReadError::UnknownFormat)?;
    if let Some(named) = named.filter(|named| *named != format) {
        return Err(ReadError::WrongExtension {
            content: format.name(),
            named: named.name(),
            extension: format.extension(),
        });
    }
    let sha256 = sha256_hex([&bytes]);
    let malformed = |reason| ReadError::Malformed(format.name(), reason);
    if format == Format::PyTorch {
        let disallowed = pytorch::disallowed_globals(&bytes).map_err(malformed)?;
        if !disallowed.is_empty() {
            return Err(ReadError::UnsafePickle(
                Vec::from_iter(disallowed).join(", "),
            ));
        }
    }
    let mut architecture = None;
    let mut described = |(tensors, description): keras::Model| {
        architecture = description;
        (Layout::Keras, tensors)
    };
    let (layout, tensors) = match format {
        Format::PyTorch => {
            pytorch::read(path, bytes.len()).map(|tensors| (Layout::PyTorch, tensors))
        }
        Format::Safetensors => safetensors::read(&bytes),
        Format::KerasWeights => keras::read(bytes).map(&mut described),
        Format::KerasArchive => keras::read_archive(&bytes).map(&mut described),
        Format::Onnx => onnx::read(&bytes).map(|(tensors, description)| {
            architecture = Some(description);
            (Layout::PyTorch, tensors)
        }),
        Format::Burnpack => burnpack::read(bytes).map(|tensors| (Layout::Burn, tensors)),
    }
    .map_err(malformed)?;
    Ok(Weights {
        format,
        layout,
        tensors,
        architecture,
        sha256,
    })
}
