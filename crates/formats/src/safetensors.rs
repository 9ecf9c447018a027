//! safetensors, the format of Hugging Face, in which this project keeps weights too.

use safetensors::tensor::TensorView;
use safetensors::{SafeTensorError, SafeTensors, serialize};

use crate::file::Unreadable;
use crate::layout::Layout;
use crate::tensor::{Dtype, Tensor, Tensors};

/// The tensors of a safetensors file, which Burn lays out in another way than PyTorch.
///
/// # Errors
/// When it is damaged: among other things, when its tensors overlap or leave gaps.
pub(crate) fn read(bytes: &[u8]) -> Result<(Layout, Tensors), Unreadable> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let metadata = metadata.metadata().as_ref();
    let producer = metadata.and_then(|entries| entries.get("producer"));
    let layout = match producer.map(String::as_str) {
        Some("burn") => Layout::Burn,
        _ => Layout::PyTorch,
    };
    Ok((layout, from_safetensors(bytes)?))
}

/// The tensors of a safetensors file.
///
/// # Errors
/// When it is damaged.
pub fn from_safetensors(bytes: &[u8]) -> Result<Tensors, SafeTensorError> {
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        use safetensors::Dtype as Found;
        let dtype = match view.dtype() {
            Found::F16 => Dtype::F16,
            Found::BF16 => Dtype::BF16,
            Found::F32 => Dtype::F32,
            Found::F64 => Dtype::F64,
            Found::BOOL | Found::U8 | Found::I8 | Found::U16 | Found::I16 => Dtype::Integer,
            Found::U32 | Found::I32 | Found::U64 | Found::I64 => Dtype::Integer,
            _ => Dtype::Other,
        };
        let bytes = match dtype {
            Dtype::Integer | Dtype::Other => Vec::new(),
            _ => view.data().to_vec(),
        };
        let shape = view.shape().to_vec();
        // Shapes were held against the bytes before.
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

/// A safetensors file of weights in single precision, for `ConvNet::with_safetensors`.
///
/// # Errors
/// Never for weights that [`fit`](crate::fit()) made.
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
