//! Checkpoints: everything a training needs to go on as if it had never stopped.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::run_config::Config;
use crate::run::position::Position;

/// The first line, up to the version of what follows it.
const TITLE: &[u8] = b"trainer checkpoint ";
/// The version that is written and read.
const VERSION: u32 = 1;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 32;

/// A training between two steps.
///
/// As a file: a title with a version, a line of JSON, the four records, and the SHA-256 of all
/// that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// The configuration it was trained with.
    pub(crate) config: Config,
    pub(crate) position: Position,
    /// The network, as Burn records it.
    pub(crate) model: Vec<u8>,
    /// The optimizer's state, as Burn records it.
    pub(crate) optimizer: Vec<u8>,
    /// The weights of the best epoch so far, as safetensors; empty before the first epoch ended.
    pub(crate) best: Vec<u8>,
    /// The average of the weights, as Burn records it; empty where none is kept.
    pub(crate) average: Vec<u8>,
}

/// The line of JSON.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(deserialize_with = "Config::deserialize_older")]
    config: Config,
    position: Position,
    /// Bytes of the records.
    model: usize,
    optimizer: usize,
    best: usize,
    #[serde(default)]
    average: usize,
}

impl Header {
    /// Whether the numbers can be those of one training.
    fn is_consistent(&self) -> bool {
        let Position {
            steps,
            epochs,
            batches,
            ..
        } = &self.position;
        let before = epochs.last().map_or(0, |epoch| epoch.steps);
        let within = batches.div_ceil(self.config.training.accumulate.max(1)) as u64;
        before.checked_add(within) == Some(*steps)
            && (1..)
                .zip(epochs)
                .all(|(number, epoch)| epoch.number == number)
            && (self.best == 0) == epochs.is_empty()
    }
}

impl Checkpoint {
    /// The file.
    ///
    /// # Errors
    /// Never for figures that are finite numbers.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let Self {
            config,
            position,
            model,
            optimizer,
            best,
            average,
        } = self;
        let header = Header {
            config: config.clone(),
            position: position.clone(),
            model: model.len(),
            optimizer: optimizer.len(),
            best: best.len(),
            average: average.len(),
        };
        let mut bytes = TITLE.to_vec();
        bytes.extend_from_slice(format!("{VERSION}\n").as_bytes());
        serde_json::to_writer(&mut bytes, &header)?;
        bytes.push(b'\n');
        for record in [model, optimizer, best, average] {
            bytes.extend_from_slice(record);
        }
        Ok(Self::seal(bytes))
    }

    /// `bytes` with their checksum.
    pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or as [`from_bytes`](Self::from_bytes).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::from_bytes(&fs::read(path)?)
    }

    /// The checkpoint that `bytes` are.
    ///
    /// # Errors
    /// When they are no checkpoint, one of another version, or not as they were
    /// written.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (version, _) = bytes
            .strip_prefix(TITLE)
            .and_then(split_line)
            .context("not a checkpoint")?;
        if version != VERSION.to_string().as_bytes() {
            let version = String::from_utf8_lossy(&version[..version.len().min(20)]);
            bail!("a checkpoint of version {version}; this program reads version {VERSION}");
        }
        let end = bytes.len().saturating_sub(CHECKSUM);
        let (content, checksum) = bytes.split_at(end);
        ensure!(
            Sha256::digest(content).as_slice() == checksum,
            "the checkpoint is damaged: it was cut off or changed after it was written"
        );
        let damaged = "the checkpoint contradicts itself";
        let (_, content) = split_line(content).context(damaged)?;
        let (header, records) = split_line(content).context(damaged)?;
        let header: Header = serde_json::from_slice(header).context(damaged)?;
        let (model, rest) = records.split_at_checked(header.model).context(damaged)?;
        let (optimizer, rest) = rest.split_at_checked(header.optimizer).context(damaged)?;
        let (best, average) = rest.split_at_checked(header.best).context(damaged)?;
        ensure!(average.len() == header.average, damaged);
        ensure!(header.is_consistent(), damaged);
        Ok(Self {
            config: header.config,
            position: header.position,
            model: model.to_vec(),
            optimizer: optimizer.to_vec(),
            best: best.to_vec(),
            average: average.to_vec(),
        })
    }
}

/// A line without its end, and what follows.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::run::epoch::Epoch;
    use crate::run::images::{self, PictureCache};
    use crate::run::metrics::Metrics;

    fn checkpoint() -> Checkpoint {
        let figures = Metrics {
            loss: 0.1 + 0.2,
            accuracy: 1.0 / 3.0,
        };
        let epoch = Epoch {
            number: 1,
            of: 2,
            steps: 844,
            train: figures,
            validation: Some(figures),
            test: None,
            learning_rate: 0.001,
            images_per_second: 4321.0,
            loading: 0.01,
            seconds: 12.3,
        };
        let position = Position {
            steps: 1200,
            batches: 356,
            epochs: vec![epoch],
            ..Position::default()
        };
        let (config, _) =
            images::resolve(Settings::preset("tiny").unwrap(), PictureCache::No).unwrap();
        Checkpoint {
            config,
            position,
            model: b"model\n".to_vec(),
            optimizer: vec![0, 255, 10],
            best: b"best".to_vec(),
            average: b"average".to_vec(),
        }
    }

    #[track_caller]
    fn error(bytes: &[u8]) -> String {
        Checkpoint::from_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_again_to_the_bit() {
        let bytes = checkpoint().to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint());
    }

    #[test]
    fn no_byte_can_be_changed_or_cut_off_unnoticed() {
        let bytes = checkpoint().to_bytes().unwrap();
        for at in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Checkpoint::from_bytes(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn errors_say_what_it_is_instead() {
        assert_eq!(error(b"PK\x03\x04"), "not a checkpoint");
        assert_eq!(
            error(b"trainer checkpoint 2\n"),
            "a checkpoint of version 2; this program reads version 1"
        );
        let bytes = checkpoint().to_bytes().unwrap();
        let mut wrong = checkpoint();
        wrong.position.steps += 1;
        assert_eq!(
            error(&wrong.to_bytes().unwrap()),
            "the checkpoint contradicts itself"
        );
        let damaged = "the checkpoint is damaged: it was cut off or changed after it was written";
        assert_eq!(error(&bytes[..bytes.len() - 1]), damaged);
    }
}
