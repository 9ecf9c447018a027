//! The configurations that ship with the binary.

use anyhow::{Result, bail};
use toml::Table;

use crate::config::suggest::did_you_mean;

macro_rules! presets {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../presets/", $name, ".toml")))),*]
    };
}

/// Name and text of each preset: what differs from the defaults.
const PRESETS: &[(&str, &str)] = presets![
    "convnet",
    "dropout",
    "dropout-meanstd",
    "half-norm",
    "single-pool",
    "tiny",
    "three-block",
    "kernel5",
    "dense",
    "sprint",
    "best"
];

/// Every setting; presets are laid over it.
const DEFAULTS: &str = include_str!("../../presets/defaults.toml");

/// The preset of a run that names none.
pub(crate) const DEFAULT: &str = "convnet";

/// Every setting and its default.
///
/// # Errors
/// Never for an undamaged binary.
pub(crate) fn defaults() -> Result<Table> {
    Ok(DEFAULTS.parse()?)
}

/// Names of all presets.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// What the preset sets.
///
/// # Errors
/// When there is no preset of that name.
pub(crate) fn table(name: &str) -> Result<Table> {
    let Some((_, text)) = PRESETS.iter().find(|(preset, _)| *preset == name) else {
        let known: Vec<&str> = names().collect();
        bail!(
            "unknown preset {name}{}; there are {}",
            did_you_mean(name, names()),
            known.join(", ")
        );
    };
    Ok(text.parse()?)
}
