//! The figures of a run (filters, feature maps, predictions, explanations, metrics by epoch) and its report.

mod drawing;
mod axes;
mod augmentation;
mod contact_sheet;
mod corruption_examples;
mod curves;
mod embedding;
mod evaluation;
mod explanation;
mod learning_rates;
mod network;
mod overlay;
mod predictions;
mod robustness;
pub(crate) mod data_page;
pub(crate) mod embedding_page;
pub(crate) mod report;
pub(crate) mod run_figures;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::run::atomic_file;

pub(crate) use augmentation::{AugmentedEpoch, augmentation};
pub(crate) use corruption_examples::corruption_examples;
pub(crate) use curves::{comparison, curves};
pub(crate) use drawing::Drawing;
pub(crate) use embedding::embedding;
pub(crate) use evaluation::{class_accuracies, confusion};
pub(crate) use explanation::{ExplainedImage, ExplainedMistake, explanation, grad_cam};
pub(crate) use learning_rates::learning_rates;
pub(crate) use network::{ColorFilter, Plane, color_filters, feature_maps, filters};
pub(crate) use predictions::{mistakes, predictions};
pub(crate) use robustness::{adversarial, corruptions};

/// A drawing with its name.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// File name without extension.
    pub(crate) name: String,
    pub(crate) drawing: Drawing,
}

impl Figure {
    /// Writes the figure as SVG and PNG; an extension `svg` or `png` of `path` is ignored. Returns
    /// both paths.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(crate) fn save_as(&self, path: &Path) -> Result<[PathBuf; 2]> {
        let extension = path.extension().unwrap_or_default();
        match extension == "svg" || extension == "png" {
            true => self.save(&path.with_extension("")),
            false => self.save(path),
        }
    }

    /// Writes `stem.svg` and `stem.png`. Returns their paths.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(crate) fn save(&self, stem: &Path) -> Result<[PathBuf; 2]> {
        let [svg, png] = ["svg", "png"].map(|extension| {
            let mut path = stem.as_os_str().to_owned();
            path.push(format!(".{extension}"));
            PathBuf::from(path)
        });
        atomic_file::write(&svg, self.drawing.to_svg().as_bytes())?;
        atomic_file::write(&png, &self.drawing.to_png()?)?;
        Ok([svg, png])
    }
}
