//! Reader of PyTorch's files: zip archives, or, before PyTorch 1.6, consecutive pickles.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use pytorch_reader::{DType, FileFormat, PytorchReader};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::error::FormatError;
use crate::limits::MemoryBudget;
use crate::pickle::{self, scan};
use crate::tensor::{Dtype, Tensor, Tensors};

/// Suffix of the archive entry that holds the pickle.
const PICKLE_SUFFIX: &str = "data.pkl";
/// Number of pickles at the start of a legacy file: magic number, protocol version, system information, the
/// saved object, storage keys.
const LEGACY_PICKLES: usize = 5;

/// Functions and classes that a `state_dict`, or a checkpoint with NumPy scalars and settings, may name.
const ALLOWED_GLOBALS: [&str; 35] = [
    "__builtin__.dict",
    "__builtin__.frozenset",
    "__builtin__.list",
    "__builtin__.set",
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.dict",
    "builtins.frozenset",
    "builtins.list",
    "builtins.set",
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch.bfloat16",
    "torch.bool",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.int16",
    "torch.int32",
    "torch.int64",
    "torch.int8",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "torch.uint8",
];

/// Returns whether a zip archive was written by PyTorch.
pub(crate) fn is_archive<R: Read + Seek>(archive: &ZipArchive<R>) -> bool {
    let is_entry =
        |name: Result<Cow<'_, str>, ZipError>| name.is_ok_and(|name| name.ends_with(PICKLE_SUFFIX));
    archive.file_names().any(is_entry)
}

/// Returns the functions and classes named in a file's pickles that weights do not need.
///
/// # Errors
/// Returns an error if the file is damaged or a pickle exceeds the limits.
pub(crate) fn disallowed_globals(bytes: &[u8]) -> Result<BTreeSet<String>, FormatError> {
    if !bytes.starts_with(b"PK") {
        return disallowed_in_legacy(bytes);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let mut disallowed = BTreeSet::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        // A small compressed entry may unpack to more than the memory.
        if entry.compression() != CompressionMethod::Stored {
            return Err(
                "compressed, like TorchScript archives; those of torch.save are not".into(),
            );
        }
        if entry.name()?.ends_with(PICKLE_SUFFIX) {
            let mut pickle = Vec::new();
            entry
                .take(pickle::MAX_BYTES as u64 + 1)
                .read_to_end(&mut pickle)?;
            disallowed.extend(scan(&pickle, is_allowed)?.globals);
        }
    }
    Ok(disallowed)
}

fn disallowed_in_legacy(bytes: &[u8]) -> Result<BTreeSet<String>, FormatError> {
    let mut disallowed = BTreeSet::new();
    let mut rest = bytes;
    for number in 0..LEGACY_PICKLES {
        match scan(rest, is_allowed) {
            Ok(scan) => {
                disallowed.extend(scan.globals);
                rest = &rest[scan.length..];
            }
            // A file with a single pickle is not from torch.save, but the pickle may be malicious.
            Err(_) if number == 1 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(disallowed)
}

fn is_allowed(name: &str) -> bool {
    let torch_name = name
        .strip_prefix("torch.storage.")
        .or_else(|| name.strip_prefix("torch."));
    // FloatStorage, UntypedStorage, ...
    let is_storage = torch_name
        .and_then(|name| name.strip_suffix("Storage"))
        .is_some_and(|kind| kind.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    is_storage || ALLOWED_GLOBALS.contains(&name)
}

/// Reads the tensors of the file `path` with `length` bytes.
///
/// # Errors
/// Returns an error if the file is damaged.
pub(crate) fn read(path: &Path, length: usize) -> Result<Tensors, FormatError> {
    let reader = PytorchReader::new(path)?;
    if !matches!(
        reader.metadata().format_type,
        FileFormat::Zip | FileFormat::Legacy
    ) {
        return Err("a pickle without tensors".into());
    }
    let mut budget = MemoryBudget::for_file(length);
    let mut tensors = Tensors::new();
    for (name, tensor) in reader.into_tensors() {
        let dtype = match tensor.dtype() {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            _ => Dtype::Integer,
        };
        let shape = tensor.shape().to_vec();
        budget.deduct(&shape, dtype)?;
        let bytes = match dtype {
            Dtype::Integer => Vec::new(),
            _ => tensor.read()?,
        };
        tensors.insert(name, Tensor::new(shape, dtype, bytes)?);
    }
    Ok(tensors)
}
