//! Why a training stopped.

/// Why a training stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// All epochs are completed.
    Epochs,
    /// The last `early_stopping` epochs did not improve on validation.
    EarlyStopping,
    /// The user interrupted it. The last checkpoint holds its state.
    Interrupted,
    /// `max_steps` is reached.
    MaxSteps,
    /// `max_time` is reached.
    MaxTime,
}

impl StopReason {
    /// Whether it can end an epoch before its last batch without losing the epoch's results.
    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::MaxSteps | Self::MaxTime)
    }
}
