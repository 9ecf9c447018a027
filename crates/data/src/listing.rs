//! The class folders and picture files in a folder.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::error::DataError;
use crate::picture::EXTENSIONS;

/// Lists the visible sub-folders of a folder: names and paths, sorted by name.
///
/// # Errors
/// Returns an error if the folder cannot be read, or if a name is not printable Unicode.
pub(crate) fn sub_folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let read = |source| DataError::Folder {
        path: folder.to_path_buf(),
        source,
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default();
        if is_ignored(name) || !path.is_dir() {
            continue;
        }
        match name
            .to_str()
            .filter(|name| !name.contains(char::is_control))
        {
            Some(name) => folders.push((name.to_string(), path)),
            None => {
                return Err(DataError::Pictures {
                    folder: folder.to_path_buf(),
                    message: format!(
                        "sub-folder {name:?}: expected a name in Unicode without control characters"
                    ),
                });
            }
        }
    }
    folders.sort();
    Ok(folders)
}

/// Lists the picture files in a folder and its sub-folders, sorted by name.
///
/// The second list has one message for each folder or file that cannot be accessed.
pub fn picture_files(folder: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let entries = WalkDir::new(folder)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_ignored(entry.file_name()));
    let mut files = Vec::new();
    let mut errors = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => {
                let extension = entry.path().extension().unwrap_or_default();
                let extension = extension.to_string_lossy().to_lowercase();
                if entry.file_type().is_file() && EXTENSIONS.contains(&extension.as_str()) {
                    files.push(entry.into_path());
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    (files, errors)
}

/// Returns whether a file or folder is hidden, or metadata that macOS adds to archives.
pub(crate) fn is_ignored(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX"
}
