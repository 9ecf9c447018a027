//! Scanner for the Python functions and classes that a pickle names. It executes nothing.
//!
//! A pickle is a program for a stack machine. Opcodes and their arguments are those of Python's `pickletools`.

use std::collections::{BTreeMap, BTreeSet};

/// Largest accepted pickle, in bytes; that of a `state_dict` has a few hundred bytes per layer.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Longest accepted string, in bytes. Nested dictionaries repeat their keys in the name of each tensor.
const MAX_TEXT: usize = 1000;
/// Largest accepted number of dictionaries.
const MAX_DICTIONARIES: usize = 1000;

/// The reason why a pickle cannot be scanned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PickleError {
    #[error("the pickle is truncated or damaged at byte {0}")]
    Damaged(usize),
    #[error("the pickle is larger than that of any supported weights")]
    TooLarge,
}

/// The result of scanning a pickle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Functions and classes that the pickle names and that are not allowed, as `module.name`.
    pub(crate) globals: BTreeSet<String>,
    /// Length of the pickle, in bytes.
    pub(crate) length: usize,
}

/// Scans the pickle at the start of `bytes` for names that are not `allowed`.
///
/// # Errors
/// Returns an error if the pickle is truncated, has an unknown opcode, or exceeds a limit.
pub(crate) fn scan(bytes: &[u8], allowed: impl Fn(&str) -> bool) -> Result<Scan, PickleError> {
    let mut reader = Reader {
        bytes: &bytes[..bytes.len().min(MAX_BYTES)],
        is_truncated: bytes.len() > MAX_BYTES,
        position: 0,
    };
    let mut globals = BTreeSet::new();
    let mut record = |name: String| {
        if !allowed(&name) {
            globals.insert(name);
        }
    };
    let mut dictionaries = 0;
    // The top two values of the stack and the memo, for values that are strings.
    let mut top: [Option<&[u8]>; 2] = [None, None];
    let mut memo: BTreeMap<usize, Option<&[u8]>> = BTreeMap::new();
    loop {
        let mut pushed = None;
        match reader.byte()? {
            // STOP
            b'.' => {
                let length = reader.position;
                return Ok(Scan { globals, length });
            }
            // GLOBAL, INST
            b'c' | b'i' => {
                let (module, function) = (reader.line()?, reader.line()?);
                record(joined(module, function));
            }
            // STACK_GLOBAL
            0x93 => record(match top {
                [Some(module), Some(function)] => joined(module, function),
                // Not a string constant: the name is computed when the pickle is loaded.
                _ => "a computed name".into(),
            }),
            // EXT1, EXT2, EXT4: codes of a registry that only the writer knows
            code @ 0x82..=0x84 => {
                reader.take(1 << (code - 0x82))?;
                record("an extension code".into());
            }
            // UNICODE, STRING
            b'V' | b'S' => pushed = Some(reader.line()?),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => pushed = Some(reader.text(1)?),
            b'X' => pushed = Some(reader.text(4)?),
            0x8d => pushed = Some(reader.text(8)?),
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE: store the top value in the memo
            code @ (b'p' | b'q' | b'r' | 0x94) => {
                let number = match code {
                    b'p' => reader.decimal()?,
                    b'q' => reader.number(1)?,
                    b'r' => reader.number(4)?,
                    _ => memo.len(),
                };
                memo.insert(number, top[1]);
                continue;
            }
            // GET, BINGET, LONG_BINGET: push a value of the memo
            code @ (b'g' | b'h' | b'j') => {
                let number = match code {
                    b'g' => reader.decimal()?,
                    b'h' => reader.number(1)?,
                    _ => reader.number(4)?,
                };
                pushed = memo.get(&number).copied().flatten();
            }
            // PROTO, FRAME: leave the stack alone
            0x80 => {
                reader.take(1)?;
                continue;
            }
            0x95 => {
                reader.take(8)?;
                continue;
            }
            // DICT, EMPTY_DICT
            b'd' | b'}' => {
                dictionaries += 1;
                if dictionaries > MAX_DICTIONARIES {
                    return Err(PickleError::TooLarge);
                }
            }
            // FLOAT, INT, LONG, PERSID: a line of text
            b'F' | b'I' | b'L' | b'P' => {
                reader.line()?;
            }
            // BININT1, BININT2, BININT, BINFLOAT: a fixed number of bytes
            code @ (b'K' | b'M' | b'J' | b'G') => {
                reader.take(match code {
                    b'K' => 1,
                    b'M' => 2,
                    b'J' => 4,
                    _ => 8,
                })?;
            }
            // SHORT_BINSTRING, SHORT_BINBYTES, LONG1; BINSTRING, BINBYTES, LONG4; BINBYTES8,
            // BYTEARRAY8: a length and that number of bytes
            code @ (b'U' | b'C' | 0x8a | b'T' | b'B' | 0x8b | 0x8e | 0x96) => {
                let size = match code {
                    b'U' | b'C' | 0x8a => 1,
                    b'T' | b'B' | 0x8b => 4,
                    _ => 8,
                };
                let count = reader.number(size)?;
                reader.take(count)?;
            }
            // opcodes without arguments
            b'('
            | b'0'
            | b'1'
            | b'2'
            | b'N'
            | b'Q'
            | b'R'
            | b'a'
            | b'b'
            | b'e'
            | b'l'
            | b']'
            | b'o'
            | b's'
            | b't'
            | b')'
            | b'u'
            | 0x81
            | 0x85..=0x89
            | 0x8f..=0x92
            | 0x97
            | 0x98 => {}
            _ => return Err(PickleError::Damaged(reader.position - 1)),
        }
        top = [top[1], pushed];
    }
}

fn joined(module: &[u8], name: &[u8]) -> String {
    let [module, name] = [module, name].map(String::from_utf8_lossy);
    format!("{module}.{name}")
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Whether `bytes` was cut at [`MAX_BYTES`].
    is_truncated: bool,
    position: usize,
}

impl<'a> Reader<'a> {
    /// Returns the error for reading beyond the end.
    fn end(&self) -> PickleError {
        match self.is_truncated {
            true => PickleError::TooLarge,
            false => PickleError::Damaged(self.position),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.position.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or_else(|| self.end())?;
        self.position += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    /// Reads a little-endian number of `size` bytes.
    fn number(&mut self, size: usize) -> Result<usize, PickleError> {
        let bytes = self.take(size)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// Reads a string that is preceded by its length in `size` bytes.
    fn text(&mut self, size: usize) -> Result<&'a [u8], PickleError> {
        let count = self.number(size)?;
        let text = self.take(count)?;
        check_length(text)
    }

    /// Reads the rest of a line.
    fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.end())?)?;
        self.take(1)?;
        check_length(line)
    }

    /// Reads a line with a decimal number.
    fn decimal(&mut self) -> Result<usize, PickleError> {
        let at = self.position;
        let number = str::from_utf8(self.line()?)
            .ok()
            .and_then(|line| line.parse().ok());
        number.ok_or(PickleError::Damaged(at))
    }
}

/// Checks the length of a string.
fn check_length(text: &[u8]) -> Result<&[u8], PickleError> {
    match text.len() {
        0..=MAX_TEXT => Ok(text),
        _ => Err(PickleError::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(bytes: &[u8]) -> Result<Vec<String>, PickleError> {
        let scan = scan(bytes, |name| name == "fine.name")?;
        assert_eq!(scan.length, bytes.len());
        Ok(scan.globals.into_iter().collect())
    }

    #[test]
    fn finds_globals_in_all_protocols() {
        // pickle.dumps of an object that calls os.system("ls"), in protocols 0, 2 and 4
        let zero = b"cposix\nsystem\np0\n(Vls\np1\ntp2\nRp3\n.";
        let two = b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85q\x02Rq\x03.";
        let four = b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x94\x85\x94R\x94.";
        for pickle in [&zero[..], two, four] {
            assert_eq!(globals(pickle).unwrap(), ["posix.system"]);
        }
        assert_eq!(globals(b"cfine\nname\n.").unwrap(), [""; 0]);
    }

    #[test]
    fn finds_discarded_memoized_and_computed_globals() {
        assert_eq!(globals(b"(S'ls'\nios\nsystem\n0}.").unwrap(), ["os.system"]);
        // module name from the memo; a name that is not a string constant
        let names = globals(b"\x8c\x02os\x940h\x00\x8c\x06system\x93N\x93.").unwrap();
        assert_eq!(names, ["a computed name", "os.system"]);
    }

    #[test]
    fn rejects_truncated_and_invalid_pickles() {
        for bytes in [
            &b""[..],
            b"}",
            b"cposix\nsys",
            b"X\xff\xff\xff\xffls.",
            b"\xff.",
        ] {
            assert!(
                matches!(globals(bytes), Err(PickleError::Damaged(_))),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn rejects_pickles_that_exceed_a_limit() {
        let long = [&b"X\xff\xff\0\0"[..], &[b'a'; 0xffff], b"."].concat();
        let deep = [&[b'}'; MAX_DICTIONARIES + 1][..], b"."].concat();
        let large = [&[b'N'; MAX_BYTES][..], b"."].concat();
        for bytes in [long, deep, large] {
            assert_eq!(globals(&bytes), Err(PickleError::TooLarge));
        }
    }
}
