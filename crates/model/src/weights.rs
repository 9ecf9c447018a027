//! Weights as safetensors and burnpack files.
//!
//! Files in PyTorch's layout have the names and shapes of a `state_dict`: `conv1.weight` `[out, in, ky, kx]`,
//! `conv1.bias`, ..., `fc1.weight` `[out, in]`, `fc1.bias`, ..., and `shortcut1.weight` for the projection of the
//! first residual group. Files in Burn's layout have `blocks.0.conv.weight`, ..., `shortcuts.0.projection.conv.weight`,
//! ..., `hidden.0.weight` `[in, out]`, ..., `output.weight`.

use burn::store::{
    BurnToPyTorchAdapter, BurnpackStore, FloatCastAdapter, KeyRemapper, ModuleAdapter,
    ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore,
};
use burn::tensor::DType;

use crate::conv_net::ConvNet;

/// The reason why weights cannot be saved or loaded, as reported by Burn.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WeightsError(String);

/// Number format of the weights in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32 bits, as in memory.
    Single,
    /// 16 bits, IEEE 754 half precision.
    Half,
}

impl ConvNet {
    /// Returns the weights as a safetensors file in PyTorch's layout.
    ///
    /// # Errors
    /// Returns an error if a weight cannot be read from its device.
    pub fn to_safetensors(&self, storage: Storage) -> Result<Vec<u8>, WeightsError> {
        let mut store = store(None)
            .remap(self.name_remapper(|burn, pytorch| (anchored(burn), pytorch.to_string()))?)
            .with_to_adapter(BurnToPyTorchAdapter.chain(storage.adapter()));
        self.save_into(&mut store).map_err(error)?;
        store.get_bytes().map_err(error)
    }

    /// Returns the weights as a safetensors file in Burn's layout.
    ///
    /// # Errors
    /// Returns an error if a weight cannot be read from its device.
    pub fn to_burn_safetensors(&self, storage: Storage) -> Result<Vec<u8>, WeightsError> {
        let mut store = SafetensorsStore::from_bytes(None)
            .clear_metadata()
            .metadata("producer", "burn")
            .with_to_adapter(storage.adapter());
        self.save_into(&mut store).map_err(error)?;
        store.get_bytes().map_err(error)
    }

    /// Returns the weights as a burnpack file.
    ///
    /// Two files of the same weights differ, because Burn stores a random ID with each parameter.
    ///
    /// # Errors
    /// Returns an error if a weight cannot be read from its device.
    pub fn to_burnpack(&self, storage: Storage) -> Result<Vec<u8>, WeightsError> {
        let mut store = BurnpackStore::from_bytes(None).with_to_adapter(storage.adapter());
        self.save_into(&mut store).map_err(error)?;
        Ok(store.get_bytes().map_err(error)?.to_vec())
    }

    /// Replaces the weights by those of a safetensors file in PyTorch's layout.
    ///
    /// # Errors
    /// Returns an error if `bytes` is not a safetensors file, or if a weight is missing or has another shape.
    pub fn with_safetensors(mut self, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let mut store = store(Some(bytes))
            .remap(self.name_remapper(|burn, pytorch| (anchored(pytorch), burn.to_string()))?)
            // Files may hold 16 bits, which not all backends have.
            .with_from_adapter(PyTorchToBurnAdapter.chain(Storage::Single.adapter()));
        self.load_from(&mut store).map_err(error)?;
        Ok(self)
    }

    /// Returns a remapper with one pattern per layer; `pair` orders Burn's path prefix and PyTorch's name prefix.
    fn name_remapper(
        &self,
        pair: impl Fn(&str, &str) -> (String, String),
    ) -> Result<KeyRemapper, WeightsError> {
        let blocks = (0..self.blocks.len())
            .map(|i| (format!("blocks.{i}.conv."), format!("conv{}.", i + 1)));
        let shortcuts = (0..self.shortcuts.len()).map(|i| {
            (
                format!("shortcuts.{i}.projection.conv."),
                format!("shortcut{}.", i + 1),
            )
        });
        let last = self.hidden.len();
        let hidden = (0..last).map(|i| (format!("hidden.{i}."), format!("fc{}.", i + 1)));
        let output = ("output.".into(), format!("fc{}.", last + 1));
        let patterns = blocks
            .chain(shortcuts)
            .chain(hidden)
            .chain([output])
            .map(|(burn, pytorch)| pair(&burn, &pytorch));
        KeyRemapper::from_patterns(patterns.collect()).map_err(error)
    }
}

impl Storage {
    fn adapter(self) -> FloatCastAdapter {
        FloatCastAdapter::to(match self {
            Self::Single => DType::F32,
            Self::Half => DType::F16,
        })
    }
}

/// Opens `bytes` for reading, or an empty store for writing.
fn store(bytes: Option<Vec<u8>>) -> SafetensorsStore {
    SafetensorsStore::from_bytes(bytes)
        // Dropout has a saved state that is not a weight.
        .with_regex(r"\.(weight|bias)$")
        // A single entry makes the file deterministic; PyTorch's readers expect this one.
        .clear_metadata()
        .metadata("format", "pt")
}

/// Returns a regular expression for names that start with `prefix`.
fn anchored(prefix: &str) -> String {
    format!("^{}", prefix.replace('.', r"\."))
}

fn error(error: impl std::fmt::Display) -> WeightsError {
    WeightsError(error.to_string())
}
