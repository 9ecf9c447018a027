//! Atomic writes of files and folders.
//!
//! They are written under a temporary name and renamed. A process locks what it is writing, so that another
//! process can remove what a killed one has left.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use data::regular_file;
use tempfile::{NamedTempFile, TempDir, TempPath};

/// Prefix of the temporary names of files and folders that are being written.
const TEMPORARY_PREFIX: &str = ".unfinished-";
/// Prefix of the temporary names of files that their process has locked.
const LOCKED_PREFIX: &str = ".unfinished-locked-";

/// Maximum number of attempts to create a temporary file.
const MAX_ATTEMPTS: usize = 5;

/// Name of the file in a temporary folder that its process locks.
const FOLDER_LOCK: &str = ".lock";
/// Its name before it is locked.
const UNLOCKED: &str = ".lock-new";

/// Minimum age of a temporary file without the locked prefix, or of a temporary folder without a lock file, to be
/// removed: a running process may not have locked it yet, or may be about to rename it.
pub(crate) const MIN_ABANDONED_AGE: Duration = Duration::from_secs(60);

/// Writes a file atomically, and creates its folder if necessary.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("{}: cannot write", path.display());
    fs::create_dir_all(folder_of(path)).with_context(context)?;
    write_and_rename(path, bytes).with_context(context)
}

/// A folder with a temporary name. It is removed when dropped.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    /// Locked. Declared before the folder, so that it is closed first.
    lock: File,
    folder: TempDir,
}

/// A complete folder that still has its temporary name. No other process removes it before this is dropped.
#[derive(Debug)]
pub(crate) struct CompleteFolder {
    pub(crate) path: PathBuf,
    /// Windows does not rename folders with open files.
    #[cfg(not(windows))]
    _lock: File,
}

impl TemporaryFolder {
    /// Creates a temporary folder in `parent`, and removes those that killed processes have left there.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub(crate) fn create_in(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent, MIN_ABANDONED_AGE);
        let folder = temporary(0o777).tempdir_in(parent)?;
        // The lock file appears locked, so that one without a lock belongs to a process that has ended.
        let unlocked = folder.path().join(UNLOCKED);
        let lock = File::create_new(&unlocked)?;
        try_lock(&lock);
        fs::rename(unlocked, folder.path().join(FOLDER_LOCK))?;
        Ok(Self { lock, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes the lock file from the folder, which the caller renames or removes.
    ///
    /// # Errors
    /// Returns an error if the lock file cannot be removed.
    pub(crate) fn complete(self) -> io::Result<CompleteFolder> {
        let Self { lock, folder } = self;
        #[cfg(windows)]
        drop(lock);
        fs::remove_file(folder.path().join(FOLDER_LOCK))?;
        Ok(CompleteFolder {
            path: folder.keep(),
            #[cfg(not(windows))]
            _lock: lock,
        })
    }
}

/// Removes a folder whose creation failed. A failure to remove it would only hide the first error.
pub(crate) fn remove_folder(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// Removes the temporary files and folders in `folder` that no process is writing. Those that may not have been
/// locked yet must be older than `min_age`. What cannot be removed only wastes space.
pub(crate) fn remove_abandoned(folder: &Path, min_age: Duration) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    for path in paths.filter(|path| is_temporary(path)) {
        let _ = remove_if_abandoned(&path, min_age);
    }
}

fn remove_if_abandoned(path: &Path, min_age: Duration) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let lock_path = match metadata.is_dir() {
        true => path.join(FOLDER_LOCK),
        false => path.into(),
    };
    let lock = match regular_file::open(&lock_path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    // Held until the end.
    if lock.as_ref().is_some_and(|lock| lock.try_lock().is_err()) {
        return Ok(());
    }
    let was_locked = match metadata.is_dir() {
        true => lock.is_some(),
        false => has_prefix(path, LOCKED_PREFIX),
    };
    // No age if the clock was set back.
    if !was_locked && metadata.modified()?.elapsed().unwrap_or_default() < min_age {
        return Ok(());
    }
    match metadata.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

/// Returns a builder of temporary files and folders with the permissions `mode`, less the umask.
fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Creates a locked temporary file in a folder, and removes those that killed processes have left there.
///
/// # Errors
/// Returns an error if it cannot be created.
pub(crate) fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    remove_abandoned(folder, MIN_ABANDONED_AGE);
    for _ in 1..MAX_ATTEMPTS {
        match new_locked_file(folder) {
            // Another process took it for one of a killed process, before it was locked.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    new_locked_file(folder)
}

/// Creates a temporary file and locks it. It gets the locked prefix when it is locked, so that one with that prefix
/// and without a lock belongs to a process that has ended.
fn new_locked_file(folder: &Path) -> io::Result<NamedTempFile> {
    let (file, path) = temporary(0o666).tempfile_in(folder)?.into_parts();
    try_lock(&file);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let locked = folder.join(name.replacen(TEMPORARY_PREFIX, LOCKED_PREFIX, 1));
    fs::rename(&path, &locked)?;
    // The file no longer has its first name, so that there is nothing to remove.
    let _ = path.keep();
    Ok(NamedTempFile::from_parts(
        file,
        TempPath::try_from_path(locked)?,
    ))
}

/// Locks a file. Where the file system has no locks, nothing is removed either.
fn try_lock(file: &File) {
    let _ = file.try_lock();
}

/// Whether a file or folder has a temporary name. Its process is still writing it, or was killed.
pub(crate) fn is_temporary(path: &Path) -> bool {
    has_prefix(path, TEMPORARY_PREFIX)
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

/// Returns the folder of a file, `.` for a plain file name.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Writes a temporary file in the same folder, and renames it.
fn write_and_rename(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = temporary_file(folder_of(path))?;
    // Writes to the inner file, because the errors of the wrapper contain the temporary path.
    file.as_file_mut().write_all(bytes)?;
    persist(file, path)
}

/// Renames a complete temporary file to its path in the same folder. An existing file is replaced.
///
/// # Errors
/// Returns an error if the file cannot be renamed or synchronized with the disk.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    let file = file.persist(path)?;
    // Other handles of the file may be open longer. Not all file systems have locks.
    let _ = file.unlock();
    // Makes the rename durable: the folder must be synchronized too.
    #[cfg(unix)]
    File::open(folder_of(path))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command, Stdio};
    use std::time::SystemTime;

    use super::*;

    /// The folder in which the process of [`writes_until_killed`] writes.
    const FOLDER: &str = "TRAINER_TEST_FOLDER";

    /// Not a test, but a process that [`start_writing`] starts: it writes a temporary file and a temporary folder,
    /// and does not finish.
    #[test]
    fn writes_until_killed() {
        let Some(folder) = env::var_os(FOLDER) else {
            return;
        };
        let folder = Path::new(&folder);
        let _file = temporary_file(folder).unwrap();
        let written = TemporaryFolder::create_in(folder).unwrap();
        fs::write(written.path().join("content"), "half").unwrap();
        println!("writing");
        let _ = io::stdin().read(&mut [0]);
    }

    /// Starts a process that writes in a folder, and waits until it does.
    fn start_writing(folder: &Path) -> Child {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("run::atomic_file::tests::writes_until_killed")
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(
            lines
                .map_while(Result::ok)
                .any(|line| line.ends_with("writing"))
        );
        child
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        entries
    }

    fn make_old(path: &Path) {
        let time = SystemTime::now() - 2 * MIN_ABANDONED_AGE;
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    // Windows opens no folders as files.
    #[cfg(unix)]
    #[test]
    fn removes_what_killed_processes_left_and_nothing_of_running_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut killed = start_writing(folder.path());
        let left = entries(folder.path());
        assert_eq!(left.len(), 2);
        let mut running = start_writing(folder.path());
        let all = entries(folder.path());
        assert_eq!(all.len(), 4);
        all.iter().for_each(|path| make_old(path));
        remove_abandoned(folder.path(), MIN_ABANDONED_AGE);
        assert_eq!(entries(folder.path()), all);

        killed.kill().unwrap();
        killed.wait().unwrap();
        // Nobody holds its locks, so that the age does not matter.
        for path in &left {
            let young = if path.is_dir() {
                path.join("young")
            } else {
                path.clone()
            };
            fs::write(young, "").unwrap();
        }
        write(&folder.path().join("file"), b"").unwrap();
        let remaining = entries(folder.path());
        assert_eq!(remaining.len(), 3, "{remaining:?}");
        assert!(left.iter().all(|path| !remaining.contains(path)));
        running.kill().unwrap();
        running.wait().unwrap();
        remove_abandoned(folder.path(), Duration::ZERO);
        assert_eq!(entries(folder.path()), [folder.path().join("file")]);
    }

    #[cfg(unix)]
    #[test]
    fn young_files_and_folders_of_other_versions_remain_for_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let [file, written] =
            ["a", "b"].map(|name| folder.path().join(format!(".unfinished-{name}")));
        fs::write(&file, "").unwrap();
        fs::create_dir(&written).unwrap();
        // Not a folder of this program.
        std::os::unix::fs::symlink(&written, folder.path().join(".unfinished-c")).unwrap();
        let create = || drop(TemporaryFolder::create_in(folder.path()).unwrap());
        create();
        assert_eq!(entries(folder.path()).len(), 3);
        make_old(&file);
        make_old(&written);
        create();
        assert_eq!(
            entries(folder.path()),
            [folder.path().join(".unfinished-c")]
        );
    }

    #[test]
    fn a_written_file_replaces_another_and_is_not_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in ["old", "new"] {
            let mut file = temporary_file(folder.path()).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            let _second_handle = file.as_file().try_clone().unwrap();
            persist(file, &path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content.as_bytes());
            File::open(&path).unwrap().try_lock().unwrap();
        }
        assert_eq!(entries(folder.path()), [path]);
    }

    #[test]
    fn a_completed_folder_has_no_lock_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("folder");
        let written = TemporaryFolder::create_in(root.path()).unwrap();
        fs::write(written.path().join("file"), "content").unwrap();
        let complete = written.complete().unwrap();
        fs::rename(&complete.path, &path).unwrap();
        assert_eq!(entries(&path), [path.join("file")]);
        assert_eq!(entries(root.path()), [path]);
    }
}
