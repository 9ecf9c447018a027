//! Weights as safetensors, named and laid out as in a PyTorch `state_dict`: `conv1.weight`
//! `[out, in, ky, kx]`, `conv1.bias`, ..., `fc1.weight` `[out, in]`, `fc1.bias`, ...; and as Burn has
//! them: `blocks.0.conv.weight`, ..., `hidden.0.weight` `[in, out]`, ..., `output.weight`.

use burn::store::{
    BurnToPyTorchAdapter, BurnpackStore, FloatCastAdapter, KeyRemapper, ModuleAdapter,
    ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore,
};
use burn::tensor::DType;

use crate::conv_net::ConvNet;

/// Weights that cannot be written, or do not fit a network.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WeightsError(String);

/// How many bits a weight has in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32, as it is computed with.
    Single,
    /// 16.
    Half,
}

impl ConvNet {
    /// The weights as a safetensors file.
    ///
    /// # Errors
    /// When a weight cannot be read back from its device.
    pub fn to_safetensors(&self, storage: Storage) -> Result<Vec<u8>, WeightsError> {
        let mut store = store(None)
            .remap(self.names(|burn, pytorch| (anchored(burn), pytorch.to_string()))?)
            .with_to_adapter(BurnToPyTorchAdapter.chain(storage.adapter()));
        self.save_into(&mut store).map_err(error)?;
        store.get_bytes().map_err(error)
    }

    /// The weights as a safetensors file with Burn's names and layout.
    ///
    /// # Errors
    /// When a weight cannot be read back from its device.
    pub fn to_burn_safetensors(&self, storage: Storage) -> Result<Vec<u8>, WeightsError> {
        let mut store = SafetensorsStore::from_bytes(None)
            .clear_metadata()
            .metadata("producer", "burn")
            .with_to_adapter(storage.adapter());
        self.save_into(&mut store).map_err(error)?;
        store.get_bytes().map_err(error)
    }

    /// The weights as a burnpack file. No two are alike: Burn gives each parameter a random number.
    ///
    /// # Errors
    /// When a weight cannot be read back from its device.
    pub fn to_burnpack(&self, storage: Storage) -> Result<Vec<u8>, WeightsError> {
        let mut store = BurnpackStore::from_bytes(None).with_to_adapter(storage.adapter());
        self.save_into(&mut store).map_err(error)?;
        Ok(store.get_bytes().map_err(error)?.to_vec())
    }

    /// This network with the weights of a safetensors file.
    ///
    /// # Errors
    /// When `bytes` are no such file, or miss a weight or hold one of another shape.
    pub fn with_safetensors(mut self, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let mut store = store(Some(bytes))
            .remap(self.names(|burn, pytorch| (anchored(pytorch), burn.to_string()))?)
            .with_from_adapter(PyTorchToBurnAdapter);
        self.load_from(&mut store).map_err(error)?;
        Ok(self)
    }

    /// Burn's path of each layer paired with PyTorch's name by `pair`.
    fn names(
        &self,
        pair: impl Fn(&str, &str) -> (String, String),
    ) -> Result<KeyRemapper, WeightsError> {
        let blocks = (0..self.blocks.len())
            .map(|i| (format!("blocks.{i}.conv."), format!("conv{}.", i + 1)));
        let last = self.hidden.len();
        let hidden = (0..last).map(|i| (format!("hidden.{i}."), format!("fc{}.", i + 1)));
        let output = ("output.".into(), format!("fc{}.", last + 1));
        let patterns = blocks
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

/// `bytes` to read from, or an empty store to write to.
fn store(bytes: Option<Vec<u8>>) -> SafetensorsStore {
    SafetensorsStore::from_bytes(bytes)
        // Dropout's switch is no weight.
        .with_regex(r"\.(weight|bias)$")
        // One entry, so that equal weights make equal files; readers look for this one.
        .clear_metadata()
        .metadata("format", "pt")
}

fn anchored(prefix: &str) -> String {
    format!("^{}", prefix.replace('.', r"\."))
}

fn error(error: impl std::fmt::Display) -> WeightsError {
    WeightsError(error.to_string())
}
