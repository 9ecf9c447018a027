//! Defaults, preset, file and flags on their way to a configuration.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use data::DatasetInfo;
use model::ConvNetConfig;
use toml::{Table, Value};

use crate::config::run_config::{Config, DataConfig, drop_facts, merge, read_table};
use crate::config::{presets, schema};

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
        schema::check(&table)?;
        if table.contains_key("images") {
            // The configuration of a run: what its images told may not hold for these.
            drop_facts(&mut table);
        }
        merge(&mut self.0, table);
        Ok(())
    }

    /// Where the images come from: `mnist` or a folder.
    pub(crate) fn source(&self) -> Option<&str> {
        self.0.get("data")?.get("source")?.as_str()
    }

    /// Replaces where the images come from.
    pub(crate) fn set_source(&mut self, source: String) {
        if let Some(Value::Table(data)) = self.0.get_mut("data") {
            data.insert("source".into(), Value::String(source));
        }
    }

    /// The settings of the images.
    ///
    /// # Errors
    /// Returns an error if the settings contradict each other.
    pub(crate) fn data(&self) -> Result<DataConfig> {
        self.section("data")
    }

    /// The configuration of a run on the images that `images` describes.
    ///
    /// # Errors
    /// Returns an error if the settings do not fit the images, or no such network exists.
    pub(crate) fn configure(self, images: &DatasetInfo) -> Result<Config> {
        Config::settle(self.0, images)
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
