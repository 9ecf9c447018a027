//! The progress of a training.

use serde::{Deserialize, Serialize};

use crate::run::epoch::Epoch;
use crate::run::metrics::EpochSums;

/// The progress of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Completed optimizer steps.
    pub(crate) steps: u64,
    /// Completed epochs.
    pub(crate) epochs: Vec<Epoch>,
    /// Batches of the current epoch trained on so far.
    pub(crate) batches: usize,
    /// Sums over these batches.
    #[serde(rename = "counted")]
    pub(crate) sums: EpochSums,
    /// Mean loss of the first batch; `None` before it, and in checkpoints of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initial_loss: Option<f32>,
    /// Seconds of training so far.
    pub(crate) seconds: f64,
}
