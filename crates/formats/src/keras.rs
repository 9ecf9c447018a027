//! What Keras writes: HDF5, by itself or within an archive.
//!
//! Layers are groups, called after their classes and numbered (`layers/conv2d_1/vars/0`) or by the
//! attributes of the model that hold them (`conv1/vars/0`); files from before Keras 3 have their names
//! (`model_weights/conv2d/conv2d/kernel`).

use std::collections::HashSet;
use std::io::{Cursor, Read};

use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions};
use zip::ZipArchive;

use crate::file::{MAX_BYTES, Unreadable};
use crate::tensor::{Budget, Dtype, Tensor, Tensors};

/// The archive's entry with the weights.
pub(crate) const ENTRY: &str = "model.weights.h5";

/// How much larger than the archive its weights may be. Keras does not compress, and weights are
/// hard to.
const MAX_RATIO: u64 = 8;
/// Bytes of a name, with those of the groups that it is in.
const MAX_PATH: usize = 1000;
/// Groups within groups, and groups and tensors: Keras has a few for each layer.
const MAX_DEPTH: usize = 32;
const MAX_MEMBERS: usize = 10_000;
/// Bytes that describe a group or tensor.
const MAX_HEADER: usize = 1 << 20;

/// The weights of an archive.
///
/// # Errors
/// When it is damaged.
pub(crate) fn read_archive(bytes: &[u8]) -> Result<Tensors, Unreadable> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let limit = MAX_BYTES.min(MAX_RATIO * bytes.len() as u64);
    let mut weights = Vec::new();
    // What the entry announces may be wrong.
    let unpacked = archive
        .by_name(ENTRY)?
        .take(limit + 1)
        .read_to_end(&mut weights)?;
    match unpacked as u64 > limit {
        true => Err("unpacks to far more".into()),
        false => read(weights),
    }
}

/// The weights of an HDF5 file.
///
/// # Errors
/// When it is damaged.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Tensors, Unreadable> {
    // Keras does not compress: everything fits into what the file takes.
    let length = bytes.len();
    let options = OpenOptions::default()
        .with_max_read_bytes(length)
        .with_max_chunk_bytes(length)
        .with_max_object_header_bytes(MAX_HEADER)
        .with_chunk_cache_bytes(0);
    let file = Hdf5File::from_vec_with_options(bytes, options)?;
    let mut walk = Walk {
        seen: HashSet::new(),
        members: MAX_MEMBERS,
        budget: Budget::of_file(length),
        tensors: Tensors::new(),
    };
    walk.visit(&file.root_group()?, "", 0)?;
    Ok(walk.tensors)
}

/// A way through all groups, with what may still be met.
struct Walk {
    /// Where the groups are that were visited: a file may link them in circles.
    seen: HashSet<u64>,
    members: usize,
    budget: Budget,
    tensors: Tensors,
}

impl Walk {
    fn visit(&mut self, group: &Group, path: &str, depth: usize) -> Result<(), Unreadable> {
        if depth > MAX_DEPTH || path.len() > MAX_PATH || !self.seen.insert(group.address()) {
            return Err("groups within groups without end".into());
        }
        let (groups, datasets) = group.members()?;
        let left = self.members.checked_sub(groups.len() + datasets.len());
        self.members = left.ok_or("too many groups")?;
        for dataset in datasets {
            let name = format!("{path}{}", dataset.name());
            let tensor = self.tensor(&dataset)?;
            self.tensors.insert(name, tensor);
        }
        for group in groups {
            self.visit(&group, &format!("{path}{}/", group.name()), depth + 1)?;
        }
        Ok(())
    }

    fn tensor(&mut self, dataset: &Dataset) -> Result<Tensor, Unreadable> {
        let dtype = match dataset.dtype() {
            Datatype::FloatingPoint { size: 2, .. } => Dtype::F16,
            Datatype::FloatingPoint { size: 4, .. } => Dtype::F32,
            Datatype::FloatingPoint { size: 8, .. } => Dtype::F64,
            // Keras keeps bfloat16 so, for want of a type in HDF5.
            Datatype::Opaque { size: 2, .. } => Dtype::BF16,
            Datatype::FixedPoint { .. } | Datatype::Enum { .. } => Dtype::Integer,
            _ => Dtype::Other,
        };
        let sizes = dataset.shape().iter().map(|&size| usize::try_from(size));
        let shape = sizes.collect::<Result<Vec<usize>, _>>()?;
        self.budget.spend(&shape, dtype)?;
        let bytes = match dtype {
            Dtype::Integer | Dtype::Other => Vec::new(),
            _ => dataset.read_native_bytes()?,
        };
        Ok(Tensor::new(shape, dtype, bytes)?)
    }
}
