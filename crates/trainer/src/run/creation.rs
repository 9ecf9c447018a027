//! The time at which a run was created: the first event of its log. The times of files change when they are
//! touched, copied or written again.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use data::regular_file;
use serde::{Deserialize, Serialize};

/// Number of bytes in which the event is looked for.
const MAX_BYTES: u64 = 256;

/// The first event of a log.
#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum FirstEvent {
    /// The folder of the run was created.
    Creation {
        /// In RFC 3339, with nanoseconds and in UTC.
        time: String,
    },
}

/// Formats the creation at `time` as the first line of an event log.
///
/// # Errors
/// Returns no error in practice.
pub(crate) fn event(time: SystemTime) -> Result<String> {
    let time = humantime::format_rfc3339_nanos(time).to_string();
    Ok(serde_json::to_string(&FirstEvent::Creation { time })? + "\n")
}

/// Reads the time of the creation from an event log. Logs of older versions do not have it.
pub(crate) fn recorded(event_log: &Path) -> Option<SystemTime> {
    let mut start = Vec::new();
    let file = regular_file::open(event_log).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut start).ok()?;
    let line = start.split(|&byte| byte == b'\n').next()?;
    let FirstEvent::Creation { time } = serde_json::from_slice(line).ok()?;
    humantime::parse_rfc3339(&time).ok()
}

/// Returns the oldest modification time of the files in a folder.
pub(crate) fn oldest_modification(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    let metadata = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    let files = metadata.filter(fs::Metadata::is_file);
    files.filter_map(|file| file.modified().ok()).min()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_recorded_time_is_exact() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("metrics.jsonl");
        assert_eq!(recorded(&log), None);
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let line = event(time).unwrap();
        assert_eq!(
            line,
            "{\"event\":\"creation\",\"time\":\"2023-11-14T22:13:20.123456789Z\"}\n"
        );
        fs::write(&log, format!("{line}{{\"event\":\"process\"}}\n")).unwrap();
        assert_eq!(recorded(&log), Some(time));
        for other in [
            "{\"event\":\"process\"}\n",
            "",
            "{\"event\":\"creation\",\"time\":\"now\"}\n",
        ] {
            fs::write(&log, other).unwrap();
            assert_eq!(recorded(&log), None, "{other}");
        }
    }
}
