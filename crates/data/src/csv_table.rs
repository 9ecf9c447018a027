//! Tables of images as text: one row per image, with its label and its pixels.
//!
//! The label has a column of its own: the one that the header names, else the first. The other columns are the pixels of a
//! square image, gray or RGB; or one column has all pixels with spaces between them, as in FER2013. A column `split` or
//! `Usage` divides the rows. Comma, semicolon and tab separate the columns. The text may be compressed with gzip.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use csv::{ByteRecord, ReaderBuilder};
use flate2::read::MultiGzDecoder;

use crate::color_layout::{from_flat, square};
use crate::idx::GZIP_MAGIC;
use crate::image_dataset::Images;
use crate::labels::Labels;
use crate::split_name::Split;

/// Longest accepted line, in bytes: a color image of 1024 x 1024 pixels with four characters per value.
const MAX_LINE: usize = 16 << 20;
/// Largest accepted size of all pixels, in bytes.
const MAX_PIXELS: usize = 8 << 30;
/// Number of bytes that tell how a file begins.
const PEEKED: usize = 64 << 10;

/// Headers of the column of labels, in lower case.
const LABEL_NAMES: [&str; 12] = [
    "label",
    "labels",
    "class",
    "classes",
    "target",
    "y",
    "digit",
    "character",
    "letter",
    "category",
    "emotion",
    "species",
];
/// Headers of columns that number the rows.
const INDEX_NAMES: [&str; 6] = ["", "id", "index", "imageid", "image_id", "unnamed: 0"];
/// Headers of the column of splits.
const SPLIT_NAMES: [&str; 3] = ["split", "usage", "subset"];

/// The content of a table.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    /// Images and labels of the rows; `None` for rows without a split.
    pub(crate) parts: BTreeMap<Option<Split>, (Images, Labels)>,
    /// Whether the rows have labels. The labels are empty otherwise.
    pub(crate) has_labels: bool,
}

/// The reason why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// Reading failed.
    #[error("cannot read the table")]
    Read(#[from] io::Error),
    /// A row is wrong.
    #[error("line {line}: {message}")]
    Row { line: u64, message: String },
    /// The table is wrong as a whole.
    #[error("{0}")]
    Table(String),
}

/// The meaning of the columns.
#[derive(Debug, PartialEq)]
struct Columns {
    /// Number of columns.
    count: usize,
    label: Option<usize>,
    split: Option<usize>,
    pixels: PixelColumns,
    /// Channels and side of an image; for pixels in one column, known from the first row.
    shape: Option<(usize, usize)>,
}

#[derive(Debug, PartialEq)]
enum PixelColumns {
    /// Columns of one pixel each.
    Each(Vec<usize>),
    /// A column with all pixels.
    Joined(usize),
}

/// Reads a table.
///
/// # Errors
/// Returns an error if the columns are not those of square images, or a row is invalid.
pub(crate) fn parse(bytes: impl Read) -> Result<Table, TableError> {
    let mut table = Reader::open(bytes)?;
    let mut rows = Rows::default();
    if !table.is_header {
        rows.push(&table.record, &mut table.columns)?;
    }
    while read_record(&mut table.reader, &mut table.record)? {
        rows.push(&table.record, &mut table.columns)?;
    }
    rows.into_table(&table.columns)
}

/// Whether a text begins as a table of images, and whether they have labels: `None` for another table or text.
pub(crate) fn has_labels(bytes: impl Read) -> Option<bool> {
    let mut table = Reader::open(bytes).ok()?;
    // Other tables may have as many columns as a small image has pixels.
    if table.is_header && read_record(&mut table.reader, &mut table.record).ok()? {
        Rows::default()
            .push(&table.record, &mut table.columns)
            .ok()?;
    }
    Some(table.columns.label.is_some())
}

/// A reader of the rows after the first one, which gives the columns.
struct Reader<'a> {
    reader: csv::Reader<LineLimit<Box<dyn BufRead + 'a>>>,
    /// The row that was read last.
    record: ByteRecord,
    /// Whether the first row names the columns.
    is_header: bool,
    columns: Columns,
}

impl<'a> Reader<'a> {
    fn open(bytes: impl Read + 'a) -> Result<Self, TableError> {
        let mut content = open(bytes)?;
        let delimiter = delimiter(content.fill_buf()?);
        let lines = LineLimit {
            inner: content,
            length: 0,
        };
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            // A quote that is not closed would make one row of many lines.
            .quoting(false)
            .delimiter(delimiter)
            .from_reader(lines);
        let mut record = ByteRecord::new();
        if !read_record(&mut reader, &mut record)? {
            return Err(TableError::Table("an empty table".into()));
        }
        trim_mark(&mut record);
        // A label in the first column may be a word, and names of pixels may be numbers.
        let first = text(record.get(0).unwrap_or_default()).to_lowercase();
        let is_header = LABEL_NAMES.contains(&first.as_str())
            || INDEX_NAMES.contains(&first.as_str())
            || record.iter().skip(1).any(|field| !is_number(field));
        let columns = Columns::of(&record, is_header).map_err(TableError::Table)?;
        Ok(Self {
            reader,
            record,
            is_header,
            columns,
        })
    }
}

fn open<'a>(bytes: impl Read + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut bytes = BufReader::with_capacity(PEEKED, bytes);
    let is_gzip = bytes.fill_buf()?.starts_with(&GZIP_MAGIC);
    Ok(match is_gzip {
        true => Box::new(BufReader::with_capacity(PEEKED, MultiGzDecoder::new(bytes))),
        false => Box::new(bytes),
    })
}

/// Returns the separator that is most frequent at the start of a text.
fn delimiter(start: &[u8]) -> u8 {
    let line = start
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let count = |separator: &u8| line.iter().filter(|byte| *byte == separator).count();
    // Of equal numbers, the last counts.
    [b'\t', b';', b',']
        .into_iter()
        .max_by_key(count)
        .unwrap_or(b',')
}

/// Reads the next row that is not empty.
fn read_record(
    reader: &mut csv::Reader<impl Read>,
    record: &mut ByteRecord,
) -> Result<bool, TableError> {
    reader
        .read_byte_record(record)
        .map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => TableError::Read(error),
            kind => TableError::Table(format!("{kind:?}")),
        })
}

/// Removes the byte order mark that some programs write at the start.
fn trim_mark(record: &mut ByteRecord) {
    if record
        .get(0)
        .is_some_and(|field| field.starts_with(b"\xef\xbb\xbf"))
    {
        let fields: Vec<Vec<u8>> = record.iter().map(<[u8]>::to_vec).collect();
        let trimmed = fields.iter().enumerate();
        *record = trimmed
            .map(|(at, field)| if at == 0 { &field[3..] } else { &field[..] })
            .collect();
    }
}

fn is_number(field: &[u8]) -> bool {
    text(field).parse::<f64>().is_ok()
}

fn text(field: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(unquoted(field))
}

/// Returns a field without spaces and quotes around it.
fn unquoted(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    let inner = field
        .strip_prefix(b"\"")
        .and_then(|field| field.strip_suffix(b"\""));
    inner.unwrap_or(field).trim_ascii()
}

impl Columns {
    /// Finds the columns by the first row.
    ///
    /// # Errors
    /// Returns an error if the columns are not the pixels of square images.
    fn of(first: &ByteRecord, is_header: bool) -> Result<Self, String> {
        let count = first.len();
        let names: Vec<String> = match is_header {
            true => first
                .iter()
                .map(|field| text(field).to_lowercase())
                .collect(),
            false => Vec::new(),
        };
        let named = |wanted: &[&str]| {
            names
                .iter()
                .position(|name| wanted.contains(&name.as_str()))
        };
        let split = named(&SPLIT_NAMES);
        if let Some(joined) = named(&["pixels"]) {
            let label = named(&LABEL_NAMES);
            return Ok(Self {
                count,
                label,
                split,
                pixels: PixelColumns::Joined(joined),
                shape: None,
            });
        }
        let mut label = named(&LABEL_NAMES);
        let others = |label: Option<usize>| -> Vec<usize> {
            let is_pixel = |at: &usize| {
                let is_index = names
                    .get(*at)
                    .is_some_and(|name| INDEX_NAMES.contains(&name.as_str()));
                Some(*at) != label && Some(*at) != split && !is_index
            };
            (0..count).filter(is_pixel).collect()
        };
        if label.is_none() && square(others(None).len()).is_none() {
            label = Some(match is_header {
                // Names of pixels end in a number.
                true => {
                    let mut named = others(None)
                        .into_iter()
                        .filter(|&at| !names[at].ends_with(|end: char| end.is_ascii_digit()));
                    match (named.next(), named.next()) {
                        (Some(label), None) => label,
                        _ => {
                            return Err("found no column of labels; expected a header label".into());
                        }
                    }
                }
                false => 0,
            });
        }
        let pixels = others(label);
        // A table of boxes, for example, has as many columns as a tiny image has pixels.
        let is_numbered = |&at: &usize| names[at].ends_with(|end: char| end.is_ascii_digit());
        if is_header && label.is_none() && !pixels.iter().all(is_numbered) {
            return Err("found neither a column of labels nor columns of pixels alone".into());
        }
        let Some(shape) = square(pixels.len()).filter(|(_, side)| *side > 1) else {
            let shown = if is_header { "a header and " } else { "" };
            return Err(format!(
                "found {shown}{count} columns; expected a column label and the pixels of a square image, such as 1 + 784 \
                 columns for 28x28"
            ));
        };
        Ok(Self {
            count,
            label,
            split,
            pixels: PixelColumns::Each(pixels),
            shape: Some(shape),
        })
    }
}

/// The rows read so far.
#[derive(Default)]
struct Rows {
    parts: BTreeMap<Option<Split>, (Vec<u8>, Labels)>,
    size: usize,
}

impl Rows {
    fn push(&mut self, record: &ByteRecord, columns: &mut Columns) -> Result<(), TableError> {
        let line = record.position().map_or(1, csv::Position::line);
        let error = |message: String| TableError::Row { line, message };
        if record.len() != columns.count {
            return Err(error(format!(
                "found {} columns, expected {}",
                record.len(),
                columns.count
            )));
        }
        let field = |at: usize| record.get(at).unwrap_or_default();
        let split = match columns.split.map(|at| text(field(at))) {
            None => None,
            Some(value) => match Split::of_value(&value) {
                Some(split) => Some(split),
                None => {
                    return Err(error(format!(
                        "split {value:?}: expected train, validation or test"
                    )));
                }
            },
        };
        let (pixels, labels) = self.parts.entry(split).or_default();
        let before = pixels.len();
        match &columns.pixels {
            PixelColumns::Each(wanted) => {
                for &at in wanted {
                    let value = pixel(field(at))
                        .map_err(|found| error(format!("column {}: {found}", at + 1)))?;
                    pixels.push(value);
                }
            }
            PixelColumns::Joined(at) => {
                let values = unquoted(field(*at))
                    .split(u8::is_ascii_whitespace)
                    .filter(|value| !value.is_empty());
                for value in values {
                    pixels.push(
                        pixel(value)
                            .map_err(|found| error(format!("column {}: {found}", at + 1)))?,
                    );
                }
            }
        }
        let size = pixels.len() - before;
        let (channels, side) = match columns.shape {
            Some(shape) => shape,
            None => {
                let message = || error(format!("{size} pixels, expected those of a square image"));
                *columns.shape.insert(
                    square(size)
                        .filter(|(_, side)| *side > 1)
                        .ok_or_else(message)?,
                )
            }
        };
        if size != channels * side * side {
            return Err(error(format!(
                "{size} pixels, expected {} as in the first row",
                channels * side * side
            )));
        }
        if let Some(at) = columns.label {
            let label = label(field(at)).ok_or_else(|| error("no label".into()))?;
            labels.push(&label);
        }
        self.size += size;
        if self.size > MAX_PIXELS {
            return Err(error(format!(
                "more than {} GB of pixels",
                MAX_PIXELS >> 30
            )));
        }
        Ok(())
    }

    fn into_table(self, columns: &Columns) -> Result<Table, TableError> {
        let Some(shape) = columns.shape.filter(|_| self.size > 0) else {
            return Err(TableError::Table("a header without rows".into()));
        };
        let parts = self.parts.into_iter();
        Ok(Table {
            parts: parts
                .map(|(split, (pixels, labels))| (split, (from_flat(pixels, shape), labels)))
                .collect(),
            has_labels: columns.label.is_some(),
        })
    }
}

/// Parses the value of a pixel.
///
/// # Errors
/// Returns a description of a value that is not a whole number from 0 to 255.
fn pixel(field: &[u8]) -> Result<u8, String> {
    let digits = |value: u32, digit: &u8| {
        digit
            .is_ascii_digit()
            .then(|| 10 * value + u32::from(digit - b'0'))
    };
    if let 1..=3 = field.len()
        && let Some(value @ ..=255) = field.iter().try_fold(0, digits)
    {
        return Ok(value as u8);
    }
    let found = text(field);
    match found.parse::<f64>() {
        // Some programs write whole numbers as 12.0.
        Ok(value) if value.fract() == 0.0 && (0.0..=255.0).contains(&value) => Ok(value as u8),
        _ => {
            let found: String = found.chars().take(40).collect();
            Err(format!(
                "found {found:?}, expected a pixel as a whole number from 0 to 255"
            ))
        }
    }
}

/// Returns the name of a class: a whole number without leading zeros and decimals, or the text. Returns `None` without a text.
fn label(field: &[u8]) -> Option<String> {
    let name = text(field);
    let number = name
        .parse::<f64>()
        .ok()
        .filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
    match number {
        Some(number) => Some(format!("{number:.0}")),
        None if name.is_empty() => None,
        None => Some(name.into_owned()),
    }
}

/// A reader that fails at a line that is too long, before it fills the memory.
struct LineLimit<R> {
    inner: R,
    /// Length of the current line so far.
    length: usize,
}

impl<R: Read> Read for LineLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.length = match buffer[..count].iter().rposition(|&byte| byte == b'\n') {
            Some(end) => count - end - 1,
            None => self.length + count,
        };
        if self.length > MAX_LINE {
            let message = format!("a line of more than {} MB", MAX_LINE >> 20);
            return Err(io::Error::new(ErrorKind::FileTooLarge, message));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Returns the images and labels of a table without splits.
    fn read(text: &str) -> (Images, Vec<String>) {
        let mut table = parse(text.as_bytes()).unwrap();
        let (images, labels) = table.parts.remove(&None).unwrap();
        (images, labels.names().map(String::from).collect())
    }

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn columns_are_found_by_the_header_or_their_number() {
        for text in [
            "7,1,2,3,4\n9,5,6,7,8\n",
            "label,pixel0,pixel1,pixel2,pixel3\n7,1,2,3,4\n9,5,6,7,8\n",
            "pixel1;pixel2;pixel3;pixel4;class\n1;2;3;4;7\n5;6;7;8;9\n",
            "\u{feff}label\ta\tb\tc\td\r\n7\t1\t2\t3\t4\r\n9.0\t5\t6.0\t7\t8\r\n",
            ",label,a,b,c,d\n0,7,1,2,3,4\n1,9,5,6,7,8\n",
            "emotion,pixels\n7,1 2 3 4\n9,\"5 6 7 8\"\n",
            "\"label\",\"a1\",\"a2\",\"a3\",\"a4\"\n\"7\",\"1\",2,3,4\n\"9\",5,6,7,8\n",
            "p1,p2,p3,p4,class_id\n1,2,3,4,7\n5,6,7,8,9\n",
        ] {
            let (images, labels) = read(text);
            assert_eq!((images.height, images.width), (2, 2), "{text}");
            assert_eq!(images.pixels, [1, 2, 3, 4, 5, 6, 7, 8], "{text}");
            assert_eq!(labels, ["7", "9"], "{text}");
        }
    }

    #[test]
    fn other_tables_are_not_images() {
        for text in [
            "class id,filepaths,labels,data set,name\n0,a.jpg,owl,train,x\n",
            "image_id,x_1,y_1,width,height\na.jpg,1,2,3,4\n",
            "p1,p2,p3,p4,class_id,other\n1,2,3,4,7,8\n",
        ] {
            assert_eq!(has_labels(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read("label,0,1,2,3\n7,1,2,3,4\n").1, ["7"]);
        let words = "cat,1,2,3,4\ndog,5,6,7,8\n";
        assert_eq!(read(words).1, ["cat", "dog"]);
    }

    #[test]
    fn labels_may_be_words_and_rows_may_be_compressed() {
        let text = "label,a,b,c,d\ncat,1,2,3,4\n dog ,5,6,7,8\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let mut table = parse(gzip.finish().unwrap().as_slice()).unwrap();
        let labels = table.parts.remove(&None).unwrap().1;
        assert_eq!(labels.names().collect::<Vec<_>>(), ["cat", "dog"]);
    }

    #[test]
    fn a_column_divides_the_rows() {
        let table = parse(
            "emotion,pixels,Usage\n0,1 2 3 4,Training\n1,5 6 7 8,PublicTest\n1,1 1 1 1,PrivateTest\n".as_bytes(),
        )
        .unwrap();
        let splits: Vec<_> = table.parts.keys().copied().map(Option::unwrap).collect();
        assert_eq!(splits, [Split::Train, Split::Validation, Split::Test]);
    }

    #[test]
    fn a_table_without_labels_is_recognized() {
        let table = parse("pixel0,pixel1,pixel2,pixel3\n1,2,3,4\n".as_bytes()).unwrap();
        assert!(!table.has_labels);
        assert_eq!(
            has_labels("pixel0,pixel1,pixel2,pixel3\n1,2,3,4\n".as_bytes()),
            Some(false)
        );
        assert_eq!(has_labels("label,a,b,c,d\n".as_bytes()), Some(true));
        assert_eq!(has_labels("path,label\na.png,3\n".as_bytes()), None);
        assert_eq!(has_labels("some text".as_bytes()), None);
    }

    #[test]
    fn wrong_rows_are_named() {
        let header = "label,a,b,c,d\n";
        for (rows, expected) in [
            ("1,2,3,4,5\n1,2,3\n", "line 3: found 3 columns, expected 5"),
            (
                "1,2,3,4,256\n",
                "line 2: column 5: found \"256\", expected a pixel as a whole number from 0 to 255",
            ),
            (
                "1,2,3,-4,5\n",
                "line 2: column 4: found \"-4\", expected a pixel as a whole number from 0 to 255",
            ),
            (
                "1,2,x,4,5\n",
                "line 2: column 3: found \"x\", expected a pixel as a whole number from 0 to 255",
            ),
            (
                "1,2,0.5,4,5\n",
                "line 2: column 3: found \"0.5\", expected a pixel as a whole number from 0 to 255",
            ),
            (
                "1,2,,4,5\n",
                "line 2: column 3: found \"\", expected a pixel as a whole number from 0 to 255",
            ),
            (",1,2,3,4\n", "line 2: no label"),
            ("", "a header without rows"),
        ] {
            assert_eq!(error(&format!("{header}{rows}")), expected);
        }
        assert_eq!(error(""), "an empty table");
        assert_eq!(
            error("1,2,3\n"),
            "found 3 columns; expected a column label and the pixels of a square image, such as 1 + 784 columns for 28x28"
        );
        assert_eq!(
            error("emotion,pixels\n0,1 2 3 4\n0,1 2 3\n"),
            "line 3: 3 pixels, expected 4 as in the first row"
        );
        assert_eq!(
            error("emotion,pixels,Usage\n0,1 2 3 4,other\n"),
            "line 2: split \"other\": expected train, validation or test"
        );
    }

    #[test]
    fn an_endless_line_ends_with_an_error() {
        let endless = io::repeat(b'1').take(1 << 40);
        let error = parse(endless).unwrap_err();
        let TableError::Read(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.to_string(), "a line of more than 16 MB");
        let columns = b"1,".repeat(9 << 20);
        assert!(matches!(
            parse(columns.as_slice()),
            Err(TableError::Read(_))
        ));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-z,;\t\n\" .-]{0,200}", tail: Vec<u8>) {
            let _ = parse([text.as_bytes(), &tail].concat().as_slice());
            let _ = has_labels(text.as_bytes());
        }
    }
}
