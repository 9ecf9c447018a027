//! The weights of a file of any known format.

use std::path::Path;

use data::digest::sha256_hex;
use data::regular_file;

use crate::error::{FormatError, ReadError};
use crate::format::{Format, is_text};
use crate::hint::LayerHint;
use crate::layout::Layout;
use crate::limits::MAX_BYTES;
use crate::networks::{self, NamedNetwork};
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
    /// Names of the tensors in the order of the file; empty if it has none.
    pub order: Vec<String>,
    /// Modules of a PyTorch network that was saved as a whole, in the order of the file.
    pub hints: Vec<LayerHint>,
    /// The networks of a file that holds several; otherwise empty.
    pub networks: Vec<NamedNetwork>,
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
    let is_text = is_text(&bytes);
    let format = Format::of_content(&bytes, named).ok_or_else(|| match named {
        Some(named) if is_text => ReadError::text(named, &bytes),
        _ => ReadError::UnknownFormat,
    })?;
    if let Some(named) = named.filter(|named| *named != format) {
        return Err(ReadError::WrongExtension {
            content: format.name(),
            named: named.name(),
            extension: format.extension(),
        });
    }
    let sha256 = sha256_hex([&bytes]);
    let malformed = |error: FormatError| match error.downcast::<pytorch::UnknownCalls>() {
        Ok(calls) => ReadError::UnsafePickle(calls.to_string()),
        Err(error) => ReadError::Malformed(format.name(), error),
    };
    let mut architecture = None;
    let mut content = pytorch::Content::default();
    let mut described = |(tensors, description): keras::Model| {
        architecture = description;
        (Layout::Keras, tensors)
    };
    let (layout, tensors) = match format {
        Format::PyTorch => pytorch::read(&bytes).map(|read| {
            content = read;
            (Layout::PyTorch, std::mem::take(&mut content.tensors))
        }),
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
    let mut networks = networks::distinct(&tensors, content.groups);
    if let [single] = networks.as_mut_slice()
        && architecture.is_none()
    {
        architecture = single.architecture.take();
        networks.clear();
    }
    Ok(Weights {
        format,
        layout,
        tensors,
        order: content.order,
        hints: content.hints,
        networks,
        architecture,
        sha256,
    })
}
