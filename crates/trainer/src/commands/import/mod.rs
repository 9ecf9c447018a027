//! `trainer import FILE`: creates a run from the weights of another program.

mod normalization;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail};
use burn::module::Module;
use data::{Normalization, Scaling};
use formats::{Architecture, Mismatch, Weights};
use model::{ConvNetConfig, Storage};
use toml::{Table, Value};
use tracing::{info, warn};

use crate::commands::flags::{DeviceFlags, NewRunFlags, SettingsFlags};
use crate::config::presets;
use crate::config::run_config::Config;
use crate::config::settings::Settings;
use crate::device::panics::catch_panic;
use crate::inference::evaluation::evaluate;
use crate::process::logging::{self, FILE_ONLY};
use crate::process::printable::{LinesError, printable};
use crate::run::environment::Environment;
use crate::run::event_log::{Event, EventLog, Import, State};
use crate::run::images;
use crate::run::loaders::evaluation_loader;
use crate::run::metrics::table;
use crate::run::picture_cache::PictureCache;
use crate::training::state::Training;

/// Number of mismatched tensors listed in an error message.
const MAX_LISTED: usize = 20;

const EXAMPLES: &str = "\
Examples:
  trainer import simple_cnn.pth                        PyTorch weights of the network `convnet`
  trainer import checkpoint.pt --prefix ema.           one of the networks of a checkpoint
  trainer import notebook.keras                        a whole model of Keras, with its architecture
  trainer import notebook.weights.h5 --preset dropout  Keras weights, trained on pixels from 0 to 1
  trainer --resume latest                              continue training the imported weights

Formats: files of torch.save (.pt, .pth) of any PyTorch version, with weights or a whole model;
TorchScript; safetensors; Keras .weights.h5, .keras and .h5; burnpack. Code in a file is never executed.

--preset or --config describes the network and the normalization of its images, unless the file is
a whole model; the other settings apply if the training is resumed. docs/weights.md
describes how tensors are matched with layers.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// File with the weights
    file: PathBuf,
    /// Network of a file that holds several: the prefix of the names of its tensors, such as ema.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    #[command(flatten)]
    settings: SettingsFlags,
    #[command(flatten)]
    device: DeviceFlags,
    #[command(flatten)]
    new: NewRunFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let place = || args.file.display().to_string();
    let mut weights = read(&args.file).with_context(place)?;
    if let Some(prefix) = &args.prefix {
        let selected = weights.select(prefix);
        weights = selected.map_err(|reason| anyhow!("{}", printable(reason)).context(place()))?;
    }
    let architecture = architecture(&weights, &args.settings).with_context(place)?;
    let settings = match architecture {
        Some(architecture) => args.settings.settings_with(settings_of(architecture)?)?,
        None => args.settings.settings_over(presets::DEFAULT)?,
    };
    let (mut config, images) =
        images::resolve(settings, PictureCache::Write(&args.new.out)).with_context(place)?;
    let tensors = match architecture {
        Some(architecture) => architecture.tensors.clone(),
        None => formats::match_to_network(&weights, &config.model)
            .map_err(|mismatch| mismatch_error(&weights, &mismatch, &config))
            .with_context(place)?,
    };
    let non_finite = formats::not_finite(&tensors);

    let (device, reason) = args.device.open()?;
    info!("device: {device}, {reason}");
    let folded = config.model.folded();
    let network = folded.init(&device.device.clone().autodiff())?;
    let network = network.with_safetensors(formats::to_safetensors(&tensors)?)?;
    let training = Training::with_model(&config, network);
    let model = training.model.valid();
    let is_stated = args.settings.give_normalization()
        || architecture.is_none_or(|architecture| architecture.scaling.is_some());
    if !is_stated && non_finite.is_empty() {
        let training = &images.split.train;
        let (normalization, comparison) =
            normalization::choose(&model, &config, training, &device.device).with_context(place)?;
        info!("normalization {normalization}: {comparison}");
        config.data.normalization = normalization;
    }
    let test = match non_finite.is_empty() {
        false => None,
        true => {
            let loader = evaluation_loader(&config, &images.split.test, &device.device)?;
            Some(
                evaluate(&model, &loader, &config.images.classes, |_| Ok(()))
                    .with_context(place)?,
            )
        }
    };

    let environment = Environment::of_this_process(&device.to_string());
    let source = Import {
        file: args.file.display().to_string(),
        format: weights.format.name().into(),
        sha256: weights.sha256.clone(),
    };
    let record = images.record(&config.images.classes)?;
    let run = args.new.create(&config, |run| {
        record.write(run)?;
        run.write(&run.model_path(), &model.to_safetensors(Storage::Single)?)?;
        // Batch normalization is folded into the weights and cannot be recovered, so training cannot be
        // resumed.
        if folded == config.model {
            run.write_checkpoint(0, &training.checkpoint(&config)?.to_bytes()?, None)?;
        }
        if let Some(test) = &test {
            test.write(run)?;
        }
        let mut log = EventLog::append(run)?;
        log.write(&Event::Process(&environment))?;
        log.write(&Event::Import(&source))?;
        log.write(&Event::End {
            state: State::Finished,
            error: None,
        })
    })?;

    logging::to_file(&run.log_path())?;
    info!(target: FILE_ONLY, lines = %environment);
    let Scaling { mean, std } = config.scaling();
    info!(
        "imported {} weights, {} parameters; images are normalized as (pixel / 255 - {mean}) / {std}, \
         unless --preset or --normalization says otherwise",
        source.format,
        config.model.parameters()?
    );
    for note in architecture.map_or(&[][..], |architecture| &architecture.notes) {
        info!("{note}");
    }
    for (name, count, total) in &non_finite {
        warn!(
            "{}: {name}: {count} of {total} values are not finite",
            place()
        );
    }
    let path = run.path().display();
    if test.is_none() {
        warn!("{path}: not evaluated, and unusable while weights are not finite");
    }
    let metrics = test.map(|test| table(&[("test", Some(test.metrics()))]));
    let results = format!(
        "{}saved in    {}\n",
        metrics.unwrap_or_default(),
        printable(path)
    );
    info!(target: FILE_ONLY, lines = %results, "result:");
    Ok(write!(std::io::stdout().lock(), "{results}")?)
}

/// Reads the weights of a file.
fn read(path: &Path) -> Result<Weights> {
    // The parsers of foreign formats may panic on damaged files.
    match catch_panic(|| formats::read(path)) {
        Ok(weights) => Ok(weights?),
        Err(panic) => bail!("damaged: {panic}"),
    }
}

/// Returns the network that the file describes, unless the user does.
fn architecture<'a>(
    weights: &'a Weights,
    settings: &SettingsFlags,
) -> Result<Option<&'a Architecture>> {
    if weights.architecture.is_none()
        && let Some(reason) = formats::unsupported(weights)
    {
        bail!("{}", printable(reason));
    }
    match &weights.architecture {
        _ if settings.describe_network() => Ok(None),
        None => Ok(None),
        Some(Ok(architecture)) => Ok(Some(architecture)),
        Some(Err(reason)) => bail!(
            "{}; if a network of this project has the same weights, describe it with --config",
            printable(reason)
        ),
    }
}

/// Returns the settings of a network that a file describes.
fn settings_of(architecture: &Architecture) -> Result<Table> {
    let network = &architecture.network;
    let mut data = Table::new();
    if let [height, width] = network.input
        && height == width
    {
        data.insert("image_size".into(), Value::try_from(height)?);
    }
    if let Some(scaling) = architecture.scaling {
        let normalization = Normalization::from(scaling);
        data.insert("normalization".into(), Value::try_from(normalization)?);
    }
    Ok(Table::from_iter([
        ("model".into(), Value::try_from(network)?),
        ("data".into(), Value::Table(data)),
    ]))
}

/// Describes which tensors do not fit the network, and which presets or data would.
fn mismatch_error(weights: &Weights, mismatch: &Mismatch, config: &Config) -> Error {
    let network = &config.model;
    let inferred = formats::channels_and_classes(weights)
        .map(|[channels, classes]| ConvNetConfig {
            channels,
            classes,
            ..network.clone()
        })
        .filter(|inferred| !fitting_presets(weights, inferred).is_empty());
    let hint = match (fitting_presets(weights, network).as_slice(), inferred) {
        _ if mismatch.has_only_extra_tensors() => {
            "the file contains this network and further tensors".into()
        }
        (
            [],
            Some(ConvNetConfig {
                channels, classes, ..
            }),
        ) => format!(
            "the weights are for images of {channels} channels and {classes} classes, but {} has {} \
             channels and {} classes: choose another data set with --data",
            config.images.name, network.channels, network.classes
        ),
        ([], None) => "no preset has this network: describe it in a file for --config; \
                       `trainer presets show NAME` prints a template"
            .into(),
        (presets, _) => format!("the weights fit --preset {}", presets.join(", ")),
    };
    let mut problems: Vec<String> = mismatch
        .0
        .iter()
        .map(|problem| printable(problem).to_string())
        .collect();
    if let Some(more @ 1..) = problems.len().checked_sub(MAX_LISTED) {
        problems.truncate(MAX_LISTED);
        problems.push(format!("and {more} more"));
    }
    let problems = problems.join("\n  ");
    let preset = printable(&config.preset);
    let hint = printable(hint);
    Error::new(LinesError(format!(
        "the weights do not fit preset {preset}:\n  {problems}\n{hint}"
    )))
}

/// Returns the presets that the weights fit, with the input shape and the classes of `network`.
fn fitting_presets(weights: &Weights, network: &ConvNetConfig) -> Vec<&'static str> {
    let is_fitting = |name: &&str| {
        let preset = Settings::preset(name).and_then(|settings| settings.model());
        preset.is_ok_and(|preset| {
            let preset = ConvNetConfig {
                channels: network.channels,
                input: network.input,
                classes: network.classes,
                ..preset
            };
            formats::match_to_network(weights, &preset).is_ok()
        })
    };
    presets::names().filter(is_fitting).collect()
}
