//! The settings that the user gave, apart from defaults and presets.

use toml::{Table, Value};

use crate::config::schema::{self, SETTINGS, Setting};

/// Settings that were given as flags or in a file, with their values, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(Vec<GivenSetting>);

/// A setting that the user gave.
#[derive(Clone, Debug)]
pub(crate) struct GivenSetting {
    /// Path of the key in a configuration file.
    pub(crate) key: &'static str,
    /// The setting as it was written: `--decay 0.5` or `training.decay = 0.5`.
    pub(crate) text: String,
}

/// Where a setting was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flags,
    File,
}

impl Given {
    /// Adds the settings of `table`, which lie over those of `below`. A file may repeat the settings below it, as
    /// the configuration of a run does: these are not given.
    pub(crate) fn add(&mut self, table: &Table, below: &Table, origin: Origin) {
        for setting in SETTINGS {
            let Some(value) = schema::get(table, setting) else {
                continue;
            };
            if origin == Origin::File && schema::get(below, setting) == Some(value) {
                continue;
            }
            self.0.retain(|given| given.key != setting.key);
            self.0.push(GivenSetting {
                key: setting.key,
                text: text(setting, value, origin),
            });
        }
    }

    /// Returns whether a setting was given.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|given| given.key == key)
    }

    /// Returns whether a setting was given as a flag.
    pub(crate) fn contains_flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .any(|given| given.key == key && given.text.starts_with("--"))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &GivenSetting> {
        self.0.iter()
    }
}

/// Formats a setting as it was written.
fn text(setting: &Setting, value: &Value, origin: Origin) -> String {
    match (origin, setting.flag) {
        (Origin::Flags, Some(flag)) if flag.value_name.is_empty() => format!("--{}", flag.name),
        (Origin::Flags, Some(flag)) => {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), String::from);
            format!("--{} {value}", flag.name)
        }
        _ => format!("{} = {value}", setting.key),
    }
}
