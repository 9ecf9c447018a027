//! `metrics.jsonl`: what a training reports, a line of JSON each, to be followed while it goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::environment::Environment;
use crate::run::epoch::Epoch;
use crate::run::position::Position;
use crate::run::run_dir::RunDir;

/// The file, open at its end.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    file: File,
}

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    /// What a process trains with.
    Process(&'a Environment),
    /// The weights are those of a file.
    Import(&'a Import),
    /// A process begins to train, or goes on, after `steps` of `steps_total` optimizer steps.
    Start {
        steps: u64,
        steps_total: u64,
        epochs: usize,
        batches_per_epoch: usize,
        process: u32,
    },
    /// The batches since the last such entry, or since the epoch began.
    Batches {
        epoch: usize,
        /// The last of them in the epoch, from 1.
        batch: usize,
        steps: u64,
        /// Their mean.
        loss: f64,
        learning_rate: f64,
        images_per_second: f64,
    },
    /// A finished epoch.
    Epoch(&'a Epoch),
    /// The process is done with the run.
    End {
        state: State,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// Where weights came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Import {
    /// As it was named.
    pub(crate) file: String,
    /// What it is.
    pub(crate) format: String,
    /// Checksum of its content.
    pub(crate) sha256: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The run is trained and judged.
    Finished,
    /// It can go on.
    Interrupted,
    /// It ended with an error.
    Failed,
}

/// The last entry of a process.
#[cfg(feature = "serve")]
#[derive(Debug, Deserialize)]
pub(crate) struct End {
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

/// All that a journal tells.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Events(Vec<Value>);

impl Events {
    /// Those of a run, none where it has no journal. ProgressLines that are not understood are those of another
    /// version, or cut off.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn read(run: &RunDir) -> Result<Self> {
        let path = run.event_log_path();
        let bytes = match run.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self(Vec::new())),
            read => read.with_context(|| path.display().to_string())?,
        };
        let lines = bytes.split(|&byte| byte == b'\n');
        Ok(Self(
            lines
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect(),
        ))
    }

    /// The epochs that ended, in order.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.of_kind("epoch").collect()
    }

    /// What the processes were, the last one last.
    pub(crate) fn processes(&self) -> Vec<Environment> {
        self.of_kind("process").collect()
    }

    /// Where the first weights came from, if not from chance.
    pub(crate) fn import(&self) -> Option<Import> {
        self.of_kind("import").last()
    }

    /// How the last process ended, unless it still goes on or was killed.
    #[cfg(feature = "serve")]
    pub(crate) fn end(&self) -> Option<End> {
        let last = self.0.last().filter(|entry| entry["event"] == "end")?;
        End::deserialize(last).ok()
    }

    fn of_kind<T: DeserializeOwned>(&self, event: &str) -> impl Iterator<Item = T> {
        let entries = self.0.iter().filter(move |entry| entry["event"] == event);
        entries.filter_map(|entry| T::deserialize(entry).ok())
    }
}

impl EventLog {
    /// Goes on from `position`: what a training that was killed had written beyond it, it will
    /// write again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(run: &RunDir, position: &Position) -> Result<Self> {
        let path = run.event_log_path();
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let kept: String = text
                    .split_inclusive('\n')
                    .filter(|line| line.ends_with('\n') && is_before(line, position))
                    .collect();
                // Who follows the file reads another one from the beginning.
                if kept.as_bytes() != bytes {
                    run.write(&path, kept.as_bytes())?;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        Self::append(run)
    }

    /// Goes on after the last line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn append(run: &RunDir) -> Result<Self> {
        let path = run.event_log_path();
        let open = || {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).append(true).create(true).open(&path)?;
            // A full disk may have cut the last line off.
            let mut last = [b'\n'];
            if file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
            Ok::<_, io::Error>(file)
        };
        let file = open().with_context(|| format!("{}: cannot write", path.display()))?;
        Ok(Self { path, file })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub(crate) fn write(&mut self, entry: &Event<'_>) -> Result<()> {
        let mut line = serde_json::to_string(entry)?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

/// Whether a line tells of nothing after `position`.
fn is_before(line: &str, position: &Position) -> bool {
    let Ok(entry) = serde_json::from_str::<Value>(line) else {
        return false;
    };
    let number = |key: &str| entry.get(key).and_then(Value::as_u64);
    // An epoch that ended at a limit goes on, so that it is told of again.
    number("steps").is_none_or(|steps| steps <= position.steps)
        && number("number").is_none_or(|epoch| epoch <= position.epochs.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trained_again_is_written_again() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "tiny", None, "", |_| Ok(())).unwrap();
        let entry = |steps| Event::Batches {
            epoch: 1,
            batch: 1,
            steps,
            loss: 0.5,
            learning_rate: 0.001,
            images_per_second: 1e4,
        };
        let at = |steps| Position {
            steps,
            ..Position::default()
        };
        let mut journal = EventLog::open(&run, &at(0)).unwrap();
        for steps in [100, 200, 300] {
            journal.write(&entry(steps)).unwrap();
        }
        journal
            .file
            .write_all(
                b"{\"event\":\"epoch\",\"number\":1,\"steps\":250}\n\
                  {\"event\":\"end\",\"state\":\"failed\"}\n{\"event\":\"batches\",\"ep",
            )
            .unwrap();
        let mut journal = EventLog::open(&run, &at(250)).unwrap();
        journal.write(&entry(300)).unwrap();
        let text = fs::read_to_string(run.event_log_path()).unwrap();
        let steps: Vec<Option<u64>> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["steps"].as_u64())
            .collect();
        // The end that is told of without steps is that of the process before.
        assert_eq!(steps, [Some(100), Some(200), None, Some(300)]);
    }
}
