//! Defaults, preset, file and flags on their way to a configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use data::{Normalization, Scaling, Splits};
use toml::{Table, Value};

use crate::config::Config;
use crate::{keys, presets};

/// Settings on their way to a [`Config`]: each layer overrules those before it.
#[derive(Debug)]
pub(crate) struct Settings {
    table: Table,
    /// Whether a layer says what only the data knows.
    expects: Expectations,
}

/// Sizes that a user stated and the data must confirm.
#[derive(Debug, Default)]
struct Expectations {
    input: bool,
    classes: bool,
}

impl Settings {
    /// The defaults, then the named preset.
    ///
    /// # Errors
    /// When there is no such preset.
    pub(crate) fn preset(name: &str) -> Result<Self> {
        let mut settings = Self {
            table: Table::try_from(Config::default())?,
            expects: Expectations::default(),
        };
        let mut table = presets::table(name)?;
        table.insert("preset".into(), name.into());
        settings.overlay(table)?;
        Ok(settings)
    }

    /// The configuration file `path`, over the preset it names or `preset` if one is given.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or holds something else than settings.
    pub(crate) fn file(path: &Path, preset: Option<&str>) -> Result<Self> {
        let table = read_table(path)?;
        let named = table.get("preset").and_then(Value::as_str);
        let base = preset.or(named).unwrap_or(presets::DEFAULT).to_string();
        let mut settings = Self::preset(&base).with_context(|| path.display().to_string())?;
        settings
            .overlay(table)
            .with_context(|| path.display().to_string())?;
        settings.table.insert("preset".into(), base.into());
        Ok(settings)
    }

    /// Lays `table` over what is there. Lists are replaced, not joined.
    ///
    /// # Errors
    /// When a key is unknown or its value not accepted.
    pub(crate) fn overlay(&mut self, table: Table) -> Result<()> {
        keys::check(&table)?;
        if let Some(Value::Table(model)) = table.get("model") {
            self.expects.input |= model.contains_key("input");
            self.expects.classes |= model.contains_key("classes");
        }
        merge(&mut self.table, table);
        Ok(())
    }

    /// The configuration as it stands, with nothing in it that only the data knows.
    ///
    /// # Errors
    /// When the settings contradict each other.
    pub(crate) fn unresolved(self) -> Result<Config> {
        Ok(self.table.try_into()?)
    }

    /// The configuration and the data it names, each settled by the other: sizes, class names and
    /// normalisation of the data are written into the configuration.
    ///
    /// # Errors
    /// When the data cannot be read, or the network does not fit it.
    pub(crate) fn resolve(self) -> Result<(Config, Splits)> {
        let expects = self.expects;
        let mut config: Config = self.table.try_into()?;
        let splits = config.data.load()?;
        let train = &splits.train;
        let (input, classes) = ([train.height(), train.width()], splits.info.classes.len());

        ensure!(
            !expects.input || config.model.input == input,
            "model.input = {:?}, but the images of {} are {input:?}",
            config.model.input,
            splits.info.name
        );
        ensure!(
            !expects.classes || config.model.classes == classes,
            "model.classes = {}, but {} has {classes}",
            config.model.classes,
            splits.info.name
        );
        config.model.input = input;
        config.model.classes = classes;

        match config.data.classes.len() {
            0 => config.data.classes = splits.info.classes.clone(),
            named => ensure!(
                named == classes,
                "data.classes names {named} classes, but {} has {classes}",
                splits.info.name
            ),
        }
        config.data.name = splits.info.name.clone();
        config.data.normalization =
            Normalization::Custom(config.data.normalization.scaling(Scaling {
                mean: splits.info.mean,
                std: splits.info.std,
            }));
        config.model.layers()?;
        Ok((config, splits))
    }
}

/// A TOML file.
///
/// # Errors
/// When it cannot be read or is none.
pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse()
        .with_context(|| format!("{}: not a TOML file", path.display()))
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_key_and_every_key_its_setting() {
        let mut config = Config::default();
        config.data.classes = vec!["a".into()];
        config.data.limit_train = Some(1);
        config.training.max_steps = Some(1);
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
    fn later_layers_overrule_earlier_ones() {
        let mut settings = Settings::preset("dropout").unwrap();
        let table = "training.epochs = 2\nmodel.dense = [64, 32]";
        settings.overlay(table.parse().unwrap()).unwrap();
        let (config, _) = settings.resolve().unwrap();
        assert_eq!(config.training.epochs, 2);
        assert_eq!(config.training.batch_size, 512);
        assert_eq!(config.model.dense, [64, 32]);
        assert_eq!(config.data.normalization.to_string(), "0,1");
    }

    #[test]
    fn a_resolved_configuration_survives_its_file() {
        for name in presets::names() {
            let (config, _) = Settings::preset(name).unwrap().resolve().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config.toml");
            fs::write(&path, config.to_toml().unwrap()).unwrap();
            assert_eq!(Config::read(&path).unwrap(), config);
            let (again, _) = Settings::file(&path, None).unwrap().resolve().unwrap();
            assert_eq!(again, config);
        }
    }

    #[test]
    fn presets_have_the_published_sizes() {
        let parameters = |name| {
            let (config, _) = Settings::preset(name).unwrap().resolve().unwrap();
            let layers = config.model.layers().unwrap();
            layers.iter().map(|layer| layer.parameters).sum::<usize>()
        };
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
        ] {
            assert_eq!(parameters(name), expected, "{name}");
        }
    }

    #[test]
    fn a_stated_size_must_be_that_of_the_data() {
        let mut settings = Settings::preset("convnet").unwrap();
        settings
            .overlay("model.classes = 5".parse().unwrap())
            .unwrap();
        assert_eq!(
            settings.resolve().unwrap_err().to_string(),
            "model.classes = 5, but mnist has 10"
        );
    }
}
