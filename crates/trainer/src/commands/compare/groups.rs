//! Groups of runs that differ in nothing but their seeds, and the statistics of each group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use toml::{Table, Value};

use crate::config::run_config::Config;
use crate::run::image_record::ImageRecord;
use crate::run::image_source::EMBEDDED;

/// Settings that do not influence the weights, besides the seed. Runs of a group may differ in them, except for
/// the preset.
const WITHOUT_INFLUENCE: [&str; 7] = [
    "preset",
    "about",
    "training.seed",
    "training.checkpoint_every",
    "training.eval_batch_size",
    "training.report_train",
    "training.report_test",
];

/// Properties that follow from the data set. They describe a difference only if no other setting differs.
const MEASURED: [&str; 4] = ["images.", "model.channels", "model.input", "model.classes"];

/// The completed epochs, in a group key.
const COMPLETED_EPOCHS: &str = "completed epochs";

/// Maximum number of settings that describe the difference between groups.
const MAX_DIFFERENCES: usize = 4;

/// Maximum length of a value in such a description, in characters.
const MAX_VALUE: usize = 40;

/// The settings and properties that all runs of a group share. Runs with equal keys are a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    preset: String,
    /// Settings and properties by name.
    settings: BTreeMap<String, String>,
}

/// Returns the key of a run that has completed `epochs` epochs, with the record of its images if there is one.
///
/// # Errors
/// Returns an error if a setting cannot be represented in TOML.
pub(super) fn group_key(
    config: &Config,
    epochs: usize,
    record: Option<&ImageRecord>,
) -> Result<GroupKey> {
    let mut settings = BTreeMap::new();
    flatten("", Table::try_from(config)?, &mut settings);
    settings.retain(|name, _| !WITHOUT_INFLUENCE.contains(&name.as_str()));
    // A folder may have moved, or other images may be in it.
    if let Some(record) = record.filter(|_| config.data.source != EMBEDDED) {
        settings.retain(|name, _| name != "data.source" && !name.starts_with("images."));
        let digest = record.sha256();
        settings.insert("images".into(), format!("SHA-256 {}", &digest[..12]));
    }
    // With these settings the number of epochs is a result.
    let training = &config.training;
    if training.early_stopping.is_none() && training.max_time.is_none() {
        settings.insert(COMPLETED_EPOCHS.into(), epochs.to_string());
    }
    Ok(GroupKey {
        preset: config.preset.clone(),
        settings,
    })
}

/// Adds the values of a table with their full names. Arrays are one value.
fn flatten(prefix: &str, table: Table, settings: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            Value::Table(table) => flatten(&format!("{name}."), table, settings),
            value => {
                settings.insert(name, value.to_string());
            }
        }
    }
}

impl GroupKey {
    /// Names the group by its preset, and by the settings that distinguish it from other groups of the preset.
    pub(super) fn name(&self, all: &BTreeSet<&Self>) -> String {
        let groups = all.iter().filter(|key| key.preset == self.preset);
        let groups: Vec<_> = groups.collect();
        let names: BTreeSet<&String> = groups.iter().flat_map(|key| key.settings.keys()).collect();
        let is_different = |name: &&String| {
            let value = self.settings.get(*name);
            groups.iter().any(|key| key.settings.get(*name) != value)
        };
        let mut different: Vec<&String> = names.into_iter().filter(is_different).collect();
        let is_measured = |name: &&String| MEASURED.iter().any(|prefix| name.starts_with(prefix));
        if !different.iter().all(is_measured) {
            different.retain(|name| !is_measured(name));
        }
        if different.is_empty() {
            return self.preset.clone();
        }
        let described =
            different
                .iter()
                .take(MAX_DIFFERENCES)
                .map(|name| match self.settings.get(*name) {
                    Some(value) => format!("{name} = {}", shortened(value)),
                    None => format!("{name} unset"),
                });
        let mut text = described.collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = different.len().checked_sub(MAX_DIFFERENCES) {
            let _ = write!(text, " and {more} more");
        }
        format!("{} ({text})", self.preset)
    }
}

/// Shortens a value, with an ellipsis in place of the rest.
fn shortened(value: &str) -> String {
    match value.chars().count() {
        0..=MAX_VALUE => value.into(),
        _ => value.chars().take(MAX_VALUE - 1).chain(['…']).collect(),
    }
}

/// Returns the mean and the sample standard deviation of at least two numbers.
pub(super) fn mean_deviation(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::SETTINGS;
    use crate::config::settings::{Settings, digits};
    use crate::run::image_record::SplitDigest;

    fn key(settings: &str, epochs: usize) -> GroupKey {
        let mut base = Settings::preset("tiny").unwrap();
        base.overlay(settings.parse().unwrap()).unwrap();
        group_key(&base.into_config(&digits()).unwrap(), epochs, None).unwrap()
    }

    #[test]
    fn settings_without_influence_do_not_divide_a_group() {
        for name in WITHOUT_INFLUENCE {
            assert!(SETTINGS.iter().any(|setting| setting.key == name), "{name}");
        }
        let same = [
            "training.seed = 7",
            "training.checkpoint_every = 10\ntraining.eval_batch_size = 7",
            "training.report_train = false\ntraining.report_test = true\nabout = 'mine'",
        ];
        for settings in same {
            assert_eq!(key(settings, 5), key("", 5), "{settings}");
        }
        for settings in [
            "training.learning_rate = 0.5",
            "training.precision = 'f16'",
            "data.limit_train = 100",
            "data.validation = 0.2",
            "augmentation.flip = true",
            "model.blocks = [{ channels = 3 }]",
        ] {
            assert_ne!(key(settings, 5), key("", 5), "{settings}");
        }
        assert_ne!(key("", 4), key("", 5));
        // The number of epochs is a result.
        for limit in ["training.early_stopping = 2", "training.max_time = '1m'"] {
            assert_eq!(key(limit, 4), key(limit, 5));
        }
    }

    #[test]
    fn images_are_compared_by_their_digests() {
        let key = |source: &str, sha256: &str| {
            let mut settings = Settings::preset("tiny").unwrap();
            let source = format!("data.source = '{source}'");
            settings.overlay(source.parse().unwrap()).unwrap();
            let config = settings.into_config(&digits()).unwrap();
            let digest = || SplitDigest {
                images: 1,
                sha256: sha256.into(),
            };
            let record = ImageRecord::Images {
                validation: None,
                train: digest(),
                test: digest(),
            };
            group_key(&config, 5, Some(&record)).unwrap()
        };
        assert_eq!(key("/a", "1"), key("/moved", "1"));
        assert_ne!(key("/a", "1"), key("/a", "2"));
        // Runs of MNIST without a record belong to those with one.
        assert_eq!(key("mnist", "1"), super::tests::key("", 5));
    }

    #[test]
    fn groups_are_named_by_their_differences() {
        #[track_caller]
        fn assert_names(keys: &[GroupKey], expected: &[&str]) {
            let all = keys.iter().collect();
            let names: Vec<String> = keys.iter().map(|key| key.name(&all)).collect();
            assert_eq!(names, expected);
        }
        assert_names(&[key("", 5)], &["tiny"]);
        assert_names(
            &[key("", 5), key("data.limit_train = 1025", 5)],
            &[
                "tiny (data.limit_train unset)",
                "tiny (data.limit_train = 1025)",
            ],
        );
        assert_names(
            &[key("", 5), key("", 3)],
            &["tiny (completed epochs = 5)", "tiny (completed epochs = 3)"],
        );
        // Measured properties follow from the data set.
        let mut other = key("data.source = '/other'", 5);
        other
            .settings
            .insert("images.name".into(), "\"other\"".into());
        assert_names(
            &[key("", 5), other.clone()],
            &[
                "tiny (data.source = \"mnist\")",
                "tiny (data.source = \"/other\")",
            ],
        );
        other
            .settings
            .insert("data.source".into(), "\"mnist\"".into());
        assert_names(
            &[key("", 5), other],
            &[
                "tiny (images.name = \"digits\")",
                "tiny (images.name = \"other\")",
            ],
        );
        let settings = "training.epochs = 3\ntraining.decay = 0.5\ntraining.beta1 = 0.5\n\
                        training.beta2 = 0.5\nmodel.dropout = 0.5";
        let names = key(settings, 5).name(&[&key("", 5), &key(settings, 5)].into_iter().collect());
        assert_eq!(
            names,
            "tiny (model.dropout = 0.5, training.beta1 = 0.5, training.beta2 = 0.5, \
             training.decay = 0.5 and 1 more)"
        );
        assert_eq!(shortened(&"x".repeat(50)), format!("{}…", "x".repeat(39)));
    }

    #[test]
    fn standard_deviation_is_that_of_a_sample() {
        let (mean, deviation) = mean_deviation(&[2.0, 4.0, 4.0, 6.0]);
        assert_eq!(mean, 4.0);
        assert!((deviation - (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
