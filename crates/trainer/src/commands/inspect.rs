//! `trainer inspect RUN`: draws the figures of a run.

use std::io::Write;

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;

use crate::commands::embedding::EmbeddingFlags;
use crate::commands::flags::RunFlags;
use crate::figures::Figure;
use crate::figures::run_figures::{self, FigureOptions, RunFigures};
use crate::process::printable::printable;
use crate::run::event_log::Events;
use crate::run::run_dir::RunDir;

const FIGURES: &str = "\
Figures, written to figures/ of the run as SVG and PNG:
  augmentation   training images and their random variants, if the run has augmentation; mixup and CutMix mix
                 the drawn images with each other
  curves         loss and accuracy by epoch
  filters        filters of a convolution block
  feature-maps   feature maps of an image
  predictions    random test images with labels and predictions
  mistakes       wrong predictions with the highest loss
  confusion      confusion matrix
  classes        accuracy per class";

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
    #[arg(long, value_name = "N")]
    channel: Option<usize>,
    /// Draw only the augmentation figure, which needs no weights
    #[arg(long)]
    augmentation: bool,
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
