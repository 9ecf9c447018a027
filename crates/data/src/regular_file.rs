//! Reading of files that somebody else made. A path may name a pipe without a writer, an endless device or a
//! huge file; none of them may block a thread or fill the memory.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a regular file for reading, or a link to one. Does not block.
///
/// # Errors
/// Returns an error if the file cannot be opened or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true))
}

/// Opens a regular file with `options`, or a link to one. Does not block.
///
/// # Errors
/// Returns an error if the file cannot be opened or is not a regular file.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Checked before, because opening a device may have an effect, and again after, because the path may have
    // been replaced in between. In this case, O_NONBLOCK prevents that a pipe waits for its other end.
    if let Ok(metadata) = fs::metadata(path) {
        check_regular(&metadata)?;
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        options,
        rustix::fs::OFlags::NONBLOCK.bits() as i32,
    );
    let file = options.open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a regular file, or is larger.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_large(format!("{length} bytes"), limit));
    }
    read_to_limit(file, length, limit)
}

/// Reads a regular file of at most `limit` bytes as text.
///
/// # Errors
/// Returns the errors of [`read`], and an error if the file is not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Reads at most `limit` bytes of a file that the user names. It may also be a pipe, such as the process
/// substitution `<(...)` of a shell, which is read until its writer closes it.
///
/// # Errors
/// Returns an error if the file cannot be read or is larger.
pub fn read_stream(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_to_limit(File::open(path)?, 0, limit)
}

/// Reads a stream of at most `limit` bytes to its end; `length` is its expected length.
///
/// # Errors
/// Returns an error if the stream cannot be read or is longer.
pub(crate) fn read_to_limit(stream: impl Read, length: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more byte than expected, so that the buffer does not grow to detect the end.
    bytes.try_reserve_exact(
        usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(1),
    )?;
    stream
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(format!("more than {limit} bytes"), limit));
    }
    Ok(bytes)
}

fn too_large(found: String, limit: u64) -> io::Error {
    io::Error::new(
        ErrorKind::FileTooLarge,
        format!("{found}, expected at most {limit}"),
    )
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = kind(metadata);
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        format!("{kind}, expected a regular file"),
    ))
}

/// Names the type of a file that is not a regular one.
fn kind(metadata: &Metadata) -> &'static str {
    let file_type = metadata.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a pipe";
        }
        if file_type.is_socket() {
            return "a socket";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "a device";
        }
    }
    match file_type.is_dir() {
        true => "a folder",
        false => "a special file",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[track_caller]
    fn error(result: io::Result<Vec<u8>>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn reads_files_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "five!").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"five!");
        assert_eq!(read_to_string(&path, 5).unwrap(), "five!");
        assert_eq!(read_stream(&path, 5).unwrap(), b"five!");
        assert_eq!(error(read(&path, 4)), "5 bytes, expected at most 4");
        assert_eq!(
            error(read_stream(&path, 4)),
            "more than 4 bytes, expected at most 4"
        );
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(
            read_to_string(&path, 5).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        // Without reading it: the file occupies no space on the disk.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(
            error(read(&path, 4)),
            "1099511627776 bytes, expected at most 4"
        );
    }

    #[test]
    fn missing_files_and_folders_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            error(read(folder.path(), 4)),
            "a folder, expected a regular file"
        );
        let missing = read(&folder.path().join("missing"), 4).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_sockets_and_devices_are_rejected_at_once() {
        use std::os::unix::fs::symlink;
        use std::os::unix::net::UnixListener;

        use rustix::fs::{CWD, Mode, mkfifoat};

        let folder = tempfile::tempdir().unwrap();
        let [pipe, socket, device] =
            ["pipe", "socket", "device"].map(|name| folder.path().join(name));
        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink("/dev/zero", &device).unwrap();
        let message = |path: &PathBuf| error(read(path, 4));
        assert_eq!(message(&pipe), "a pipe, expected a regular file");
        assert_eq!(message(&socket), "a socket, expected a regular file");
        assert_eq!(message(&device), "a device, expected a regular file");
        let mut append = OpenOptions::new();
        append.append(true).create(true);
        assert!(open_with(&pipe, &mut append).is_err());
        // A file that the user names may be a stream.
        assert_eq!(
            error(read_stream(&device, 4)),
            "more than 4 bytes, expected at most 4"
        );
        let link = folder.path().join("link");
        fs::write(folder.path().join("file"), "text").unwrap();
        symlink("file", &link).unwrap();
        assert_eq!(read(&link, 4).unwrap(), b"text");
    }

    #[cfg(unix)]
    #[test]
    fn reads_a_pipe_that_the_user_names() {
        use rustix::fs::{CWD, Mode, mkfifoat};

        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| fs::write(&pipe, "text").unwrap());
            assert_eq!(read_stream(&pipe, 4).unwrap(), b"text");
        });
    }
}
