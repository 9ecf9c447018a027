//! Pictures of a run: what its network learned, what it does, and how it got there.

mod drawing;
mod chart;
mod changed;
pub(crate) mod report;
pub(crate) mod run_figures;
mod learned;
mod judged;
mod curves;
mod learning_rates;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::run::atomic_file;

pub(crate) use changed::{Changed, augmentation};
pub(crate) use curves::{compared, curves};
pub(crate) use drawing::Drawing;
pub(crate) use judged::{Judged, class_accuracies, confusion, mistakes, predictions};
pub(crate) use learned::{Seen, feature_maps, filters};
pub(crate) use learning_rates::learning_rates;

/// A drawing with the name of its files.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Without ending.
    pub(crate) name: String,
    pub(crate) drawing: Drawing,
}

impl Figure {
    /// The same, where `path` may end as one of the two does.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn save_as(&self, path: &Path) -> Result<[PathBuf; 2]> {
        let ending = path.extension().unwrap_or_default();
        match ending == "svg" || ending == "png" {
            true => self.save(&path.with_extension("")),
            false => self.save(path),
        }
    }

    /// Writes `stem.svg` and `stem.png`, and returns their paths.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn save(&self, stem: &Path) -> Result<[PathBuf; 2]> {
        let [svg, png] = ["svg", "png"].map(|ending| {
            let mut path = stem.as_os_str().to_owned();
            path.push(format!(".{ending}"));
            PathBuf::from(path)
        });
        atomic_file::write(&svg, self.drawing.to_svg().as_bytes())?;
        atomic_file::write(&png, &self.drawing.to_png()?)?;
        Ok([svg, png])
    }
}
