//! The class folders and picture files in a folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::error::DataError;
use crate::picture::{EXTENSIONS, begins_as_picture};
use crate::regular_file;

/// Longest signature of a picture, in bytes.
const SIGNATURE: u64 = 16;

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
        let entry = entry.map_err(read)?;
        if !is_folder(&entry) || is_ignored(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let name = path.file_name().unwrap_or_default();
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

/// The files in a folder and its sub-folders.
#[derive(Debug, Default)]
pub struct PictureListing {
    /// The picture files, sorted by name.
    pub files: Vec<PathBuf>,
    /// A message for each folder or file that cannot be accessed.
    pub errors: Vec<String>,
    /// Number of other files by their extension in lower case, empty if they have none.
    pub others: BTreeMap<String, usize>,
}

/// Lists the picture files in a folder and its sub-folders.
pub fn picture_files(folder: &Path) -> PictureListing {
    let entries = WalkDir::new(folder)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_ignored(entry.file_name()));
    let mut listing = PictureListing::default();
    for entry in entries {
        match entry {
            Ok(entry) => {
                let extension = entry.path().extension().unwrap_or_default();
                let extension = extension.to_string_lossy().to_lowercase();
                if !entry.file_type().is_file() {
                    continue;
                }
                if EXTENSIONS.contains(&extension.as_str()) || has_picture(entry.path()) {
                    listing.files.push(entry.into_path());
                } else {
                    *listing.others.entry(extension).or_default() += 1;
                }
            }
            Err(error) => listing.errors.push(error.to_string()),
        }
    }
    listing
}

/// Returns the path of `file` relative to `root`, with `/` between the names on every system; `None`
/// if it is not Unicode.
pub(crate) fn relative_path(root: &Path, file: &Path) -> Option<String> {
    let relative = file.strip_prefix(root).ok()?;
    let names: Option<Vec<&str>> = relative.iter().map(|name| name.to_str()).collect();
    Some(names?.join("/"))
}

/// Whether a file with another extension begins as a picture.
fn has_picture(path: &Path) -> bool {
    let mut start = Vec::new();
    let read =
        regular_file::open(path).and_then(|file| file.take(SIGNATURE).read_to_end(&mut start));
    read.is_ok() && begins_as_picture(&start)
}

/// Whether an entry is a folder or a link to one. Only links are looked up again, which takes most of the time.
pub(crate) fn is_folder(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
        Ok(kind) => kind.is_dir(),
        Err(_) => false,
    }
}

/// Whether a folder holds files, other than ignored ones.
pub(crate) fn has_files(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| !is_folder(&entry) && !is_ignored(&entry.file_name()))
}

/// Returns whether a file or folder is hidden, or metadata that macOS or Windows adds.
pub(crate) fn is_ignored(name: &OsStr) -> bool {
    let is_metadata = |metadata: &&str| name.eq_ignore_ascii_case(metadata);
    name.as_encoded_bytes().starts_with(b".")
        || ["__MACOSX", "Thumbs.db", "desktop.ini"]
            .iter()
            .any(is_metadata)
}
