//! `trainer export RUN`: writes a network in a format of other programs.

use std::io::Write;
use std::path::{MAIN_SEPARATOR, PathBuf};

use anyhow::{Error, Result, ensure};
use clap::ValueEnum;
use formats::{DEFAULT_ONNX_OPSET, Export, ONNX_OPSETS, Tensors};
use model::{Layer, Storage};
use serde_json::json;

use crate::commands::flags::RunFlags;
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::process::printable::printable;
use crate::run::atomic_file;
use crate::run::run_dir::RunDir;

const EXAMPLES: &str = "\
Examples:
  trainer export latest --format pytorch-safetensors --to simple_cnn.safetensors
  trainer export pretrained --format onnx --raw-pixels --half
  trainer export pretrained --format keras --to digits.keras
  trainer export pretrained --format onnx --opset 11   for a program that does not know opset 17

docs/weights.md describes the formats and how to load them.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    /// File format
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Store weights in 16-bit floating point: half the size, three significant digits
    #[arg(long)]
    half: bool,
    /// ONNX and Keras only: normalize inside the network, so that its input is pixels from 0 to 255
    #[arg(long)]
    raw_pixels: bool,
    /// ONNX only: version of the operator set [default: 17]
    #[arg(long, value_name = "N", value_parser = opset)]
    opset: Option<u32>,
    /// File to write, which must not exist [default: a file in export/ of the run, which is replaced]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// safetensors in PyTorch's names and layout, for `load_state_dict`, like model.safetensors of the run
    PytorchSafetensors,
    /// A state_dict for `torch.load`, with the names of model.safetensors
    Pytorch,
    /// safetensors in Burn's names and layout
    Safetensors,
    /// Burn's own format
    Burnpack,
    /// Network and weights, for ONNX Runtime and similar programs
    Onnx,
    /// Network and weights, for `keras.saving.load_model` of Keras 3
    Keras,
    /// Weights for `load_weights` of a Keras 3 model of the same layers
    KerasWeights,
}

impl Format {
    /// Returns the extension of its files.
    fn extension(self) -> &'static str {
        match self {
            Self::PytorchSafetensors => "safetensors",
            Self::Pytorch => "pt",
            Self::Safetensors => "burn.safetensors",
            Self::Burnpack => "bpk",
            Self::Onnx => "onnx",
            Self::Keras => "keras",
            Self::KerasWeights => "weights.h5",
        }
    }

    /// Whether its files contain the network, not only the weights.
    fn has_network(self) -> bool {
        matches!(self, Self::Onnx | Self::Keras)
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(
        !args.raw_pixels || args.format.has_network(),
        "--raw-pixels: only a file of the network, onnx or keras, contains the normalization"
    );
    ensure!(
        args.opset.is_none() || args.format == Format::Onnx,
        "--opset: only an ONNX file has operators"
    );
    ensure!(
        !args.half || !matches!(args.format, Format::Keras | Format::KerasWeights),
        "--half: not for Keras, whose layers store their weights in 32 bits"
    );
    if let Some(path) = &args.to {
        ensure!(
            path.symlink_metadata().is_err(),
            "{}: already exists; choose another --to",
            path.display()
        );
        ensure!(
            !path.to_string_lossy().ends_with(MAIN_SEPARATOR),
            "{}: is a folder, expected a file",
            path.display()
        );
    }
    let (run, classifier) = args.run.open()?;
    let storage = match args.half {
        true => Storage::Half,
        false => Storage::Single,
    };
    let model = &classifier.model;
    let config = &classifier.config;
    let weights = formats::from_safetensors(&model.to_safetensors(storage)?)?;
    let metadata = match args.format.has_network() {
        true => metadata(&run, &classifier, args.format, args.raw_pixels)?,
        false => Vec::new(),
    };
    let export = Export {
        name: &config.preset,
        network: &config.model,
        weights: &weights,
        normalization: args.raw_pixels.then_some(config.scaling()),
        metadata: &metadata,
    };
    let bytes = match args.format {
        Format::PytorchSafetensors => model.to_safetensors(storage)?,
        Format::Pytorch => pytorch(&weights, &config.model.layers()?)?,
        Format::Safetensors => model.to_burn_safetensors(storage)?,
        Format::Burnpack => model.to_burnpack(storage)?,
        Format::Onnx => formats::to_onnx(&export, args.opset.unwrap_or(DEFAULT_ONNX_OPSET))?,
        Format::Keras => formats::to_keras(&export)?,
        Format::KerasWeights => formats::to_keras_weights(&export)?,
    };
    let path = match args.to {
        None => {
            let half = if args.half { ".half" } else { "" };
            let raw = if args.raw_pixels { ".raw-pixels" } else { "" };
            let extension = args.format.extension();
            run.export_path(&format!("{}{half}{raw}.{extension}", run.name()))
        }
        Some(path) => path,
    };
    atomic_file::write(&path, &bytes)?;
    writeln!(std::io::stdout().lock(), "{}", printable(path.display()))?;
    Ok(())
}

/// Parses the version of an operator set.
fn opset(text: &str) -> Result<u32, String> {
    let range = ONNX_OPSETS;
    let opset = text.parse().ok().filter(|opset| range.contains(opset));
    opset.ok_or_else(|| format!("expected {} to {}", range.start(), range.end()))
}

/// Returns the weights as a file of PyTorch, in the order of the layers.
fn pytorch(weights: &Tensors, layers: &[Layer]) -> Result<Vec<u8>> {
    let position = |name: &str| {
        let (layer, _) = name.rsplit_once('.').unwrap_or((name, ""));
        layers.iter().position(|known| known.name == layer)
    };
    let mut tensors: Vec<_> = weights
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    tensors.sort_by_key(|(name, _)| (position(name), name.ends_with(".bias")));
    formats::to_pytorch(&tensors).map_err(Error::from_boxed)
}

/// Returns metadata that describe the classes, the preprocessing and the accuracy.
fn metadata(
    run: &RunDir,
    classifier: &Classifier,
    format: Format,
    is_raw: bool,
) -> Result<Vec<(&'static str, String)>> {
    let config = &classifier.config;
    let scaling = config.scaling();
    let images = &config.images;
    let numbers = match (is_raw, format) {
        (true, Format::Onnx) => json!({ "type": "uint8", "range": [0, 255] }),
        (true, _) => json!({ "type": "float32", "range": [0, 255] }),
        (false, _) => json!({
            "type": "float32",
            "formula": "(pixel / 255 - mean) / std",
            "mean": scaling.mean,
            "std": scaling.std,
        }),
    };
    let [channels, height, width] = images.shape();
    let (layout, shape) = match format {
        Format::Onnx => ("NCHW", [channels, height, width]),
        _ => ("NHWC", [height, width, channels]),
    };
    let preprocessing = json!({
        "layout": layout,
        "shape": shape,
        "channels": if images.channels == 1 { "grey" } else { "RGB" },
        "pictures": images.preparation.description(),
        "numbers": numbers,
    });
    let mut metadata = vec![
        ("run", run.name()),
        ("preset", config.preset.clone()),
        ("data", config.images.name.clone()),
        ("classes", json!(config.images.classes).to_string()),
        ("preprocessing", preprocessing.to_string()),
    ];
    if let Some(evaluation) = Evaluation::of_run(run)? {
        metadata.push(("accuracy", evaluation.accuracy.to_string()));
        let examples = evaluation.examples;
        metadata.push((
            "judged_on",
            format!("{examples} test images of {}", images.name),
        ));
    }
    Ok(metadata)
}
