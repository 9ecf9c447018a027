//! What `torch.save` writes: an archive, or, before PyTorch 1.6, pickles one after the other.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use pytorch_reader::{DType, FileFormat, PytorchReader};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::file::Unreadable;
use crate::pickle::{self, scan};
use crate::tensor::{Budget, Dtype, Tensor, Tensors};

/// How the name of the archive's entry ends that says what is in it.
const ENTRY: &str = "data.pkl";
/// Pickles before the storages of a file from before PyTorch 1.6: a magic number, a version, the
/// machine, the object, the names of the storages.
const LEGACY_PICKLES: usize = 5;

/// What is named by a `state_dict`, or by a checkpoint with one, with numbers of NumPy and settings.
const HARMLESS: [&str; 35] = [
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

/// Whether an archive is one of PyTorch's.
pub(crate) fn is_archive<R: Read + Seek>(archive: &ZipArchive<R>) -> bool {
    let is_entry =
        |name: Result<Cow<'_, str>, ZipError>| name.is_ok_and(|name| name.ends_with(ENTRY));
    archive.file_names().any(is_entry)
}

/// What a file names that weights do not need: it may do anything once it is called.
///
/// # Errors
/// When the file is damaged, or its pickles are larger than those of weights ever are.
pub(crate) fn harmful(bytes: &[u8]) -> Result<BTreeSet<String>, Unreadable> {
    if !bytes.starts_with(b"PK") {
        return harmful_in_pickles(bytes);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let mut harmful = BTreeSet::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        // A small one may unpack to more than there is memory.
        if entry.compression() != CompressionMethod::Stored {
            return Err("compressed, as TorchScript is and torch.save never does".into());
        }
        if entry.name()?.ends_with(ENTRY) {
            let mut pickle = Vec::new();
            entry
                .take(pickle::MAX_BYTES as u64 + 1)
                .read_to_end(&mut pickle)?;
            harmful.extend(scan(&pickle, is_harmless)?.globals);
        }
    }
    Ok(harmful)
}

fn harmful_in_pickles(bytes: &[u8]) -> Result<BTreeSet<String>, Unreadable> {
    let mut harmful = BTreeSet::new();
    let mut rest = bytes;
    for number in 0..LEGACY_PICKLES {
        match scan(rest, is_harmless) {
            Ok(found) => {
                harmful.extend(found.globals);
                rest = &rest[found.length..];
            }
            // A single pickle is none of torch.save, but may be a trap.
            Err(_) if number == 1 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(harmful)
}

fn is_harmless(name: &str) -> bool {
    let of_torch = name
        .strip_prefix("torch.storage.")
        .or_else(|| name.strip_prefix("torch."));
    // FloatStorage, UntypedStorage, ...
    let is_storage = of_torch
        .and_then(|name| name.strip_suffix("Storage"))
        .is_some_and(|kind| kind.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    is_storage || HARMLESS.contains(&name)
}

/// The tensors of the file `path`, of so many bytes.
///
/// # Errors
/// When it is damaged.
pub(crate) fn read(path: &Path, length: usize) -> Result<Tensors, Unreadable> {
    let reader = PytorchReader::new(path)?;
    if !matches!(
        reader.metadata().format_type,
        FileFormat::Zip | FileFormat::Legacy
    ) {
        return Err("a pickle without tensors".into());
    }
    let mut budget = Budget::of_file(length);
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
        budget.spend(&shape, dtype)?;
        let bytes = match dtype {
            Dtype::Integer => Vec::new(),
            _ => tensor.read()?,
        };
        tensors.insert(name, Tensor::new(shape, dtype, bytes)?);
    }
    Ok(tensors)
}
