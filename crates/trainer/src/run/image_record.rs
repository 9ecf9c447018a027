//! The record of a run's images, `images.json`. It is written when the run is created, so that later commands
//! evaluate on the test images of the run, whatever was added to the data folder or changed in it.

use std::collections::HashMap;
use std::io::ErrorKind;

use anyhow::{Context, Error, Result, ensure};
use data::digest::sha256_hex;
use data::{ImageDataset, SourceFile};
use serde::{Deserialize, Serialize};

use crate::run::run_dir::RunDir;

/// The record of a run's images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum ImageRecord {
    /// Images of files with many images.
    #[serde(rename = "idx")]
    Images {
        /// Training and validation images, or training images alone if the data set has a validation split.
        train: SplitDigest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation: Option<SplitDigest>,
        test: SplitDigest,
    },
    /// Pictures in files of their own.
    Pictures {
        train: Vec<RecordedFile>,
        validation: Vec<RecordedFile>,
        test: Vec<RecordedFile>,
    },
}

/// The digest of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SplitDigest {
    /// Number of images.
    pub(crate) images: usize,
    /// SHA-256 of the shape, pixels and labels.
    pub(crate) sha256: String,
}

/// A picture of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedFile {
    pub(crate) class: String,
    #[serde(flatten)]
    pub(crate) file: SourceFile,
}

impl SplitDigest {
    /// Computes the digest of images.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn of(images: &ImageDataset) -> Result<Self> {
        Ok(Self {
            images: images.len(),
            sha256: images.sha256()?,
        })
    }

    /// Returns whether this is the digest of `images`.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn is_of(&self, images: &ImageDataset) -> Result<bool> {
        Ok(self.images == images.len() && self.sha256 == images.sha256()?)
    }

    /// Checks that `images`, those of `split` in `source`, are the recorded ones.
    ///
    /// # Errors
    /// Returns an error if pixels, labels or their order differ, or an image cannot be read.
    pub(crate) fn check(&self, images: &ImageDataset, split: &str, source: &str) -> Result<()> {
        ensure!(
            self.is_of(images)?,
            "{source}: the {split} images or their labels are not those that the run began with"
        );
        Ok(())
    }
}

impl ImageRecord {
    /// Reads the record of a run; `None` if the run was created by a version that wrote none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a record.
    pub(crate) fn read(run: &RunDir) -> Result<Option<Self>> {
        let path = run.image_record_path();
        let bytes = match run.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(Error::new),
        };
        let record = bytes.and_then(|bytes| Ok(Some(Self::from_json(&bytes)?)));
        record.with_context(|| format!("{}: not a record of images", path.display()))
    }

    /// Parses a record.
    ///
    /// # Errors
    /// Returns an error if `json` is not a record.
    pub(crate) fn from_json(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// Writes the record to the folder of a run.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn write(&self, run: &RunDir) -> Result<()> {
        run.write(&run.image_record_path(), &serde_json::to_vec(self)?)
    }

    /// Returns the SHA-256 of the record without the division into training and validation images, which
    /// depends on the seed.
    pub(crate) fn sha256(&self) -> String {
        match self {
            Self::Images {
                train,
                validation,
                test,
            } => {
                let splits = [Some(train), validation.as_ref(), Some(test)];
                sha256_hex(splits.into_iter().flatten().map(|split| &split.sha256))
            }
            Self::Pictures {
                train,
                validation,
                test,
            } => {
                let line = |split: &str, RecordedFile { class, file }: &RecordedFile| {
                    format!("{split} {class:?} {:?} {}\n", file.path, file.sha256)
                };
                let training = train
                    .iter()
                    .chain(validation)
                    .map(|file| line("train", file));
                let mut lines: Vec<String> = training.collect();
                lines.extend(test.iter().map(|file| line("test", file)));
                lines.sort();
                sha256_hex(lines)
            }
        }
    }

    /// Returns the test pictures that have the content of a training or validation picture, with the path of
    /// that picture.
    pub(crate) fn duplicates(&self) -> Vec<(&str, &str)> {
        let Self::Pictures {
            train,
            validation,
            test,
        } = self
        else {
            return Vec::new();
        };
        let training = train.iter().chain(validation);
        let training: HashMap<&str, &str> = training
            .map(|recorded| (recorded.file.sha256.as_str(), recorded.file.path.as_str()))
            .collect();
        let duplicates = test.iter().filter_map(|recorded| {
            let original = training.get(recorded.file.sha256.as_str())?;
            Some((recorded.file.path.as_str(), *original))
        });
        duplicates.collect()
    }
}

impl RecordedFile {
    /// Records the pictures of a split; `None` if its images have no files of their own.
    pub(crate) fn of_split(images: &ImageDataset, classes: &[String]) -> Option<Vec<Self>> {
        let files = images.files()?.zip(images.labels());
        let recorded = files.map(|(file, label)| Self {
            class: classes[usize::from(label)].clone(),
            file: file.clone(),
        });
        Some(recorded.collect())
    }

    /// Returns the SHA-256 of the content.
    pub(crate) fn sha256(&self) -> &str {
        &self.file.sha256
    }
}
