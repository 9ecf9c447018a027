//! Decoded pictures, cached in the folder of runs: one cache per data folder and size of the images.
//!
//! Pixels are read from the file of the cache when they are needed, so that data sets may be larger than the memory.
//! Without a cache they are written to a temporary file.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use anyhow::Result;
use data::digest::sha256_hex;
use data::{
    DECODER_VERSION, DecodeOptions, DecodedPictures, PictureFiles, PictureStore, StoredPicture,
    UnreadablePicture, file_version, regular_file,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tracing::{info, warn};

use crate::process::progress_bar::bar;
use crate::run::{atomic_file, run_dir};

/// The pixels of all images.
const PIXELS: &str = "pixels";
/// The [`Index`].
const INDEX: &str = "pictures.json";
/// The SHA-256 of the index, which contains those of the images.
const CHECKSUM: &str = "sha256.txt";

/// Largest accepted index, in bytes.
const MAX_INDEX: u64 = 1 << 30;

/// How the cache of decoded pictures in a folder of runs is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PictureCache<'a> {
    /// Not used.
    No,
    /// Read only.
    Read(&'a Path),
    /// Read, and written if a picture is missing.
    Write(&'a Path),
}

/// The paths of files and the [versions](file_version) that were decoded.
type Versions = HashMap<String, String>;
/// The paths of the files to read and their versions; `None` for a file that cannot be accessed.
type CurrentVersions = HashMap<String, Option<String>>;

/// Decoded pictures, read from a cache or new.
#[derive(Debug)]
struct Content {
    store: PictureStore,
    unreadable: Vec<UnreadablePicture>,
    versions: Versions,
}

/// The content of a cache, without the pixels.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    height: usize,
    width: usize,
    pictures: Vec<StoredPicture>,
    /// Paths and reasons.
    unreadable: Vec<(String, String)>,
    versions: Versions,
}

impl PictureCache<'_> {
    /// Decodes pictures, except those that are cached. Unreadable pictures are left out.
    ///
    /// # Errors
    /// Returns an error if decoded pixels cannot be read back.
    pub(crate) fn decode(
        self,
        pictures: &PictureFiles,
        options: DecodeOptions,
    ) -> Result<DecodedPictures> {
        let path = self.root();
        let path = path.map(|root| cache_path(root, &pictures.folder, options));
        let cached = || Content::read(path.as_deref()?, options);
        let (current, cached) = rayon::join(|| current_versions(pictures), cached);
        let cached = cached.and_then(|cached| self.current(cached, &current));
        let mut content = cached.unwrap_or_else(|| Content::empty(options));
        let missing = content.missing(pictures);
        if !missing.files.is_empty() {
            let (store, file) = self.new_store(path.as_deref(), options);
            let mut decoded = Content::decode(&missing, options, store, current)?;
            if decoded.is_only_inaccessible() {
                content.unreadable.extend(decoded.unreadable);
            } else {
                decoded.extend(content)?;
                content = decoded;
                content.save(path.as_deref(), file, &pictures.folder);
            }
        }
        Ok(content.select(pictures))
    }

    /// Returns the folder of runs that contains the cache.
    pub(crate) fn root(&self) -> Option<&Path> {
        match self {
            Self::No => None,
            Self::Read(root) | Self::Write(root) => Some(root),
        }
    }

    /// Returns a cache without the files that have another version now, or none. Returns `None` if it is damaged.
    fn current(&self, mut cached: Content, current: &CurrentVersions) -> Option<Content> {
        let versions = mem::take(&mut cached.versions);
        cached.retain(|path| match current.get(path) {
            Some(version) => versions.get(path) == version.as_ref(),
            // Not among the files to read, but written again.
            None => matches!(self, Self::Write(_)),
        });
        cached.versions = versions;
        cached.is_intact().then_some(cached)
    }

    /// Creates an empty store: in a new file that can become that of the cache at `path`, in a temporary file, or in
    /// memory where no file can be created.
    fn new_store(
        &self,
        path: Option<&Path>,
        options: DecodeOptions,
    ) -> (PictureStore, Option<NamedTempFile>) {
        if let (Self::Write(_), Some(path)) = (self, path) {
            match create_file(path) {
                Ok((handle, file)) => {
                    let store = PictureStore::in_file(handle, path.join(PIXELS), options.size());
                    return (store, Some(file));
                }
                Err(error) => {
                    let path = path.display();
                    warn!("{path}: cannot cache the decoded pictures: {error}");
                }
            }
        }
        (self.temporary_store(options), None)
    }

    /// Creates an empty store in a temporary file, or in memory where none can be created.
    fn temporary_store(&self, options: DecodeOptions) -> PictureStore {
        let root = self.root().map(Path::to_path_buf);
        for folder in root.into_iter().chain([env::temp_dir()]) {
            if let Ok(file) = tempfile::tempfile_in(&folder) {
                return PictureStore::in_file(file, folder.join(PIXELS), options.size());
            }
        }
        warn!("cannot create a temporary file: the decoded pictures stay in memory");
        PictureStore::in_memory(options.size())
    }
}

impl Content {
    fn empty(options: DecodeOptions) -> Self {
        Self {
            store: PictureStore::in_memory(options.size()),
            unreadable: Vec::new(),
            versions: Versions::new(),
        }
    }

    /// Opens a cache. Returns `None` if a file is missing, or the index is damaged or of another version of this
    /// program.
    fn read(path: &Path, options: DecodeOptions) -> Option<Self> {
        let read = |name| regular_file::read(&path.join(name), MAX_INDEX).ok();
        let (checksum, index) = (read(CHECKSUM)?, read(INDEX)?);
        (checksum == sha256_hex([&index]).as_bytes()).then_some(())?;
        let index: Index = serde_json::from_slice(&index).ok()?;
        ([index.height, index.width] == options.size()).then_some(())?;
        let path = path.join(PIXELS);
        let file = regular_file::open(&path).ok()?;
        let unreadable = index.unreadable.into_iter();
        Some(Self {
            store: PictureStore::open(file, path, options.size(), index.pictures)?,
            unreadable: unreadable
                .map(|(path, reason)| UnreadablePicture {
                    path,
                    reason,
                    is_io_error: false,
                })
                .collect(),
            versions: index.versions,
        })
    }

    /// Decodes pictures into a store, and shows the progress.
    ///
    /// # Errors
    /// Returns an error if the file of the store can neither be written to nor read.
    fn decode(
        pictures: &PictureFiles,
        options: DecodeOptions,
        mut store: PictureStore,
        versions: CurrentVersions,
    ) -> Result<Self> {
        let count = pictures.files.len();
        let noun = if count == 1 { "picture" } else { "pictures" };
        info!("reading {count} {noun}");
        let bar = bar(count as u64, "pictures");
        let unreadable = pictures.decode(options, &mut store, &|| bar.inc(1))?;
        bar.finish_and_clear();
        let versions = versions.into_iter();
        Ok(Self {
            store,
            unreadable,
            versions: versions
                .filter_map(|(path, version)| Some((path, version?)))
                .collect(),
        })
    }

    /// Returns whether the content can be read and has not been changed. Pixels are hashed one image at a time.
    fn is_intact(&self) -> bool {
        let images = (0..self.store.pictures().len()).into_par_iter();
        images.all(|index| self.store.is_intact(index))
    }

    /// Returns whether there are no pictures but those that cannot be accessed. They are read again each time, and
    /// never written.
    fn is_only_inaccessible(&self) -> bool {
        let mut unreadable = self.unreadable.iter();
        self.store.pictures().is_empty() && unreadable.all(|picture| picture.is_io_error)
    }

    /// Removes the files for which `is_kept` is false.
    fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.store.retain(|picture| is_kept(&picture.file.path));
        self.unreadable.retain(|picture| is_kept(&picture.path));
    }

    /// Copies the content of a cache of other files.
    ///
    /// # Errors
    /// Returns an error if its pixels cannot be read.
    fn extend(&mut self, cached: Self) -> Result<()> {
        self.store.extend(&cached.store)?;
        self.unreadable.extend(cached.unreadable);
        for (path, version) in cached.versions {
            self.versions.entry(path).or_insert(version);
        }
        Ok(())
    }

    /// Returns those pictures that are not in the content.
    fn missing(&self, pictures: &PictureFiles) -> PictureFiles {
        let known: HashSet<&str> = self.paths().collect();
        let files = pictures.files.iter();
        let missing = files.filter(|file| !known.contains(file.path.as_str()));
        PictureFiles {
            folder: pictures.folder.clone(),
            files: missing.cloned().collect(),
        }
    }

    /// Iterates over the paths of all files.
    fn paths(&self) -> impl Iterator<Item = &str> {
        let pictures = self.store.pictures().iter();
        let unreadable = self.unreadable.iter();
        pictures
            .map(|picture| picture.file.path.as_str())
            .chain(unreadable.map(|picture| picture.path.as_str()))
    }

    /// Returns the given pictures with their labels, in their order.
    fn select(mut self, pictures: &PictureFiles) -> DecodedPictures {
        let wanted: HashSet<&str> = pictures
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        self.unreadable
            .retain(|picture| wanted.contains(picture.path.as_str()));
        DecodedPictures {
            images: pictures.images(self.store),
            unreadable: self.unreadable,
        }
    }

    /// Saves the cache at `path`, if `file` has its pixels. A failure only costs time at the next read.
    fn save(&self, path: Option<&Path>, file: Option<NamedTempFile>, folder: &Path) {
        if let Some(error) = self.store.write_error() {
            warn!("cannot write the decoded pictures to a file, so they stay in memory: {error}");
        } else if let (Some(path), Some(file)) = (path, file)
            && let Err(error) = self.write(path, file, folder)
        {
            let path = path.display();
            warn!("{path}: cannot cache the decoded pictures: {error:#}");
        }
    }

    /// Renames the file of the pixels into place, and writes the index of those pictures that still exist. A reader
    /// that finds files of different times rejects them by their checksums.
    fn write(&self, path: &Path, file: NamedTempFile, folder: &Path) -> Result<()> {
        let exists = |path: &str| folder.join(path).exists();
        let pictures = self.store.pictures().iter();
        let pictures = pictures.filter(|picture| exists(&picture.file.path));
        let pictures: Vec<StoredPicture> = pictures.cloned().collect();
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.filter(|picture| !picture.is_io_error && exists(&picture.path));
        let unreadable: Vec<(String, String)> = unreadable
            .map(|picture| (picture.path.clone(), picture.reason.clone()))
            .collect();
        let [height, width] = self.store.size();
        let paths = pictures.iter().map(|picture| &picture.file.path);
        let paths = paths.chain(unreadable.iter().map(|(path, _)| path));
        let versions =
            paths.filter_map(|path| Some((path.clone(), self.versions.get(path)?.clone())));
        let index = serde_json::to_vec(&Index {
            height,
            width,
            versions: versions.collect(),
            pictures,
            unreadable,
        })?;
        atomic_file::persist(file, &path.join(PIXELS))?;
        atomic_file::write(&path.join(INDEX), &index)?;
        let checksum = sha256_hex([&index]);
        atomic_file::write(&path.join(CHECKSUM), checksum.as_bytes())
    }
}

/// Creates a temporary file in the folder of a cache, and a second handle of it.
fn create_file(path: &Path) -> io::Result<(File, NamedTempFile)> {
    fs::create_dir_all(path)?;
    let file = atomic_file::temporary_file(path)?;
    Ok((file.as_file().try_clone()?, file))
}

/// Returns the folder of the cache for a data folder.
fn cache_path(root: &Path, folder: &Path, options: DecodeOptions) -> PathBuf {
    let key = format!("{DECODER_VERSION} {folder:?} {options:?}");
    run_dir::picture_cache_path(root, &sha256_hex([key]))
}

fn current_versions(pictures: &PictureFiles) -> CurrentVersions {
    let version = |path: &String| file_version(&pictures.folder.join(path));
    let files = pictures.files.par_iter();
    files
        .map(|file| (file.path.clone(), version(&file.path)))
        .collect()
}
