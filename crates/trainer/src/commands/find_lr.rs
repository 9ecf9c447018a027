//! `trainer find-lr`: a learning rate to begin with.

use std::io::Write;
use std::path::PathBuf;
use std::slice;

use anyhow::{Result, ensure};
use clap::builder::RangedU64ValueParser;
use tracing::info;

use crate::commands::flags::{DeviceFlags, SettingsFlags};
use crate::device::precision;
use crate::figures;
use crate::run::images::PictureCache;
use crate::training::range_test::{Point, Range, range_test, suggestion};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to try")]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
    /// The first learning rate
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 1e-6,
        allow_negative_numbers = true
    )]
    from: f64,
    /// The last, unless the loss grows to four times its lowest before
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    to: f64,
    /// Optimizer steps between them
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = RangedU64ValueParser::<usize>::new().range(10..=100_000))]
    steps: usize,
    /// The figure, without its ending, .svg and .png
    #[arg(
        long,
        value_name = "FILE",
        default_value = "artifacts/runs/learning-rates"
    )]
    figure: PathBuf,
    #[command(flatten)]
    device: DeviceFlags,
    /// Print JSON, and no figure
    #[arg(long, help_heading = "Run")]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let Args {
        from, to, steps, ..
    } = args;
    ensure!(
        0.0 < from && from < to && to.is_finite(),
        "--from {from} --to {to}: expected two rates above 0, the second one larger"
    );
    let (config, images) = args.settings.resolve(PictureCache::No)?;
    let (found, reason) = args.device.open()?;
    precision::check(config.training.precision, slice::from_ref(&found))?;
    info!("device: {found}, {reason}");
    let range = Range {
        lowest: from,
        highest: to,
        steps,
    };
    let mut tried = 0;
    let points = range_test(
        &config,
        &images.split.train,
        &found.device,
        range,
        |point| {
            tried += 1;
            if tried % (steps / 10) == 0 {
                let Point {
                    learning_rate,
                    loss,
                } = point;
                info!("step {tried} of {steps}: learning rate {learning_rate:.1e}, loss {loss:.4}");
            }
        },
    )?;
    let (lowest, suggested) = suggestion(&points)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let point = |point: &Point| serde_json::json!([point.learning_rate, point.loss]);
        let points: Vec<_> = points.iter().map(point).collect();
        let report = serde_json::json!({ "suggestion": suggested, "points": points });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    let [svg, png] = figures::learning_rates(&points, lowest, suggested).save_as(&args.figure)?;
    writeln!(
        out,
        "the loss was lowest, {:.4}, at learning rate {:.1e}\n\
         suggestion: --learning-rate {suggested:.1e}, a tenth of that; with --schedule one-cycle, \
         whose rate is the highest, up to {:.1e}\n\
         curve in {} and {}",
        lowest.loss,
        lowest.learning_rate,
        3.0 * suggested,
        svg.display(),
        png.display()
    )?;
    Ok(())
}
