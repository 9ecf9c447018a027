//! The lock of a run folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use data::regular_file;

/// Number of bytes in which the ID of a process is looked for.
const MAX_OWNER_BYTES: u64 = 32;

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
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = regular_file::open_with(path, &mut options).with_context(context)?;
        let locked = file.try_lock();
        let mut owner = Vec::new();
        let mut start = (&file).take(MAX_OWNER_BYTES);
        start.read_to_end(&mut owner).with_context(context)?;
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
        let Ok(file) = regular_file::open(path) else {
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
