//! `trainer inspect RUN`: draws the figures of a run.

use std::io::Write;

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use classifier::MIN_PROBABILITY;
use serde::Serialize;
use tracing::warn;

use crate::commands::embedding::EmbeddingFlags;
use crate::commands::flags::RunFlags;
use crate::config::suggest::did_you_mean;
use crate::figures::run_figures::{self, FigureOptions, RunFigures};
use crate::figures::{self, ExplainedImage, Figure};
use crate::inference::chosen_image::ChosenImage;
use crate::inference::classifier::Classifier;
use crate::inference::explanation::Explanation;
use crate::inference::heat_map::HeatMap;
use crate::inference::nearest_images::SimilarImage;
use crate::process::printable::printable;
use crate::run::event_log::Events;
use crate::run::images::{self, RunImages};
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::RunDir;

const FIGURES: &str = "\
Figures, written to figures/ of the run as SVG and PNG:
  augmentation   training images and their random variants, if the run has augmentation
  curves         loss and accuracy by epoch
  filters        filters of a convolution block
  feature-maps   feature maps of an image
  predictions    random test images with labels and predictions
  mistakes       wrong predictions with the highest loss
  grad-cam       evidence for the predicted class in the worst mistakes (convolutions only)
  confusion      confusion matrix
  classes        accuracy per class
  explanation    with --explain: evidence for a class in an image, nearest training images
  embedding      with --embedding: the test images by their features; also a page, embedding.html
  corruption-examples  with --corruptions";

/// Flags of the other figures.
const OTHER_FIGURES: [&str; 10] = [
    "augmentation",
    "corruptions",
    "embedding",
    "image",
    "block",
    "maps",
    "channel",
    "count",
    "seed",
    "mistakes",
];

/// Number of similar training images of an explanation.
const NEAREST: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = FIGURES)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    /// Image whose feature maps are drawn: an index in the test split or a picture file
    #[arg(long, value_name = "N|FILE", default_value = "0")]
    image: String,
    /// Only scale the picture file, without further preparation
    #[arg(long)]
    raw: bool,
    /// Block whose filters and feature maps are drawn, from 1 [default: 1]
    #[arg(long, value_name = "N")]
    block: Option<usize>,
    /// Feature maps to draw, from 0 [default: the first eight]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    maps: Option<Vec<usize>>,
    /// Input channel of the block for which its filters are drawn, from 0 [default: 0, or all three of a color image
    /// together]
    #[arg(long, value_name = "N", hide_short_help = true)]
    channel: Option<usize>,
    /// Draw only the augmentation figure, which needs no weights
    ///
    /// mixup and CutMix mix the drawn images with each other
    #[arg(long)]
    augmentation: bool,
    /// Draw only the explanation of an image, named as for --image
    ///
    /// Heat maps of the evidence for the predicted class, by Grad-CAM, integrated gradients and occlusion, and the nearest
    /// training images; docs/explanations.md describes them
    #[arg(long, value_name = "N|FILE", conflicts_with_all = OTHER_FIGURES)]
    explain: Option<String>,
    /// Class to explain [default: the predicted class]
    #[arg(
        long,
        value_name = "CLASS",
        requires = "explain",
        hide_short_help = true
    )]
    explain_class: Option<String>,
    /// Print the heat maps of --explain as JSON instead of drawing them
    #[arg(long, requires = "explain", hide_short_help = true)]
    json: bool,
    /// Draw only --image under the corruptions of `evaluate`
    #[arg(long, conflicts_with = "augmentation")]
    corruptions: bool,
    /// Number of random test images
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = image_count())]
    count: usize,
    /// Seed of the random selection
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Number of mistakes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = image_count())]
    mistakes: usize,
    #[command(flatten)]
    embedding: EmbeddingFlags,
}

fn image_count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=200)
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.augmentation {
        return draw_augmentation(&args.run);
    }
    if let Some(image) = &args.explain {
        return explain(&args, image);
    }
    let (run, classifier) = args.run.open()?;
    if args.embedding.is_given() {
        let figure = args.embedding.draw(&run, &classifier, args.seed)?;
        save(&run, &[figure])?;
        let page = run.embedding_page_path();
        writeln!(std::io::stdout(), "{}", printable(page.display()))?;
        return Ok(());
    }
    let options = FigureOptions {
        image: args.image,
        raw: args.raw,
        block: args.block,
        maps: args.maps,
        channel: args.channel,
        count: args.count,
        seed: args.seed,
        mistakes: args.mistakes,
    };
    if args.corruptions {
        let figure = run_figures::corruption_examples(&run, &classifier, &options)?;
        return save(&run, &[figure]);
    }
    let epochs = Events::read(&run)?.epochs();
    let drawn = RunFigures::draw(&run, &classifier, &epochs, &options)?;
    save(&run, &drawn.figures)
}

fn draw_augmentation(run: &RunFlags) -> Result<()> {
    let (device, _) = run.open_device()?;
    let run = run.find()?;
    let config = run.read_config()?;
    let figure = run_figures::augmentation(&run, &config, &device.device)?;
    let figure = figure.context("this run has no augmentation")?;
    save(&run, &[figure])
}

/// Explains the prediction for an image.
fn explain(args: &Args, image: &str) -> Result<()> {
    let (run, classifier) = args.run.open()?;
    let class = args.explain_class.as_deref();
    let class = class.map(|name| class_index(name, classifier.classes()));
    let class = class.transpose()?;
    let test = || images::load_test(&run, &classifier.config);
    let ChosenImage { pixels, label } = ChosenImage::open(image, args.raw, &classifier, test)?;
    let classifier = classifier.with_verdicts(&run);
    let explanation = classifier.explain(&pixels, class)?;
    if args.json {
        let json = serde_json::to_string(&Maps::new(&explanation, classifier.classes()))?;
        return Ok(writeln!(std::io::stdout().lock(), "{json}")?);
    }
    let nearest = nearest_training_images(&run, &classifier, &pixels);
    let image = ExplainedImage {
        pixels: &pixels,
        shape: classifier.config.images.shape(),
        label,
        explanation: &explanation,
        nearest: &nearest,
    };
    let title = title(&explanation, classifier.classes());
    let figure = figures::explanation(&title, image, classifier.classes());
    save(&run, &[figure])
}

/// Returns the index of a class.
fn class_index(name: &str, classes: &[String]) -> Result<usize> {
    let index = classes.iter().position(|class| class == name);
    index.with_context(|| {
        let names = classes.iter().map(String::as_str);
        let hint = did_you_mean(name, names.clone());
        let names: Vec<&str> = names.collect();
        format!(
            "class {name}: this network has the classes {}{hint}",
            names.join(", ")
        )
    })
}

/// Finds the most similar training images; none, with a warning, if they cannot be read.
fn nearest_training_images(
    run: &RunDir,
    classifier: &Classifier,
    pixels: &[u8],
) -> Vec<SimilarImage> {
    let root = run.root();
    let images = RunImages::load(run, &classifier.config, PictureCache::Read(&root));
    let nearest =
        images.and_then(|images| classifier.nearest_images(pixels, &images.split.train, NEAREST));
    nearest.unwrap_or_else(|error| {
        warn!("no nearest training images: {error:#}");
        Vec::new()
    })
}

/// Describes a prediction and the explained class.
fn title(explanation: &Explanation, classes: &[String]) -> String {
    let percent = |probability: f32| format!("{:.1}%", 100.0 * probability);
    let (predicted, probability) = explanation.answer.probabilities.best();
    let mut title = format!("Predicted {}, {}", classes[predicted], percent(probability));
    if let Some(assessment) = explanation.answer.assessment {
        title.push_str(&format!(", {}", assessment.verdict(MIN_PROBABILITY)));
    }
    if explanation.class != predicted {
        let class = &classes[explanation.class];
        let probability = percent(explanation.probability());
        title.push_str(&format!("; evidence for {class}, {probability}"));
    }
    title
}

/// The heat maps of an explanation, as JSON.
#[derive(Serialize)]
struct Maps<'a> {
    class: &'a str,
    probability: f32,
    predicted: &'a str,
    grad_cam: Option<&'a HeatMap>,
    integrated_gradients: &'a HeatMap,
    logit_difference: f64,
    occlusion: &'a HeatMap,
    patch: usize,
}

impl<'a> Maps<'a> {
    fn new(explanation: &'a Explanation, classes: &'a [String]) -> Self {
        let (predicted, _) = explanation.answer.probabilities.best();
        Self {
            class: &classes[explanation.class],
            probability: explanation.probability(),
            predicted: &classes[predicted],
            grad_cam: explanation.grad_cam.as_ref().map(|grad_cam| &grad_cam.map),
            integrated_gradients: &explanation.integrated_gradients.map,
            logit_difference: explanation.integrated_gradients.logit_difference,
            occlusion: &explanation.occlusion.map,
            patch: explanation.occlusion.patch,
        }
    }
}

/// Writes figures to the folder of a run, and prints their paths.
fn save(run: &RunDir, figures: &[Figure]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for figure in figures {
        for path in figure.save(&run.figure_path(&figure.name))? {
            writeln!(out, "{}", printable(path.display()))?;
        }
    }
    Ok(())
}
