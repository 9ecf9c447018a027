//! `trainer bench`: measures the speed and the memory of training and inference, relative to a matrix product.

mod report;
mod timing;

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::{Distribution, Tensor};
use clap::builder::RangedU64ValueParser;
use data::ImageDataset;
use model::{InferenceNet, Precision};
use tracing::info;

use crate::commands::bench::report::{MATRIX_SIZE, Report, Speed};
use crate::commands::bench::timing::{Timing, median};
use crate::commands::flags::DevicesFlags;
use crate::config::presets;
use crate::config::run_config::{Config, TrainingConfig};
use crate::config::settings::Settings;
use crate::device::{OpenDevices, precision};
use crate::process::peak_memory::PeakMemory;
use crate::run::image_source::EMBEDDED;
use crate::run::images::{self, DataSplit};
use crate::run::loaders::evaluation_loader;
use crate::run::noise_images::noise_images;
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::train::train;

/// Height and width of the embedded images.
const EMBEDDED_SIZE: usize = 28;
/// Number of images in an epoch of a measurement, if that many batches take less than about a second.
const MAX_EPOCH_IMAGES: f64 = 10_000.0;
/// Smallest number of batches in such an epoch.
const MIN_EPOCH_BATCHES: usize = 4;

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

pub(crate) fn run(args: Args) -> Result<()> {
    let preset = args.preset.as_deref();
    let settings = match &args.config {
        Some(path) => Settings::file(path, preset)?,
        None => Settings::preset(preset.unwrap_or(presets::DEFAULT))?,
    };
    let (config, split) = resolve(settings)?;
    let devices = args.device.open()?;
    precision::check(config.training.precision, &devices.all)?;
    info!("device: {devices}, {}", devices.reason);
    let bench = Bench {
        flops: FlopsPerImage::of(&config)?,
        config,
        split,
        devices,
        runs: args.runs,
    };
    let report = bench.report(&args.train, &args.inference)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}

/// Resolves the configuration on its images. Without a folder of images, a network for other images than the embedded
/// ones is measured on noise.
fn resolve(settings: Settings) -> Result<(Config, DataSplit)> {
    let size = settings.data()?.image_size;
    let fits_embedded = !settings.is_for_color() && size == EMBEDDED_SIZE;
    if fits_embedded || settings.source() != Some(EMBEDDED) {
        let (config, images) = images::resolve(settings, PictureCache::No)?;
        return Ok((config, images.split));
    }
    let channels = if settings.is_for_gray() { 1 } else { 3 };
    let (info, split) = noise_images(channels, size);
    info!("the network is for pictures: measuring on noise of {size}x{size} pixels");
    Ok((settings.into_config(&info)?, split))
}

/// Floating-point operations per image, counted from the layer table.
struct FlopsPerImage {
    inference: f64,
    train: f64,
}

impl FlopsPerImage {
    /// Counts two operations per multiplication, one for the addition. The backward pass computes the
    /// gradients of the weights, except those of whitening filters, and of each layer's input, except the first
    /// layer's.
    fn of(config: &Config) -> Result<Self> {
        let multiply_adds: Vec<usize> = config
            .model
            .layers()?
            .iter()
            .map(model::Layer::multiply_adds)
            .filter(|&count| count > 0)
            .collect();
        let forward: usize = multiply_adds.iter().sum();
        let first = multiply_adds.first().unwrap_or(&0);
        let is_frozen = config.model.conv_blocks().any(|block| block.whitening);
        let train = 3 * forward - first * if is_frozen { 2 } else { 1 };
        Ok(Self {
            inference: 2.0 * forward as f64,
            train: 2.0 * train as f64,
        })
    }
}

/// The network, data, devices and number of measurements.
struct Bench {
    config: Config,
    flops: FlopsPerImage,
    split: DataSplit,
    devices: OpenDevices,
    runs: usize,
}

impl Bench {
    /// Measures training and inference with batches of these numbers of images.
    fn report(&self, train: &[usize], inference: &[usize]) -> Result<Report> {
        let precision = self.config.training.precision;
        info!("matrix product of {MATRIX_SIZE}x{MATRIX_SIZE}");
        let matmul_gflops_f32 = self.matrix_product(Precision::F32)?;
        let matmul_gflops = match precision {
            Precision::F32 => matmul_gflops_f32,
            half => self.matrix_product(half)?,
        };
        let mut report = Report {
            device: self.devices.to_string(),
            preset: self.config.preset.clone(),
            precision,
            threads: rayon::current_num_threads(),
            instruction_set: match kernels::is_cpu(&self.devices.main().device) {
                true => Some(kernels::instruction_set()?),
                false => None,
            },
            matmul_gflops,
            matmul_gflops_f32,
            train: Vec::new(),
            inference: Vec::new(),
            latency: None,
            is_memory_per_row: PeakMemory::start().is_restarted,
        };
        // First, since the allocator keeps memory of a training.
        for &batch in inference {
            info!("inference at batch {batch}");
            let memory = PeakMemory::start();
            let timing = self.inference(batch)?;
            let rate = timing.rate() * batch as f64;
            let flops = self.flops.inference;
            let speed = Speed::new(batch, rate, flops, matmul_gflops_f32, &memory);
            report.inference.push(speed);
            if batch == 1 {
                report.latency = Some(timing.percentiles());
            }
        }
        for &batch in train {
            info!("training at batch {batch}");
            let memory = PeakMemory::start();
            let rate = self.training(batch, matmul_gflops)?;
            let flops = self.flops.train;
            let speed = Speed::new(batch, rate, flops, matmul_gflops, &memory);
            report.train.push(speed);
        }
        Ok(report)
    }

    /// Measures a product of square matrices, in 10⁹ floating-point operations per second.
    fn matrix_product(&self, precision: Precision) -> Result<f64> {
        let device = &self.devices.main().device;
        let matrix = || {
            let size = [MATRIX_SIZE, MATRIX_SIZE];
            Tensor::<2>::random(size, Distribution::Default, device).cast(precision.dtype())
        };
        let (a, b) = (matrix(), matrix());
        let timing = Timing::of(self.runs, || {
            black_box(a.clone().matmul(b.clone()));
            Ok(device.sync()?)
        })?;
        Ok(timing.rate() * 2.0 * (MATRIX_SIZE as f64).powi(3) / 1e9)
    }

    /// Measures training in images per second, including the loader, the optimizer and the metrics. Each
    /// measurement is one epoch, after one for warm-up.
    fn training(&self, batch: usize, matmul_gflops: f64) -> Result<f64> {
        let mut config = self.config.clone();
        config.training = TrainingConfig {
            batch_size: batch,
            epochs: self.runs + 1,
            // No limit ends the measurement.
            max_steps: None,
            max_time: None,
            early_stopping: None,
            checkpoint_every: None,
            report_test: false,
            ..config.training
        };
        let all = &self.split.train;
        let split = DataSplit {
            train: cycled(all, self.epoch_images(batch, matmul_gflops)),
            validation: all.select(0..0),
            test: all.select(0..0),
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
        let measured = trained.position.epochs.iter().skip(1);
        Ok(median(
            measured.map(|epoch| epoch.images_per_second).collect(),
        ))
    }

    /// Returns the number of images in an epoch: whole batches of about a second at the rate of the matrix product.
    fn epoch_images(&self, batch: usize, matmul_gflops: f64) -> usize {
        let images = (1e9 * matmul_gflops / self.flops.train).min(MAX_EPOCH_IMAGES);
        batch * (images as usize / batch).max(MIN_EPOCH_BATCHES)
    }

    /// Measures inference in batches per second, on a batch that is already on the device. The logits are
    /// read back.
    fn inference(&self, batch: usize) -> Result<Timing> {
        let device = &self.devices.main().device;
        let mut config = self.config.clone();
        config.training.eval_batch_size = batch;
        let model = InferenceNet::from(config.model.folded().init(device)?);
        let images = cycled(&self.split.test, batch);
        let loader = evaluation_loader(&config, &images, device)?;
        let batch = loader.batches(1).next().context("no images")??;
        Timing::of(self.runs, || {
            black_box(model.forward(batch.images.clone()).into_data());
            Ok(())
        })
    }
}

/// Returns `count` images: all of `images`, as often as necessary.
fn cycled(images: &ImageDataset, count: usize) -> ImageDataset {
    images.select((0..images.len()).cycle().take(count))
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
    fn whitening_filters_have_no_gradients() {
        let (config, _) = resolve(Settings::preset("cifar").unwrap()).unwrap();
        let flops = FlopsPerImage::of(&config).unwrap();
        // 31·31 pixels of 24 filters of 2x2 pixels in 3 channels.
        let whitening = 2.0 * 31.0 * 31.0 * 24.0 * 12.0;
        assert_eq!(flops.train, 3.0 * flops.inference - 2.0 * whitening);
    }

    #[test]
    fn presets_are_measured_on_images_of_their_size() {
        for (preset, shape) in [
            ("convnet", [1, 28, 28]),
            ("best", [1, 28, 28]),
            ("vgg", [3, 32, 32]),
            ("pictures", [3, 128, 128]),
        ] {
            let (config, split) = resolve(Settings::preset(preset).unwrap()).unwrap();
            assert_eq!(config.images.shape(), shape, "{preset}");
            assert!(!split.train.is_empty() && !split.test.is_empty());
        }
        let mut settings = Settings::preset("tiny").unwrap();
        let gray = "data.image_size = 64\nmodel.channels = 1";
        settings.overlay(gray.parse().unwrap()).unwrap();
        let (config, _) = resolve(settings).unwrap();
        assert_eq!(config.images.shape(), [1, 64, 64]);
    }

    #[test]
    fn images_repeat_if_a_batch_is_larger_than_the_data_set() {
        let (_, split) = noise_images(1, 8);
        let images = split.test.select(0..3);
        let labels = |images: &ImageDataset| images.labels().collect::<Vec<_>>();
        assert_eq!(labels(&cycled(&images, 7)), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(labels(&cycled(&images, 2)), [0, 1]);
    }
}
