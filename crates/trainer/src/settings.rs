//! Defaults, preset, file and flags on their way to a configuration.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use data::Splits;
use model::ConvNetConfig;
use toml::{Table, Value};

use crate::config::{Config, drop_facts, merge, read_table};
use crate::images::{self, Kept, absolute_source};
use crate::{keys, presets};

/// Settings; each layer overrules those before it.
#[derive(Debug)]
pub(crate) struct Settings(Table);

impl Settings {
    /// The defaults, then the named preset.
    ///
    /// # Errors
    /// When there is no such preset.
    pub(crate) fn preset(name: &str) -> Result<Self> {
        let mut settings = Self(presets::defaults()?);
        let mut table = presets::table(name)?;
        table.insert("preset".into(), name.into());
        settings.overlay(table)?;
        Ok(settings)
    }

    /// The file `path`, over the preset it names, or over `preset`, or over the default one.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, holds something else than settings, or names
    /// another preset than `preset`.
    pub(crate) fn file(path: &Path, preset: Option<&str>) -> Result<Self> {
        let place = || path.display().to_string();
        let table = read_table(path)?;
        let named = table.get("preset").and_then(Value::as_str);
        let mut settings = match (named, preset) {
            (Some(named), None) => Self::preset(named).with_context(place)?,
            (None, given) => Self::preset(given.unwrap_or(presets::DEFAULT))?,
            (Some(named), Some(given)) => {
                ensure!(
                    named == given,
                    "{} starts from preset {named}, not from {given}: leave one of them out",
                    path.display()
                );
                Self::preset(named).with_context(place)?
            }
        };
        settings.overlay(table).with_context(place)?;
        Ok(settings)
    }

    /// Lays `table` over what is there.
    ///
    /// # Errors
    /// When a key is unknown or its value not accepted.
    pub(crate) fn overlay(&mut self, mut table: Table) -> Result<()> {
        keys::check(&table)?;
        if table.contains_key("images") {
            // The configuration of a run: what its images told may not hold for these.
            drop_facts(&mut table);
        }
        merge(&mut self.0, table);
        Ok(())
    }

    /// The configuration, and the images it names.
    ///
    /// # Errors
    /// When the images cannot be read, or the settings do not fit them.
    pub(crate) fn resolve(mut self, kept: Kept<'_>) -> Result<(Config, Splits)> {
        if let Some(Value::Table(data)) = self.0.get_mut("data")
            && let Some(Value::String(source)) = data.get_mut("source")
        {
            *source = absolute_source(source)?;
        }
        let splits = images::load(&self.section("data")?, kept)?;
        let config = Config::settle(self.0, &splits.info)?;
        Ok((config, splits))
    }

    /// What it is for, in a line.
    pub(crate) fn about(&self) -> &str {
        self.0.get("about").and_then(Value::as_str).unwrap_or("")
    }

    /// The network, as it would be for MNIST.
    ///
    /// # Errors
    /// When the settings contradict each other.
    pub(crate) fn model(&self) -> Result<ConvNetConfig> {
        self.section("model")
    }

    /// A file for `--config`.
    ///
    /// # Errors
    /// Never for settings that were accepted.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(&self.0)?)
    }

    fn section<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let section = self.0.get(name).cloned();
        let section = section.with_context(|| format!("no table {name}"))?;
        section.try_into().with_context(|| name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Time, TrainingConfig};
    use crate::run_dir::RunDir;

    #[test]
    fn every_setting_has_its_key_and_every_key_its_setting() {
        let (mut config, _) = Settings::preset("convnet")
            .unwrap()
            .resolve(Kept::No)
            .unwrap();
        config.data.limit_train = Some(1);
        config.training = TrainingConfig {
            max_steps: Some(1),
            max_time: Some(Time(Duration::from_secs(600))),
            checkpoint_every: Some(1),
            weight_decay: Some(0.1),
            gradient_clip: Some(1.0),
            early_stopping: Some(1),
            ..config.training
        };
        let table = Table::try_from(&config).unwrap();
        keys::check(&table).unwrap();

        let mut paths = Vec::new();
        collect_paths("", &Value::Table(table), &mut paths);
        for (key, _) in keys::KEYS {
            assert!(paths.iter().any(|path| path == key), "{key}");
        }
    }

    fn collect_paths(path: &str, value: &Value, paths: &mut Vec<String>) {
        paths.push(path.into());
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let path = format!("{path}.{key}");
                    collect_paths(path.trim_start_matches('.'), value, paths);
                }
            }
            Value::Array(elements) => {
                for element in elements {
                    collect_paths(&format!("{path}[]"), element, paths);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_default_network_is_that_of_the_library() {
        let (config, _) = Settings::preset("convnet")
            .unwrap()
            .resolve(Kept::No)
            .unwrap();
        assert_eq!(config.model, ConvNetConfig::default());
    }

    #[test]
    fn later_layers_overrule_earlier_ones() {
        let mut settings = Settings::preset("dropout").unwrap();
        let table = "training.epochs = 2\nmodel.dense = [64, 32]";
        settings.overlay(table.parse().unwrap()).unwrap();
        let (config, _) = settings.resolve(Kept::No).unwrap();
        assert_eq!(config.training.epochs, 2);
        assert_eq!(config.training.batch_size, 512);
        assert_eq!(config.model.dense, [64, 32]);
        assert_eq!(config.data.normalization.to_string(), "unit");
    }

    #[test]
    fn a_configuration_survives_its_file() {
        for name in presets::names() {
            let (config, _) = Settings::preset(name).unwrap().resolve(Kept::No).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let text = config.to_toml().unwrap();
            let run = RunDir::create(folder.path(), name, None, &text, |_| Ok(())).unwrap();
            assert_eq!(Config::read(&run).unwrap(), config);
            let (again, _) = Settings::file(&run.config(), None)
                .unwrap()
                .resolve(Kept::No)
                .unwrap();
            assert_eq!(again, config);
        }
    }

    #[test]
    fn presets_have_the_published_sizes() {
        for (name, expected) in [
            ("convnet", 421_642),
            ("dropout", 421_642),
            ("dropout-meanstd", 421_642),
            ("half-norm", 421_642),
            ("single-pool", 1_625_866),
            ("tiny", 13_610),
            ("three-block", 241_546),
            ("kernel5", 454_922),
            ("dense", 101_770),
            ("sprint", 108_874),
            ("best", 575_434),
        ] {
            let (config, _) = Settings::preset(name).unwrap().resolve(Kept::No).unwrap();
            assert_eq!(config.model.parameters(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn a_stated_size_must_be_that_of_the_images() {
        let mut settings = Settings::preset("convnet").unwrap();
        settings
            .overlay("model.classes = 5".parse().unwrap())
            .unwrap();
        assert_eq!(
            settings.resolve(Kept::No).unwrap_err().to_string(),
            "model.classes = 5, but mnist has 10"
        );
    }
}
