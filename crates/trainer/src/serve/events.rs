//! `/api/runs/{id}/events`: follows the event log of a run, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, mem};

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use data::regular_file;
use futures_util::stream::{self, Stream};

use crate::run::event_log::MAX_LINE;
use crate::run::run_dir::RunDir;
use crate::serve::app::App;
use crate::serve::problem::Problem;
use crate::serve::runs::find;

/// Interval at which the file is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Follows an event log.
#[derive(Default)]
struct Follower {
    /// None for an embedded run, which does not grow.
    path: Option<PathBuf>,
    /// The identity of the file at the last read.
    file: Option<u64>,
    /// The offset of the next line in the file.
    offset: u64,
    /// Whether the offset is within a line that is skipped because it is too long.
    is_in_long_line: bool,
    /// Lines that are not sent yet.
    lines: VecDeque<String>,
}

/// `GET /api/runs/{id}/events`: an event `entry` for each line of the event log. An event `again` means that
/// the log was rewritten and follows from its beginning, and `gone` that it was removed.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let pool = app.pool.clone();
    let shutdown = app.shutdown.clone();
    let follower = pool
        .run(move || Ok(Follower::new(&find(&app, &id)?)))
        .await?;
    let events = stream::unfold(Some((follower, shutdown)), move |state| {
        let pool = pool.clone();
        async move {
            let (mut follower, mut shutdown) = state?;
            loop {
                if let Some(line) = follower.lines.pop_front() {
                    let event = Event::default().event("entry").data(line);
                    return Some((Ok(event), Some((follower, shutdown))));
                }
                let read = pool.run(move || {
                    let result = follower.read();
                    Ok((follower, result))
                });
                let (read, result) = read.await.ok()?;
                follower = read;
                match result {
                    ReadResult::NewLines => {}
                    ReadResult::Nothing => {
                        tokio::select! {
                            _ = shutdown.changed() => return None,
                            () = tokio::time::sleep(POLL_INTERVAL) => {}
                        }
                    }
                    ReadResult::Rewritten => {
                        let event = Event::default().event("again").data("{}");
                        return Some((Ok(event), Some((follower, shutdown))));
                    }
                    ReadResult::Gone => {
                        let event = Event::default().event("gone").data("{}");
                        return Some((Ok(event), None));
                    }
                }
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The result of a read.
#[derive(Debug, PartialEq)]
enum ReadResult {
    /// There may be more lines.
    NewLines,
    Nothing,
    /// The file was replaced, or is shorter than before.
    Rewritten,
    /// The file was removed.
    Gone,
}

impl Follower {
    fn new(run: &RunDir) -> Self {
        if !run.is_shipped() {
            return Self {
                path: Some(run.event_log_path()),
                ..Self::default()
            };
        }
        let lines = run.read(&run.event_log_path()).unwrap_or_default();
        let lines = String::from_utf8_lossy(&lines);
        Self {
            lines: lines.lines().map(String::from).collect(),
            ..Self::default()
        }
    }

    fn read(&mut self) -> ReadResult {
        match self.try_read() {
            Ok(result) => result,
            Err(error) if error.kind() == ErrorKind::NotFound => ReadResult::Gone,
            // May be temporary, such as too many open files.
            Err(_) => ReadResult::Nothing,
        }
    }

    fn try_read(&mut self) -> io::Result<ReadResult> {
        let Some(path) = &self.path else {
            return Ok(ReadResult::Nothing);
        };
        let mut file = regular_file::open(path)?;
        let metadata = file.metadata()?;
        let file_identity = Some(identity(&metadata));
        let is_replaced = self.file.is_some() && self.file != file_identity;
        self.file = file_identity;
        if is_replaced || metadata.len() < self.offset {
            self.offset = 0;
            self.is_in_long_line = false;
            return Ok(ReadResult::Rewritten);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(MAX_LINE as u64).read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            // An incomplete line is still being written, unless it is too long.
            if bytes.len() < MAX_LINE {
                return Ok(ReadResult::Nothing);
            }
            self.offset += MAX_LINE as u64;
            self.is_in_long_line = true;
            return Ok(ReadResult::NewLines);
        };
        self.offset += end as u64 + 1;
        let text = String::from_utf8_lossy(&bytes[..end]);
        let end_of_long_line = usize::from(mem::take(&mut self.is_in_long_line));
        let lines = text.split('\n').skip(end_of_long_line);
        self.lines = lines.map(String::from).collect();
        Ok(ReadResult::NewLines)
    }
}

/// Returns a number that differs between a file and its replacement: the inode number.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// Returns a number that differs between a file and its replacement: the creation time.
#[cfg(not(unix))]
fn identity(metadata: &fs::Metadata) -> u64 {
    let created = metadata.created().ok();
    let since = created.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |time| time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_rewritten_and_removed_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut follower = Follower {
            path: Some(path.clone()),
            ..Follower::default()
        };
        assert_eq!(follower.read(), ReadResult::Gone);
        fs::write(&path, "1\n2\n3").unwrap();
        assert_eq!(follower.read(), ReadResult::NewLines);
        assert_eq!(follower.lines, ["1", "2"]);
        assert_eq!(follower.read(), ReadResult::Nothing);
        fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(follower.read(), ReadResult::NewLines);
        assert_eq!(follower.lines, ["3"]);
        // A longer file with the same name.
        let other = folder.path().join("other");
        fs::write(&other, "1\n4\n5\n6\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(follower.read(), ReadResult::Rewritten);
        assert_eq!(follower.read(), ReadResult::NewLines);
        assert_eq!(follower.lines, ["1", "4", "5", "6"]);
        // The same file, truncated.
        fs::write(&path, "1\n").unwrap();
        assert_eq!(follower.read(), ReadResult::Rewritten);
        fs::remove_file(&path).unwrap();
        assert_eq!(follower.read(), ReadResult::Gone);
    }

    #[test]
    fn skips_a_line_that_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut follower = Follower {
            path: Some(path.clone()),
            ..Follower::default()
        };
        let longest = "x".repeat(MAX_LINE - 1);
        let text = format!("1\n{longest}\n{}\n2\n", "y".repeat(3 * MAX_LINE));
        fs::write(&path, text).unwrap();
        let mut lines = Vec::new();
        while follower.read() == ReadResult::NewLines {
            lines.extend(follower.lines.drain(..));
        }
        assert!(lines == ["1", longest.as_str(), "2"]);
    }

    #[cfg(unix)]
    #[test]
    fn does_not_wait_for_a_pipe() {
        use rustix::fs::{CWD, Mode, mkfifoat};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        let mut follower = Follower {
            path: Some(path),
            ..Follower::default()
        };
        assert_eq!(follower.read(), ReadResult::Nothing);
    }
}
