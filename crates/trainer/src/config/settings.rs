//! Settings in layers: defaults, then preset, then file, then flags.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use data::DatasetInfo;
use model::ConvNetConfig;
use toml::{Table, Value};

use crate::config::given::{Given, Origin};
use crate::config::run_config::{Config, DataConfig, TrainingConfig, merge, read_table};
use crate::config::{commented, presets, schema};

/// Settings without the properties of a data set; each layer overrides the layers before it.
#[derive(Debug)]
pub(crate) struct Settings {
    table: Table,
    given: Given,
    /// Whether a layer is the configuration of a run, whose settings hold even where they are the defaults.
    repeats_run: bool,
    /// Whether images in files of many are scaled too; `None` if it depends on whether the user gave their size.
    resizes_images: Option<bool>,
}

impl Settings {
    /// Returns the defaults with the named preset over them.
    ///
    /// # Errors
    /// Returns an error if there is no such preset.
    pub(crate) fn preset(name: &str) -> Result<Self> {
        let mut settings = Self {
            table: schema::defaults(),
            given: Given::default(),
            repeats_run: false,
            resizes_images: None,
        };
        let mut table = presets::table(name)?;
        table.insert("preset".into(), name.into());
        settings.overlay(table)?;
        Ok(settings)
    }

    /// Reads the file at `path` and lays it over the preset that it names, or over `preset`, or over the
    /// default preset.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not TOML, contains a key or value that is not
    /// accepted, or names a preset other than `preset`.
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
                    "{} has preset = \"{named}\", but --preset is {given}: remove one of them",
                    path.display()
                );
                Self::preset(named).with_context(place)?
            }
        };
        settings.give(table, Origin::File).with_context(place)?;
        Ok(settings)
    }

    /// Lays `table` over the settings.
    ///
    /// # Errors
    /// Returns an error if a key is unknown or its value is not accepted.
    pub(crate) fn overlay(&mut self, mut table: Table) -> Result<()> {
        schema::check(&table)?;
        if let Some(images) = table.get("images") {
            self.repeats_run = true;
            let size = table.get("data").and_then(|data| data.get("image_size"));
            let is_resized = |side| size.is_some() && images.get(side) == size;
            self.resizes_images = Some(is_resized("height") && is_resized("width"));
            // The configuration of a run, whose measured properties may not hold for this data set.
            schema::remove_measured(&mut table);
        }
        merge(&mut self.table, table);
        Ok(())
    }

    /// Lays `table`, which the user gave, over the settings.
    ///
    /// # Errors
    /// Returns an error if a key is unknown or its value is not accepted.
    pub(crate) fn give(&mut self, table: Table, origin: Origin) -> Result<()> {
        let below = self.table.clone();
        self.overlay(table.clone())?;
        self.given.add(&table, &below, origin);
        Ok(())
    }

    /// Returns the settings that the user gave.
    pub(crate) fn given(&self) -> &Given {
        &self.given
    }

    /// Returns the source of the images: `mnist` or a folder.
    pub(crate) fn source(&self) -> Option<&str> {
        self.table.get("data")?.get("source")?.as_str()
    }

    /// Returns whether the network is for color images, which MNIST does not have.
    pub(crate) fn is_for_color(&self) -> bool {
        self.channels() == Some(3)
    }

    /// Returns whether the network is for gray images. Without channels, it is for the images that it is trained on.
    pub(crate) fn is_for_gray(&self) -> bool {
        self.channels() == Some(1)
    }

    fn channels(&self) -> Option<i64> {
        self.table.get("model")?.get("channels")?.as_integer()
    }

    /// Makes the path of the table of labels absolute, so that the configuration of a run names it from everywhere.
    ///
    /// # Errors
    /// Returns an error if there is no such file.
    pub(crate) fn make_label_path_absolute(&mut self) -> Result<()> {
        if let Some(Value::Table(data)) = self.table.get_mut("data")
            && let Some(Value::String(path)) = data.get_mut("labels")
        {
            *path = absolute_labels(path)?;
        }
        Ok(())
    }

    /// Removes the weights of classes that are to be computed or read, and returns the text that says how.
    pub(crate) fn take_class_weights(&mut self) -> Option<String> {
        let Some(Value::Table(training)) = self.table.get_mut("training") else {
            return None;
        };
        let weights = training.get("class_weights")?.as_str()?.to_string();
        training.remove("class_weights");
        Some(weights)
    }

    /// Chooses the validation images with the same fraction of each class, unless the user or the preset chose otherwise.
    pub(crate) fn prefer_stratified_validation(&mut self) {
        if let Some(Value::Table(data)) = self.table.get_mut("data")
            && !self.given.contains("data.validation_split")
            && !self.repeats_run
            && data.get("validation_split").and_then(Value::as_str) == Some("random")
        {
            data.insert("validation_split".into(), "stratified".into());
        }
    }

    /// Returns whether images in files of many are scaled to the size of the settings. A preset's size is that of its pictures.
    pub(crate) fn resizes_images(&self) -> bool {
        let is_flag = self.given.contains_flag("data.image_size");
        is_flag
            || self
                .resizes_images
                .unwrap_or(self.given.contains("data.image_size"))
    }

    /// Scales images in files of many too.
    pub(crate) fn resize_images(&mut self) {
        self.resizes_images = Some(true);
    }

    /// Replaces the source of the images.
    pub(crate) fn set_source(&mut self, source: String) {
        if let Some(Value::Table(data)) = self.table.get_mut("data") {
            data.insert("source".into(), Value::String(source));
        }
    }

    /// Returns the settings of the data set.
    ///
    /// # Errors
    /// Returns an error if the settings contradict each other.
    pub(crate) fn data(&self) -> Result<DataConfig> {
        self.section("data")
    }

    /// Returns the settings of the training.
    ///
    /// # Errors
    /// Returns an error if the settings contradict each other.
    pub(crate) fn training(&self) -> Result<TrainingConfig> {
        self.section("training")
    }

    /// Combines the settings with the properties of their data set.
    ///
    /// # Errors
    /// Returns an error if the settings do not fit the images or describe an impossible network.
    pub(crate) fn into_config(mut self, images: &DatasetInfo) -> Result<Config> {
        // Only the images of a training give the numbers.
        self.take_class_weights();
        Config::from_settings(self.table, images)
    }

    /// Returns the purpose of the settings in one line.
    pub(crate) fn about(&self) -> &str {
        self.table
            .get("about")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// Returns the network, with input and classes of MNIST where the settings have none.
    ///
    /// # Errors
    /// Returns an error if the settings contradict each other.
    pub(crate) fn model(&self) -> Result<ConvNetConfig> {
        self.section("model")
    }

    /// Formats all settings as a commented file for `--config`.
    pub(crate) fn to_toml(&self) -> String {
        commented::to_toml(&self.table)
    }

    fn section<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let section = self.table.get(name).cloned();
        let section = section.with_context(|| format!("no table {name}"))?;
        section.try_into().with_context(|| name.to_string())
    }
}

/// Describes images that a preset is for: in color if it says so, else like MNIST's.
/// Returns the absolute path of a table of labels.
///
/// # Errors
/// Returns an error if there is no such file.
pub(crate) fn absolute_labels(path: &str) -> Result<String> {
    let absolute = fs::canonicalize(path)
        .with_context(|| format!("{path}: cannot open the table of labels"))?;
    let text = absolute.into_os_string().into_string().ok();
    text.with_context(|| format!("{path}: not valid UTF-8"))
}

#[cfg(test)]
pub(crate) fn images_of(preset: &str) -> DatasetInfo {
    match Settings::preset(preset).unwrap().is_for_color() {
        false => digits(),
        true => DatasetInfo {
            name: "colors".into(),
            channels: 3,
            height: 32,
            width: 32,
            preparation: data::Preparation::Picture,
            ..digits()
        },
    }
}

/// Describes images like MNIST's, for tests that need a configuration but no images.
#[cfg(test)]
pub(crate) fn digits() -> DatasetInfo {
    let table = "name = 'digits'\nclasses = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']\n\
                 channels = 1\nheight = 28\nwidth = 28\nmean = 0.1307\nstd = 0.3081\n\
                 preparation = 'handwriting'";
    table.parse::<Table>().unwrap().try_into().unwrap()
}
