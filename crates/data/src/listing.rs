//! Which files of a folder are pictures, and which of its folders may be classes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::picture::EXTENSIONS;
use crate::source::DataError;

/// The sub-folders of a folder that may be classes, with their names.
pub(crate) fn sub_folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let read = |source| DataError::Folder {
        path: folder.to_path_buf(),
        source,
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default();
        if is_passed_over(name) || !path.is_dir() {
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
                    message: format!("sub-folder {name:?}: not a name that can be shown"),
                });
            }
        }
    }
    folders.sort();
    Ok(folders)
}

/// The picture files anywhere under a folder, sorted, and what could not be searched.
pub fn pictures(folder: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let entries = WalkDir::new(folder)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_passed_over(entry.file_name()));
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

/// Whether a file or folder is not the user's: hidden, or what macOS adds to archives.
pub(crate) fn is_passed_over(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX"
}
