//! The peak of this process's resident memory, which Linux records.

use std::fs;

/// Linux's record of this process.
const STATUS: &str = "/proc/self/status";
/// The file that restarts the record of the peak, by writing "5" to it; see the manual page proc_pid_clear_refs(5).
const CLEAR_REFS: &str = "/proc/self/clear_refs";

/// A measurement of the peak of the resident memory.
#[derive(Debug)]
pub(crate) struct PeakMemory {
    /// Whether the peak is that of this measurement, rather than of the whole process.
    pub(crate) is_restarted: bool,
}

impl PeakMemory {
    /// Starts a measurement. Where the record cannot be restarted, it contains everything before.
    pub(crate) fn start() -> Self {
        Self {
            is_restarted: fs::write(CLEAR_REFS, "5").is_ok(),
        }
    }

    /// Returns the peak in bytes; `None` on other systems than Linux.
    pub(crate) fn bytes(&self) -> Option<u64> {
        peak_of(&fs::read_to_string(STATUS).ok()?)
    }
}

/// Returns the peak in bytes from the text of `/proc/self/status`.
fn peak_of(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_peak_in_kibibytes() {
        let status = "Name:\ttrainer\nVmPeak:\t   20 kB\nVmHWM:\t  119340 kB\nVmRSS:\t  3 kB\n";
        assert_eq!(peak_of(status), Some(119_340 << 10));
        assert_eq!(peak_of("VmRSS:\t  3 kB\n"), None);
        assert_eq!(peak_of("VmHWM:\t  three kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn peak_contains_memory_that_was_freed() {
        let measurement = PeakMemory::start();
        let before = measurement.bytes().unwrap();
        drop(std::hint::black_box(vec![1u8; 128 << 20]));
        assert!(measurement.bytes().unwrap() >= 128 << 20, "{before}");
    }
}
