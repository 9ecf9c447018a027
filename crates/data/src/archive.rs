//! Archives of data: zip, tar and tar.gz, and Parquet files of pictures, unpacked into a folder.
//!
//! An archive is foreign: its entries stay within the folder, links are refused, and so is what expands without bounds.

use std::collections::BTreeSet;
#[cfg(feature = "parquet")]
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use walkdir::WalkDir;
use zip::ZipArchive;

use crate::error::DataError;
use crate::idx::GZIP_MAGIC;
use crate::listing::is_ignored;
#[cfg(feature = "parquet")]
use crate::parquet_rows;
use crate::regular_file;
#[cfg(feature = "parquet")]
use crate::split_name::{Split, words};

/// An archive may expand to this many times its size ...
const MAX_RATIO: u64 = 300;
/// ... but always to this size, in bytes.
const ALWAYS_ACCEPTED: u64 = 256 << 20;
/// Largest number of entries.
const MAX_ENTRIES: usize = 10_000_000;
/// Largest size of all headers of a tar file, in bytes.
const MAX_HEADERS: u64 = 1 << 30;
/// Number of folders that a message lists.
const MAX_LISTED: usize = 8;
/// Archives within archives are unpacked to this depth.
const MAX_DEPTH: usize = 2;
/// Folders in a folder are searched for Parquet files to this depth.
const PARQUET_DEPTH: usize = 3;
/// The start of a Parquet file.
const PARQUET_MAGIC: &[u8] = b"PAR1";
/// The start of a file that tells its format.
const START: usize = 512;

/// A format of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// Zip.
    Zip,
    /// Tar without compression.
    Tar,
    /// Tar compressed with gzip.
    TarGz,
    /// Parquet with encoded pictures, which become a folder per class.
    Parquet,
    /// A known format that cannot be unpacked, by its name.
    Unsupported(&'static str),
}

/// The reason why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading or writing failed.
    #[error("cannot unpack the archive")]
    Io(#[from] io::Error),
    /// The archive is damaged.
    #[error("a damaged archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// The format is not supported.
    #[error(
        "an archive of the format {0}: expected zip, tar or tar.gz; unpack it and choose the folder"
    )]
    Unsupported(&'static str),
    /// An entry would be written elsewhere.
    #[error("entry {0:?} is outside of the archive's folder")]
    Outside(String),
    /// An entry is a link or a device.
    #[error("entry {0:?} is a link or a device: unpack the archive and choose the folder")]
    NotAFile(String),
    /// A Parquet file in a build that cannot read it.
    #[error(
        "Parquet needs a build with `--features parquet`; or save the pictures as files, a folder per class"
    )]
    NoParquet,
    /// A Parquet file cannot be read.
    #[cfg(feature = "parquet")]
    #[error(transparent)]
    Parquet(#[from] crate::parquet_rows::RowError),
    /// The content is too large.
    #[error("expands to more than {MAX_RATIO} times its size: unpack it and choose the folder")]
    TooLarge,
    /// There are too many entries.
    #[error("more than {MAX_ENTRIES} entries")]
    TooManyEntries,
}

impl ArchiveFormat {
    /// Recognizes an archive by its content. Returns `None` for another file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let start = start(regular_file::open(path)?)?;
        let is_npz = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("npz"));
        let signatures: [(&[u8], Self); 9] = [
            (b"PK\x03\x04", Self::Zip),
            (b"PK\x05\x06", Self::Zip),
            (PARQUET_MAGIC, Self::Parquet),
            (b"\xfd7zXZ\0", Self::Unsupported("xz")),
            (b"BZh", Self::Unsupported("bzip2")),
            (b"7z\xbc\xaf\x27\x1c", Self::Unsupported("7z")),
            (b"Rar!", Self::Unsupported("rar")),
            (b"\x28\xb5\x2f\xfd", Self::Unsupported("zstd")),
            (b"SIT!", Self::Unsupported("StuffIt")),
        ];
        if let Some((_, format)) = signatures
            .into_iter()
            .find(|(signature, _)| start.starts_with(signature))
        {
            return Ok(Some(format).filter(|_| !is_npz));
        }
        if is_tar(&start) {
            return Ok(Some(Self::Tar));
        }
        if !start.starts_with(&GZIP_MAGIC) {
            return Ok(None);
        }
        // Damaged compressed data are no archive.
        let inner = self::start(MultiGzDecoder::new(regular_file::open(path)?)).unwrap_or_default();
        Ok(is_tar(&inner).then_some(Self::TarGz))
    }
}

/// Finds the Parquet files in a folder or in one of its sub-folders.
///
/// # Errors
/// Returns an error if several folders have some.
pub fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = WalkDir::new(folder)
        .max_depth(PARQUET_DEPTH)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_ignored(entry.file_name()))
        .flatten()
        .filter(|entry| entry.file_type().is_file() || entry.path_is_symlink())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
        });
    let files: Vec<PathBuf> = files.collect();
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    if folders.len() > 1 {
        let names: Vec<String> = folders
            .iter()
            .take(MAX_LISTED)
            .map(|folder| folder.display().to_string())
            .collect();
        let message = format!(
            "found Parquet files in several folders; choose one with --data: {}",
            names.join(", ")
        );
        return Err(DataError::invalid(folder, message));
    }
    Ok(files)
}

/// Unpacks archives of one format into an empty folder, and archives in them into folders of their names. Calls `progress`
/// with the number of bytes written. Returns a warning for each file with unlabeled pictures.
///
/// # Errors
/// Returns an error if an archive is damaged, has entries that are not files within it, or expands too far.
pub fn unpack(
    archives: &[PathBuf],
    format: ArchiveFormat,
    folder: &Path,
    progress: &dyn Fn(u64),
) -> Result<Vec<String>, ArchiveError> {
    let lengths = archives
        .iter()
        .map(|archive| Ok(fs::metadata(archive)?.len()));
    let length: u64 = lengths.sum::<io::Result<u64>>()?;
    let mut unpacker = Unpacker {
        left: length.saturating_mul(MAX_RATIO).max(ALWAYS_ACCEPTED),
        entries: 0,
        notes: Vec::new(),
        progress,
    };
    for archive in archives {
        unpacker.unpack(archive, format, folder, 0)?;
    }
    Ok(unpacker.notes)
}

struct Unpacker<'a> {
    /// Number of bytes that may still be written.
    left: u64,
    entries: usize,
    notes: Vec<String>,
    progress: &'a dyn Fn(u64),
}

impl Unpacker<'_> {
    fn unpack(
        &mut self,
        archive: &Path,
        format: ArchiveFormat,
        folder: &Path,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let file = BufReader::new(regular_file::open(archive)?);
        let written = match format {
            ArchiveFormat::Zip => self.unpack_zip(file, folder)?,
            ArchiveFormat::Tar => self.unpack_tar(file, folder)?,
            ArchiveFormat::TarGz => self.unpack_tar(MultiGzDecoder::new(file), folder)?,
            ArchiveFormat::Parquet => return self.unpack_parquet(archive, folder),
            ArchiveFormat::Unsupported(name) => return Err(ArchiveError::Unsupported(name)),
        };
        if depth == MAX_DEPTH {
            return Ok(());
        }
        for path in written {
            // Documents and networks are archives too.
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_lowercase();
            if ![".zip", ".tar", ".tgz", ".tar.gz"]
                .iter()
                .any(|extension| name.ends_with(extension))
            {
                continue;
            }
            let inner = ArchiveFormat::of(&path)?;
            if let Some(inner @ (ArchiveFormat::Zip | ArchiveFormat::Tar | ArchiveFormat::TarGz)) =
                inner
            {
                let folder = path.with_extension("").with_extension("");
                // An archive may have the name of a folder beside it.
                let folder = if folder.exists() {
                    path.with_extension("unpacked")
                } else {
                    folder
                };
                self.unpack(&path, inner, &folder, depth + 1)?;
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn unpack_zip(
        &mut self,
        file: BufReader<File>,
        folder: &Path,
    ) -> Result<Vec<PathBuf>, ArchiveError> {
        let mut archive = ZipArchive::new(file)?;
        let mut written = Vec::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index)?;
            let name = entry.name()?.into_owned();
            if entry.is_dir() {
                continue;
            }
            let is_special = entry
                .unix_mode()
                .is_some_and(|mode| !matches!(mode & 0o170_000, 0 | 0o100_000));
            if is_special {
                return Err(ArchiveError::NotAFile(name));
            }
            written.extend(self.write(&name, entry, folder)?);
        }
        Ok(written)
    }

    fn unpack_tar(
        &mut self,
        stream: impl Read,
        folder: &Path,
    ) -> Result<Vec<PathBuf>, ArchiveError> {
        // Long names are read into memory, before their length is checked.
        let mut archive = tar::Archive::new(stream.take(self.left.saturating_add(MAX_HEADERS)));
        let mut written = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            match entry.header().entry_type() {
                tar::EntryType::Regular
                | tar::EntryType::Continuous
                | tar::EntryType::GNUSparse => {
                    written.extend(self.write(&name, entry, folder)?);
                }
                tar::EntryType::Directory | tar::EntryType::XGlobalHeader => {}
                _ => return Err(ArchiveError::NotAFile(name)),
            }
        }
        Ok(written)
    }

    /// Writes the pictures of a Parquet file as `SPLIT/CLASS/FILE-ROW.png`.
    #[cfg(feature = "parquet")]
    fn unpack_parquet(&mut self, file: &Path, folder: &Path) -> Result<(), ArchiveError> {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let split = words(&stem).iter().find_map(|word| Split::of_word(word));
        let split = split.map_or("", Split::folder);
        let mut unlabeled = 0;
        for (row, picture) in parquet_rows::read(file)?.enumerate() {
            let picture = picture?;
            let Some(class) = picture.class else {
                unlabeled += 1;
                continue;
            };
            let extension =
                image::guess_format(&picture.bytes).map_or("", |format| format.extensions_str()[0]);
            let name = format!(
                "{split}/{}/{stem}-{row:07}.{extension}",
                as_file_name(&class)
            );
            self.write(
                name.trim_start_matches('/'),
                picture.bytes.as_slice(),
                folder,
            )?;
        }
        if unlabeled > 0 {
            self.notes.push(format!(
                "{}: {unlabeled} pictures have no label, and are not used",
                file.display()
            ));
        }
        Ok(())
    }

    #[cfg(not(feature = "parquet"))]
    fn unpack_parquet(&mut self, _: &Path, _: &Path) -> Result<(), ArchiveError> {
        Err(ArchiveError::NoParquet)
    }

    /// Writes an entry, unless it is hidden or metadata of a system. Returns its path.
    fn write(
        &mut self,
        name: &str,
        content: impl Read,
        folder: &Path,
    ) -> Result<Option<PathBuf>, ArchiveError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ArchiveError::TooManyEntries);
        }
        let outside = || ArchiveError::Outside(name.to_string());
        let mut path = folder.to_path_buf();
        for component in Path::new(&name.replace('\\', "/")).components() {
            match component {
                Component::Normal(name) if is_ignored(name) => return Ok(None),
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                _ => return Err(outside()),
            }
        }
        if path == folder {
            return Err(outside());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::create(&path)?;
        let written = io::copy(&mut content.take(self.left.saturating_add(1)), &mut file)?;
        self.left = self
            .left
            .checked_sub(written)
            .ok_or(ArchiveError::TooLarge)?;
        (self.progress)(written);
        Ok(Some(path))
    }
}

/// Replaces characters that have a meaning in paths, and control characters.
#[cfg(feature = "parquet")]
fn as_file_name(name: &str) -> String {
    let is_special = |letter: char| letter.is_control() || matches!(letter, '/' | '\\' | ':');
    let name = name.trim().replace(is_special, "_");
    match is_ignored(OsStr::new(&name)) {
        true => format!("_{name}"),
        false => name,
    }
}

/// Reads the first bytes of a stream.
fn start(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(START);
    stream.take(START as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether the bytes begin with a tar header, which is known by its checksum: the sum of its bytes, with spaces in place of the
/// checksum. Source: POSIX.1-1988, ustar.
fn is_tar(start: &[u8]) -> bool {
    let Some(header) = start.first_chunk::<512>() else {
        return false;
    };
    let stored = header[148..156]
        .iter()
        .filter(|byte| (b'0'..=b'7').contains(byte));
    let stored = stored.fold(0u32, |sum, digit| (8 * sum) + u32::from(digit - b'0'));
    let rest = header[..148].iter().chain(&header[156..]);
    let sum = 8 * u32::from(b' ') + rest.map(|&byte| u32::from(byte)).sum::<u32>();
    stored == sum && header[0] != 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, content) in entries {
            archive
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // `set_path` refuses names such as ../a.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Unpacks an archive, and returns the relative paths of its files.
    fn unpacked(bytes: &[u8]) -> Result<Vec<String>, String> {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("archive");
        fs::write(&path, bytes).unwrap();
        let format = ArchiveFormat::of(&path).unwrap().ok_or("no archive")?;
        let folder = outer.path().join("folder");
        unpack(&[path], format, &folder, &|_| {}).map_err(|error| error.to_string())?;
        let files = walkdir::WalkDir::new(&folder)
            .sort_by_file_name()
            .into_iter()
            .map(Result::unwrap);
        let files = files.filter(|entry| entry.file_type().is_file());
        let relative = |entry: walkdir::DirEntry| {
            entry
                .path()
                .strip_prefix(&folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_string()
        };
        // Nothing is written outside of the folder.
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
        Ok(files.map(relative).collect())
    }

    #[test]
    fn archives_are_unpacked_with_archives_in_them() {
        let entries: [(&str, &[u8]); 4] = [
            ("a/1.png", b"1"),
            ("b/2.png", b"2"),
            ("__MACOSX/a/._1.png", b""),
            ("./.DS_Store", b""),
        ];
        for bytes in [zip(&entries), tar(&entries), gzip(&tar(&entries))] {
            assert_eq!(unpacked(&bytes).unwrap(), ["a/1.png", "b/2.png"]);
        }
        let inner = zip(&entries);
        let nested = zip(&[("train.zip", &inner), ("readme.txt", b"text")]);
        assert_eq!(
            unpacked(&nested).unwrap(),
            ["readme.txt", "train/a/1.png", "train/b/2.png"]
        );
    }

    #[test]
    fn entries_stay_within_the_folder() {
        for name in ["../a.png", "/tmp/a.png", "a/../../b.png", "..\\a.png"] {
            let expected = format!("entry {name:?} is outside of the archive's folder");
            assert_eq!(unpacked(&zip(&[(name, b"1")])).unwrap_err(), expected);
            assert_eq!(unpacked(&tar(&[(name, b"1")])).unwrap_err(), expected);
        }
    }

    #[test]
    fn links_are_refused() {
        let expected =
            "entry \"link\" is a link or a device: unpack the archive and choose the folder";
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive
            .append_link(&mut header, "link", "/etc/passwd")
            .unwrap();
        assert_eq!(
            unpacked(&archive.into_inner().unwrap()).unwrap_err(),
            expected
        );
        let mut archive = ZipWriter::new(io::Cursor::new(Vec::new()));
        archive
            .add_symlink("link", "/etc/passwd", SimpleFileOptions::default())
            .unwrap();
        assert_eq!(
            unpacked(&archive.finish().unwrap().into_inner()).unwrap_err(),
            expected
        );
    }

    #[test]
    fn what_expands_too_far_is_refused() {
        let zeros = vec![0; ALWAYS_ACCEPTED as usize + (1 << 20)];
        let expected = "expands to more than 300 times its size: unpack it and choose the folder";
        assert_eq!(
            unpacked(&zip(&[("zeros.bin", &zeros)])).unwrap_err(),
            expected
        );
    }

    #[test]
    fn other_files_are_no_archives() {
        for bytes in [&b"text"[..], &[0; 600], &gzip(b"label,a,b,c,d\n")] {
            assert_eq!(unpacked(bytes).unwrap_err(), "no archive");
        }
        let message = unpacked(b"\xfd7zXZ\0").unwrap_err();
        assert!(
            message.starts_with("an archive of the format xz: "),
            "{message}"
        );
        let whole = zip(&[("a/1.png", b"1")]);
        assert!(
            unpacked(&whole[..whole.len() / 2])
                .unwrap_err()
                .starts_with("a damaged archive: ")
        );
    }
}
