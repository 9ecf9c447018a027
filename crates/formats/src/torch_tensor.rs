//! Tensors of PyTorch's files: views of storages, which a pickle names by their keys.

use std::collections::HashMap;

use pickle::{Id, Pickle, Value};

use crate::error::FormatError;
use crate::limits::MemoryBudget;
use crate::tensor::{Dtype, Tensor};

/// Largest accepted number of dimensions.
const MAX_RANK: usize = 16;
/// Largest accepted number of functions around a tensor: a parameter of a subclass of tensors has three.
const MAX_WRAPPERS: usize = 8;

/// The bytes of storages by their keys.
pub(crate) type Storages<'a> = HashMap<String, &'a [u8]>;

/// Number format of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) dtype: Dtype,
    /// Size in bytes.
    pub(crate) size: usize,
}

impl Element {
    /// Returns the number format of a class such as `torch.FloatStorage` or a type such as `torch.float32`.
    fn named(name: &str) -> Option<Self> {
        let name = name.rsplit('.').next()?;
        let (dtype, size) = match name.strip_suffix("Storage").unwrap_or(name) {
            "Half" | "float16" => (Dtype::F16, 2),
            "BFloat16" | "bfloat16" => (Dtype::BF16, 2),
            "Float" | "float32" => (Dtype::F32, 4),
            "Double" | "float64" => (Dtype::F64, 8),
            "Long" | "int64" | "uint64" => (Dtype::Integer, 8),
            "Int" | "int32" | "uint32" => (Dtype::Integer, 4),
            "Short" | "int16" | "uint16" => (Dtype::Integer, 2),
            "Char" | "Byte" | "Bool" | "int8" | "uint8" | "bool" => (Dtype::Integer, 1),
            "ComplexDouble" | "complex128" => (Dtype::Other, 16),
            "ComplexFloat" | "complex64" => (Dtype::Other, 8),
            "QInt32" | "complex32" => (Dtype::Other, 4),
            "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" | "Untyped" => (Dtype::Other, 1),
            name if name.starts_with("float8") => (Dtype::Other, 1),
            _ => return None,
        };
        Some(Self { dtype, size })
    }
}

/// A reference to a storage: the key, the number format, and the position of the first element.
#[derive(Debug)]
pub(crate) struct StorageRef<'p> {
    pub(crate) key: &'p str,
    pub(crate) element: Element,
    offset: usize,
}

impl<'p> StorageRef<'p> {
    /// Returns the storage that a persistent identifier names: `("storage", class, key, location, length)`, in legacy
    /// files followed by None or a view `(key, offset, length)`.
    pub(crate) fn read(pickle: &'p Pickle<'_>, identifier: Id) -> Option<Self> {
        let &[kind, class, key, _, _, ref view @ ..] = pickle.elements(identifier)? else {
            return None;
        };
        if pickle.text(kind)? != "storage" {
            return None;
        }
        let view = view.first().and_then(|view| pickle.elements(*view));
        let offset = match view {
            Some(&[_, offset, _]) => pickle.size(offset)?,
            _ => 0,
        };
        Some(Self {
            key: pickle.text(key)?,
            element: Element::named(&pickle.global(class)?)?,
            offset,
        })
    }
}

/// Returns whether a value is a tensor.
pub(crate) fn is_tensor(pickle: &Pickle<'_>, id: Id) -> bool {
    view(pickle, id).is_some()
}

/// A function that rebuilds a tensor, and its arguments.
struct View<'p> {
    function: String,
    args: &'p [Id],
}

fn view<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<View<'p>> {
    let object = pickle.object(id)?;
    let mut function = pickle.global(object.class)?;
    let mut args = pickle.elements(object.args)?;
    for _ in 0..MAX_WRAPPERS {
        let inner = match function.as_str() {
            "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3"
            | "torch._utils._rebuild_qtensor"
            | "torch._utils._rebuild_sparse_tensor" => return Some(View { function, args }),
            "torch._tensor._rebuild_from_type_v2" => {
                function = pickle.global(*args.first()?)?;
                args = pickle.elements(*args.get(2)?)?;
                continue;
            }
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch.nn.parameter.Parameter"
            | "torch.nn.parameter.Buffer" => pickle.object(*args.first()?)?,
            _ => return None,
        };
        function = pickle.global(inner.class)?;
        args = pickle.elements(inner.args)?;
    }
    None
}

/// Reads a tensor; `None` if the value is none.
///
/// # Errors
/// Returns an error if the tensor exceeds its storage or the budget, or is neither dense nor of numbers.
pub(crate) fn read(
    pickle: &Pickle<'_>,
    id: Id,
    storages: &Storages<'_>,
    budget: &mut MemoryBudget,
) -> Result<Option<Tensor>, FormatError> {
    let Some(View { function, args }) = view(pickle, id) else {
        return Ok(None);
    };
    if function.ends_with("_rebuild_qtensor") {
        return Err("quantized tensors are not supported".into());
    }
    let &[storage, offset, shape, strides, ref rest @ ..] = args else {
        return Err("only dense tensors are supported".into());
    };
    let Value::Persistent(identifier) = *pickle.value(storage) else {
        return Err("a tensor without a storage".into());
    };
    let storage = StorageRef::read(pickle, identifier).ok_or("a storage of an unknown type")?;
    let mut element = storage.element;
    if function.ends_with("_v3") {
        let dtype = rest.get(2).and_then(|dtype| pickle.global(*dtype));
        let dtype = dtype.and_then(|name| Element::named(&name));
        element = dtype.ok_or("a tensor of an unknown number format")?;
    }
    let (shape, strides) = sizes(pickle, shape)
        .zip(sizes(pickle, strides))
        .filter(|(shape, strides)| shape.len() == strides.len() && shape.len() <= MAX_RANK)
        .ok_or("a tensor without shape or strides")?;
    budget.deduct(&shape, element.dtype)?;
    let bytes = match element.dtype {
        Dtype::Integer | Dtype::Other => Vec::new(),
        _ => {
            let bytes = storages.get(storage.key).ok_or("a missing storage")?;
            let offset = pickle.size(offset).ok_or("a tensor without an offset")?;
            let first = offset.checked_add(storage.offset);
            first
                .and_then(|first| gathered(bytes, element.size, first, &shape, &strides))
                .ok_or("a tensor that is larger than its storage")?
        }
    };
    Ok(Some(Tensor::new(shape, element.dtype, bytes)?))
}

/// Returns the numbers of a tuple or a `torch.Size`.
fn sizes(pickle: &Pickle<'_>, id: Id) -> Option<Vec<usize>> {
    let id = match pickle.object(id) {
        Some(object) => *pickle.elements(object.args)?.first()?,
        None => id,
    };
    let sizes = pickle.elements(id)?.iter();
    sizes.map(|size| pickle.size(*size)).collect()
}

/// Returns the elements of a tensor in row-major order; `None` if they exceed the storage.
fn gathered(
    storage: &[u8],
    size: usize,
    first: usize,
    shape: &[usize],
    strides: &[usize],
) -> Option<Vec<u8>> {
    let count: usize = shape.iter().try_fold(1, |a: usize, b| a.checked_mul(*b))?;
    if count == 0 {
        return Some(Vec::new());
    }
    let mut last = first;
    for (length, stride) in shape.iter().zip(strides) {
        last = last.checked_add((length - 1).checked_mul(*stride)?)?;
    }
    let end = last.checked_add(1)?.checked_mul(size)?;
    if end > storage.len() {
        return None;
    }
    if is_row_major(shape, strides) {
        return Some(storage[first * size..end].to_vec());
    }
    let mut bytes = Vec::with_capacity(count * size);
    for number in 0..count {
        let mut rest = number;
        let mut at = first;
        for (length, stride) in shape.iter().zip(strides).rev() {
            at += rest % length * stride;
            rest /= length;
        }
        bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
    }
    Some(bytes)
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(length, stride)| {
        let is_expected = *length == 1 || *stride == expected;
        expected *= length;
        is_expected
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes 0, 1, 2, ... as elements of one byte.
    fn elements(first: usize, shape: &[usize], strides: &[usize]) -> Option<Vec<u8>> {
        let storage: Vec<u8> = (0..12).collect();
        gathered(&storage, 1, first, shape, strides)
    }

    #[test]
    fn strides_and_offsets_select_elements() {
        assert_eq!(elements(2, &[2, 2], &[2, 1]), Some(vec![2, 3, 4, 5]));
        assert_eq!(elements(0, &[2, 3], &[1, 2]), Some(vec![0, 2, 4, 1, 3, 5]));
        assert_eq!(elements(1, &[2, 2], &[4, 0]), Some(vec![1, 1, 5, 5]));
        assert_eq!(elements(11, &[], &[]), Some(vec![11]));
        assert_eq!(elements(50, &[0, 3], &[3, 1]), Some(vec![]));
        assert_eq!(elements(4, &[3, 3], &[3, 1]), None);
        assert_eq!(elements(0, &[usize::MAX, 2], &[2, 1]), None);
        assert_eq!(elements(0, &[2], &[usize::MAX]), None);
        assert_eq!(elements(usize::MAX, &[1], &[1]), None);
        assert_eq!(gathered(&[1, 2, 3, 4], 2, 1, &[1], &[1]), Some(vec![3, 4]));
    }

    #[test]
    fn number_formats_have_two_names() {
        let float = Element {
            dtype: Dtype::F32,
            size: 4,
        };
        for name in [
            "torch.FloatStorage",
            "torch.float32",
            "torch.cuda.FloatStorage",
        ] {
            assert_eq!(Element::named(name), Some(float));
        }
        assert_eq!(Element::named("torch.BoolStorage").unwrap().size, 1);
        assert_eq!(Element::named("torch.Device"), None);
    }
}
