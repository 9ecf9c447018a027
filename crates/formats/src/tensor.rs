//! Tensors as files hold them.

use std::collections::BTreeMap;
use std::fmt;

use half::{bf16, f16};

/// Tensors by their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// Numbers in the order of their indices, the last of which runs fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// How long each dimension is.
    pub shape: Vec<usize>,
    /// What the numbers are.
    pub dtype: Dtype,
    /// The numbers, little-endian; left out where they are no floating-point numbers.
    pub bytes: Vec<u8>,
}

/// Kinds of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// Integers and booleans.
    Integer,
    /// What weights are never read from.
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
            Self::Other => "numbers of an unknown kind",
        })
    }
}

/// A number of bytes that is not that of the shape.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes for {shape:?} of {dtype}")]
pub struct SizeError {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: usize,
}

/// Bytes that the tensors of a file may have together: a file may have many of the same few.
pub(crate) struct Budget(usize);

impl Tensor {
    /// A tensor of a file.
    ///
    /// # Errors
    /// When there are more or fewer bytes than the shape needs.
    pub fn new(shape: Vec<usize>, dtype: Dtype, bytes: Vec<u8>) -> Result<Self, SizeError> {
        match size(&shape, dtype) == Some(bytes.len()) {
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

    /// A tensor of single precision, as many values as the shape needs.
    pub(crate) fn from_values(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        Self {
            shape,
            dtype: Dtype::F32,
            bytes: bytes.collect(),
        }
    }

    /// The numbers in single precision; `None` where they are no floating-point numbers.
    pub fn values(&self) -> Option<Vec<f32>> {
        let bytes = &self.bytes;
        Some(match self.dtype {
            Dtype::F16 => numbers(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => numbers(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F32 => numbers(bytes, f32::from_le_bytes),
            Dtype::F64 => numbers(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::Integer | Dtype::Other => return None,
        })
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().copied().map(number).collect()
}

/// Bytes of a tensor.
fn size(shape: &[usize], dtype: Dtype) -> Option<usize> {
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

impl Budget {
    /// Twice the bytes of the file: layers may share weights.
    pub(crate) fn of_file(bytes: usize) -> Self {
        Self(bytes.saturating_mul(2))
    }

    /// Takes the bytes of a tensor.
    ///
    /// # Errors
    /// When there are not so many left.
    pub(crate) fn spend(&mut self, shape: &[usize], dtype: Dtype) -> Result<(), &'static str> {
        let left = size(shape, dtype).and_then(|size| self.0.checked_sub(size));
        self.0 = left.ok_or("more numbers than the file can hold")?;
        Ok(())
    }
}
