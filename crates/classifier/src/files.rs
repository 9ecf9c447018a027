//! The files of a trained network in a run folder.

/// Name of the configuration of the run, in TOML.
pub const CONFIG_FILE: &str = "config.toml";

/// Name of the weights, in safetensors with PyTorch's names and layout.
pub const WEIGHTS_FILE: &str = "model.safetensors";
