//! `trainer data PATH --label-errors`: labels that are probably wrong.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tracing::info;

use crate::config::run_config::Config;
use crate::device::OpenDevice;
use crate::figures::data_page::label_error_page;
use crate::process::printable::printable;
use crate::process::table::Table;
use crate::run::atomic_file;
use crate::run::data_report::image_names;
use crate::run::images::RunImages;
use crate::training::cross_validation::cross_validated;
use crate::training::label_errors::{LabelError, label_errors};

/// Number of errors that are printed.
const MAX_PRINTED: usize = 20;

/// Where the errors are written.
pub(super) struct Files<'a> {
    pub(super) csv: &'a Path,
    pub(super) html: Option<&'a Path>,
}

/// Trains on all but one of `folds` parts in turn, and lists the labels that the networks contradict.
pub(super) fn run(
    config: &Config,
    images: &RunImages,
    folds: usize,
    device: &OpenDevice,
    files: &Files<'_>,
) -> Result<()> {
    let train = &images.split.train;
    let classes = &config.images.classes;
    let probabilities = cross_validated(config, train, folds, device)?;
    let labels: Vec<usize> = train.labels().map(usize::from).collect();
    let errors = label_errors(&probabilities, &labels);
    let names = image_names(train, "train");
    write_csv(files.csv, &errors, &names, classes)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} of {} training images very probably have a wrong label; {} that the networks contradict, the likeliest first: {}",
        errors.iter().filter(|error| error.is_confident).count(),
        train.len(),
        errors.len(),
        printable(files.csv.display())
    )?;
    let mut table = Table::new(["image", "label", "probability", "suggested", "probability"]);
    for error in errors.iter().take(MAX_PRINTED) {
        table.row([
            names[error.index].clone(),
            classes[error.label].clone(),
            format!("{:.4}", error.probability_of_label),
            classes[error.suggested].clone(),
            format!("{:.4}", error.probability),
        ]);
    }
    if !errors.is_empty() {
        writeln!(out, "{table}")?;
    }
    if let Some(path) = files.html {
        let page = label_error_page(&errors, train, &names, classes)?;
        atomic_file::write(path, page.as_bytes())?;
        info!("page: {}", path.display());
    }
    Ok(())
}

/// Writes the table of errors, the likeliest first.
fn write_csv(
    path: &Path,
    errors: &[LabelError],
    names: &[String],
    classes: &[String],
) -> Result<()> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record([
        "image",
        "label",
        "suggested",
        "probability_of_label",
        "probability_of_suggested",
    ])?;
    for error in errors {
        table.write_record([
            names[error.index].as_str(),
            &classes[error.label],
            &classes[error.suggested],
            &format!("{:.6}", error.probability_of_label),
            &format!("{:.6}", error.probability),
        ])?;
    }
    let table = table
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    atomic_file::write(path, &table).with_context(|| path.display().to_string())
}
