//! `trainer bench`: measures training and inference speed, relative to a matrix product.

use std::fmt;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::tensor::{Distribution, Tensor};
use clap::builder::RangedU64ValueParser;
use model::{InferenceNet, Precision};
use serde::Serialize;
use tracing::info;

use crate::commands::flags::DevicesFlags;
use crate::config::presets;
use crate::config::run_config::Config;
use crate::config::settings::Settings;
use crate::device::{OpenDevices, precision};
use crate::process::printable::printable;
use crate::process::table::Table;
use crate::run::images::{self, DataSplit};
use crate::run::loaders::evaluation_loader;
use crate::run::noise_images::noise_images;
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::train::train;

/// Rows and columns of the matrices in the timed product.
const MATRIX_SIZE: usize = 1024;
/// Minimum duration of one measurement.
const MIN_DURATION: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Preset with the network [default: convnet]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// TOML file with the settings of another network or data set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Batch sizes of training
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "64,512", value_parser = batch_size())]
    train: Vec<usize>,
    /// Batch sizes of inference
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,64,1000", value_parser = batch_size())]
    inference: Vec<usize>,
    /// Number of measurements; the median is reported
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

/// The results, each the median of several measurements.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    preset: String,
    /// Number format of training and of the matrix product.
    precision: Precision,
    /// Threads of the CPU backends.
    threads: usize,
    /// Rate of the matrix product, in 10⁹ floating-point operations per second.
    matmul_gflops: f64,
    train: Vec<Speed>,
    inference: Vec<Speed>,
}

/// The speed at one batch size.
#[derive(Debug, Serialize)]
struct Speed {
    batch: usize,
    images_per_second: f64,
    /// The network's floating-point operations per second, as a fraction of the matrix product's rate.
    /// Kernels that skip zeros can exceed 1.
    matmul_share: f64,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let preset = args.preset.as_deref();
    let settings = match &args.config {
        Some(path) => Settings::file(path, preset)?,
        None => Settings::preset(preset.unwrap_or(presets::DEFAULT))?,
    };
    let (config, split) = match settings.is_for_color() {
        false => {
            let (config, images) = images::resolve(settings, PictureCache::No)?;
            (config, images.split)
        }
        true => {
            let (info, split) = noise_images(settings.data()?.image_size);
            info!("the network is for color images: measuring on noise");
            (settings.into_config(&info)?, split)
        }
    };
    let devices = args.device.open()?;
    precision::check(config.training.precision, &devices.all)?;
    info!("device: {devices}, {}", devices.reason);
    let flops = FlopsPerImage::of(&config)?;
    let bench = Bench {
        config,
        split,
        devices,
        runs: args.runs,
    };

    info!("matrix product of {MATRIX_SIZE}x{MATRIX_SIZE}");
    let matmul_gflops = bench.matrix_product()?;
    let speed = |batch, images_per_second, flops: f64| Speed {
        batch,
        images_per_second,
        matmul_share: images_per_second * flops / 1e9 / matmul_gflops,
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
        report.train.push(speed(batch, rate, flops.train));
    }
    for batch in args.inference {
        info!("inference at batch {batch}");
        let rate = bench.inference(batch)?;
        report.inference.push(speed(batch, rate, flops.inference));
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}

/// Floating-point operations per image, counted from the layer table.
struct FlopsPerImage {
    inference: f64,
    train: f64,
}

impl FlopsPerImage {
    /// Counts two operations per multiplication, one for the addition. The backward pass computes the
    /// gradients of the weights, and of each layer's input except the first layer's.
    fn of(config: &Config) -> Result<Self> {
        let multiply_adds: Vec<usize> = config
            .model
            .layers()?
            .iter()
            .map(model::Layer::multiply_adds)
            .filter(|&count| count > 0)
            .collect();
        let forward: usize = multiply_adds.iter().sum();
        let train = 3 * forward - multiply_adds.first().unwrap_or(&0);
        Ok(Self {
            inference: 2.0 * forward as f64,
            train: 2.0 * train as f64,
        })
    }
}

/// The network, data, devices and number of measurements.
struct Bench {
    config: Config,
    split: DataSplit,
    devices: OpenDevices,
    runs: usize,
}

impl Bench {
    /// Measures a product of square matrices, in 10⁹ floating-point operations per second.
    fn matrix_product(&self) -> Result<f64> {
        let matrix = || {
            Tensor::<2>::random(
                [MATRIX_SIZE, MATRIX_SIZE],
                Distribution::Default,
                &self.devices.main().device,
            )
            .cast(self.config.training.precision.dtype())
        };
        let (a, b) = (matrix(), matrix());
        let products_per_second = rate(self.runs, || {
            black_box(a.clone().matmul(b.clone()));
            Ok(self.devices.main().device.sync()?)
        })?;
        Ok(products_per_second * 2.0 * (MATRIX_SIZE as f64).powi(3) / 1e9)
    }

    /// Measures training in images per second, including the loader, the optimizer and the metrics. Each
    /// measurement is one epoch, after one for warm-up.
    fn training(&self, batch: usize) -> Result<f64> {
        let mut config = self.config.clone();
        config.training.batch_size = batch;
        config.training.epochs = self.runs + 1;
        config.training.report_test = false;
        let DataSplit {
            train: all, test, ..
        } = &self.split;
        let count = all.len().min(batch * (10_000 / batch).max(4));
        let split = DataSplit {
            train: all.select(0..count),
            validation: all.select(0..0),
            test: test.select(0..0),
        };
        let folder = tempfile::tempdir().context("cannot create a temporary run folder")?;
        let run = RunDir::create(
            folder.path(),
            &config.preset,
            None,
            &config.to_toml()?,
            |_| Ok(()),
        )?;
        let trained = train(
            &config,
            &split,
            &self.devices.all,
            &run,
            Style::Details,
            None,
        )?;
        let measured = &trained.position.epochs[1..];
        let rates = measured.iter().map(|epoch| epoch.images_per_second);
        Ok(median(rates.collect()))
    }

    /// Measures inference in images per second, on a batch that is already on the device. The logits are
    /// read back.
    fn inference(&self, batch: usize) -> Result<f64> {
        let mut config = self.config.clone();
        config.training.eval_batch_size = batch;
        let model = config.model.folded().init(&self.devices.main().device)?;
        let model = InferenceNet::from(model);
        let loader = evaluation_loader(&config, &self.split.test, &self.devices.main().device)?;
        let images = loader
            .batches(1)
            .next()
            .context("the test split has no images")??
            .images;
        let batches_per_second = rate(self.runs, || {
            black_box(model.forward(images.clone()).into_data());
            Ok(())
        })?;
        Ok(batches_per_second * images.dims()[0] as f64)
    }
}

/// Returns how often `operation` runs per second: the median of `runs` measurements, after one for
/// warm-up.
fn rate(runs: usize, mut operation: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut rates = Vec::with_capacity(runs);
    for run in 0..=runs {
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < MIN_DURATION {
            operation()?;
            count += 1;
        }
        if run > 0 {
            rates.push(f64::from(count) / start.elapsed().as_secs_f64());
        }
    }
    Ok(median(rates))
}

/// Returns the median, the upper one if the count is even; 0 if there are no numbers.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [preset, device] = [&self.preset, &self.device].map(printable);
        match self.precision {
            Precision::F32 => writeln!(f, "{preset} on {device}")?,
            half => writeln!(f, "{preset} in {half} on {device}")?,
        }
        writeln!(f, "matrix product: {:.1} GFLOP/s", self.matmul_gflops)?;
        let mut table = Table::new(["", "batch", "images/s", "of the matrix product's rate"]);
        for (name, speeds) in [("train", &self.train), ("inference", &self.inference)] {
            for speed in speeds {
                table.row([
                    name.to_string(),
                    speed.batch.to_string(),
                    format!("{:.0}", speed.images_per_second),
                    format!("{:.0}%", 100.0 * speed.matmul_share),
                ]);
            }
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::digits;

    #[test]
    fn counts_flops_of_the_default_network() {
        let config = Settings::preset(presets::DEFAULT)
            .and_then(|settings| settings.into_config(&digits()))
            .unwrap();
        // 28·28·9·32, 14·14·288·64, 3136·128 and 128·10 multiplications.
        let [conv1, conv2, dense] = [225_792.0, 3_612_672.0, 401_408.0 + 1_280.0];
        let flops = FlopsPerImage::of(&config).unwrap();
        assert_eq!(flops.inference, 2.0 * (conv1 + conv2 + dense));
        assert_eq!(flops.train, 2.0 * (2.0 * conv1 + 3.0 * (conv2 + dense)));
    }

    #[test]
    fn median_is_the_middle_number() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
