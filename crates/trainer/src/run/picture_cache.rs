//! Decoded pictures, cached in the folder of runs: one cache per data folder and size of the images.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::path::{Path, PathBuf};

use data::digest::sha256_hex;
use data::{
    DECODER_VERSION, DecodeOptions, DecodedPictures, ImageDataset, Images, PictureFiles,
    SourceFile, UnreadablePicture, file_version, regular_file,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::process::progress_bar::bar;
use crate::run::atomic_file::write_folder;
use crate::run::run_dir;

/// The pixels of all images, `[count, channels, height, width]`.
const PIXELS: &str = "pixels";
/// The [`Index`].
const INDEX: &str = "pictures.json";
/// The SHA-256 of the index and the pixels.
const CHECKSUM: &str = "sha256.txt";

/// Largest accepted file of a cache, in bytes.
const MAX_BYTES: u64 = 16 << 30;

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

/// The content of a cache.
#[derive(Clone, Debug)]
struct Cached {
    /// Images with their files. The labels are without meaning: a file may have another class in another run.
    images: ImageDataset,
    unreadable: Vec<UnreadablePicture>,
    versions: Versions,
}

/// The content of a cache, without the pixels.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    channels: usize,
    height: usize,
    width: usize,
    images: Vec<SourceFile>,
    /// Paths and reasons.
    unreadable: Vec<(String, String)>,
    versions: Versions,
}

impl PictureCache<'_> {
    /// Decodes pictures, except those that are cached. Unreadable pictures are left out.
    pub(crate) fn decode(self, pictures: &PictureFiles, options: DecodeOptions) -> DecodedPictures {
        let root = match self {
            Self::No => return decode(pictures, options),
            Self::Read(root) | Self::Write(root) => root,
        };
        let path = cache_path(root, &pictures.folder, options);
        let current = current_versions(pictures);
        let cached = Cached::read(&path, options).map(|cached| cached.without_changed(&current));
        let known = cached.as_ref().map(Cached::paths).unwrap_or_default();
        let missing = pictures.files.iter();
        let missing = missing.filter(|file| !known.contains(file.path.as_str()));
        let missing = PictureFiles {
            folder: pictures.folder.clone(),
            files: missing.cloned().collect(),
        };
        drop(known);
        let content = match (cached, missing.files.is_empty()) {
            (Some(cached), true) => cached,
            (cached, _) => {
                let decoded = decode(&missing, options);
                // Pictures that cannot be accessed are read again each time, and never written.
                let mut unreadable = decoded.unreadable.iter();
                let is_new =
                    !decoded.images.is_empty() || unreadable.any(|picture| !picture.is_io_error);
                let content = Cached::combined(cached, decoded, current);
                if is_new && matches!(self, Self::Write(_)) {
                    content.write(&path, &pictures.folder);
                }
                content
            }
        };
        content.select(pictures)
    }
}

impl Cached {
    /// Reads a cache. Returns `None` if a file is missing or damaged.
    fn read(path: &Path, options: DecodeOptions) -> Option<Self> {
        let read = |name| regular_file::read(&path.join(name), MAX_BYTES).ok();
        let (checksum, index, pixels) = (read(CHECKSUM)?, read(INDEX)?, read(PIXELS)?);
        (checksum == sha256_hex([&index, &pixels]).as_bytes()).then_some(())?;
        let index: Index = serde_json::from_slice(&index).ok()?;
        let size = index.channels * options.height * options.width;
        let is_valid = matches!(index.channels, 1 | 3)
            && (index.height, index.width) == (options.height, options.width)
            && pixels.len() == index.images.len() * size;
        is_valid.then_some(())?;
        let images = Images {
            channels: index.channels,
            height: index.height,
            width: index.width,
            pixels,
        };
        let labels = vec![0; index.images.len()];
        let images = ImageDataset::new(images, labels).ok()?;
        let unreadable = index.unreadable.into_iter();
        Some(Self {
            images: images.with_files(index.images).ok()?,
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

    /// Removes the files that have another version now, or none.
    fn without_changed(mut self, current: &CurrentVersions) -> Self {
        let versions = mem::take(&mut self.versions);
        let is_unchanged = |path: &str| match current.get(path) {
            Some(version) => versions.get(path) == version.as_ref(),
            // Not among the files to read.
            None => true,
        };
        let unchanged = self.filtered(is_unchanged);
        Self {
            versions,
            ..unchanged
        }
    }

    /// Removes the files for which `is_kept` is false.
    fn filtered(mut self, is_kept: impl Fn(&str) -> bool) -> Self {
        let files = self.images.files().into_iter().flatten().enumerate();
        let kept = files.filter(|(_, file)| is_kept(&file.path));
        self.images = self.images.select(kept.map(|(index, _)| index));
        self.unreadable.retain(|picture| is_kept(&picture.path));
        self
    }

    /// Adds decoded pictures and their versions.
    fn combined(cached: Option<Self>, decoded: DecodedPictures, current: CurrentVersions) -> Self {
        let versions = current.into_iter();
        let versions = versions.filter_map(|(path, version)| Some((path, version?)));
        let Some(mut cached) = cached else {
            return Self {
                images: decoded.images,
                unreadable: decoded.unreadable,
                versions: versions.collect(),
            };
        };
        let channels = cached.images.channels().max(decoded.images.channels());
        let with_channels = |images: &ImageDataset| images.with_channels(channels);
        cached.images = with_channels(&cached.images).concat(&with_channels(&decoded.images));
        cached.unreadable.extend(decoded.unreadable);
        cached.versions.extend(versions);
        cached
    }

    /// Returns the paths of all files.
    fn paths(&self) -> HashSet<&str> {
        let files = self.images.files().into_iter().flatten();
        let files = files.map(|file| file.path.as_str());
        let unreadable = self.unreadable.iter().map(|picture| picture.path.as_str());
        files.chain(unreadable).collect()
    }

    /// Returns the given pictures with their labels, in their order.
    fn select(self, pictures: &PictureFiles) -> DecodedPictures {
        let indices: HashMap<&str, usize> = self
            .images
            .files()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, file)| (file.path.as_str(), index))
            .collect();
        let selected: Vec<(usize, u8)> = pictures
            .files
            .iter()
            .filter_map(|file| Some((*indices.get(file.path.as_str())?, file.label)))
            .collect();
        let wanted: HashSet<&str> = pictures
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        let images = self.images.select(selected.iter().map(|(index, _)| *index));
        DecodedPictures {
            images: images.with_labels(selected.into_iter().map(|(_, label)| label)),
            unreadable: self
                .unreadable
                .into_iter()
                .filter(|picture| wanted.contains(picture.path.as_str()))
                .collect(),
        }
    }

    /// Writes the files that still exist to the cache. A failure only costs time at the next read.
    fn write(&self, path: &Path, folder: &Path) {
        let io_errors: HashSet<&str> = self
            .unreadable
            .iter()
            .filter(|picture| picture.is_io_error)
            .map(|picture| picture.path.as_str())
            .collect();
        let is_kept = |path: &str| !io_errors.contains(path) && folder.join(path).exists();
        let content = self.clone().filtered(is_kept);
        let files: Vec<SourceFile> = content
            .images
            .files()
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let unreadable = content.unreadable.iter();
        let unreadable: Vec<(String, String)> = unreadable
            .map(|picture| (picture.path.clone(), picture.reason.clone()))
            .collect();
        let paths = content.paths();
        let mut versions = content.versions.clone();
        versions.retain(|path, _| paths.contains(path.as_str()));
        let index = Index {
            channels: content.images.channels(),
            height: content.images.height(),
            width: content.images.width(),
            images: files,
            unreadable,
            versions,
        };
        let write = || {
            let index = serde_json::to_vec(&index)?;
            let images = 0..content.images.len();
            let pixels: Vec<&[u8]> = images.map(|index| content.images.pixels(index)).collect();
            let pixels = pixels.concat();
            let checksum = sha256_hex([&index, &pixels]).into_bytes();
            write_folder(
                path,
                &[(INDEX, index), (PIXELS, pixels), (CHECKSUM, checksum)],
            )
        };
        if let Err(error) = write() {
            warn!("cannot cache the decoded pictures: {error:#}");
        }
    }
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

/// Decodes pictures and shows the progress.
fn decode(pictures: &PictureFiles, options: DecodeOptions) -> DecodedPictures {
    let count = pictures.files.len();
    let noun = if count == 1 { "picture" } else { "pictures" };
    info!("reading {count} {noun}");
    let bar = bar(count as u64, "pictures");
    let decoded = pictures.decode(options, &|| bar.inc(1));
    bar.finish_and_clear();
    decoded
}
