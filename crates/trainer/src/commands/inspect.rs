//! `trainer inspect RUN`: a run in pictures.

use std::io::Write;

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;

use crate::commands::flags::RunFlags;
use crate::figures::Figure;
use crate::figures::run_figures::{self, FigureOptions, RunFigures};
use crate::run::event_log::Events;
use crate::run::images;
use crate::run::run_dir::RunDir;

const WHAT: &str = "\
Writes to figures/ of the run, each as SVG and PNG: augmentation (changes of training images, if there
are some), curves (loss and accuracy by epoch), filters, feature-maps, predictions (random test
images), mistakes (the worst), confusion, classes.";

#[derive(Debug, clap::Args)]
#[command(after_help = WHAT)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    /// Whose feature maps: a number of the test split, or a picture file
    #[arg(long, value_name = "N|FILE", default_value = "0")]
    image: String,
    /// Show the network that picture as it is, only scaled
    #[arg(long)]
    raw: bool,
    /// Which block's filters and feature maps, from 1 [default: 1]
    #[arg(long, value_name = "N")]
    block: Option<usize>,
    /// Which of its feature maps, from 0 [default: the first eight]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    maps: Option<Vec<usize>>,
    /// Filters of deeper blocks: for which channel of the block before
    #[arg(long, value_name = "N", default_value_t = 0)]
    channel: usize,
    /// Only the changes of training images, of a run that has some; it need not have weights yet
    #[arg(long)]
    augmentation: bool,
    /// Random test images to show
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = some())]
    count: usize,
    /// Decides which
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Mistakes to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = some())]
    mistakes: usize,
}

fn some() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=200)
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.augmentation {
        return show_augmentation(&args.run.find()?);
    }
    let (run, classifier) = args.run.open()?;
    let choices = FigureOptions {
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
    let gallery = RunFigures::draw(&run, &classifier, &epochs, &choices)?;
    save(&run, &gallery.figures)
}

fn show_augmentation(run: &RunDir) -> Result<()> {
    let config = run.read_config()?;
    let splits = images::load_for_trained(run, &config, None)?;
    let figure = run_figures::augmentation(&config, &splits)?;
    let figure = figure.context("this run learns from its images as they are")?;
    save(run, &[figure])
}

/// Writes figures to the folder of a run, and says where.
fn save(run: &RunDir, figures: &[Figure]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for figure in figures {
        let [svg, png] = figure.save(&run.figure_path(&figure.name))?;
        writeln!(out, "{}\n{}", svg.display(), png.display())?;
    }
    Ok(())
}
