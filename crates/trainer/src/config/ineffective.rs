//! Settings without effect in a run.

use serde::Serialize;
use toml::Value;

use crate::config::given::Given;
use crate::config::run_config::{Config, OptimizerKind, Schedule};

/// The extent of a training, on which the effect of some settings depends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Number of training and validation images.
    pub(crate) images: usize,
    /// Optimizer steps of all epochs.
    pub(crate) steps: u64,
}

/// Returns a message for each given setting that has no effect in a run.
pub(crate) fn ineffective(given: &Given, config: &Config, extent: Extent) -> Vec<String> {
    let messages = given.iter().filter_map(|setting| {
        let reason = reason(setting.key, config, extent)?;
        Some(format!("{} has no effect: {reason}", setting.text))
    });
    messages.collect()
}

/// Returns why the setting with this key has no effect; `None` if it has one.
fn reason(key: &str, config: &Config, extent: Extent) -> Option<String> {
    let Extent { images, steps } = extent;
    let settings = &config.training;
    let steps_total = steps.min(settings.max_steps.unwrap_or(u64::MAX));
    let optimizer = format!("the optimizer is {}", name(settings.optimizer));
    let is_adam = matches!(
        settings.optimizer,
        OptimizerKind::Adam | OptimizerKind::AdamW
    );
    let decays = matches!(settings.schedule, Schedule::Step | Schedule::Plateau);
    let (is_ineffective, reason) = match key {
        "data.image_size" => (
            config.data.image_size != config.images.height,
            "IDX files keep their own size".into(),
        ),
        "data.validation_split" => (
            config.data.validation == 0.0,
            "there is no validation split".into(),
        ),
        "data.limit_train" => (
            config.data.limit_train.is_some_and(|limit| limit > images),
            format!("the data set has {images} training images"),
        ),
        "training.max_steps" => (
            settings.max_steps.is_some_and(|max| max > steps),
            format!("the training has {steps} steps"),
        ),
        "training.early_stopping" => (
            settings
                .early_stopping
                .is_some_and(|patience| patience.saturating_add(1) >= settings.epochs),
            format!("the training has {} epochs", settings.epochs),
        ),
        "training.checkpoint_every" => (
            settings
                .checkpoint_every
                .is_some_and(|every| every > steps_total),
            format!("the training has {steps_total} steps"),
        ),
        "training.beta1" | "training.beta2" => {
            (!is_adam, format!("{optimizer}, not adam or adamw"))
        }
        "training.momentum" => (is_adam, format!("{optimizer}, not sgd or muon")),
        "training.nesterov" if is_adam => (true, format!("{optimizer}, not sgd")),
        "training.nesterov" => (
            settings.nesterov && settings.momentum == 0.0,
            "the momentum is 0".into(),
        ),
        "training.warmup_steps" => (
            settings.warmup_steps >= steps_total.max(1),
            format!(
                "the training has {steps_total} steps, so the learning rate never reaches its maximum"
            ),
        ),
        "training.decay" | "training.decay_epochs" if !decays => (
            true,
            format!(
                "the schedule is {}, not step or plateau",
                name(settings.schedule)
            ),
        ),
        "training.decay_epochs" => (
            settings.decay_epochs >= settings.epochs,
            format!("the training has {} epochs", settings.epochs),
        ),
        "training.decay_biases" => (
            settings.weight_decay() == 0.0,
            "there is no weight decay".into(),
        ),
        "training.lookahead" => (
            settings.lookahead > steps_total,
            format!("the training has {steps_total} steps"),
        ),
        _ => return None,
    };
    is_ineffective.then_some(reason)
}

/// Returns the name of a value in a configuration file.
fn name(value: impl Serialize) -> String {
    match Value::try_from(value) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;
    use crate::config::given::Origin;
    use crate::config::presets;
    use crate::config::schema;
    use crate::config::settings::{Settings, digits, images_of};

    const EXTENT: Extent = Extent {
        images: 60_000,
        steps: 4220,
    };

    /// Returns the messages for the preset `convnet`, of 5 epochs, with these settings from a file or from flags.
    fn messages(settings: &str, origin: Origin) -> Vec<String> {
        let mut convnet = Settings::preset("convnet").unwrap();
        convnet.give(settings.parse().unwrap(), origin).unwrap();
        let given = convnet.given().clone();
        ineffective(&given, &convnet.into_config(&digits()).unwrap(), EXTENT)
    }

    #[test]
    fn names_each_setting_as_the_user_wrote_it_and_the_reason() {
        for (settings, flag, key) in [
            (
                "training.warmup_steps = 4220",
                "--warmup-steps 4220",
                "training.warmup_steps = 4220",
            ),
            (
                "training.decay = 0.5",
                "--decay 0.5",
                "training.decay = 0.5",
            ),
            (
                "training.nesterov = true",
                "--nesterov",
                "training.nesterov = true",
            ),
            (
                "data.limit_train = 60001",
                "--limit-train 60001",
                "data.limit_train = 60001",
            ),
        ] {
            for (origin, name) in [(Origin::Flags, flag), (Origin::File, key)] {
                let [message] = &messages(settings, origin)[..] else {
                    panic!("{settings}");
                };
                let start = format!("{name} has no effect: ");
                assert!(message.starts_with(&start), "{message}");
            }
        }
    }

    #[test]
    fn reports_settings_without_effect_and_no_others() {
        for (settings, reason) in [
            (
                "data.image_size = 32",
                Some("IDX files keep their own size"),
            ),
            ("data.image_size = 28", None),
            (
                "data.validation = 0.0\ndata.validation_split = \"last\"",
                Some("there is no validation split"),
            ),
            ("data.validation_split = \"last\"", None),
            (
                "data.limit_train = 70000",
                Some("the data set has 60000 training images"),
            ),
            ("data.limit_train = 60000", None),
            (
                "training.max_steps = 4221",
                Some("the training has 4220 steps"),
            ),
            ("training.max_steps = 4220", None),
            (
                "training.early_stopping = 4",
                Some("the training has 5 epochs"),
            ),
            ("training.early_stopping = 3", None),
            (
                "training.max_steps = 10\ntraining.checkpoint_every = 11",
                Some("the training has 10 steps"),
            ),
            ("training.checkpoint_every = 11", None),
            (
                "training.optimizer = \"sgd\"\ntraining.beta1 = 0.8",
                Some("the optimizer is sgd, not adam or adamw"),
            ),
            ("training.beta2 = 0.8", None),
            (
                "training.optimizer = \"adamw\"\ntraining.momentum = 0.8",
                Some("the optimizer is adamw, not sgd or muon"),
            ),
            (
                "training.optimizer = \"muon\"\ntraining.momentum = 0.8",
                None,
            ),
            (
                "training.nesterov = true",
                Some("the optimizer is adam, not sgd"),
            ),
            (
                "training.optimizer = \"sgd\"\ntraining.nesterov = true",
                None,
            ),
            (
                "training.optimizer = \"sgd\"\ntraining.nesterov = true\ntraining.momentum = 0.0",
                Some("the momentum is 0"),
            ),
            (
                "training.warmup_steps = 5000",
                Some("the training has 4220 steps, so the learning rate never reaches its maximum"),
            ),
            ("training.warmup_steps = 4219", None),
            (
                "training.decay = 0.5",
                Some("the schedule is constant, not step or plateau"),
            ),
            (
                "training.schedule = \"one-cycle\"\ntraining.decay_epochs = 1",
                Some("the schedule is one-cycle, not step or plateau"),
            ),
            ("training.schedule = \"step\"\ntraining.decay = 0.5", None),
            (
                "training.schedule = \"step\"\ntraining.decay_epochs = 5",
                Some("the training has 5 epochs"),
            ),
            (
                "training.schedule = \"step\"\ntraining.decay_epochs = 4",
                None,
            ),
            (
                "training.decay_biases = false",
                Some("there is no weight decay"),
            ),
            (
                "training.decay_biases = false\ntraining.optimizer = \"adamw\"",
                None,
            ),
            (
                "training.lookahead = 4221",
                Some("the training has 4220 steps"),
            ),
            ("training.lookahead = 5", None),
            ("training.bias_factor = 64\ntraining.head_factor = 2", None),
        ] {
            let found = messages(settings, Origin::Flags);
            let found: Vec<&str> = found
                .iter()
                .filter_map(|message| message.split_once(" has no effect: "))
                .map(|(_, reason)| reason)
                .collect();
            assert_eq!(found, Vec::from_iter(reason), "{settings}");
        }
    }

    #[test]
    fn files_that_repeat_other_settings_give_only_those_that_differ() {
        let defaults = schema::defaults();
        let mut table = Table::new();
        table.insert("training".into(), defaults["training"].clone());
        assert_eq!(messages(&table.to_string(), Origin::File), [""; 0]);
        let repeated = messages("training.decay = 0.1", Origin::Flags);
        assert_eq!(
            repeated,
            ["--decay 0.1 has no effect: the schedule is constant, not step or plateau"]
        );
    }

    #[test]
    fn settings_of_presets_have_an_effect() {
        for preset in presets::names() {
            let mut given = Given::default();
            let table = presets::table(preset).unwrap();
            given.add(&table, &Table::new(), Origin::File);
            let config = Settings::preset(preset).unwrap();
            let mut config = config.into_config(&images_of(preset)).unwrap();
            // As of a folder of pictures.
            config.images.height = config.data.image_size;
            let settings = &config.training;
            let images = (1.0 - config.data.validation) * 60_000.0;
            let steps = (images / settings.batch_size as f64).ceil() as u64;
            let extent = Extent {
                images: 60_000,
                steps: steps * settings.epochs as u64,
            };
            assert_eq!(ineffective(&given, &config, extent), [""; 0], "{preset}");
        }
    }
}
