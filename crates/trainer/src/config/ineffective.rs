//! Settings without effect in a run.

use serde::Serialize;
use toml::Value;

use crate::config::given::Given;
use crate::config::run_config::{Config, OptimizerKind, Schedule, TrainingConfig};

/// The extent of a training, on which the effect of some settings depends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Number of training and validation images.
    pub(crate) images: usize,
    /// Whether the data set has validation images of its own.
    pub(crate) has_validation_split: bool,
    /// Optimizer steps of all epochs.
    pub(crate) steps: u64,
}

/// Returns a message for each given setting that has no effect in a run.
pub(crate) fn ineffective(given: &Given, config: &Config, extent: Extent) -> Vec<String> {
    let run = Run { config, extent };
    let messages = given.iter().filter_map(|setting| {
        let (_, condition) = CONDITIONS.iter().find(|(key, _)| *key == setting.key)?;
        let reason = condition(&run)?;
        Some(format!("{} has no effect: {reason}", setting.text))
    });
    messages.collect()
}

/// A run, on which the effect of settings depends.
struct Run<'a> {
    config: &'a Config,
    extent: Extent,
}

/// The key of a setting, and a function that returns why it has no effect in a run; `None` if it has one.
type Condition = (&'static str, fn(&Run<'_>) -> Option<String>);

/// The settings whose effect depends on other settings or on the data, in the order of a configuration file.
const CONDITIONS: &[Condition] = &[
    ("data.validation", |run| run.unless_divided()),
    ("data.validation_split", |run| {
        let is_ineffective = run.config.data.validation == 0.0;
        run.unless_divided()
            .or_else(|| is_ineffective.then(|| "there is no validation split".into()))
    }),
    ("data.limit_train", |run| {
        let images = run.extent.images;
        let limit = run.config.data.limit_train?;
        (limit > images).then(|| format!("the data set has {images} training images"))
    }),
    ("model.dense_activation", |run| {
        let is_ineffective = run.config.model.dense.is_empty();
        is_ineffective.then(|| "the network has no hidden dense layer".into())
    }),
    ("training.max_steps", |run| {
        let steps = run.extent.steps;
        let max = run.training().max_steps?;
        (max > steps).then(|| of_steps(steps))
    }),
    ("training.early_stopping", |run| {
        run.unless_epochs_exceed(run.training().early_stopping?.saturating_add(1))
    }),
    ("training.checkpoint_every", |run| {
        run.unless_steps_reach(run.training().checkpoint_every?)
    }),
    ("training.momentum", |run| {
        run.unless_optimizer(&[OptimizerKind::Sgd, OptimizerKind::Muon])
    }),
    ("training.nesterov", |run| match run.training().optimizer {
        OptimizerKind::Muon => Some("muon always has Nesterov momentum".into()),
        OptimizerKind::Sgd => {
            let is_ineffective = run.training().nesterov && run.training().momentum == 0.0;
            is_ineffective.then(|| "the momentum is 0".into())
        }
        OptimizerKind::Adam | OptimizerKind::AdamW => run.unless_optimizer(&[OptimizerKind::Sgd]),
    }),
    ("training.beta1", |run| {
        run.unless_optimizer(&[OptimizerKind::Adam, OptimizerKind::AdamW])
    }),
    ("training.beta2", |run| {
        run.unless_optimizer(&[OptimizerKind::Adam, OptimizerKind::AdamW])
    }),
    ("training.warmup_steps", |run| {
        let steps = run.steps();
        (run.training().warmup_steps >= steps.max(1)).then(|| {
            let steps = of_steps(steps);
            format!("{steps}, so the learning rate never reaches its maximum")
        })
    }),
    ("training.decay", |run| run.unless_schedule_decays()),
    ("training.decay_epochs", |run| {
        let settings = run.training();
        run.unless_schedule_decays()
            .or_else(|| run.unless_epochs_exceed(settings.decay_epochs))
    }),
    ("training.decay_biases", |run| {
        let is_ineffective = run.training().weight_decay() == 0.0;
        is_ineffective.then(|| "there is no weight decay".into())
    }),
    ("training.whitening_bias_epochs", |run| {
        let mut blocks = run.config.model.conv_blocks();
        match blocks.any(|block| block.whitening && block.bias) {
            true => run.unless_epochs_exceed(run.training().whitening_bias_epochs?),
            false => Some("the network has no whitening block with a bias".into()),
        }
    }),
    ("training.lookahead", |run| {
        run.unless_steps_reach(run.training().lookahead)
    }),
    ("augmentation.crop_padding", |run| {
        let is_ineffective = run.config.augmentation.crop == 0;
        is_ineffective.then(|| "there is no random crop".into())
    }),
];

impl Run<'_> {
    fn unless_divided(&self) -> Option<String> {
        let has_split = self.extent.has_validation_split;
        has_split.then(|| "the data set has validation images of its own".into())
    }

    fn training(&self) -> &TrainingConfig {
        &self.config.training
    }

    /// Returns the number of optimizer steps, limited by `max_steps`.
    fn steps(&self) -> u64 {
        let max = self.training().max_steps.unwrap_or(u64::MAX);
        self.extent.steps.min(max)
    }

    /// Returns a reason unless the training has at least `step` steps.
    fn unless_steps_reach(&self, step: u64) -> Option<String> {
        let steps = self.steps();
        (step > steps).then(|| of_steps(steps))
    }

    /// Returns a reason unless the training has more than `number` epochs.
    fn unless_epochs_exceed(&self, number: usize) -> Option<String> {
        let epochs = self.training().epochs;
        (number >= epochs).then(|| format!("the training has {epochs} epochs"))
    }

    /// Returns a reason unless the optimizer is one of `optimizers`.
    fn unless_optimizer(&self, optimizers: &[OptimizerKind]) -> Option<String> {
        let optimizer = self.training().optimizer;
        let names: Vec<String> = optimizers.iter().map(name).collect();
        let is_ineffective = !optimizers.contains(&optimizer);
        is_ineffective.then(|| {
            format!(
                "the optimizer is {}, not {}",
                name(optimizer),
                names.join(" or ")
            )
        })
    }

    /// Returns a reason unless the schedule multiplies the learning rate by `decay`.
    fn unless_schedule_decays(&self) -> Option<String> {
        let schedule = self.training().schedule;
        let decays = matches!(schedule, Schedule::Step | Schedule::Plateau);
        (!decays).then(|| format!("the schedule is {}, not step or plateau", name(schedule)))
    }
}

fn of_steps(steps: u64) -> String {
    format!("the training has {steps} steps")
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
        has_validation_split: false,
        steps: 4220,
    };

    const WHITENING: &str = "model.blocks = [{ channels = 8, kernel = 2, padding = 0, whitening = true, pool = false }]";

    /// Returns the messages for the preset `convnet`, of 5 epochs, with these settings from a file or from flags.
    fn messages(settings: &str, origin: Origin) -> Vec<String> {
        let mut convnet = Settings::preset("convnet").unwrap();
        convnet.give(settings.parse().unwrap(), origin).unwrap();
        let given = convnet.given().clone();
        ineffective(&given, &convnet.into_config(&digits()).unwrap(), EXTENT)
    }

    #[test]
    fn a_data_set_may_have_validation_images() {
        let mut settings = Settings::preset("convnet").unwrap();
        let flags = "data.validation = 0.2\ndata.validation_split = \"last\"";
        settings
            .give(flags.parse().unwrap(), Origin::Flags)
            .unwrap();
        let given = settings.given().clone();
        let config = settings.into_config(&digits()).unwrap();
        let extent = Extent {
            has_validation_split: true,
            ..EXTENT
        };
        let reason = "has no effect: the data set has validation images of its own";
        assert_eq!(
            ineffective(&given, &config, extent),
            [
                format!("--validation 0.2 {reason}"),
                format!("--validation-split last {reason}")
            ]
        );
        assert_eq!(ineffective(&given, &config, EXTENT), [""; 0]);
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
            (
                "training.optimizer = \"muon\"\ntraining.nesterov = true",
                Some("muon always has Nesterov momentum"),
            ),
            (
                "training.whitening_bias_epochs = 3",
                Some("the network has no whitening block with a bias"),
            ),
            (
                &format!("training.whitening_bias_epochs = 5\n{WHITENING}"),
                Some("the training has 5 epochs"),
            ),
            (
                &format!("training.whitening_bias_epochs = 4\n{WHITENING}"),
                None,
            ),
            (
                "model.dense = []\nmodel.dense_activation = \"gelu\"",
                Some("the network has no hidden dense layer"),
            ),
            ("model.dense_activation = \"gelu\"", None),
            (
                "augmentation.crop_padding = \"zero\"",
                Some("there is no random crop"),
            ),
            (
                "augmentation.crop_padding = \"zero\"\naugmentation.crop = 2",
                None,
            ),
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
    fn conditions_have_keys_of_settings_once_and_in_order() {
        let keys = CONDITIONS.iter().map(|(key, _)| *key);
        let settings = schema::SETTINGS.iter().map(|setting| setting.key);
        let listed = |key: &&str| CONDITIONS.iter().any(|(listed, _)| listed == key);
        assert_eq!(
            keys.collect::<Vec<_>>(),
            settings.filter(listed).collect::<Vec<_>>()
        );
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
            let config = config.into_config(&images_of(preset)).unwrap();
            let settings = &config.training;
            let images = (1.0 - config.data.validation) * 60_000.0;
            let steps = (images / settings.batch_size as f64).ceil() as u64;
            let extent = Extent {
                images: 60_000,
                has_validation_split: false,
                steps: steps * settings.epochs as u64,
            };
            assert_eq!(ineffective(&given, &config, extent), [""; 0], "{preset}");
        }
    }
}
