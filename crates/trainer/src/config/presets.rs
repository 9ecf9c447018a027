//! The presets embedded in the binary.

use anyhow::{Result, bail};
use toml::{Table, Value};

use crate::config::run_config::merge;
use crate::config::suggest::did_you_mean;

macro_rules! presets {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../presets/", $name, ".toml")))),*]
    };
}

/// Name and TOML text of each preset: the settings that differ from the defaults.
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
    "best",
    "vgg",
    "resnet9",
    "cifar-sprint",
    "cifar",
    "pictures"
];

/// The preset of a run that does not name one.
pub(crate) const DEFAULT: &str = "convnet";

/// Returns the names of all presets.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// Returns the settings of a preset that differ from the defaults. As a configuration file, a preset may name another
/// one, which it lies over, as `preset`.
///
/// # Errors
/// Returns an error if there is no preset of this name.
pub(crate) fn table(name: &str) -> Result<Table> {
    let Some((_, text)) = PRESETS.iter().find(|(preset, _)| *preset == name) else {
        let known: Vec<&str> = names().collect();
        bail!(
            "unknown preset {name}{}; expected one of {}",
            did_you_mean(name, names()),
            known.join(", ")
        );
    };
    let mut preset: Table = text.parse()?;
    let Some(Value::String(base)) = preset.remove("preset") else {
        return Ok(preset);
    };
    let mut settings = table(&base)?;
    merge(&mut settings, preset);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_lies_over_the_one_that_it_names() {
        let mut cifar = table("cifar").unwrap();
        merge(
            &mut cifar,
            "about = \"over 88% on CIFAR-10 in the least time\"\ntraining.epochs = 6"
                .parse()
                .unwrap(),
        );
        assert_eq!(table("cifar-sprint").unwrap(), cifar);
    }
}
