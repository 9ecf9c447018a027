//! The results of an epoch.

use crate::run::metrics::Metrics;
use crate::training::stop_reason::StopReason;

/// The training batches of one epoch, or of a part of it.
pub(crate) struct TrainedEpoch {
    /// Metrics of the batches as they were trained on, with dropout and label smoothing.
    pub(crate) metrics: Metrics,
    /// Speed since this process began the epoch.
    pub(crate) images_per_second: f64,
    /// Fraction of the time spent on preparing batches.
    pub(crate) loading: f64,
    /// Why the epoch ended before its last batch, if it did.
    pub(crate) stopped_by: Option<StopReason>,
}

/// Metrics of the network at the end of an epoch.
pub(crate) struct EvaluatedEpoch {
    pub(crate) validation: Option<Metrics>,
    /// The metric that the best epoch is chosen by, the higher the better; `None` for the accuracy.
    pub(crate) score: Option<f64>,
    pub(crate) test: Option<Metrics>,
}
