//! Files of weights: what they are by their content, and the tensors in them.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::Path;

use data::digest::sha256_hex;
use zip::ZipArchive;

use crate::layout::Layout;
use crate::tensor::Tensors;
use crate::{burnpack, keras, pytorch, safetensors};

/// Larger files hold no network that there can be here; they are not read.
pub const MAX_BYTES: u64 = 2 << 30;

/// How a file of PyTorch begins whose pickles are text.
const OLD_PICKLE: &[u8] = b"L119547037146038801333356L\n";

/// The weights of a file.
#[derive(Debug)]
pub struct Weights {
    /// What the file is.
    pub format: Format,
    /// In which order their dimensions are.
    pub layout: Layout,
    /// As the file names them.
    pub tensors: Tensors,
    /// Checksum of the file.
    pub sha256: String,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What `torch.save` writes.
    PyTorch,
    /// Of Hugging Face.
    Safetensors,
    /// `.weights.h5` or `.h5`, in HDF5.
    KerasWeights,
    /// `.keras`, an archive with such a file in it.
    KerasArchive,
    /// Burn's own.
    Burnpack,
}

/// Why a file cannot be read, as whoever reads its format says it.
pub type Unreadable = Box<dyn Error + Send + Sync>;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What the operating system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A folder, a device, a pipe.
    #[error("not a file")]
    NoFile,
    /// Beyond what is read.
    #[error("{0} bytes, more than the {MAX_BYTES} that are read")]
    TooLarge(u64),
    /// No format that is known.
    #[error(
        "not a file of weights: known are PyTorch (.pt, .pth), safetensors, Keras (.weights.h5, .keras, \
         .h5) and burnpack (.bpk); ONNX is only written"
    )]
    Unknown,
    /// Another format than the name says.
    #[error("by its content {found}, not {named} as its name says; rename it to .{extension}")]
    Misnamed {
        /// What it is.
        found: &'static str,
        /// What it is called.
        named: &'static str,
        /// How it should end.
        extension: &'static str,
    },
    /// Damaged, or something else than weights: the name of the format, and the reason.
    #[error("cannot be read as {0}: {1}")]
    Unreadable(&'static str, Unreadable),
    /// More than weights: what it would call.
    #[error(
        "refused, and nothing of it was run: it asks for {0}, which weights do not need; save them \
         alone, with torch.save(model.state_dict(), ...)"
    )]
    Calls(String),
}

/// Reads the weights of a file.
///
/// # Errors
/// When it cannot be read, is too large, damaged, or no file of weights, or not what its name says.
pub fn read(path: &Path) -> Result<Weights, ReadError> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        // A device or a pipe may have no end.
        return Err(ReadError::NoFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(ReadError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let named = Format::of_name(path);
    let format = Format::of_content(&bytes, named).ok_or(ReadError::Unknown)?;
    if let Some(named) = named.filter(|named| *named != format) {
        return Err(ReadError::Misnamed {
            found: format.name(),
            named: named.name(),
            extension: format.extension(),
        });
    }
    let sha256 = sha256_hex([&bytes]);
    let unreadable = |reason| ReadError::Unreadable(format.name(), reason);
    if format == Format::PyTorch {
        let harmful = pytorch::harmful(&bytes).map_err(unreadable)?;
        if !harmful.is_empty() {
            return Err(ReadError::Calls(Vec::from_iter(harmful).join(", ")));
        }
    }
    let (layout, tensors) = match format {
        Format::PyTorch => pytorch::read(path, bytes.len()).map(|found| (Layout::PyTorch, found)),
        Format::Safetensors => safetensors::read(&bytes),
        Format::KerasWeights => keras::read(bytes).map(|found| (Layout::Keras, found)),
        Format::KerasArchive => keras::read_archive(&bytes).map(|found| (Layout::Keras, found)),
        Format::Burnpack => burnpack::read(bytes).map(|found| (Layout::Burn, found)),
    }
    .map_err(unreadable)?;
    Ok(Weights {
        format,
        layout,
        tensors,
        sha256,
    })
}

impl Format {
    /// What a file is, which may be called something else.
    fn of_content(bytes: &[u8], named: Option<Self>) -> Option<Self> {
        if bytes.starts_with(b"PK") {
            let archive = ZipArchive::new(Cursor::new(bytes));
            let is_pytorch = archive.as_ref().is_ok_and(pytorch::is_archive);
            let is_keras = archive.map(|archive| archive.index_for_name(keras::ENTRY).is_some());
            match (is_keras, named) {
                // The list of an archive is at its end. Who reads it will say that it is cut off.
                (Err(_), Some(Self::KerasArchive)) | (Ok(true), _) => Some(Self::KerasArchive),
                (Err(_), _) => Some(Self::PyTorch),
                (Ok(false), _) => is_pytorch.then_some(Self::PyTorch),
            }
        } else if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
            Some(Self::KerasWeights)
        } else if bytes.starts_with(&burn_pack::MAGIC_NUMBER.to_le_bytes()) {
            Some(Self::Burnpack)
        } else if bytes.get(8) == Some(&b'{') {
            // After the length of a header in JSON.
            Some(Self::Safetensors)
        } else if matches!(bytes.first(), Some(0x80 | b'(' | b'c')) || bytes.starts_with(OLD_PICKLE)
        {
            Some(Self::PyTorch)
        } else {
            None
        }
    }

    fn of_name(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()? {
            "pt" | "pth" => Self::PyTorch,
            "safetensors" => Self::Safetensors,
            "h5" | "hdf5" => Self::KerasWeights,
            "keras" => Self::KerasArchive,
            burn_pack::EXTENSION => Self::Burnpack,
            _ => return None,
        })
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PyTorch => "PyTorch",
            Self::Safetensors => "safetensors",
            Self::KerasWeights => "Keras weights (HDF5)",
            Self::KerasArchive => "a Keras archive",
            Self::Burnpack => "burnpack",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::PyTorch => "pt",
            Self::Safetensors => "safetensors",
            Self::KerasWeights => "weights.h5",
            Self::KerasArchive => "keras",
            Self::Burnpack => burn_pack::EXTENSION,
        }
    }
}
