//! Reading of recorded pictures: those that are still in the data folder, with the recorded content.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::{DatasetInfo, ImageDataset, LabeledFile, PictureFiles};
use tracing::warn;

use crate::config::run_config::Config;
use crate::run::image_record::RecordedFile;
use crate::run::image_source::{data_path, decode_options};
use crate::run::picture_cache::PictureCache;

/// Maximum number of files named in a message.
const MAX_NAMED: usize = 5;

/// The data folder of a run that recorded its pictures.
#[derive(Debug)]
pub(crate) struct RecordedPictures<'a> {
    folder: String,
    expected: &'a DatasetInfo,
    cache: PictureCache<'a>,
}

/// The pictures that are still there, and the others.
struct Recovered {
    /// In the order of the record.
    images: ImageDataset,
    /// Paths with reasons.
    lost: Vec<String>,
}

impl<'a> RecordedPictures<'a> {
    /// Describes the pictures of a run, which are in `source` now: a folder or an archive.
    ///
    /// # Errors
    /// Returns an error if the archive cannot be unpacked.
    pub(crate) fn new(config: &'a Config, source: &str, cache: PictureCache<'a>) -> Result<Self> {
        let folder = data_path(source, cache)?;
        Ok(Self {
            folder: folder.display().to_string(),
            expected: &config.images,
            cache,
        })
    }

    /// Returns whether the folder contains all these files with the recorded sizes.
    pub(crate) fn contains(&self, files: &[RecordedFile]) -> bool {
        let is_in_folder = |RecordedFile { file, .. }: &RecordedFile| {
            let metadata = fs::metadata(Path::new(&self.folder).join(&file.path));
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.bytes)
        };
        files.iter().all(is_in_folder)
    }

    /// Reads all these pictures.
    ///
    /// # Errors
    /// Returns an error if some are missing or changed.
    pub(crate) fn read_all(&self, files: &[RecordedFile]) -> Result<ImageDataset> {
        let Recovered { images, lost } = self.read(files)?;
        ensure!(
            lost.is_empty(),
            "{}: {} of {} pictures that the run began with are missing or changed: {}",
            self.folder,
            lost.len(),
            files.len(),
            listed(&lost)
        );
        Ok(images)
    }

    /// Reads those pictures that are unchanged, and warns about the others.
    ///
    /// # Errors
    /// Returns an error if none is left.
    pub(crate) fn read_unchanged(&self, files: &[RecordedFile]) -> Result<ImageDataset> {
        let Recovered { images, lost } = self.read(files)?;
        let (folder, count, total) = (&self.folder, lost.len(), files.len());
        if images.is_empty() {
            let listed = listed(&lost);
            bail!("{folder}: all {total} recorded pictures are missing or changed: {listed}");
        }
        if !lost.is_empty() {
            let listed = listed(&lost);
            warn!(
                "{folder}: {count} of {total} recorded pictures are missing or changed, and left out: {listed}"
            );
        }
        Ok(images)
    }

    fn read(&self, files: &[RecordedFile]) -> Result<Recovered> {
        fs::read_dir(&self.folder)
            .with_context(|| format!("{}: cannot open the data folder", self.folder))?;
        let labeled = files.iter().map(|recorded| self.labeled(recorded));
        let pictures = PictureFiles {
            folder: self.folder.clone().into(),
            files: labeled.collect::<Result<_>>()?,
        };
        let decoded = self
            .cache
            .decode(&pictures, decode_options(self.expected))?;
        let found = decoded.images.files().into_iter().flatten().enumerate();
        let found: HashMap<&str, (usize, &str)> = found
            .map(|(index, file)| (file.path.as_str(), (index, file.sha256.as_str())))
            .collect();
        let reasons: HashMap<&str, &str> = decoded
            .unreadable
            .iter()
            .map(|picture| (picture.path.as_str(), picture.reason.as_str()))
            .collect();
        let mut unchanged = Vec::with_capacity(files.len());
        let mut lost = Vec::new();
        for RecordedFile { file, .. } in files {
            let path = file.path.as_str();
            match found.get(path) {
                Some((index, sha256)) if *sha256 == file.sha256 => unchanged.push(*index),
                Some(_) => lost.push(format!("{path} (changed)")),
                None if !pictures.folder.join(path).exists() => {
                    lost.push(format!("{path} (missing)"));
                }
                None => {
                    let reason = reasons.get(path).unwrap_or(&"unreadable");
                    lost.push(format!("{path} ({reason})"));
                }
            }
        }
        let images = decoded.images.select(unchanged);
        Ok(Recovered {
            images: images.with_channels(self.expected.channels),
            lost,
        })
    }

    /// Returns the file with the label of its class.
    fn labeled(&self, RecordedFile { class, file }: &RecordedFile) -> Result<LabeledFile> {
        let classes = &self.expected.classes;
        let label = classes.iter().position(|known| known == class);
        let label = label.with_context(|| {
            let known = classes.join(", ");
            format!(
                "the recorded picture {} has the class {class}, expected one of {known}",
                file.path
            )
        })?;
        Ok(LabeledFile {
            path: file.path.clone(),
            label: label as u8,
        })
    }
}

/// Lists the first paths.
fn listed(lost: &[String]) -> String {
    let named = lost[..lost.len().min(MAX_NAMED)].join(", ");
    match lost.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}
