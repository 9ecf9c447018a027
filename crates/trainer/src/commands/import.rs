//! `trainer import FILE`: weights of another program, as a run.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail};
use burn::module::Module;
use data::Scaling;
use formats::{Mismatch, Weights};
use model::{ConvNetConfig, Storage};
use tracing::{info, warn};

use crate::commands::flags::{DeviceFlags, NewRunFlags, SettingsFlags};
use crate::config::presets;
use crate::config::run_config::Config;
use crate::config::settings::Settings;
use crate::device::panics::catch_panic;
use crate::inference::evaluation::evaluate;
use crate::process::logging::{self, FILE_ONLY};
use crate::run::environment::Environment;
use crate::run::event_log::{Event, EventLog, Import, State};
use crate::run::images::PictureCache;
use crate::run::loaders::evaluation_loader;
use crate::run::metrics::table;
use crate::training::state::Training;

/// So many things that do not fit are named.
const NAMED: usize = 20;

const FORMATS: &str = "\
Examples:
  trainer import simple_cnn.pth                        weights of PyTorch, of the network `convnet`
  trainer import notebook.weights.h5 --preset dropout  of Keras, whose pixels were 0 to 1
  trainer --resume latest                              train them on

Reads what torch.save(model.state_dict(), ...) writes (.pt, .pth), now and before PyTorch 1.6;
safetensors; Keras's .weights.h5, .keras and .h5; burnpack. Nothing in a file is ever run.

--preset or --config says which network it is, and how its images are normalised; the other settings
are for a training that goes on from these weights. docs/weights.md says how tensors are matched.";

#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(crate) struct Args {
    /// File of weights
    file: PathBuf,
    #[command(flatten)]
    settings: SettingsFlags,
    #[command(flatten)]
    device: DeviceFlags,
    #[command(flatten)]
    new: NewRunFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let place = || args.file.display().to_string();
    let weights = read(&args.file).with_context(place)?;
    let (config, images) = args.settings.resolve(PictureCache::Write(&args.new.out))?;
    let tensors = formats::match_to_network(&weights, &config.model)
        .map_err(|misfit| not_fitting(&weights, &misfit, &config))
        .with_context(place)?;
    let unusable = formats::not_finite(&tensors);

    let (found, reason) = args.device.open()?;
    info!("device: {found}, {reason}");
    let folded = config.model.without_batch_norm();
    let network = folded.init(&found.device.clone().autodiff())?;
    let network = network.with_safetensors(formats::to_safetensors(&tensors)?)?;
    let training = Training::with_model(&config, network);
    let model = training.model.valid();
    let test = match unusable.is_empty() {
        false => None,
        true => {
            let loader = evaluation_loader(&config, &images.split.test, &found.device);
            Some(
                evaluate(&model, &loader, &config.images.classes, |_| Ok(()))
                    .with_context(place)?,
            )
        }
    };

    let environment = Environment::of_this_process(&found.to_string());
    let source = Import {
        file: args.file.display().to_string(),
        format: weights.format.name().into(),
        sha256: weights.sha256.clone(),
    };
    let run = args.new.create(&config, |run| {
        run.write(&run.model_path(), &model.to_safetensors(Storage::Single)?)?;
        // What was normalized while it learned cannot be told from its weights, to go on with.
        if folded == config.model {
            run.write_checkpoint(0, &training.checkpoint(&config)?.to_bytes()?, None)?;
        }
        if let Some(test) = &test {
            test.write(run)?;
        }
        let mut journal = EventLog::append(run)?;
        journal.write(&Event::Process(&environment))?;
        journal.write(&Event::Import(&source))?;
        journal.write(&Event::End {
            state: State::Finished,
            error: None,
        })
    })?;

    logging::to_file(&run.log_path())?;
    info!(target: FILE_ONLY, "{environment}");
    let Scaling { mean, std } = config.scaling();
    info!(
        "{} weights of {} parameters, for images of (pixel / 255 - {mean}) / {std}; --preset or \
         --normalization say otherwise",
        source.format,
        config.model.parameters()?
    );
    for (name, count, of) in &unusable {
        warn!(
            "{}: {name}: {count} of {of} values are no finite numbers",
            place()
        );
    }
    let path = run.path().display();
    if test.is_none() {
        warn!("{path}: not judged, and of no use before that is mended");
    }
    let judged = test.map(|test| table(&[("test", Some(test.metrics()))]));
    let results = format!("{}saved in    {path}\n", judged.unwrap_or_default());
    info!(target: FILE_ONLY, "result:\n{results}");
    Ok(write!(std::io::stdout().lock(), "{results}")?)
}

/// The weights of a file.
fn read(path: &Path) -> Result<Weights> {
    // Files are whatever the world has; those who read them should not, but may panic.
    match catch_panic(|| formats::read(path)) {
        Ok(weights) => Ok(weights?),
        Err(panic) => bail!("damaged: {panic}"),
    }
}

/// What does not fit, and what would.
fn not_fitting(weights: &Weights, misfit: &Mismatch, config: &Config) -> Error {
    let network = &config.model;
    let seeming = formats::channels_and_classes(weights)
        .map(|[channels, classes]| ConvNetConfig {
            channels,
            classes,
            ..network.clone()
        })
        .filter(|seeming| !fitting(weights, seeming).is_empty());
    let remedy = match (fitting(weights, network).as_slice(), seeming) {
        _ if misfit.has_only_extra_tensors() => {
            "the network of the preset is in it, with more".into()
        }
        (
            [],
            Some(ConvNetConfig {
                channels, classes, ..
            }),
        ) => format!(
            "they are for images of {channels} channels and {classes} classes, and {} has {} and {}: \
             name others with --data",
            config.images.name, network.channels, network.classes
        ),
        ([], None) => "no preset has this network: describe it in a file for --config; \
                       `trainer presets show NAME` prints one to start from"
            .into(),
        (presets, _) => format!("they fit --preset {}", presets.join(", ")),
    };
    let mut problems = misfit.0.clone();
    if let Some(more @ 1..) = problems.len().checked_sub(NAMED) {
        problems.truncate(NAMED);
        problems.push(format!("and {more} more"));
    }
    let problems = problems.join("\n  ");
    anyhow!(
        "not the weights of {}:\n  {problems}\n{remedy}",
        config.preset
    )
}

/// The presets whose networks have such weights, for images like those of `network`.
fn fitting(weights: &Weights, network: &ConvNetConfig) -> Vec<&'static str> {
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
