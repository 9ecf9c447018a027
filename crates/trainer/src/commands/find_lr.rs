//! `trainer find-lr`: suggests a learning rate by a range test.

use std::io::Write;
use std::path::PathBuf;
use std::slice;

use anyhow::{Result, ensure};
use clap::builder::RangedU64ValueParser;
use tracing::info;

use crate::commands::flags::{DeviceFlags, SettingsFlags};
use crate::device::precision;
use crate::figures;
use crate::process::printable::printable;
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::DEFAULT_ROOT;
use crate::training::range_test::{Point, Range, range_test, suggestion};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Range test")]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Lowest learning rate, of the first step
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 1e-6,
        allow_negative_numbers = true
    )]
    from: f64,
    /// Highest learning rate, of the last step; the test ends earlier if the loss exceeds four times its minimum
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    to: f64,
    /// Number of optimizer steps
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = RangedU64ValueParser::<usize>::new().range(10..=100_000))]
    steps: usize,
    /// File of the figure, written as .svg and .png
    #[arg(
        long,
        value_name = "FILE",
        default_value = "artifacts/runs/learning-rates"
    )]
    figure: PathBuf,
    /// Folder of the runs, which has the cache of decoded pictures
    #[arg(
        long,
        value_name = "DIR",
        default_value = DEFAULT_ROOT,
        hide_short_help = true,
        help_heading = "Run"
    )]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlags,
    /// Print JSON and draw no figure
    #[arg(long, help_heading = "Run")]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let Args {
        from, to, steps, ..
    } = args;
    ensure!(
        0.0 < from && from < to && to.is_finite(),
        "--from {from} --to {to}: expected 0 < FROM < TO"
    );
    let cache = PictureCache::Write(&args.out);
    let (config, images, _) = args.settings.resolve(cache)?;
    let (device, reason) = args.device.open()?;
    precision::check(config.training.precision, slice::from_ref(&device))?;
    info!("device: {device}, {reason}");
    let range = Range {
        lowest: from,
        highest: to,
        steps,
    };
    let mut step = 0;
    let points = range_test(
        &config,
        &images.split.train,
        &device.device,
        range,
        |point| {
            step += 1;
            if step % (steps / 10) == 0 {
                let Point {
                    learning_rate,
                    loss,
                } = point;
                info!("step {step} of {steps}: learning rate {learning_rate:.1e}, loss {loss:.4}");
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
        "lowest loss: {:.4} at learning rate {:.1e}\n\
         suggestion: --learning-rate {suggested:.1e}, a tenth of that rate, or up to \
         {:.1e} with --schedule one-cycle, where it is the peak\n\
         figure: {} and {}",
        lowest.loss,
        lowest.learning_rate,
        3.0 * suggested,
        printable(svg.display()),
        printable(png.display())
    )?;
    Ok(())
}
