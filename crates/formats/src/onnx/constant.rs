//! Constant tensors of a file.

use std::rc::Rc;

use crate::limits::MemoryBudget;
use crate::onnx::message::{
    BFLOAT16, BOOL, DOUBLE, EXTERNAL, FLOAT, FLOAT16, INT8, INT16, INT32, INT64, TensorMessage,
    UINT8, UINT16, UINT32, UINT64,
};
use crate::tensor::{Dtype, Tensor, byte_len};

/// Largest number of integers that are computed with. Shapes, axes and padding have a few.
pub(super) const MAX_INTEGERS: usize = 64;
/// Longest name of a file in a message.
const MAX_NAME: usize = 100;

/// A constant.
#[derive(Clone, Debug)]
pub(super) enum Constant {
    /// Floating-point numbers, or integers too many to compute with, which have no values.
    Tensor(Rc<Tensor>),
    Integers(Integers),
}

/// A small tensor of integers, such as a shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Integers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<Extent>,
}

/// An integer, or the number of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extent {
    Number(i64),
    Batch,
}

impl Integers {
    /// Creates a vector.
    pub(super) fn vector(values: Vec<Extent>) -> Self {
        Self {
            shape: vec![values.len()],
            values,
        }
    }

    /// Returns the numbers; `None` if one of them is the number of images.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        let number = |extent: &Extent| match extent {
            Extent::Number(number) => Some(*number),
            Extent::Batch => None,
        };
        self.values.iter().map(number).collect()
    }
}

impl Constant {
    /// Converts a tensor of the file, and moves its data out of the message.
    ///
    /// # Errors
    /// Returns an error if the data are in another file, do not fit the shape, or exceed the budget.
    pub(super) fn new(
        message: &mut TensorMessage,
        budget: &mut MemoryBudget,
    ) -> Result<Self, String> {
        if message.data_location == EXTERNAL || !message.external_data.is_empty() {
            return Err(external(message));
        }
        let sizes = message.dims.iter().map(|&size| usize::try_from(size));
        let shape = sizes
            .collect::<Result<Vec<usize>, _>>()
            .map_err(|_| "a negative size")?;
        if shape.len() > 8 {
            return Err(format!("a tensor of {} dimensions", shape.len()));
        }
        let dtype = match message.data_type {
            FLOAT => Dtype::F32,
            FLOAT16 => Dtype::F16,
            BFLOAT16 => Dtype::BF16,
            DOUBLE => Dtype::F64,
            _ => return Self::integers(message, shape),
        };
        budget.deduct(&shape, dtype)?;
        let bytes = match (dtype, std::mem::take(&mut message.raw_data)) {
            (_, raw) if !raw.is_empty() => raw,
            (Dtype::F32, _) => bytes(&message.float_data, |value| value.to_le_bytes()),
            (Dtype::F64, _) => bytes(&message.double_data, |value| value.to_le_bytes()),
            // The lower 16 bits of each integer.
            (_, _) => bytes(&message.int32_data, |value| (*value as u16).to_le_bytes()),
        };
        let tensor = Tensor::new(shape, dtype, bytes).map_err(|error| error.to_string())?;
        Ok(Self::Tensor(Rc::new(tensor)))
    }

    fn integers(message: &TensorMessage, shape: Vec<usize>) -> Result<Self, String> {
        let too_large = "a shape that overflows";
        // The size of an integer does not matter here.
        let count = byte_len(&shape, Dtype::F16).ok_or(too_large)? / 2;
        if count > MAX_INTEGERS {
            let (dtype, bytes) = (Dtype::Integer, Vec::new());
            let tensor = Tensor {
                shape,
                dtype,
                bytes,
            };
            return Ok(Self::Tensor(Rc::new(tensor)));
        }
        let raw = message.raw_data.as_slice();
        let values: Option<Vec<i64>> = match message.data_type {
            INT64 if raw.is_empty() => Some(message.int64_data.clone()),
            INT64 | UINT64 => Some(decode(raw, i64::from_le_bytes)),
            BOOL | INT8 | UINT8 | INT16 | UINT16 | INT32 if raw.is_empty() => {
                Some(message.int32_data.iter().copied().map(i64::from).collect())
            }
            INT8 => Some(decode(raw, |bytes| i8::from_le_bytes(bytes).into())),
            BOOL | UINT8 => Some(decode(raw, |bytes| u8::from_le_bytes(bytes).into())),
            INT16 => Some(decode(raw, |bytes| i16::from_le_bytes(bytes).into())),
            UINT16 => Some(decode(raw, |bytes| u16::from_le_bytes(bytes).into())),
            INT32 => Some(decode(raw, |bytes| i32::from_le_bytes(bytes).into())),
            UINT32 => Some(decode(raw, |bytes| u32::from_le_bytes(bytes).into())),
            _ => None,
        };
        let Some(values) = values else {
            let tensor = Tensor {
                shape,
                dtype: Dtype::Other,
                bytes: Vec::new(),
            };
            return Ok(Self::Tensor(Rc::new(tensor)));
        };
        if values.len() != count {
            return Err(format!(
                "{} integers for a tensor of shape {shape:?}",
                values.len()
            ));
        }
        let values = values.into_iter().map(Extent::Number).collect();
        Ok(Self::Integers(Integers { shape, values }))
    }

    /// Returns the floating-point values.
    pub(super) fn floats(&self) -> Result<Vec<f64>, String> {
        let values = match self {
            Self::Tensor(tensor) => tensor
                .values()
                .map(|values| values.into_iter().map(f64::from).collect()),
            Self::Integers(integers) => integers
                .numbers()
                .map(|numbers| numbers.into_iter().map(|number| number as f64).collect()),
        };
        values.ok_or_else(|| "a constant that is not numbers".into())
    }

    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => &tensor.shape,
            Self::Integers(integers) => &integers.shape,
        }
    }
}

fn external(message: &TensorMessage) -> String {
    let location = message
        .external_data
        .iter()
        .find(|entry| entry.key == "location");
    let location: String = location
        .map_or("?", |entry| entry.value.as_str())
        .chars()
        .take(MAX_NAME)
        .collect();
    format!(
        "its weights are in another file, {location:?}, which is not opened; save one file, with external_data=False in \
         torch.onnx.export, or with onnx.save(onnx.load(path), path)"
    )
}

fn bytes<T, const N: usize>(values: &[T], to_bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(to_bytes).collect()
}

fn decode<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> i64) -> Vec<i64> {
    bytes.as_chunks().0.iter().copied().map(number).collect()
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::onnx::message::StringStringEntry;

    fn constant(message: TensorMessage) -> Result<Constant, String> {
        Constant::new(&mut message.clone(), &mut MemoryBudget::for_file(100))
    }

    #[test]
    fn numbers_are_stored_in_several_ways() {
        let half = |value: f32| i32::from(f16::from_f32(value).to_bits());
        let message = |data_type| TensorMessage {
            dims: vec![2],
            data_type,
            ..TensorMessage::default()
        };
        let messages = [
            TensorMessage {
                float_data: vec![1.0, -2.0],
                ..message(FLOAT)
            },
            TensorMessage {
                raw_data: [1.0f32, -2.0].map(f32::to_le_bytes).concat(),
                ..message(FLOAT)
            },
            TensorMessage {
                double_data: vec![1.0, -2.0],
                ..message(DOUBLE)
            },
            TensorMessage {
                int32_data: vec![half(1.0), half(-2.0)],
                ..message(FLOAT16)
            },
            TensorMessage {
                int32_data: [1.0, -2.0]
                    .map(|x| bf16::from_f32(x).to_bits().into())
                    .to_vec(),
                ..message(BFLOAT16)
            },
            TensorMessage {
                int64_data: vec![1, -2],
                ..message(INT64)
            },
            TensorMessage {
                raw_data: [1i64, -2].map(i64::to_le_bytes).concat(),
                ..message(INT64)
            },
            TensorMessage {
                raw_data: vec![1, 0xfe],
                ..message(INT8)
            },
        ];
        for message in messages {
            assert_eq!(constant(message).unwrap().floats(), Ok(vec![1.0, -2.0]));
        }
    }

    #[test]
    fn data_that_do_not_fit_are_refused() {
        let message = |dims: &[i64]| TensorMessage {
            dims: dims.to_vec(),
            data_type: FLOAT,
            float_data: vec![1.0],
            ..TensorMessage::default()
        };
        let error = |message| constant(message).unwrap_err();
        assert_eq!(
            error(message(&[2])),
            "4 bytes for a float32 tensor of shape [2]"
        );
        assert_eq!(error(message(&[-1])), "a negative size");
        assert_eq!(
            error(message(&[i64::MAX, i64::MAX])),
            "the tensors are more than twice as large as the file"
        );
        let integers = TensorMessage {
            data_type: INT64,
            ..message(&[2])
        };
        assert_eq!(error(integers), "0 integers for a tensor of shape [2]");
        let external = TensorMessage {
            external_data: vec![StringStringEntry {
                key: "location".into(),
                value: "/etc/passwd".into(),
            }],
            ..message(&[1])
        };
        assert!(
            error(external).starts_with(
                "its weights are in another file, \"/etc/passwd\", which is not opened"
            )
        );
    }
}
