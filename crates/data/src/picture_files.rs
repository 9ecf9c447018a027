//! A list of labeled picture files, and their decoding into images of one shape.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use crate::digest::sha256_hex;
use crate::image_dataset::ImageDataset;
use crate::picture::{Picture, PictureError, read_file};
use crate::picture_store::{DecodedPicture, PictureStore, PixelError};
use crate::preparation::Preparation;
use crate::source_file::SourceFile;

/// Version of decoding and preparation. Increase it when either produces different pixels.
pub const DECODER_VERSION: u32 = 2;

/// Size of the images that are decoded before they are stored, in bytes, unless this is less than an image
/// for each thread.
const CHUNK_BYTES: usize = 16 << 20;
/// Maximum number of pictures that are decoded before they are stored.
const CHUNK_PICTURES: usize = 1024;

/// The conversion of pictures into images.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Preparation of the pictures.
    pub preparation: Preparation,
    /// Height of the images in pixels.
    pub height: usize,
    /// Width of the images in pixels.
    pub width: usize,
}

/// Labeled picture files of a data folder, not decoded yet.
#[derive(Clone, Debug)]
pub struct PictureFiles {
    /// The data folder.
    pub folder: PathBuf,
    /// The files, in the order of the images that they become.
    pub files: Vec<LabeledFile>,
}

/// The path and label of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabeledFile {
    /// Path relative to the data folder, with `/` between the names.
    pub path: String,
    /// Index of the class.
    pub label: u8,
}

/// Decoded pictures.
#[derive(Debug)]
pub struct DecodedPictures {
    /// The images with their files, in the order of the files. Unreadable pictures are left out.
    pub images: ImageDataset,
    /// The pictures that could not be decoded.
    pub unreadable: Vec<UnreadablePicture>,
}

/// A picture that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadablePicture {
    /// Path relative to the data folder.
    pub path: String,
    /// The reason.
    pub reason: String,
    /// Whether the file could not be read, which may be temporary.
    pub is_io_error: bool,
}

impl DecodeOptions {
    /// Returns the height and width of the images in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }
}

impl PictureFiles {
    /// Decodes all pictures in parallel, appends them to `store`, and calls `progress` after each.
    /// Returns the pictures that could not be decoded.
    ///
    /// With [`Preparation::Picture`], pictures with color become RGB images; otherwise, all images are
    /// gray.
    ///
    /// # Errors
    /// Returns an error if the file of the store can neither be written to nor read.
    pub fn decode(
        &self,
        options: DecodeOptions,
        store: &mut PictureStore,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<UnreadablePicture>, PixelError> {
        let channels = match options.preparation {
            Preparation::Picture => 3,
            Preparation::Handwriting | Preparation::Object => 1,
        };
        let shape = [channels, options.height, options.width];
        let decode = |file: &LabeledFile| {
            let decoded = self.decode_file(file, options.preparation, shape);
            progress();
            decoded
        };
        let mut unreadable = Vec::new();
        for files in self.files.chunks(chunk_len(shape)) {
            let decoded: Vec<_> = files.par_iter().map(decode).collect();
            for picture in decoded {
                match picture {
                    Ok(picture) => store.append(picture)?,
                    Err(picture) => unreadable.push(picture),
                }
            }
        }
        Ok(unreadable)
    }

    /// Returns the images of these pictures with their labels, in their order. Pictures that are not in
    /// the store are left out.
    pub fn images(&self, store: PictureStore) -> ImageDataset {
        let stored = store.pictures().iter().enumerate();
        let indices: HashMap<&str, usize> = stored
            .map(|(index, picture)| (picture.file.path.as_str(), index))
            .collect();
        let mut labels = vec![0; store.pictures().len()];
        let mut selected = Vec::with_capacity(self.files.len());
        for file in &self.files {
            if let Some(&index) = indices.get(file.path.as_str()) {
                labels[index] = file.label;
                selected.push(index);
            }
        }
        let images = ImageDataset::from_pictures(store, labels);
        images.expect("a label for each picture").select(selected)
    }

    fn decode_file(
        &self,
        file: &LabeledFile,
        preparation: Preparation,
        shape: [usize; 3],
    ) -> Result<DecodedPicture, UnreadablePicture> {
        let decode = || {
            let bytes = read_file(&self.folder.join(&file.path))?;
            let pixels = preparation.prepare(&Picture::decode(&bytes)?, shape)?;
            let source = SourceFile {
                path: file.path.clone(),
                bytes: bytes.len() as u64,
                sha256: sha256_hex([&bytes]),
            };
            Ok(DecodedPicture::new(source, pixels, shape[0]))
        };
        decode().map_err(|error: PictureError| UnreadablePicture {
            path: file.path.clone(),
            reason: error.with_source(),
            is_io_error: matches!(error, PictureError::Read(_)),
        })
    }
}

/// Returns a text that differs if a file was written or replaced since: its size and modification
/// time, and on Unix its inode and its change time, which programs cannot set. `None` if the file
/// cannot be accessed.
pub fn file_version(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok();
    let modified = metadata.modified().ok().and_then(since_epoch);
    #[cfg(unix)]
    let identity = {
        use std::os::unix::fs::MetadataExt as _;
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let identity = metadata.created().ok().and_then(since_epoch);
    Some(format!("{} {modified:?} {identity:?}", metadata.len()))
}

/// Returns the number of pictures that are decoded before they are stored.
fn chunk_len(shape: [usize; 3]) -> usize {
    let image: usize = shape.iter().product();
    let pictures = CHUNK_BYTES / image.max(1);
    pictures
        .min(CHUNK_PICTURES)
        .max(rayon::current_num_threads())
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma};

    use super::*;
    use crate::picture::tests::file;

    fn options(side: usize) -> DecodeOptions {
        DecodeOptions {
            preparation: Preparation::Picture,
            height: side,
            width: side,
        }
    }

    /// Writes two folders with a picture each. Both pictures have the same name, size and modification time.
    fn two_classes() -> (tempfile::TempDir, PictureFiles) {
        let folder = tempfile::tempdir().unwrap();
        for (class, shade) in [("a", 10), ("b", 200)] {
            let picture = GrayImage::from_pixel(10, 12, Luma([shade]));
            let path = folder.path().join(class);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("1.bmp"), file(picture, ImageFormat::Bmp)).unwrap();
            set_modified(&path.join("1.bmp"));
        }
        let files = ["a/1.bmp", "b/1.bmp"].iter().zip(0..);
        let files = PictureFiles {
            folder: folder.path().to_path_buf(),
            files: files
                .map(|(path, label)| LabeledFile {
                    path: path.to_string(),
                    label,
                })
                .collect(),
        };
        (folder, files)
    }

    fn set_modified(path: &Path) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))
            .unwrap();
    }

    #[test]
    fn version_changes_when_a_file_is_written() {
        let (folder, _) = two_classes();
        let path = folder.path().join("a/1.bmp");
        let first = file_version(&path);
        assert_eq!(file_version(&path), first);
        fs::write(&path, "shorter").unwrap();
        assert_ne!(file_version(&path), first);
        fs::remove_file(&path).unwrap();
        assert_eq!(file_version(&path), None);
    }

    #[cfg(unix)]
    #[test]
    fn version_changes_when_equal_sized_files_are_swapped() {
        let (folder, _) = two_classes();
        let path = |name: &str| folder.path().join(name);
        let versions = || ["a/1.bmp", "b/1.bmp"].map(|name| file_version(&path(name)).unwrap());
        let before = versions();
        for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
            fs::rename(path(from), path(to)).unwrap();
        }
        assert!(
            versions()
                .iter()
                .zip(&before)
                .all(|(now, before)| now != before)
        );
    }

    #[cfg(unix)]
    #[test]
    fn version_changes_when_the_modification_time_is_restored() {
        let (folder, _) = two_classes();
        let path = folder.path().join("a/1.bmp");
        let first = file_version(&path);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        // Change times have the resolution of the kernel's clock tick.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, bytes).unwrap();
        set_modified(&path);
        assert_ne!(file_version(&path), first);
    }

    #[test]
    fn unreadable_pictures_are_left_out() {
        let (folder, mut files) = two_classes();
        fs::write(folder.path().join("a/1.bmp"), "no picture").unwrap();
        let missing = LabeledFile {
            path: "c/1.bmp".into(),
            label: 2,
        };
        files.files.insert(0, missing);
        let mut store = PictureStore::in_memory([8, 8]);
        let unreadable = files.decode(options(8), &mut store, &|| {}).unwrap();
        let images = files.images(store);
        assert_eq!(images.len(), 1);
        assert_eq!((images.label(0), images.pixels(0).unwrap()[0]), (1, 200));
        let is_io_error = unreadable.iter().map(|picture| picture.is_io_error);
        assert_eq!(is_io_error.collect::<Vec<_>>(), [true, false]);
    }
}
