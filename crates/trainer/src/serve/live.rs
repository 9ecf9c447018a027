//! `/api/runs/{id}/events`: a run's journal as it grows, as server-sent events.

use std::convert::Infallible;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use super::App;
use super::problem::Problem;
use super::runs::find;

/// How often it is looked whether there is more.
const PAUSE: Duration = Duration::from_millis(300);
/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// A journal that is followed.
struct Follower {
    path: PathBuf,
    /// Where the next line begins.
    offset: u64,
    lines: std::vec::IntoIter<String>,
    stop: watch::Receiver<bool>,
}

/// Each line of the journal is an event `entry`; `again` comes before a journal that was put back, and
/// `gone` when it is no longer there.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let run = find(&app, &id)?;
    // The run inside the program has no file to follow.
    let lines = match run.is_shipped() {
        true => run.read(&run.journal()).unwrap_or_default(),
        false => Vec::new(),
    };
    let lines: Vec<String> = String::from_utf8_lossy(&lines)
        .lines()
        .map(String::from)
        .collect();
    let follower = Follower {
        path: run.journal(),
        offset: 0,
        lines: lines.into_iter(),
        stop: app.stop.clone(),
    };
    let events = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        loop {
            if let Some(line) = follower.lines.next() {
                let event = Event::default().event("entry").data(line);
                return Some((Ok(event), Some(follower)));
            }
            match follower.read() {
                Ok(Found::More) => {}
                Ok(Found::Nothing) => {
                    tokio::select! {
                        _ = follower.stop.changed() => return None,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
                Ok(Found::Again) => {
                    let event = Event::default().event("again").data("{}");
                    return Some((Ok(event), Some(follower)));
                }
                Err(_) => {
                    let event = Event::default().event("gone").data("{}");
                    return Some((Ok(event), None));
                }
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// What reading brought.
enum Found {
    More,
    Nothing,
    /// The file is shorter than it was.
    Again,
}

impl Follower {
    fn read(&mut self) -> std::io::Result<Found> {
        let mut file = fs::File::open(&self.path)?;
        let length = file.metadata()?.len();
        if length < self.offset {
            self.offset = 0;
            return Ok(Found::Again);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(CHUNK).read_to_end(&mut bytes)?;
        // A line without its end is still being written.
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(Found::Nothing);
        };
        self.offset += end as u64 + 1;
        let text = String::from_utf8_lossy(&bytes[..end]);
        let lines: Vec<String> = text.lines().map(String::from).collect();
        self.lines = lines.into_iter();
        Ok(Found::More)
    }
}
