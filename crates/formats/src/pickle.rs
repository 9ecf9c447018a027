//! What a pickle would call, read without calling any of it.
//!
//! A pickle is a program for a small stack machine, whose instructions name the Python functions and
//! classes to call. Instructions and their arguments are those of Python's `pickletools`.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a pickle that are followed; that of a `state_dict` takes some hundreds for each layer.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Bytes of a text in it, and how many dictionaries there may be: what is read from it would repeat
/// the names of one within another for each tensor.
const MAX_TEXT: usize = 1000;
const MAX_DICTIONARIES: usize = 1000;

/// A pickle that cannot be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PickleError {
    #[error("the pickle ends, or is damaged, at byte {0}")]
    Damaged(usize),
    #[error("the pickle is larger than that of weights ever is")]
    TooLarge,
}

/// What a pickle names, and where it ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Functions and classes that it names, as `module.name`, but for `harmless` ones.
    pub(crate) globals: BTreeSet<String>,
    /// Its bytes.
    pub(crate) length: usize,
}

/// Follows the pickle at the start of `bytes`.
///
/// # Errors
/// When it does not end, has an instruction that is none, or is too large.
pub(crate) fn scan(bytes: &[u8], harmless: impl Fn(&str) -> bool) -> Result<Scan, PickleError> {
    let mut reader = Reader {
        bytes: &bytes[..bytes.len().min(MAX_BYTES)],
        is_cut: bytes.len() > MAX_BYTES,
        at: 0,
    };
    let mut globals = BTreeSet::new();
    let mut name = |name: String| {
        if !harmless(&name) {
            globals.insert(name);
        }
    };
    let mut dictionaries = 0;
    // The last two values on the stack, where they are text, and the numbered ones.
    let mut top: [Option<&[u8]>; 2] = [None, None];
    let mut memo: BTreeMap<usize, Option<&[u8]>> = BTreeMap::new();
    loop {
        let mut pushed = None;
        match reader.byte()? {
            // STOP
            b'.' => {
                let length = reader.at;
                return Ok(Scan { globals, length });
            }
            // GLOBAL, INST
            b'c' | b'i' => {
                let (module, function) = (reader.line()?, reader.line()?);
                name(joined(module, function));
            }
            // STACK_GLOBAL
            0x93 => name(match top {
                [Some(module), Some(function)] => joined(module, function),
                // A name made at run time is one to be wary of.
                _ => "a hidden name".into(),
            }),
            // EXT1, EXT2, EXT4: by their number in a table that only the writer knows
            code @ 0x82..=0x84 => {
                reader.take(1 << (code - 0x82))?;
                name("an extension".into());
            }
            // UNICODE, STRING
            b'V' | b'S' => pushed = Some(reader.line()?),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => pushed = Some(reader.text(1)?),
            b'X' => pushed = Some(reader.text(4)?),
            0x8d => pushed = Some(reader.text(8)?),
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE: number the value on top
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
            // GET, BINGET, LONG_BINGET: a numbered value
            code @ (b'g' | b'h' | b'j') => {
                let number = match code {
                    b'g' => reader.decimal()?,
                    b'h' => reader.number(1)?,
                    _ => reader.number(4)?,
                };
                pushed = memo.get(&number).copied().flatten();
            }
            // PROTO, FRAME: nothing for the stack
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
            // FLOAT, INT, LONG, PERSID: a line
            b'F' | b'I' | b'L' | b'P' => {
                reader.line()?;
            }
            // BININT1, BININT2, BININT, BINFLOAT: so many bytes
            code @ (b'K' | b'M' | b'J' | b'G') => {
                reader.take(match code {
                    b'K' => 1,
                    b'M' => 2,
                    b'J' => 4,
                    _ => 8,
                })?;
            }
            // SHORT_BINSTRING, SHORT_BINBYTES, LONG1; BINSTRING, BINBYTES, LONG4; BINBYTES8,
            // BYTEARRAY8: a length, and so many bytes
            code @ (b'U' | b'C' | 0x8a | b'T' | b'B' | 0x8b | 0x8e | 0x96) => {
                let size = match code {
                    b'U' | b'C' | 0x8a => 1,
                    b'T' | b'B' | 0x8b => 4,
                    _ => 8,
                };
                let count = reader.number(size)?;
                reader.take(count)?;
            }
            // those without an argument
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
            _ => return Err(PickleError::Damaged(reader.at - 1)),
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
    /// Whether there are more bytes, beyond those that are read.
    is_cut: bool,
    at: usize,
}

impl<'a> Reader<'a> {
    fn end(&self) -> PickleError {
        match self.is_cut {
            true => PickleError::TooLarge,
            false => PickleError::Damaged(self.at),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.end())?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, size: usize) -> Result<usize, PickleError> {
        let bytes = self.take(size)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// Text after a length of `size` bytes.
    fn text(&mut self, size: usize) -> Result<&'a [u8], PickleError> {
        let count = self.number(size)?;
        let text = self.take(count)?;
        short(text)
    }

    /// The rest of a line.
    fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.end())?)?;
        self.take(1)?;
        short(line)
    }

    fn decimal(&mut self) -> Result<usize, PickleError> {
        let at = self.at;
        let number = str::from_utf8(self.line()?)
            .ok()
            .and_then(|line| line.parse().ok());
        number.ok_or(PickleError::Damaged(at))
    }
}

fn short(text: &[u8]) -> Result<&[u8], PickleError> {
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
    fn what_a_pickle_names_is_found_however_it_does() {
        // pickle.dumps of an object that calls os.system("ls"), by protocols 0, 2 and 4
        let old = b"cposix\nsystem\np0\n(Vls\np1\ntp2\nRp3\n.";
        let two = b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85q\x02Rq\x03.";
        let four = b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x94\x85\x94R\x94.";
        for pickle in [&old[..], two, four] {
            assert_eq!(globals(pickle).unwrap(), ["posix.system"]);
        }
        assert_eq!(globals(b"cfine\nname\n.").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_called_and_dropped_is_found_too() {
        assert_eq!(globals(b"(S'ls'\nios\nsystem\n0}.").unwrap(), ["os.system"]);
        // the module's name by way of the memo; a name that is made at run time
        let found = globals(b"\x8c\x02os\x940h\x00\x8c\x06system\x93N\x93.").unwrap();
        assert_eq!(found, ["a hidden name", "os.system"]);
    }

    #[test]
    fn what_is_cut_off_or_no_pickle_is_an_error() {
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
    fn what_would_fill_memory_is_an_error() {
        let long = [&b"X\xff\xff\0\0"[..], &[b'a'; 0xffff], b"."].concat();
        let deep = [&[b'}'; MAX_DICTIONARIES + 1][..], b"."].concat();
        let large = [&[b'N'; MAX_BYTES][..], b"."].concat();
        for bytes in [long, deep, large] {
            assert_eq!(globals(&bytes), Err(PickleError::TooLarge));
        }
    }
}
