//! The secret that a worker and its clients share.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use data::regular_file;
use iroh::SecretKey;
use tracing::info;

/// Minimum length in bytes.
const MIN_LENGTH: usize = 32;
/// Largest accepted file, in bytes.
const MAX_BYTES: u64 = 1 << 16;

/// The secret that a worker and its clients share.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Reads the token from the first line of a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or the token is too short to be a secret.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = regular_file::read_stream(path, MAX_BYTES);
        let text = bytes
            .map_err(Error::new)
            .and_then(|bytes| Ok(String::from_utf8(bytes)?));
        let text = text.with_context(|| path.display().to_string())?;
        let token = text.lines().next().unwrap_or_default().trim();
        ensure!(
            token.len() >= MIN_LENGTH,
            "{}: the token has {} characters, expected {MIN_LENGTH} or more",
            path.display(),
            token.len()
        );
        Ok(Self(token.into()))
    }

    /// Reads the token from a file. If there is no such file, creates it with a random token.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or created, or the token is too short.
    pub(crate) fn read_or_create(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let bytes = SecretKey::generate().to_bytes();
                let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(file, "{token}").with_context(|| path.display().to_string())?;
                info!(
                    "created a token: copy {} to the machines that may use this worker",
                    path.display()
                );
                Self::read(path)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::read(path),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Returns the secret itself.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl From<&str> for Token {
    fn from(secret: &str) -> Self {
        Self(secret.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn creates_a_file_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let first = Token::read_or_create(&path).unwrap();
        assert_eq!(first.0, Token::read_or_create(&path).unwrap().0);
        assert_eq!(first.0.len(), 64);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(&path, "short\n").unwrap();
        assert!(Token::read(&path).is_err());
    }
}
