//! Tensors as stored in files.

use std::collections::BTreeMap;
use std::fmt;

use half::{bf16, f16};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// A tensor in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Number format of the elements.
    pub dtype: Dtype,
    /// Elements in little-endian order; empty if they are not floating-point numbers.
    pub bytes: Vec<u8>,
}

/// Number format of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// Integers and booleans.
    Integer,
    /// Any other type.
    Other,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Integer => "integers",
            Self::Other => "an unsupported number format",
        })
    }
}

/// The error for a number of bytes that does not match the shape.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes for a {dtype} tensor of shape {shape:?}")]
pub struct SizeError {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: usize,
}

impl Tensor {
    /// Creates a tensor from its bytes.
    ///
    /// # Errors
    /// Returns an error if the number of bytes does not match the shape.
    pub fn new(shape: Vec<usize>, dtype: Dtype, bytes: Vec<u8>) -> Result<Self, SizeError> {
        match byte_len(&shape, dtype) == Some(bytes.len()) {
            true => Ok(Self {
                shape,
                dtype,
                bytes,
            }),
            false => Err(SizeError {
                shape,
                dtype,
                bytes: bytes.len(),
            }),
        }
    }

    /// Creates a tensor in single precision. The number of values must match the shape.
    pub fn from_values(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        Self {
            shape,
            dtype: Dtype::F32,
            bytes: bytes.collect(),
        }
    }

    /// Returns the elements in single precision, or `None` if they are not floating-point numbers.
    pub fn values(&self) -> Option<Vec<f32>> {
        let bytes = &self.bytes;
        Some(match self.dtype {
            Dtype::F16 => decode(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => decode(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F32 => decode(bytes, f32::from_le_bytes),
            Dtype::F64 => decode(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::Integer | Dtype::Other => return None,
        })
    }
}

fn decode<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().copied().map(number).collect()
}

/// Returns the number of bytes of a tensor, or `None` if it overflows. 0 if its elements are not stored.
pub(crate) fn byte_len(shape: &[usize], dtype: Dtype) -> Option<usize> {
    let size = match dtype {
        Dtype::F16 | Dtype::BF16 => 2,
        Dtype::F32 => 4,
        Dtype::F64 => 8,
        Dtype::Integer | Dtype::Other => return Some(0),
    };
    shape
        .iter()
        .try_fold(size, |size: usize, &count| size.checked_mul(count))
}
