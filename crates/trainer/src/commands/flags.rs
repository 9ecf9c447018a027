//! Flags that several commands share: settings, devices, the run.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use toml::{Table, Value};
use tracing::info;

use crate::config::constraint::Constraint;
use crate::config::given::{Given, Origin};
use crate::config::presets;
use crate::config::run_config::Config;
use crate::config::schema::{self, Flag, SETTINGS, Setting};
use crate::config::settings::{Settings, absolute_labels};
use crate::device::{self, OpenDevice, OpenDevices, Request};
use crate::inference::classifier::Classifier;
use crate::run::image_source::absolute_source;
use crate::run::images::{self, RunImages};
use crate::run::picture_cache::PictureCache;
use crate::run::picture_preset;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};

/// Flags of `-h`; `--help` has all.
const SHORT_HELP: [&str; 3] = ["preset", "data.source", "training.epochs"];

/// The flags of the settings, one for each row of the schema that has a flag, and `--config`.
#[derive(Debug)]
pub(crate) struct SettingsFlags {
    preset: Option<String>,
    config: Option<PathBuf>,
    /// The settings that were given as flags, not checked yet.
    settings: Table,
}

/// Id of the argument `--config`.
const CONFIG: &str = "config";

impl Args for SettingsFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help_heading("Run")
            .hide_short_help(true)
            .help("TOML file with settings; `trainer presets show NAME` prints one");
        let settings = SETTINGS
            .iter()
            .filter_map(|setting| Some(argument(setting, setting.flag?)));
        command.args(settings).arg(config)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self {
            preset: None,
            config: matches.get_one::<PathBuf>(CONFIG).cloned(),
            settings: Table::new(),
        };
        for setting in SETTINGS {
            let value = match setting.flag {
                None => continue,
                Some(flag) if flag.value_name.is_empty() => {
                    matches.get_flag(setting.key).then(|| true.into())
                }
                Some(_) => {
                    let text = matches.get_one::<String>(setting.key);
                    text.map(|text| setting.constraint.parse(text))
                }
            };
            match value {
                // The preset is the layer below the others.
                Some(Value::String(name)) if setting.key == "preset" => flags.preset = Some(name),
                Some(value) => schema::insert(&mut flags.settings, setting, value),
                None => {}
            }
        }
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Builds the argument of a setting. Its value stays text, so that flags are checked as files are.
fn argument(setting: &Setting, flag: Flag) -> Arg {
    let mut summary = setting.summary();
    if let Some(default) = setting.default_text() {
        summary.push_str(&format!(" [default: {default}]"));
    }
    let details = [summary.as_str(), setting.details];
    let argument = Arg::new(setting.key)
        .long(flag.name)
        .visible_aliases(flag.alias)
        .help_heading(setting.section().heading)
        .hide_short_help(!SHORT_HELP.contains(&setting.key))
        .long_help(details.join("\n").trim_end().to_string())
        .help(summary);
    if flag.value_name.is_empty() {
        return argument.action(ArgAction::SetTrue);
    }
    let argument = argument.value_name(flag.value_name);
    match setting.constraint {
        Constraint::Integer(..) | Constraint::Number(..) | Constraint::Duration => {
            argument.allow_negative_numbers(true)
        }
        // Without `=`, the flag does not take the argument after it.
        Constraint::BooleanOr(_) => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        // A mean may be negative: -0.1,0.5
        Constraint::Normalization => argument.allow_hyphen_values(true),
        _ => argument,
    }
}

/// The device of a command.
#[derive(Debug, Args)]
pub(crate) struct DeviceFlags {
    /// Device (see `trainer devices`)
    ///
    /// auto, cpu, a device that `trainer devices` lists, or remote:HOST:PORT of a `trainer worker`
    #[arg(
        long,
        env = device::VARIABLE,
        hide_env_values = true,
        default_value = "auto",
        help_heading = "Run"
    )]
    device: Request,
    #[command(flatten)]
    token: TokenFlags,
}

/// The devices of a training.
#[derive(Debug, Args)]
pub(crate) struct DevicesFlags {
    /// Devices (see `trainer devices`)
    ///
    /// auto, cpu, a device that `trainer devices` lists, or remote:HOST:PORT of a `trainer worker`. Several
    /// devices, separated by commas, train together (data parallelism): each batch is divided among them
    #[arg(
        long,
        env = device::VARIABLE,
        hide_env_values = true,
        value_name = "DEVICE,...",
        value_delimiter = ',',
        default_value = "auto",
        help_heading = "Run"
    )]
    device: Vec<Request>,
    #[command(flatten)]
    token: TokenFlags,
}

/// The credentials of remote devices.
#[derive(Debug, Args)]
pub(crate) struct TokenFlags {
    /// File with the token of remote devices
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINER_TOKEN_FILE",
        hide_short_help = true,
        help_heading = "Run"
    )]
    pub(crate) token_file: Option<PathBuf>,
}

impl DeviceFlags {
    /// Opens the device and returns it with the reason for its choice.
    ///
    /// # Errors
    /// Returns an error as [`device::open`] does.
    pub(crate) fn open(&self) -> Result<(OpenDevice, String)> {
        device::open(&self.device, self.token.token_file.as_deref())
    }
}

impl DevicesFlags {
    /// Opens the devices.
    ///
    /// # Errors
    /// Returns an error as [`OpenDevices::open`] does.
    pub(crate) fn open(&self) -> Result<OpenDevices> {
        OpenDevices::open(&self.device, self.token.token_file.as_deref())
    }
}

/// An existing run and the device that evaluates it.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// Run: its folder, its name in --out, `latest`, or a network in the program (`pretrained`,
    /// `pretrained-best`, `pretrained-cifar`)
    run: String,
    #[command(flatten)]
    device: DeviceFlags,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

/// The folder of a new run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct NewRunFlags {
    /// Folder of the runs
    #[arg(
        long,
        value_name = "DIR",
        default_value = DEFAULT_ROOT,
        hide_short_help = true
    )]
    pub(crate) out: PathBuf,
    /// Name of the new run's folder [default: PRESET-NUMBER]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    run_name: Option<String>,
}

impl NewRunFlags {
    /// Creates the run's folder and lets `fill` write to it; see [`RunDir::create`].
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or filled, or its name is taken.
    pub(crate) fn create(
        &self,
        config: &Config,
        fill: impl FnOnce(&RunDir) -> Result<()>,
    ) -> Result<RunDir> {
        let name = self.run_name.as_deref();
        RunDir::create(&self.out, &config.preset, name, &config.to_toml()?, fill)
    }
}

impl RunFlags {
    /// Opens the run's folder.
    ///
    /// # Errors
    /// Returns an error if there is no such run.
    pub(crate) fn find(&self) -> Result<RunDir> {
        RunDir::open(&self.out, &self.run)
    }

    /// Opens the device and returns it with the reason for its choice.
    ///
    /// # Errors
    /// Returns an error as [`device::open`] does.
    pub(crate) fn open_device(&self) -> Result<(OpenDevice, String)> {
        self.device.open()
    }

    /// Opens the run's folder and loads its network.
    ///
    /// # Errors
    /// Returns an error if there is no such run, the device does not work, or the weights are missing or do
    /// not fit the configuration.
    pub(crate) fn open(&self) -> Result<(RunDir, Classifier)> {
        let run = self.find()?;
        let (device, reason) = self.open_device()?;
        let classifier = Classifier::open(&run, device.device.clone())?;
        info!("device: {device}, {reason}");
        Ok((run, classifier))
    }
}

impl SettingsFlags {
    /// Combines defaults, preset, file and flags to a configuration, and loads its images. Also returns the settings
    /// that the user gave.
    ///
    /// Without preset and file, the preset is chosen by the pictures.
    ///
    /// # Errors
    /// Returns an error if a setting is unknown, out of range, or does not fit the images.
    pub(crate) fn resolve(&self, cache: PictureCache<'_>) -> Result<(Config, RunImages, Given)> {
        let settings = self.settings_over(presets::DEFAULT)?;
        let (choice, source) = match self.describe_network() {
            true => (None, None),
            false => picture_preset::choose(&settings, cache)?,
        };
        let settings = match choice {
            None => settings,
            Some(choice) => {
                info!("{}; --preset or --config choose others", choice.reason);
                let mut settings = Settings::preset(choice.preset)?;
                settings.overlay(choice.settings)?;
                self.give(settings)?
            }
        };
        let given = settings.given().clone();
        let (config, images) = images::resolve_opened(settings, source, cache)?;
        Ok((config, images, given))
    }

    /// Combines defaults, preset, file and flags. Without preset and file, the preset is `default`.
    ///
    /// # Errors
    /// Returns an error if a setting is unknown or out of range.
    pub(crate) fn settings_over(&self, default: &str) -> Result<Settings> {
        self.give(self.base(default)?)
    }

    /// Combines defaults, preset and file.
    fn base(&self, default: &str) -> Result<Settings> {
        match &self.config {
            Some(path) => Settings::file(path, self.preset.as_deref()),
            None => Settings::preset(self.preset.as_deref().unwrap_or(default)),
        }
    }

    /// Makes flags of settings, for a command that has few flags of its own.
    pub(crate) fn of_table(preset: Option<String>, settings: Table) -> Self {
        Self {
            preset,
            config: None,
            settings,
        }
    }

    /// Returns whether `--preset` or `--config` describes the network.
    pub(crate) fn describe_network(&self) -> bool {
        self.preset.is_some() || self.config.is_some()
    }

    /// Returns whether a flag gives the normalization of the pixels.
    pub(crate) fn give_normalization(&self) -> bool {
        let data = self.settings.get("data");
        data.is_some_and(|data| data.get("normalization").is_some())
    }

    /// Lays a table and the flags over preset and file. Without both, the preset is the default one.
    ///
    /// # Errors
    /// Returns an error if a setting is unknown or out of range.
    pub(crate) fn settings_with(&self, table: Table) -> Result<Settings> {
        let mut settings = self.base(presets::DEFAULT)?;
        settings.overlay(table)?;
        self.give(settings)
    }

    /// Lays the flags over the settings.
    fn give(&self, mut settings: Settings) -> Result<Settings> {
        settings
            .give(self.settings.clone(), Origin::Flags)
            .context("command line")?;
        Ok(settings)
    }

    /// Returns the configuration of a resumed run with the flags laid over it.
    ///
    /// # Errors
    /// Returns an error if a value is not accepted, or a flag changes anything but the end of the training,
    /// its checkpoints, its precision or the place of its images.
    pub(crate) fn extend(&self, config: &Config) -> Result<Config> {
        let place = "command line, while a run is resumed";
        ensure!(
            self.preset.is_none() && self.config.is_none(),
            "{place}: the run has its own settings; remove --preset and --config"
        );
        let weights = self
            .settings
            .get("training")
            .and_then(|training| training.get("class_weights"));
        ensure!(
            !weights.is_some_and(|weights| weights.is_str()),
            "{place}: the run keeps its class weights; remove --class-weights"
        );
        let mut extended = config.with(self.settings.clone()).context(place)?;
        if extended.data.labels != config.data.labels
            && let Some(labels) = &mut extended.data.labels
        {
            *labels = absolute_labels(labels)?;
        }
        if extended.data.source != config.data.source {
            extended.data.source = absolute_source(&extended.data.source)?;
        }
        extended.check_continues(config).context(place)?;
        Ok(extended)
    }
}
