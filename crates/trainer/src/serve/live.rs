//! `/api/runs/{id}/events`: a run's journal as it grows, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};

use super::App;
use super::problem::Problem;
use super::runs::find;
use crate::run::run_dir::RunDir;

/// How often it is looked whether there is more.
const PAUSE: Duration = Duration::from_millis(300);
/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// A journal that is followed.
#[derive(Default)]
struct Follower {
    /// None for the run inside the program, which does not grow.
    path: Option<PathBuf>,
    /// Which file it was when it was read last.
    file: Option<u64>,
    /// Where the next line begins.
    offset: u64,
    lines: VecDeque<String>,
}

/// Each line of the journal is an event `entry`; `again` comes before a journal that was put back, and
/// `gone` when it is no longer there.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let workers = app.workers.clone();
    let root = Arc::clone(&app);
    let follower = workers
        .run(move || Ok(Follower::of(&find(&root, &id)?)))
        .await?;
    let stop = app.stop.clone();
    let events = stream::unfold(Some((follower, stop)), move |state| {
        let workers = workers.clone();
        async move {
            let (mut follower, mut stop) = state?;
            loop {
                if let Some(line) = follower.lines.pop_front() {
                    let event = Event::default().event("entry").data(line);
                    return Some((Ok(event), Some((follower, stop))));
                }
                let read = workers.run(move || {
                    let found = follower.read();
                    Ok((follower, found))
                });
                let (read, found) = read.await.ok()?;
                follower = read;
                match found {
                    OpenDevice::More => {}
                    OpenDevice::Nothing => {
                        tokio::select! {
                            _ = stop.changed() => return None,
                            () = tokio::time::sleep(PAUSE) => {}
                        }
                    }
                    OpenDevice::Again => {
                        let event = Event::default().event("again").data("{}");
                        return Some((Ok(event), Some((follower, stop))));
                    }
                    OpenDevice::Gone => {
                        let event = Event::default().event("gone").data("{}");
                        return Some((Ok(event), None));
                    }
                }
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// What reading brought.
#[derive(Debug, PartialEq)]
enum OpenDevice {
    More,
    Nothing,
    /// It is another file than before, or shorter.
    Again,
    Gone,
}

impl Follower {
    fn of(run: &RunDir) -> Self {
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

    fn read(&mut self) -> OpenDevice {
        match self.try_read() {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => OpenDevice::Gone,
            // As when too many files are open.
            Err(_) => OpenDevice::Nothing,
        }
    }

    fn try_read(&mut self) -> io::Result<OpenDevice> {
        let Some(path) = &self.path else {
            return Ok(OpenDevice::Nothing);
        };
        let mut file = fs::File::open(path)?;
        let metadata = file.metadata()?;
        let found = Some(identity(&metadata));
        let is_other = self.file.is_some() && self.file != found;
        self.file = found;
        if is_other || metadata.len() < self.offset {
            self.offset = 0;
            return Ok(OpenDevice::Again);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(CHUNK).read_to_end(&mut bytes)?;
        // A line without its end is still being written.
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(OpenDevice::Nothing);
        };
        self.offset += end as u64 + 1;
        let text = String::from_utf8_lossy(&bytes[..end]);
        self.lines = text.lines().map(String::from).collect();
        Ok(OpenDevice::More)
    }
}

/// What tells a file from one that took its name.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// What tells a file from one that took its name.
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
    fn a_journal_that_was_put_back_or_removed_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut follower = Follower {
            path: Some(path.clone()),
            ..Follower::default()
        };
        assert_eq!(follower.read(), OpenDevice::Gone);
        fs::write(&path, "1\n2\n3").unwrap();
        assert_eq!(follower.read(), OpenDevice::More);
        assert_eq!(follower.lines, ["1", "2"]);
        assert_eq!(follower.read(), OpenDevice::Nothing);
        fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(follower.read(), OpenDevice::More);
        assert_eq!(follower.lines, ["3"]);
        // Another file that is longer.
        let other = folder.path().join("other");
        fs::write(&other, "1\n4\n5\n6\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(follower.read(), OpenDevice::Again);
        assert_eq!(follower.read(), OpenDevice::More);
        assert_eq!(follower.lines, ["1", "4", "5", "6"]);
        // The same one cut off.
        fs::write(&path, "1\n").unwrap();
        assert_eq!(follower.read(), OpenDevice::Again);
        fs::remove_file(&path).unwrap();
        assert_eq!(follower.read(), OpenDevice::Gone);
    }
}
