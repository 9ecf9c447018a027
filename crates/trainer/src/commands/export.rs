//! `trainer export RUN`: writes a network in a format of other programs.

use std::io::Write;
use std::path::{MAIN_SEPARATOR, PathBuf};

use anyhow::{Error, Result, ensure};
use clap::ValueEnum;
use formats::OnnxExport;
use model::Storage;
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
    /// ONNX only: normalize inside the network, so that its input is unsigned bytes from 0 to 255
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
        }
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(
        !args.raw_pixels || args.format == Format::Onnx,
        "--raw-pixels: only an ONNX file contains the normalization"
    );
    ensure!(
        args.opset.is_none() || args.format == Format::Onnx,
        "--opset: only an ONNX file has operators"
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
    let bytes = match args.format {
        Format::PytorchSafetensors => model.to_safetensors(storage)?,
        Format::Pytorch => pytorch(&classifier, storage)?,
        Format::Safetensors => model.to_burn_safetensors(storage)?,
        Format::Burnpack => model.to_burnpack(storage)?,
        Format::Onnx => {
            let opset = args.opset.unwrap_or(OnnxExport::DEFAULT_OPSET);
            onnx(&run, &classifier, storage, args.raw_pixels, opset)?
        }
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
    let range = OnnxExport::OPSETS;
    let opset = text.parse().ok().filter(|opset| range.contains(opset));
    opset.ok_or_else(|| format!("expected {} to {}", range.start(), range.end()))
}

/// Returns the weights as a file of PyTorch, in the order of the layers.
fn pytorch(classifier: &Classifier, storage: Storage) -> Result<Vec<u8>> {
    let weights = formats::from_safetensors(&classifier.model.to_safetensors(storage)?)?;
    let layers = classifier.config.model.layers()?;
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

/// Returns the network as an ONNX file. Its metadata describe the classes, the preprocessing and the
/// accuracy.
fn onnx(
    run: &RunDir,
    classifier: &Classifier,
    storage: Storage,
    is_raw: bool,
    opset: u32,
) -> Result<Vec<u8>> {
    let config = &classifier.config;
    let scaling = config.scaling();
    let images = &config.images;
    let input = match is_raw {
        true => json!({ "type": "uint8", "range": [0, 255] }),
        false => json!({
            "type": "float32",
            "formula": "(pixel / 255 - mean) / std",
            "mean": scaling.mean,
            "std": scaling.std,
        }),
    };
    let preprocessing = json!({
        "layout": "NCHW",
        "shape": images.shape(),
        "channels": if images.channels == 1 { "grey" } else { "RGB" },
        "pictures": images.preparation.description(),
        "numbers": input,
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
    let weights = formats::from_safetensors(&classifier.model.to_safetensors(storage)?)?;
    let export = OnnxExport {
        name: &config.preset,
        network: &config.model,
        weights: &weights,
        normalization: is_raw.then_some(scaling),
        metadata: &metadata,
        opset,
    };
    Ok(export.to_bytes()?)
}
