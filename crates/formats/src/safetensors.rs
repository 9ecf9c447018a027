//! Reader and writer of safetensors, the format of Hugging Face and of this project's own weights.

use safetensors::tensor::TensorView;
use safetensors::{SafeTensorError, SafeTensors, serialize};

use crate::error::FormatError;
use crate::layout::Layout;
use crate::tensor::{Dtype, Tensor, Tensors};

/// Reads the tensors of a safetensors file and their layout: Burn's if the metadata names it as the producer,
/// PyTorch's otherwise.
///
/// # Errors
/// Returns an error if the file is damaged, for example if tensors overlap or leave gaps.
pub(crate) fn read(bytes: &[u8]) -> Result<(Layout, Tensors), FormatError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let metadata = metadata.metadata().as_ref();
    let producer = metadata.and_then(|entries| entries.get("producer"));
    let layout = match producer.map(String::as_str) {
        Some("burn") => Layout::Burn,
        _ => Layout::PyTorch,
    };
    Ok((layout, from_safetensors(bytes)?))
}

/// Reads the tensors of a safetensors file.
///
/// # Errors
/// Returns an error if the file is damaged.
pub fn from_safetensors(bytes: &[u8]) -> Result<Tensors, SafeTensorError> {
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        use safetensors::Dtype as Stored;
        let dtype = match view.dtype() {
            Stored::F16 => Dtype::F16,
            Stored::BF16 => Dtype::BF16,
            Stored::F32 => Dtype::F32,
            Stored::F64 => Dtype::F64,
            Stored::BOOL | Stored::U8 | Stored::I8 | Stored::U16 | Stored::I16 => Dtype::Integer,
            Stored::U32 | Stored::I32 | Stored::U64 | Stored::I64 => Dtype::Integer,
            _ => Dtype::Other,
        };
        let bytes = match dtype {
            Dtype::Integer | Dtype::Other => Vec::new(),
            _ => view.data().to_vec(),
        };
        let shape = view.shape().to_vec();
        // `SafeTensors` has checked the number of bytes against the shape.
        (
            name.to_string(),
            Tensor {
                shape,
                dtype,
                bytes,
            },
        )
    };
    Ok(SafeTensors::deserialize(bytes)?
        .iter()
        .map(tensor)
        .collect())
}

/// Returns a safetensors file of weights in single precision, for `ConvNet::with_safetensors`.
///
/// # Errors
/// Returns an error if a tensor has another dtype or too few bytes; never for the tensors of
/// [`match_to_network`](crate::match_to_network).
pub fn to_safetensors(weights: &Tensors) -> Result<Vec<u8>, SafeTensorError> {
    let views = weights
        .iter()
        .map(|(name, tensor)| {
            let dtype = safetensors::Dtype::F32;
            Ok((
                name,
                TensorView::new(dtype, tensor.shape.clone(), &tensor.bytes)?,
            ))
        })
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    serialize(views, None)
}
