//! Writer of PyTorch's files: a `state_dict` as `torch.save` writes it.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::FormatError;
use crate::tensor::{Dtype, Tensor};

/// Alignment of the data in the file, so that it can be mapped into memory.
const ALIGNMENT: u16 = 64;
/// Folder of all entries.
const FOLDER: &str = "archive";

/// Returns a file for `torch.load`, with an ordered dictionary of these tensors.
///
/// # Errors
/// Returns an error if a tensor does not consist of floating-point numbers, or is too large.
pub fn to_pytorch(tensors: &[(&str, &Tensor)]) -> Result<Vec<u8>, FormatError> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut entry = |name: &str, content: &[u8]| -> Result<(), FormatError> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT);
        archive.start_file(format!("{FOLDER}/{name}"), options)?;
        Ok(archive.write_all(content)?)
    };
    entry("data.pkl", &pickle(tensors)?)?;
    entry("byteorder", b"little")?;
    for (key, (_, tensor)) in tensors.iter().enumerate() {
        entry(&format!("data/{key}"), &tensor.bytes)?;
    }
    entry("version", b"3\n")?;
    Ok(archive.finish()?.into_inner())
}

/// Returns the pickle, in protocol 2, of
/// `OrderedDict([(name, torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())), ...])`.
fn pickle(tensors: &[(&str, &Tensor)]) -> Result<Vec<u8>, FormatError> {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let class = match tensor.dtype {
            Dtype::F16 => "HalfStorage",
            Dtype::BF16 => "BFloat16Storage",
            Dtype::F32 => "FloatStorage",
            Dtype::F64 => "DoubleStorage",
            Dtype::Integer | Dtype::Other => {
                return Err(format!("{name}: {}", tensor.dtype).into());
            }
        };
        let mut strides = vec![1; tensor.shape.len()];
        let mut count: usize = 1;
        for (stride, length) in strides.iter_mut().zip(&tensor.shape).rev() {
            *stride = count;
            count = count.saturating_mul(*length);
        }
        text(&mut pickle, name)?;
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage")?;
        pickle.extend(format!("ctorch\n{class}\n").bytes());
        text(&mut pickle, &key.to_string())?;
        text(&mut pickle, "cpu")?;
        integer(&mut pickle, count)?;
        pickle.extend(b"tQK\0");
        for sizes in [&tensor.shape, &strides] {
            pickle.push(b'(');
            for size in sizes {
                integer(&mut pickle, *size)?;
            }
            pickle.push(b't');
        }
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    Ok(pickle)
}

fn text(pickle: &mut Vec<u8>, text: &str) -> Result<(), FormatError> {
    pickle.push(b'X');
    pickle.extend(u32::try_from(text.len())?.to_le_bytes());
    pickle.extend(text.bytes());
    Ok(())
}

fn integer(pickle: &mut Vec<u8>, number: usize) -> Result<(), FormatError> {
    pickle.push(b'J');
    pickle.extend(i32::try_from(number)?.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pytorch;

    #[test]
    fn files_can_be_read() {
        let single = Tensor::from_values(vec![2, 1], &[1.0, -2.0]);
        let half = Tensor::new(vec![3], Dtype::F16, vec![0, 60, 0, 64, 0, 66]).unwrap();
        let scalar = Tensor::from_values(vec![], &[4.0]);
        let tensors = [("fc.weight", &single), ("b", &half), ("a", &scalar)];
        let bytes = to_pytorch(&tensors).unwrap();
        let content = pytorch::read(&bytes).unwrap();
        assert_eq!(content.order, ["fc.weight", "b", "a"]);
        for (name, tensor) in tensors {
            assert_eq!(content.tensors[name], *tensor);
        }
        let start = bytes
            .windows(8)
            .position(|bytes| bytes == single.bytes.as_slice());
        assert_eq!(start.unwrap() % 64, 0);
        let integers = Tensor::new(vec![3], Dtype::Integer, vec![]).unwrap();
        let error = to_pytorch(&[("a", &integers)]).unwrap_err();
        assert_eq!(error.to_string(), "a: integers");
    }
}
