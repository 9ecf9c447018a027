//! The lock of a run folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Prevents other processes from writing to a run folder until dropped. The system releases it if the process
/// is killed.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// The ID of the process that held the lock before, if it ended without releasing it.
    pub(crate) killed: Option<u32>,
}

impl Lock {
    /// Acquires the lock at `path`.
    ///
    /// # Errors
    /// Returns an error if another process holds the lock, or the file cannot be written.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(context)?;
        let locked = file.try_lock();
        let mut owner = Vec::new();
        file.read_to_end(&mut owner).with_context(context)?;
        let owner: Option<u32> = String::from_utf8_lossy(&owner).trim().parse().ok();
        match (locked, owner) {
            (Ok(()), _) => {}
            (Err(TryLockError::WouldBlock), Some(process)) => {
                bail!("process {process} is writing to it")
            }
            (Err(TryLockError::WouldBlock), None) => bail!("another process is writing to it"),
            (Err(TryLockError::Error(error)), _) => return Err(error).with_context(context),
        }
        file.set_len(0).with_context(context)?;
        file.rewind().with_context(context)?;
        writeln!(file, "{}", std::process::id()).with_context(context)?;
        Ok(Self {
            file,
            killed: owner,
        })
    }
}

impl Lock {
    /// Whether a process holds the lock at `path`.
    #[cfg(feature = "serve")]
    pub(crate) fn is_held(path: &Path) -> bool {
        let Ok(file) = File::open(path) else {
            return false;
        };
        // A shared lock, so that concurrent checks do not block each other.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A remaining process ID would mean that its process was killed.
        let _ = self.file.set_len(0);
    }
}
