//! Checkpoints: the complete state of a training, from which it resumes bit for bit.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::regular_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::run_config::Config;
use crate::run::position::Position;

/// The first line, without the version number.
const TITLE: &[u8] = b"trainer checkpoint ";
/// The version of the format.
const VERSION: u32 = 1;
/// Largest accepted file, in bytes. The network, its best weights, their average and the two moments of the
/// optimizer take at most 1 GiB each.
const MAX_BYTES: u64 = 6 << 30;
/// Length of the checksum, in bytes.
const CHECKSUM_LEN: usize = 32;

/// The state of a training between two steps.
///
/// File format: a line with title and version, a line of JSON (the header), the four records, and the
/// SHA-256 of all preceding bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// The configuration of the run.
    pub(crate) config: Config,
    pub(crate) position: Position,
    /// The network, as a Burn record.
    pub(crate) model: Vec<u8>,
    /// The state of the optimizer, as a Burn record.
    pub(crate) optimizer: Vec<u8>,
    /// The weights of the best epoch so far, as safetensors; empty during the first epoch.
    pub(crate) best: Vec<u8>,
    /// The moving average of the weights, or the slow weights of lookahead, as a Burn record; empty without
    /// `ema_decay` and `lookahead`.
    pub(crate) average: Vec<u8>,
}

/// The header of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(deserialize_with = "Config::deserialize_older")]
    config: Config,
    position: Position,
    /// Lengths of the records, in bytes.
    model: usize,
    optimizer: usize,
    best: usize,
    #[serde(default)]
    average: usize,
}

impl Header {
    /// Whether the numbers of steps, epochs and batches are consistent.
    fn is_consistent(&self) -> bool {
        let Position {
            steps,
            epochs,
            batches,
            ..
        } = &self.position;
        let steps_before = epochs.last().map_or(0, |epoch| epoch.steps);
        let steps_of_epoch = batches.div_ceil(self.config.training.accumulate.max(1)) as u64;
        steps_before.checked_add(steps_of_epoch) == Some(*steps)
            && (1..)
                .zip(epochs)
                .all(|(number, epoch)| epoch.number == number)
            && (self.best == 0) == epochs.is_empty()
    }
}

impl Checkpoint {
    /// Encodes the checkpoint in its file format.
    ///
    /// # Errors
    /// Returns an error if a metric is not finite.
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

    /// Appends the checksum.
    pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads a checkpoint file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or as [`from_bytes`](Self::from_bytes).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::from_bytes(&regular_file::read(path, MAX_BYTES)?)
    }

    /// Decodes a checkpoint.
    ///
    /// # Errors
    /// Returns an error if `bytes` are not a checkpoint, have another version, are damaged, or are
    /// inconsistent.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (version, _) = bytes
            .strip_prefix(TITLE)
            .and_then(split_line)
            .context("not a checkpoint")?;
        if version != VERSION.to_string().as_bytes() {
            let version = String::from_utf8_lossy(&version[..version.len().min(20)]);
            bail!("a checkpoint of version {version}; this program reads version {VERSION}");
        }
        let end = bytes.len().saturating_sub(CHECKSUM_LEN);
        let (content, checksum) = bytes.split_at(end);
        ensure!(
            Sha256::digest(content).as_slice() == checksum,
            "the checkpoint is damaged: truncated, or modified after it was written"
        );
        let inconsistent = "the checkpoint is inconsistent";
        let (_, content) = split_line(content).context(inconsistent)?;
        let (header, records) = split_line(content).context(inconsistent)?;
        let header: Header = serde_json::from_slice(header).context(inconsistent)?;
        let (model, rest) = records
            .split_at_checked(header.model)
            .context(inconsistent)?;
        let (optimizer, rest) = rest
            .split_at_checked(header.optimizer)
            .context(inconsistent)?;
        let (best, average) = rest.split_at_checked(header.best).context(inconsistent)?;
        ensure!(average.len() == header.average, inconsistent);
        ensure!(header.is_consistent(), inconsistent);
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

/// Returns the first line, without its newline, and the remaining bytes.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Settings, digits};
    use crate::run::epoch::Epoch;
    use crate::run::metrics::Metrics;

    fn checkpoint() -> Checkpoint {
        let metrics = Metrics {
            loss: 0.1 + 0.2,
            accuracy: 1.0 / 3.0,
        };
        let epoch = Epoch {
            number: 1,
            of: 2,
            steps: 844,
            train: metrics,
            validation: Some(metrics),
            score: None,
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
        let config = Settings::preset("tiny").unwrap();
        let config = config.into_config(&digits()).unwrap();
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
    fn round_trip_is_exact() {
        let bytes = checkpoint().to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint());
    }

    #[test]
    fn detects_any_changed_or_missing_byte() {
        let bytes = checkpoint().to_bytes().unwrap();
        for at in 0..bytes.len() {
            let truncated = &bytes[..at];
            assert!(Checkpoint::from_bytes(truncated).is_err(), "{at} bytes");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Checkpoint::from_bytes(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn errors_name_the_defect() {
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
            "the checkpoint is inconsistent"
        );
        let damaged = "the checkpoint is damaged: truncated, or modified after it was written";
        assert_eq!(error(&bytes[..bytes.len() - 1]), damaged);
    }
}
