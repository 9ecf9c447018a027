//! Reader of burnpack, Burn's own format.

use burn_pack::{Bytes, DType, Reader};

use crate::error::FormatError;
use crate::limits::MemoryBudget;
use crate::tensor::{Dtype, Tensor, Tensors};

/// Reads the tensors of a burnpack file.
///
/// # Errors
/// Returns an error if the file is damaged.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Tensors, FormatError> {
    let mut budget = MemoryBudget::for_file(bytes.len());
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes))?;
    let mut tensors = Tensors::new();
    for tensor in reader.into_tensors()? {
        let dtype = match tensor.dtype {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::QFloat(_) => Dtype::Other,
            _ => Dtype::Integer,
        };
        let shape = tensor.shape.to_vec();
        budget.deduct(&shape, dtype)?;
        let name = tensor.name.clone();
        let bytes = match dtype {
            Dtype::Integer | Dtype::Other => Vec::new(),
            _ => tensor.into_bytes()?.to_vec(),
        };
        tensors.insert(name, Tensor::new(shape, dtype, bytes)?);
    }
    Ok(tensors)
}
