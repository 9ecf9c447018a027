//! `trainer data PATH`: what is in a data set, and what may be wrong with it.

mod label_errors;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::RangedU64ValueParser;
use tracing::info;

use crate::commands::flags::{DeviceFlags, SettingsFlags};
use crate::figures::data_page;
use crate::process::interruption;
use crate::run::atomic_file;
use crate::run::data_report::{DataReport, ReportedImages};
use crate::run::image_source::data_path;
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::{DEFAULT_ROOT, cache_folders};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Data set: what --data of `trainer train` accepts
    #[arg(value_name = "PATH", required_unless_present = "clean_cache")]
    path: Option<String>,
    /// Table with columns path and label, for pictures without class folders
    #[arg(long, value_name = "FILE")]
    labels: Option<String>,
    /// Labels in the names of pictures: {label}_* for cat_001.png
    #[arg(long, value_name = "PATTERN", conflicts_with = "labels")]
    label_pattern: Option<String>,
    /// Write a page with samples of each class and the pairs of copies, or with the label errors
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = "data.html")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with = "label_errors")]
    json: bool,
    /// Find labels that are probably wrong: train on parts of the images, and predict the others
    #[arg(long)]
    label_errors: bool,
    /// CSV file of the probable label errors
    #[arg(
        long,
        value_name = "FILE",
        default_value = "label-errors.csv",
        requires = "label_errors"
    )]
    csv: PathBuf,
    /// Number of parts for --label-errors; each is predicted by a network that is trained on the others
    #[arg(long, value_name = "N", default_value_t = 4, requires = "label_errors", value_parser = RangedU64ValueParser::<usize>::new().range(2..=20))]
    folds: usize,
    /// Epochs of each training of --label-errors; by default those of the preset
    #[arg(long, value_name = "N", requires = "label_errors", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    epochs: Option<u32>,
    /// Preset for --label-errors; by default chosen for the data
    #[arg(long, value_name = "NAME", requires = "label_errors")]
    preset: Option<String>,
    /// Remove decoded pictures and unpacked archives, which are made again when they are needed
    #[arg(long, conflicts_with = "path")]
    clean_cache: bool,
    /// Folder of the runs, which has the caches
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.clean_cache {
        return clean_caches(&args.out);
    }
    let cache = PictureCache::Write(&args.out);
    let settings = args.settings()?;
    let (config, images, _) = settings.resolve(cache)?;
    if args.label_errors {
        interruption::listen("stopping after this step")?;
        let (device, reason) = args.device.open()?;
        info!("device: {device}, {reason}");
        let files = label_errors::Files {
            csv: &args.csv,
            html: args.html.as_deref(),
        };
        return label_errors::run(&config, &images, args.folds, &device, &files);
    }
    let images = ReportedImages {
        classes: &config.images.classes,
        split: &images.split,
        unreadable: &images.unreadable,
    };
    let source = args.path.as_deref().unwrap_or_default();
    let folder = data_path(&config.data.source, cache)?;
    let report = DataReport::of(&images, &folder)
        .with_context(|| format!("{source}: cannot read an image"))?;
    if let Some(path) = &args.html {
        let page = data_page::page(source, &report, &images)?;
        atomic_file::write(path, page.as_bytes())?;
        info!("page: {}", path.display());
    }
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        false => write!(out, "{report}")?,
    }
    Ok(())
}

impl Args {
    /// Returns the settings of a training on all images of the data set.
    fn settings(&self) -> Result<SettingsFlags> {
        let Some(path) = &self.path else {
            bail!("expected a PATH");
        };
        let mut data = toml::Table::new();
        data.insert("source".into(), path.clone().into());
        if let Some(labels) = &self.labels {
            data.insert("labels".into(), labels.clone().into());
        }
        if let Some(pattern) = &self.label_pattern {
            data.insert("label_pattern".into(), pattern.clone().into());
        }
        // Only a validation split of one's own is reported.
        data.insert("validation".into(), 0.0.into());
        let mut settings = toml::Table::new();
        settings.insert("data".into(), data.into());
        if let Some(epochs) = self.epochs {
            let mut training = toml::Table::new();
            training.insert("epochs".into(), i64::from(epochs).into());
            settings.insert("training".into(), training.into());
        }
        Ok(SettingsFlags::of_table(self.preset.clone(), settings))
    }
}

/// Removes the caches in a folder of runs, and prints how much space they took.
fn clean_caches(root: &Path) -> Result<()> {
    let mut bytes = 0;
    for folder in cache_folders(root) {
        if folder.is_dir() {
            bytes += size(&folder);
            fs::remove_dir_all(&folder)
                .with_context(|| format!("{}: cannot remove", folder.display()))?;
        }
    }
    writeln!(
        std::io::stdout().lock(),
        "removed {:.1} MB",
        bytes as f64 / 1e6
    )?;
    Ok(())
}

/// Returns the size of all files in a folder, in bytes.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
