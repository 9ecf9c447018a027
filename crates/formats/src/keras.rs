//! Reader of Keras's files: HDF5, alone or in a zip archive.
//!
//! Each layer is an HDF5 group. Keras 3 names it after the layer's class and number (`layers/conv2d_1/vars/0`)
//! or after the model's attribute (`conv1/vars/0`), older versions after the layer
//! (`model_weights/conv2d/conv2d/kernel`).

use std::collections::HashSet;
use std::io::{Cursor, Read};

use data::Scaling;
use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions};
use serde_json::Value;
use zip::ZipArchive;

use crate::architecture::{Architecture, translate};
use crate::chain::{ChainLayer, ChainOperation};
use crate::error::FormatError;
use crate::keras_model::{self, Storage};
use crate::limits::{MAX_BYTES, MemoryBudget};
use crate::preprocessing;
use crate::tensor::{Dtype, Tensor, Tensors};

/// Name of the archive entry that holds the weights.
pub(crate) const ENTRY: &str = "model.weights.h5";

/// Name of the archive entry that holds the architecture.
pub(crate) const CONFIG_ENTRY: &str = "config.json";
/// Name of the archive entry that describes the file.
pub(crate) const METADATA_ENTRY: &str = "metadata.json";
/// Name of the attribute with the architecture of a whole model.
const CONFIG_ATTRIBUTE: &str = "model_config";

/// The tensors of a file, and its architecture if it has one: an error if it is not supported.
pub(crate) type Model = (Tensors, Option<Result<Architecture, String>>);

/// Largest accepted compression ratio of an archive. Keras does not compress, and weights hardly shrink.
const MAX_RATIO: u64 = 8;
/// Longest accepted path of a group, in bytes.
const MAX_PATH: usize = 1000;
/// Deepest accepted nesting of groups.
const MAX_DEPTH: usize = 32;
/// Largest accepted number of groups and tensors; Keras has a few per layer.
const MAX_MEMBERS: usize = 10_000;
/// Largest accepted object header, in bytes.
const MAX_HEADER: usize = 1 << 20;

/// Reads the model of a `.keras` archive.
///
/// # Errors
/// Returns an error if the archive is damaged or unpacks to more than [`MAX_RATIO`] times its size.
pub(crate) fn read_archive(bytes: &[u8]) -> Result<Model, FormatError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let limit = MAX_BYTES.min(MAX_RATIO * bytes.len() as u64);
    let mut entry = |name| {
        let mut content = Vec::new();
        // The size stated by the entry may be wrong.
        let unpacked = archive
            .by_name(name)?
            .take(limit + 1)
            .read_to_end(&mut content)?;
        match unpacked as u64 > limit {
            true => Err(FormatError::from(format!(
                "unpacks to more than {limit} bytes"
            ))),
            false => Ok(content),
        }
    };
    let (tensors, _) = read(entry(ENTRY)?)?;
    let config = entry(CONFIG_ENTRY).and_then(|config| Ok(String::from_utf8(config)?));
    let metadata = entry(METADATA_ENTRY).ok();
    let metadata = metadata.and_then(|metadata| serde_json::from_slice::<Value>(&metadata).ok());
    let preprocessing = metadata
        .as_ref()
        .and_then(|metadata| metadata.get(preprocessing::KEY)?.as_str());
    let scaling = preprocessing.and_then(preprocessing::scaling);
    let architecture = architecture(config, &tensors, Storage::ByClass, scaling);
    Ok((tensors, Some(architecture)))
}

/// Reads the weights of an HDF5 file, and the architecture of a whole model.
///
/// # Errors
/// Returns an error if the file is damaged or exceeds a limit.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Model, FormatError> {
    // Keras does not compress, so no object is larger than the file.
    let length = bytes.len();
    let options = OpenOptions::default()
        .with_max_read_bytes(length)
        .with_max_chunk_bytes(length)
        .with_max_object_header_bytes(MAX_HEADER)
        .with_chunk_cache_bytes(0);
    let file = Hdf5File::from_vec_with_options(bytes, options)?;
    let mut traversal = Traversal {
        visited: HashSet::new(),
        members_left: MAX_MEMBERS,
        budget: MemoryBudget::for_file(length),
        tensors: Tensors::new(),
    };
    let root = file.root_group()?;
    traversal.visit(&root, "", 0)?;
    let tensors = traversal.tensors;
    let architecture = root.attribute(CONFIG_ATTRIBUTE).ok().map(|config| {
        let config = config.read_string().map_err(FormatError::from);
        architecture(config, &tensors, Storage::ByName, None)
    });
    Ok((tensors, architecture))
}

/// Translates a model configuration. If it is damaged, the weights can still be read. `scaling` is the normalization
/// of the images that the file states beside the model.
fn architecture(
    config: Result<String, FormatError>,
    tensors: &Tensors,
    storage: Storage,
    scaling: Option<Scaling>,
) -> Result<Architecture, String> {
    let config = config.map_err(|error| format!("model configuration: {error}"))?;
    let mut chain = keras_model::chain(&config, tensors, storage)?;
    let has_normalization = matches!(
        chain.layers.first().map(|layer| &layer.operation),
        Some(ChainOperation::Rescale { .. })
    );
    if let Some(scaling) = scaling.filter(|_| !has_normalization) {
        let layer = ChainLayer {
            name: "input".into(),
            operation: preprocessing::operation(scaling),
        };
        chain.layers.insert(0, layer);
    }
    translate(chain)
}

/// A traversal of all groups, with the limits that remain.
struct Traversal {
    /// Addresses of visited groups, since links can form cycles.
    visited: HashSet<u64>,
    members_left: usize,
    budget: MemoryBudget,
    tensors: Tensors,
}

impl Traversal {
    fn visit(&mut self, group: &Group, path: &str, depth: usize) -> Result<(), FormatError> {
        if depth > MAX_DEPTH || path.len() > MAX_PATH || !self.visited.insert(group.address()) {
            return Err("cyclic or too deeply nested groups".into());
        }
        let (groups, datasets) = group.members()?;
        let left = self.members_left.checked_sub(groups.len() + datasets.len());
        self.members_left = left.ok_or("too many groups and tensors")?;
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

    fn tensor(&mut self, dataset: &Dataset) -> Result<Tensor, FormatError> {
        let dtype = match dataset.dtype() {
            Datatype::FloatingPoint { size: 2, .. } => Dtype::F16,
            Datatype::FloatingPoint { size: 4, .. } => Dtype::F32,
            Datatype::FloatingPoint { size: 8, .. } => Dtype::F64,
            // HDF5 has no bfloat16; Keras stores it as opaque.
            Datatype::Opaque { size: 2, .. } => Dtype::BF16,
            Datatype::FixedPoint { .. } | Datatype::Enum { .. } => Dtype::Integer,
            _ => Dtype::Other,
        };
        let sizes = dataset.shape().iter().map(|&size| usize::try_from(size));
        let shape = sizes.collect::<Result<Vec<usize>, _>>()?;
        self.budget.deduct(&shape, dtype)?;
        let bytes = match dtype {
            Dtype::Integer | Dtype::Other => Vec::new(),
            _ => dataset.read_native_bytes()?,
        };
        Ok(Tensor::new(shape, dtype, bytes)?)
    }
}
