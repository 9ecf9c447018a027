//! The files of a trained network in a run folder.

/// Name of the configuration of the run, in TOML.
pub const CONFIG_FILE: &str = "config.toml";

/// Largest accepted configuration, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Name of the weights, in safetensors with PyTorch's names and layout.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Largest accepted file of weights, in bytes. The largest network has 1 GiB of weights.
pub const MAX_WEIGHTS_BYTES: u64 = 2 << 30;

/// Name of what verdicts on predictions need, in safetensors.
pub const CONFIDENCE_FILE: &str = "confidence.safetensors";

/// Largest accepted file of that name, in bytes.
pub const MAX_CONFIDENCE_BYTES: u64 = 64 << 20;
