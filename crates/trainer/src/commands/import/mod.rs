//! `trainer import FILE`: creates a run from the weights of another program.

mod candidate;
mod comparison;

use std::cell::OnceCell;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, anyhow};
use burn::module::Module;
use burn::tensor::Device;
use data::{Normalization, Scaling};
use formats::{Architecture, Mismatch, Readings, Weights};
use model::{ConvNetConfig, Storage};
use toml::{Table, Value};
use tracing::{info, warn};

use crate::commands::flags::{DeviceFlags, NewRunFlags, SettingsFlags};
use crate::commands::import::candidate::{Candidate, fitting_presets};
use crate::commands::import::comparison::Comparison;
use crate::config::presets;
use crate::config::run_config::Config;
use crate::inference::evaluation::evaluate;
use crate::process::logging::{self, FILE_ONLY};
use crate::process::printable::{LinesError, printable};
use crate::run::environment::Environment;
use crate::run::event_log::{Event, EventLog, Import, State};
use crate::run::images::{self, RunImages};
use crate::run::loaders::evaluation_loader;
use crate::run::metrics::table;
use crate::run::picture_cache::PictureCache;
use crate::training::source_network::read_weights;
use crate::training::state::Training;

/// Number of mismatched tensors listed in an error message.
const MAX_LISTED: usize = 20;

/// Test accuracy below which another network than the described one may be far better.
const FAR_BETTER: f64 = 0.97;

const EXAMPLES: &str = "\
Examples:
  trainer import simple_cnn.pth                        PyTorch weights, whose network is recognized
  trainer import checkpoint.pt --prefix ema.           one of the networks of a checkpoint
  trainer import notebook.keras                        a whole model of Keras, with its architecture
  trainer import network.onnx                          a network of any framework, with its architecture
  trainer import notebook.weights.h5 --preset dropout  Keras weights, trained on pixels from 0 to 1
  trainer --resume latest                              continue training the imported weights

Formats: files of torch.save (.pt, .pth) of any PyTorch version, with weights or a whole model;
TorchScript; safetensors; Keras .weights.h5, .keras and .h5; ONNX; burnpack. Code in a file is
never executed.

A whole model describes its network. The network of a file with weights only is recognized on
training images, or described with --preset or --config; the other settings apply if the training
is resumed. docs/weights.md describes what is read, and how.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// File with the weights
    file: PathBuf,
    /// Network of a file that holds several: the prefix of the names of its tensors, such as ema.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Activation of the network, if the file does not say it: relu, tanh, gelu or silu
    #[arg(long, value_name = "NAME", value_parser = ["relu", "tanh", "gelu", "silu"], hide_possible_values = true)]
    activation: Option<String>,
    #[command(flatten)]
    settings: SettingsFlags,
    #[command(flatten)]
    device: DeviceFlags,
    #[command(flatten)]
    new: NewRunFlags,
}

/// The network of a file, and the configuration and images of its run.
struct Identified {
    architecture: Architecture,
    config: Config,
    images: RunImages,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let place = || args.file.display().to_string();
    let weights = read(&args).with_context(place)?;
    let (device, reason) = args.device.open()?;
    let Identified {
        architecture,
        mut config,
        images,
    } = identify(&args, &weights, &device.device).with_context(place)?;
    info!("device: {device}, {reason}");
    config.model = architecture.network.folded();
    let non_finite = formats::not_finite(&architecture.tensors);
    let training = Training::with_model(&config, candidate::load(&architecture, &device.device)?);
    let model = training.model.valid();
    let test = match non_finite.is_empty() {
        false => None,
        true => {
            let loader = evaluation_loader(&config, &images.split.test, &device.device)?;
            let test = evaluate(&model, &loader, &config.images.classes, |_| Ok(()));
            Some(test.with_context(place)?)
        }
    };
    if let Some(test) = &test
        && args.settings.describe_network()
        && test.accuracy < FAR_BETTER
    {
        warn_of_better_reading(&weights, &config, &images, test.accuracy, &device.device)?;
    }

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
        run.write_checkpoint(0, &training.checkpoint(&config)?.to_bytes()?, None)?;
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
        "imported {} parameters from {}; images are normalized as (pixel / 255 - {mean}) / {std}",
        config.model.parameters()?,
        source.format
    );
    if architecture.network.has_batch_norm() {
        info!(
            "batch normalization is part of the weights; a training that continues them has none"
        );
    }
    for note in &architecture.notes {
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

/// Reads the weights of the file, of the network that the user chose.
fn read(args: &Args) -> Result<Weights> {
    let weights = read_weights(&args.file)?;
    match &args.prefix {
        None => Ok(weights),
        Some(prefix) => weights.select(prefix).map_err(message),
    }
}

/// Makes an error of the message about a file.
fn message(text: String) -> Error {
    anyhow!("{}", printable(text))
}

/// Identifies the network and the normalization of its images, by their description or by their results on training
/// images.
fn identify(args: &Args, weights: &Weights, device: &Device) -> Result<Identified> {
    let Args { settings, new, .. } = args;
    let readings = OnceCell::new();
    let candidates = candidates(args, weights, &readings)?;
    let cache = PictureCache::Write(&new.out);
    let Some(first) = candidates.first() else {
        let (config, images) = images::resolve(settings.settings_over(presets::DEFAULT)?, cache)?;
        let network = config.model.clone();
        let architecture = Architecture {
            tensors: formats::match_to_network(weights, &network)
                .map_err(|mismatch| mismatch_error(weights, &mismatch, &config))?,
            network,
            scaling: None,
            notes: Vec::new(),
        };
        return Ok(Identified {
            architecture,
            config,
            images,
        });
    };
    let mut architecture = first.architecture().map_err(message)?;
    let (mut config, images) =
        images::resolve(settings.settings_with(settings_of(&architecture)?)?, cache)?;
    let is_described = matches!(candidates.as_slice(), [Candidate::Described(_)]);
    let is_normalized = settings.give_normalization() || architecture.scaling.is_some();
    let is_finite = formats::not_finite(&architecture.tensors).is_empty();
    if !(is_described && is_normalized) && is_finite {
        let normalizations = match is_normalized {
            true => vec![config.data.normalization],
            false => comparison::usual_normalizations(),
        };
        let train = &images.split.train;
        let comparison = Comparison::new(&candidates, &normalizations, &config, train, device)?;
        let (index, normalization) = comparison.best()?;
        info!("read as {comparison}");
        config.data.normalization = normalization;
        architecture = candidates[index].architecture().map_err(message)?;
    }
    Ok(Identified {
        architecture,
        config,
        images,
    })
}

/// Returns the networks that the file may hold; none if the user describes the network, or it cannot be evaluated.
fn candidates<'a>(
    args: &Args,
    weights: &'a Weights,
    readings: &'a OnceCell<Result<Readings, String>>,
) -> Result<Vec<Candidate<'a>>> {
    if weights.architecture.is_none()
        && let Some(reason) = formats::unsupported(weights)
    {
        return Err(message(reason));
    }
    if args.settings.describe_network() {
        return Ok(Vec::new());
    }
    match &weights.architecture {
        Some(Ok(architecture)) => Ok(vec![Candidate::Described(architecture)]),
        Some(Err(reason)) => Err(message(format!(
            "{reason}; if a network of this project has the same weights, describe it with --config"
        ))),
        None if !formats::not_finite(&weights.tensors).is_empty() => Ok(Vec::new()),
        None => {
            let size = args
                .settings
                .settings_over(presets::DEFAULT)?
                .data()?
                .image_size;
            let readings = readings.get_or_init(|| Readings::new(weights, size));
            candidate::candidates(weights, readings, size, args.activation.as_deref())
                .map_err(message)
        }
    }
}

/// Warns if the weights are far more accurate as another network than the one that the user describes.
fn warn_of_better_reading(
    weights: &Weights,
    config: &Config,
    images: &RunImages,
    accuracy: f64,
    device: &Device,
) -> Result<()> {
    // Readings are of square images.
    let [_, height, width] = config.images.shape();
    let Ok(readings) = Readings::new(weights, height) else {
        return Ok(());
    };
    if height != width {
        return Ok(());
    }
    let candidates: Vec<_> = Candidate::of(&readings, None).collect();
    let normalizations = comparison::usual_normalizations();
    let train = &images.split.train;
    let comparison = Comparison::new(&candidates, &normalizations, config, train, device)?;
    let is_better = comparison.best_accuracy() > Some(accuracy + 1.0 - FAR_BETTER);
    if is_better && comparison.best().is_ok() {
        warn!(
            "the weights are far better as {comparison}; import without --preset and --config reads them so"
        );
    }
    Ok(())
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
    let fitting = |network: &ConvNetConfig| -> Vec<&str> {
        let presets = fitting_presets(weights, network.channels, network.input, network.classes);
        presets.into_iter().map(|(name, _)| name).collect()
    };
    let inferred = formats::channels_and_classes(weights)
        .map(|[channels, classes]| ConvNetConfig {
            channels,
            classes,
            ..network.clone()
        })
        .filter(|inferred| !fitting(inferred).is_empty());
    let hint = match (fitting(network).as_slice(), inferred) {
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
