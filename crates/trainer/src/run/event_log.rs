//! The event log of a run, `metrics.jsonl`: one event of a training per line, as JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use data::regular_file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::environment::Environment;
use crate::run::epoch::Epoch;
use crate::run::position::Position;
use crate::run::run_dir::RunDir;

/// Length of the longest line that is read, in bytes, with its line break.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// An event log that is open for appending.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    file: File,
}

/// An event of a training.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    /// The environment of a process that trains.
    Process(&'a Environment),
    /// The weights were imported from a file.
    Import(&'a Import),
    /// A process begins or resumes the training after `steps` of `steps_total` optimizer steps.
    Start {
        steps: u64,
        steps_total: u64,
        epochs: usize,
        batches_per_epoch: usize,
        process: u32,
    },
    /// The running loss over the batches since the previous event of this kind in the epoch.
    Batches {
        epoch: usize,
        /// The number of the last batch within the epoch, from 1.
        batch: usize,
        steps: u64,
        /// The mean loss of these batches.
        loss: f64,
        learning_rate: f64,
        images_per_second: f64,
    },
    /// The results of an epoch.
    Epoch(&'a Epoch),
    /// A warning about the training, after `steps` optimizer steps.
    Warning {
        epoch: usize,
        steps: u64,
        message: &'a str,
    },
    /// The process ends.
    End {
        state: State,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// The source of imported weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Import {
    /// The path, as given on the command line.
    pub(crate) file: String,
    /// The file format.
    pub(crate) format: String,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The run is trained and evaluated.
    Finished,
    /// The user interrupted the training, which can be resumed.
    Interrupted,
    /// An error ended the training.
    Failed,
}

/// The event at the end of a process.
#[cfg(feature = "serve")]
#[derive(Debug, Deserialize)]
pub(crate) struct End {
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

/// The events of a run.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Events(Vec<Value>);

impl Events {
    /// Reads the event log of a run; there are no events if the file does not exist. Skips lines that cannot be
    /// parsed, such as an incomplete last line, and lines of more than [`MAX_LINE`] bytes.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(crate) fn read(run: &RunDir) -> Result<Self> {
        let path = run.event_log_path();
        let bytes = match run.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self(Vec::new())),
            read => read.with_context(|| path.display().to_string())?,
        };
        Ok(Self::from_bytes(&bytes))
    }

    /// Parses an event log, and skips lines that are too long or cannot be parsed.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        let lines = lines.filter(|line| line.len() <= MAX_LINE);
        let events = lines.filter_map(|line| serde_json::from_slice(line).ok());
        Self(events.collect())
    }

    /// Returns the completed epochs, in order.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.parse("epoch").collect()
    }

    /// Returns the environments of the processes, in order.
    pub(crate) fn processes(&self) -> Vec<Environment> {
        self.parse("process").collect()
    }

    /// Returns the source of the initial weights, if they were imported.
    pub(crate) fn import(&self) -> Option<Import> {
        self.parse("import").last()
    }

    /// Returns how the last process ended; None if it is still running or was killed.
    #[cfg(feature = "serve")]
    pub(crate) fn end(&self) -> Option<End> {
        let last = self.0.last().filter(|event| event["event"] == "end")?;
        End::deserialize(last).ok()
    }

    /// Parses the events of a kind.
    fn parse<T: DeserializeOwned>(&self, kind: &str) -> impl Iterator<Item = T> {
        let events = self.0.iter().filter(move |event| event["event"] == kind);
        events.filter_map(|event| T::deserialize(event).ok())
    }
}

impl EventLog {
    /// Opens the event log of a run that resumes at `position`. Removes the events after `position`, which a
    /// killed process wrote and which the resumed training will write again.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or written.
    pub(crate) fn open(run: &RunDir, position: &Position) -> Result<Self> {
        let path = run.event_log_path();
        match run.read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let retained: String = text
                    .split_inclusive('\n')
                    .filter(|line| line.ends_with('\n') && line.len() <= MAX_LINE)
                    .filter(|line| is_before(line, position))
                    .collect();
                // Replaces the file only if necessary, because followers then read it from the beginning.
                if retained.as_bytes() != bytes {
                    run.write(&path, retained.as_bytes())?;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        Self::append(run)
    }

    /// Opens the event log of a run after its last event.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn append(run: &RunDir) -> Result<Self> {
        let path = run.event_log_path();
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true);
            let mut file = regular_file::open_with(&path, &mut options)?;
            // The last line may be incomplete, after a full disk.
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

    /// Appends an event.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn write(&mut self, event: &Event<'_>) -> Result<()> {
        let mut line = serde_json::to_string(event)?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

/// Whether a line is an event of the training up to `position`.
fn is_before(line: &str, position: &Position) -> bool {
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        return false;
    };
    let number = |key: &str| event.get(key).and_then(Value::as_u64);
    // An epoch that a limit cut short is continued, and its event written again.
    number("steps").is_none_or(|steps| steps <= position.steps)
        && number("number").is_none_or(|epoch| epoch <= position.epochs.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn opening_removes_events_after_the_position() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "tiny", None, "", |_| Ok(())).unwrap();
        let event = |steps| Event::Batches {
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
        let mut log = EventLog::open(&run, &at(0)).unwrap();
        for steps in [100, 200, 300] {
            log.write(&event(steps)).unwrap();
        }
        log.file
            .write_all(
                b"{\"event\":\"epoch\",\"number\":1,\"steps\":250}\n\
                  {\"event\":\"end\",\"state\":\"failed\"}\n{\"event\":\"batches\",\"ep",
            )
            .unwrap();
        let mut log = EventLog::open(&run, &at(250)).unwrap();
        log.write(&event(300)).unwrap();
        let text = fs::read_to_string(run.event_log_path()).unwrap();
        let steps: Vec<Option<u64>> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["steps"].as_u64())
            .collect();
        // The events without steps are the creation of the run and the end of the previous process.
        assert_eq!(steps, [None, Some(100), Some(200), None, Some(300)]);
    }

    #[test]
    fn skips_lines_that_are_too_long_or_damaged() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "tiny", None, "", |_| Ok(())).unwrap();
        let import = |name: &str, length: usize| {
            let mut line =
                format!("{{\"event\":\"import\",\"format\":\"\",\"sha256\":\"\",\"file\":\"{name}");
            line += &"x".repeat(length - line.len() - 3);
            line + "\"}\n"
        };
        let text = [
            import("long", MAX_LINE + 1),
            import("longest", MAX_LINE),
            "{\n".into(),
            import("short", 100),
        ];
        fs::write(run.event_log_path(), text.concat()).unwrap();
        let starts = |events: &Events| -> Vec<String> {
            let files = events.parse::<Import>("import").map(|import| import.file);
            files
                .map(|file| file.trim_end_matches('x').into())
                .collect()
        };
        assert_eq!(starts(&Events::read(&run).unwrap()), ["longest", "short"]);
        EventLog::open(&run, &Position::default()).unwrap();
        let retained = fs::read_to_string(run.event_log_path()).unwrap();
        assert!(retained == import("longest", MAX_LINE) + &import("short", 100));
    }
}
