//! Atomic writes of files and folders.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Prefix of the temporary names of files and folders that are being written.
const TEMPORARY_PREFIX: &str = ".unfinished-";

/// Writes a file atomically, and creates its folder if necessary.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("{}: cannot write", path.display());
    fs::create_dir_all(folder_of(path)).with_context(context)?;
    write_and_rename(path, bytes).with_context(context)
}

/// Writes a folder of files and renames it into place. An existing folder is replaced.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub(crate) fn write_folder(path: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let write_files = || -> Result<()> {
        let parent = folder_of(path);
        fs::create_dir_all(parent)?;
        let folder = temporary(0o777).tempdir_in(parent)?;
        for (name, bytes) in files {
            let mut file = File::create(folder.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::rename(folder.path(), path)?;
        // The temporary name no longer exists, so that nothing is left to delete.
        let _ = folder.keep();
        Ok(())
    };
    write_files().with_context(|| format!("{}: cannot write", path.display()))
}

/// Returns a builder of temporary files and folders with the permissions `mode`, less the umask.
pub(crate) fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Whether a file or folder has a temporary name. Its process is still writing it, or was killed.
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes()
        .starts_with(TEMPORARY_PREFIX.as_bytes())
}

/// Returns the folder of a file, `.` for a plain file name.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Writes a temporary file in the same folder, and renames it.
fn write_and_rename(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    let mut file = temporary(0o666).tempfile_in(folder)?;
    // Writes to the inner file, because the errors of the wrapper contain the temporary path.
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // Makes the rename durable: the folder must be synchronized too.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}
