//! `trainer bench`: how fast this machine trains and predicts, and how fast it could.

use std::fmt;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::tensor::{Distribution, Tensor};
use clap::builder::RangedU64ValueParser;
use model::{ConvNet, Precision};
use serde::Serialize;
use tracing::info;

use crate::commands::flags::DevicesFlags;
use crate::config::presets;
use crate::config::run_config::Config;
use crate::config::settings::Settings;
use crate::device::{OpenDevices, precision};
use crate::run::images::{self, DataSplit, PictureCache};
use crate::run::loaders::evaluation_loader;
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::train::train;

/// Rows and columns of the matrices whose product is timed.
const MATRIX: usize = 1024;
/// How long one measurement takes at least.
const ENOUGH: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The network [default: convnet]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Settings in a TOML file, of another network or other images
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Batch sizes to train with
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "64,512", value_parser = batch_size())]
    train: Vec<usize>,
    /// Batch sizes to predict with
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,64,1000", value_parser = batch_size())]
    inference: Vec<usize>,
    /// Measurements of which each figure is the median
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    runs: usize,
    #[command(flatten)]
    device: DevicesFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn batch_size() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=10_000)
}

/// All figures, each the median of several measurements.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    preset: String,
    /// What training, and the matrix product, are computed in.
    precision: Precision,
    /// Of the CPU backends; a GPU has its own.
    threads: usize,
    /// The rate of a matrix product, 10⁹ floating-point operations per second.
    matmul_gflops: f64,
    train: Vec<Speed>,
    inference: Vec<Speed>,
}

#[derive(Debug, Serialize)]
struct Speed {
    batch: usize,
    images_per_second: f64,
    /// The rate of the network's arithmetic, as a fraction of that of the matrix product. Kernels
    /// that skip what is zero can pass 1.
    matmul_share: f64,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let preset = args.preset.as_deref();
    let settings = match &args.config {
        Some(path) => Settings::file(path, preset)?,
        None => Settings::preset(preset.unwrap_or(presets::DEFAULT))?,
    };
    let (config, images) = images::resolve(settings, PictureCache::No)?;
    let devices = args.device.open()?;
    precision::check(config.training.precision, &devices.all)?;
    info!("device: {devices}, {}", devices.reason);
    let work = Work::of(&config)?;
    let bench = Bench {
        config,
        split: images.split,
        devices,
        runs: args.runs,
    };

    info!("matrix product of {MATRIX}x{MATRIX}");
    let matmul_gflops = bench.matrix_product()?;
    let speed = |batch, images_per_second, operations: f64| Speed {
        batch,
        images_per_second,
        matmul_share: images_per_second * operations / 1e9 / matmul_gflops,
    };
    let mut report = Report {
        device: bench.devices.to_string(),
        preset: bench.config.preset.clone(),
        precision: bench.config.training.precision,
        threads: rayon::current_num_threads(),
        matmul_gflops,
        train: Vec::new(),
        inference: Vec::new(),
    };
    for batch in args.train {
        info!("training at batch {batch}");
        let rate = bench.training(batch)?;
        report.train.push(speed(batch, rate, work.train));
    }
    for batch in args.inference {
        info!("inference at batch {batch}");
        let rate = bench.inference(batch)?;
        report.inference.push(speed(batch, rate, work.inference));
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}

/// Floating-point operations of the network's definition, per image.
struct Work {
    inference: f64,
    train: f64,
}

impl Work {
    /// An addition for each multiplication; in training twice as many again for the gradients of
    /// the weights and of each layer's input, but for the first layer's.
    fn of(config: &Config) -> Result<Self> {
        let products: Vec<usize> = config
            .model
            .layers()?
            .iter()
            .map(model::Layer::multiplications)
            .filter(|&products| products > 0)
            .collect();
        let forward: usize = products.iter().sum();
        let train = 3 * forward - products.first().unwrap_or(&0);
        Ok(Self {
            inference: 2.0 * forward as f64,
            train: 2.0 * train as f64,
        })
    }
}

/// What is measured, where, and how often.
struct Bench {
    config: Config,
    split: DataSplit,
    devices: OpenDevices,
    runs: usize,
}

impl Bench {
    /// The rate of a product of square matrices, 10⁹ operations per second.
    fn matrix_product(&self) -> Result<f64> {
        let matrix = || {
            Tensor::<2>::random(
                [MATRIX, MATRIX],
                Distribution::Default,
                &self.devices.main().device,
            )
            .cast(self.config.training.precision.dtype())
        };
        let (a, b) = (matrix(), matrix());
        let products = rate(self.runs, || {
            black_box(a.clone().matmul(b.clone()));
            Ok(self.devices.main().device.sync()?)
        })?;
        Ok(products * 2.0 * (MATRIX as f64).powi(3) / 1e9)
    }

    /// Images per second of `trainer train`, loader, optimizer and figures included. Each
    /// measurement is an epoch; the first is for warming up.
    fn training(&self, batch: usize) -> Result<f64> {
        let mut config = self.config.clone();
        config.training.batch_size = batch;
        config.training.epochs = self.runs + 1;
        config.training.report_test = false;
        let DataSplit {
            train: all, test, ..
        } = &self.split;
        let images = all.len().min(batch * (10_000 / batch).max(4));
        let parts = DataSplit {
            train: all.select(0..images),
            validation: all.select(0..0),
            test: test.select(0..0),
        };
        let folder = tempfile::tempdir().context("a folder for the run")?;
        let run = RunDir::create(
            folder.path(),
            &config.preset,
            None,
            &config.to_toml()?,
            |_| Ok(()),
        )?;
        let trained = train(
            &config,
            &parts,
            &self.devices.all,
            &run,
            Style::Details,
            None,
        )?;
        let measured = &trained.position.epochs[1..];
        let rates = measured.iter().map(|epoch| epoch.images_per_second);
        Ok(median(rates.collect()))
    }

    /// Images per second of a fresh network on batches that lie on the device, its logits read
    /// back.
    fn inference(&self, batch: usize) -> Result<f64> {
        let mut config = self.config.clone();
        config.training.eval_batch_size = batch;
        let model: ConvNet = config
            .model
            .without_batch_norm()
            .init(&self.devices.main().device)?;
        let loader = evaluation_loader(&config, &self.split.test, &self.devices.main().device);
        let images = loader
            .pass(1)
            .next()
            .context("no images to predict")??
            .images;
        let batches = rate(self.runs, || {
            black_box(model.forward(images.clone()).into_data());
            Ok(())
        })?;
        Ok(batches * images.dims()[0] as f64)
    }
}

/// How often `work` is done per second: the median over `runs`, after one for warming up.
fn rate(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut rates = Vec::with_capacity(runs);
    for run in 0..=runs {
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < ENOUGH {
            work()?;
            count += 1;
        }
        if run > 0 {
            rates.push(f64::from(count) / start.elapsed().as_secs_f64());
        }
    }
    Ok(median(rates))
}

/// The middle of some numbers, of an even count the upper middle; 0 of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.precision {
            Precision::F32 => writeln!(f, "{} on {}", self.preset, self.device)?,
            half => writeln!(f, "{} in {half} on {}", self.preset, self.device)?,
        }
        writeln!(f, "matrix product  {:8.1} GFLOP/s", self.matmul_gflops)?;
        write!(
            f,
            "{:10}  batch  images/s  of the matrix product's rate",
            ""
        )?;
        for (name, speeds) in [("train", &self.train), ("inference", &self.inference)] {
            for speed in speeds {
                write!(
                    f,
                    "\n{name:10}  {:5}  {:8.0}  {:.0}%",
                    speed.batch,
                    speed.images_per_second,
                    100.0 * speed.matmul_share
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_the_default_network() {
        let (config, _) = Settings::preset(presets::DEFAULT)
            .and_then(|settings| images::resolve(settings, PictureCache::No))
            .unwrap();
        // 28·28·9·32, 14·14·288·64, 3136·128 and 128·10 products.
        let [conv1, conv2, dense] = [225_792.0, 3_612_672.0, 401_408.0 + 1_280.0];
        let work = Work::of(&config).unwrap();
        assert_eq!(work.inference, 2.0 * (conv1 + conv2 + dense));
        assert_eq!(work.train, 2.0 * (2.0 * conv1 + 3.0 * (conv2 + dense)));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
