//! Files and folders that are written whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// How the name of a file or folder begins that is being written.
const UNFINISHED: &str = ".unfinished-";

/// Writes a file, whole or not at all, and makes its folder if need be.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let place = || format!("{}: cannot write", path.display());
    fs::create_dir_all(folder_of(path)).with_context(place)?;
    write_atomically(path, bytes).with_context(place)
}

/// Writes a folder of files, whole or not at all. One that is there is replaced.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_folder(path: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let write_files = || -> Result<()> {
        let parent = folder_of(path);
        fs::create_dir_all(parent)?;
        let folder = unfinished(0o777).tempdir_in(parent)?;
        for (name, bytes) in files {
            let mut file = File::create(folder.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::rename(folder.path(), path)?;
        // It has another name now.
        let _ = folder.keep();
        Ok(())
    };
    write_files().with_context(|| format!("{}: cannot write", path.display()))
}

/// What makes files and folders that are being written: as readable as any other of this `mode`,
/// which the umask still applies to.
pub(crate) fn unfinished(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Whether a file or folder was still being written when its process was killed, or is now.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Writes beside the file, then puts it in its place.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    let mut file = unfinished(0o666).tempfile_in(folder)?;
    // The file itself: errors of the wrapper name the temporary path.
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name outlives a power cut once the folder is on the disk too.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}
