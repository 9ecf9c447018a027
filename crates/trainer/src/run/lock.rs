//! The right to write to a run folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Keeps other processes from writing to a run folder, until it is dropped or the process ends: the
/// system takes it back then.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// The process that had it last, if that ended without giving it back.
    pub(crate) killed: Option<u32>,
}

impl Lock {
    /// Takes the lock at `path`.
    ///
    /// # Errors
    /// When another process has it, or the file cannot be written.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(place)?;
        let locked = file.try_lock();
        let mut owner = Vec::new();
        file.read_to_end(&mut owner).with_context(place)?;
        let owner: Option<u32> = String::from_utf8_lossy(&owner).trim().parse().ok();
        match (locked, owner) {
            (Ok(()), _) => {}
            (Err(TryLockError::WouldBlock), Some(process)) => {
                bail!("process {process} is writing to it")
            }
            (Err(TryLockError::WouldBlock), None) => bail!("another process is writing to it"),
            (Err(TryLockError::Error(error)), _) => return Err(error).with_context(place),
        }
        file.set_len(0).with_context(place)?;
        file.rewind().with_context(place)?;
        writeln!(file, "{}", std::process::id()).with_context(place)?;
        Ok(Self {
            file,
            killed: owner,
        })
    }
}

impl Lock {
    /// Whether a process has the lock at `path`.
    #[cfg(feature = "serve")]
    pub(crate) fn is_taken(path: &Path) -> bool {
        let Ok(file) = File::open(path) else {
            return false;
        };
        // A shared lock, so that those who look do not see each other.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An owner that is named here would be taken for dead.
        let _ = self.file.set_len(0);
    }
}
