//! Storage of decoded pictures: the pixels of their images, one after another in a file that is read by
//! position, or in memory.
//!
//! Pixels in a file take no memory of the process. The operating system caches as much of the file as
//! fits into free memory.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::source_file::SourceFile;

/// Images of one height and width with the files that they were decoded from. A picture without color
/// is stored as gray.
pub struct PictureStore {
    height: usize,
    width: usize,
    pictures: Vec<StoredPicture>,
    pixels: Pixels,
    /// Number of bytes of all pixels written.
    length: u64,
    write_error: Option<io::Error>,
}

/// The file of a picture, and the place of its pixels in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPicture {
    /// The file that the image was decoded from.
    pub file: SourceFile,
    /// Number of channels: 1 for gray, 3 for RGB.
    pub channels: usize,
    /// Position of the pixels, `[channels, height, width]`, in bytes.
    pub position: u64,
    /// SHA-256 of the pixels.
    pub pixels_sha256: String,
}

/// A decoded picture that is not stored yet.
#[derive(Clone, Debug)]
pub(crate) struct DecodedPicture {
    file: SourceFile,
    /// `[channels, height, width]`
    pixels: Vec<u8>,
    channels: usize,
    pixels_sha256: String,
}

enum Pixels {
    Memory(Vec<u8>),
    File { file: File, path: PathBuf },
}

/// An error of reading the pixels of an image. Its message does not repeat that of its
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot read the decoded image at byte {position}", path.display())]
pub struct PixelError {
    path: PathBuf,
    position: u64,
    source: io::Error,
}

impl PictureStore {
    /// Creates an empty store in memory.
    pub fn in_memory([height, width]: [usize; 2]) -> Self {
        Self {
            height,
            width,
            pictures: Vec::new(),
            pixels: Pixels::Memory(Vec::new()),
            length: 0,
            write_error: None,
        }
    }

    /// Creates an empty store in an empty file, which is open for reading and writing. `path` names it
    /// in messages.
    pub fn in_file(file: File, path: PathBuf, size: [usize; 2]) -> Self {
        Self {
            pixels: Pixels::File { file, path },
            ..Self::in_memory(size)
        }
    }

    /// Opens a store in a file that was written before, for reading. Returns `None` if a picture has
    /// neither 1 nor 3 channels.
    pub fn open(
        file: File,
        path: PathBuf,
        size: [usize; 2],
        pictures: Vec<StoredPicture>,
    ) -> Option<Self> {
        let is_valid = |picture: &StoredPicture| matches!(picture.channels, 1 | 3);
        pictures.iter().all(is_valid).then(|| Self {
            pictures,
            ..Self::in_file(file, path, size)
        })
    }

    /// Returns the height and width of the images in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Returns the pictures in the order in which they were stored.
    pub fn pictures(&self) -> &[StoredPicture] {
        &self.pictures
    }

    /// Returns the error that ended the writing to the file, if there was one. All pixels are in memory
    /// then.
    pub fn write_error(&self) -> Option<&io::Error> {
        self.write_error.as_ref()
    }

    /// Returns the pixels of picture `index`, `[channels, height, width]`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or was shortened.
    ///
    /// # Panics
    /// Panics if `index` is out of bounds.
    pub fn pixels(&self, index: usize) -> Result<Cow<'_, [u8]>, PixelError> {
        let picture = &self.pictures[index];
        let size = picture.channels * self.height * self.width;
        match &self.pixels {
            Pixels::Memory(pixels) => {
                let start = picture.position as usize;
                Ok(Cow::Borrowed(&pixels[start..start + size]))
            }
            Pixels::File { .. } => Ok(Cow::Owned(self.read(picture.position, size)?)),
        }
    }

    /// Returns whether the pixels of picture `index` can be read and match their SHA-256.
    ///
    /// # Panics
    /// Panics if `index` is out of bounds.
    pub fn is_intact(&self, index: usize) -> bool {
        let digest = self.pixels(index).map(|pixels| sha256_hex([pixels]));
        digest.is_ok_and(|digest| digest == self.pictures[index].pixels_sha256)
    }

    /// Removes the pictures for which `is_kept` is false. Their pixels stay in the file.
    pub fn retain(&mut self, is_kept: impl Fn(&StoredPicture) -> bool) {
        self.pictures.retain(is_kept);
    }

    /// Copies all pictures of another store with images of the same size.
    ///
    /// # Errors
    /// Returns an error if pixels cannot be read.
    pub fn extend(&mut self, other: &Self) -> Result<(), PixelError> {
        for (index, picture) in other.pictures.iter().enumerate() {
            let pixels = other.pixels(index)?;
            self.append_pixels(&pixels)?;
            self.pictures.push(StoredPicture {
                position: self.length - pixels.len() as u64,
                ..picture.clone()
            });
        }
        Ok(())
    }

    /// Appends a decoded picture.
    ///
    /// # Errors
    /// Returns an error if the file can neither be written to nor read.
    pub(crate) fn append(&mut self, picture: DecodedPicture) -> Result<(), PixelError> {
        self.append_pixels(&picture.pixels)?;
        self.pictures.push(StoredPicture {
            position: self.length - picture.pixels.len() as u64,
            file: picture.file,
            channels: picture.channels,
            pixels_sha256: picture.pixels_sha256,
        });
        Ok(())
    }

    /// Appends pixels to the file. If this fails, for example because the disk is full, all pixels are
    /// moved into memory.
    fn append_pixels(&mut self, pixels: &[u8]) -> Result<(), PixelError> {
        if let Pixels::File { file, .. } = &mut self.pixels
            && let Err(error) = file.write_all(pixels)
        {
            self.pixels = Pixels::Memory(self.read(0, self.length as usize)?);
            self.write_error = Some(error);
        }
        if let Pixels::Memory(memory) = &mut self.pixels {
            memory.extend_from_slice(pixels);
        }
        self.length += pixels.len() as u64;
        Ok(())
    }

    /// Reads `size` bytes of the file.
    fn read(&self, position: u64, size: usize) -> Result<Vec<u8>, PixelError> {
        let Pixels::File { file, path } = &self.pixels else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; size];
        let read = read_exact_at(file, &mut bytes, position);
        let read = read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                format!("expected {size} bytes, but the file was shortened"),
            ),
            _ => error,
        });
        match read {
            Ok(()) => Ok(bytes),
            Err(source) => Err(PixelError {
                path: path.clone(),
                position,
                source,
            }),
        }
    }
}

impl fmt::Debug for PictureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.pixels {
            Pixels::Memory(_) => "memory".into(),
            Pixels::File { path, .. } => path.display().to_string(),
        };
        let (count, [height, width]) = (self.pictures.len(), self.size());
        write!(f, "PictureStore({place}, {count} of {height}x{width})")
    }
}

impl DecodedPicture {
    /// Creates a picture from pixels `[channels, height, width]`.
    pub(crate) fn new(file: SourceFile, mut pixels: Vec<u8>, channels: usize) -> Self {
        let is_gray = has_equal_channels(&pixels, channels);
        if is_gray {
            pixels.truncate(pixels.len() / channels);
        }
        Self {
            file,
            pixels_sha256: sha256_hex([&pixels]),
            pixels,
            channels: if is_gray { 1 } else { channels },
        }
    }
}

/// Returns whether all channels of each pixel are equal.
pub(crate) fn has_equal_channels(pixels: &[u8], channels: usize) -> bool {
    let plane = pixels.len() / channels;
    let (first, others) = pixels.split_at(plane);
    others.chunks(plane).all(|channel| channel == first)
}

/// Reads from a file at a position, without changing the position of other readers.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], position: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, position)
}

/// Reads from a file at a position.
#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, position) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::error::Error as _;
    use std::fs;

    use super::*;

    /// Returns a picture of 2x1 pixels in a file with the name `shade`.
    pub(crate) fn picture(shade: u8, pixels: &[u8]) -> DecodedPicture {
        let file = SourceFile {
            path: shade.to_string(),
            bytes: 1,
            sha256: String::new(),
        };
        DecodedPicture::new(file, pixels.to_vec(), 3)
    }

    fn store_in_file() -> (tempfile::TempDir, PathBuf, PictureStore) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pixels");
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).unwrap();
        let store = PictureStore::in_file(file, path.clone(), [1, 2]);
        (folder, path, store)
    }

    #[test]
    fn file_and_memory_return_the_pixels_and_gray_pictures_have_one_channel() {
        let (_folder, path, in_file) = store_in_file();
        for mut store in [in_file, PictureStore::in_memory([1, 2])] {
            store.append(picture(1, &[1, 2, 3, 4, 5, 6])).unwrap();
            store.append(picture(2, &[7, 8, 7, 8, 7, 8])).unwrap();
            store.append(picture(3, &[9; 6])).unwrap();
            assert_eq!(*store.pixels(0).unwrap(), [1, 2, 3, 4, 5, 6]);
            assert_eq!(*store.pixels(1).unwrap(), [7, 8]);
            assert_eq!(*store.pixels(2).unwrap(), [9, 9]);
            let channels = store.pictures().iter().map(|picture| picture.channels);
            assert_eq!(channels.collect::<Vec<_>>(), [3, 1, 1]);
            assert!((0..3).all(|index| store.is_intact(index)));

            store.retain(|picture| picture.file.path != "1");
            let mut copy = PictureStore::in_memory([1, 2]);
            copy.extend(&store).unwrap();
            assert_eq!(*copy.pixels(0).unwrap(), [7, 8]);
            assert_eq!(*copy.pixels(1).unwrap(), [9, 9]);
            assert_eq!(copy.pictures()[1].position, 2);
            assert!(store.write_error().is_none());
        }
        assert_eq!(fs::read(path).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
    }

    #[test]
    fn reads_a_written_file_again() {
        let (_folder, path, mut store) = store_in_file();
        store.append(picture(1, &[1, 2, 3, 4, 5, 6])).unwrap();
        store.append(picture(2, &[7; 6])).unwrap();
        let open = |pictures| {
            let file = File::open(&path).unwrap();
            PictureStore::open(file, path.clone(), [1, 2], pictures)
        };
        let again = open(store.pictures().to_vec()).unwrap();
        assert_eq!(*again.pixels(1).unwrap(), [7, 7]);
        let mut invalid = store.pictures().to_vec();
        invalid[0].channels = 2;
        assert!(open(invalid).is_none());
        for position in [2, u64::MAX] {
            let mut moved = store.pictures().to_vec();
            moved[1].position = position;
            assert!(!open(moved).unwrap().is_intact(1), "{position}");
        }
    }

    #[test]
    fn a_shortened_file_is_an_error_with_its_path() {
        let (_folder, path, mut store) = store_in_file();
        store.append(picture(1, &[1, 2, 3, 4, 5, 6])).unwrap();
        store.append(picture(2, &[1, 2, 3, 4, 5, 6])).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(8).unwrap();
        assert!(store.pixels(0).is_ok());
        let error = store.pixels(1).unwrap_err();
        let expected = format!(
            "{}: cannot read the decoded image at byte 6",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "expected 6 bytes, but the file was shortened");
        assert!(store.is_intact(0) && !store.is_intact(1));
    }

    // Elsewhere, an open file cannot be removed.
    #[cfg(unix)]
    #[test]
    fn a_removed_file_can_still_be_read() {
        let (_folder, path, mut store) = store_in_file();
        store.append(picture(1, &[1, 2, 3, 4, 5, 6])).unwrap();
        fs::remove_file(path).unwrap();
        assert!(store.is_intact(0));
    }

    #[test]
    fn pixels_move_into_memory_when_the_file_cannot_be_written() {
        let (_folder, path, mut store) = store_in_file();
        store.append(picture(1, &[1, 2, 3, 4, 5, 6])).unwrap();
        // A handle that fails to write, as that of a file on a full disk.
        let file = File::open(&path).unwrap();
        store.pixels = Pixels::File { file, path };
        store.append(picture(2, &[7; 6])).unwrap();
        store.append(picture(3, &[9; 6])).unwrap();
        assert!(store.write_error().is_some());
        assert!(matches!(store.pixels, Pixels::Memory(_)));
        assert_eq!(*store.pixels(0).unwrap(), [1, 2, 3, 4, 5, 6]);
        assert!((0..3).all(|index| store.is_intact(index)));
    }
}
