//! Arrays of NumPy: the format NPY, as functions of bytes.
//!
//! A file consists of a signature, a version, the length of the header, the header, which is a Python dictionary of the
//! element type, the order and the shape, and the elements. Arrays of Python objects are pickles, and are never read.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::{self, Read};

use crate::color_layout::{from_flat, square, to_channels_first};
use crate::image_dataset::Images;
use crate::labels::Labels;

const SIGNATURE: &[u8] = b"\x93NUMPY";
/// Longest accepted header, in bytes.
const MAX_HEADER: usize = 64 << 10;
/// Largest accepted array, in bytes.
const MAX_BYTES: usize = 16 << 30;
/// Bytes that are reserved before they are read.
const MAX_RESERVED: usize = 64 << 20;
/// Longest accepted text of an element, in characters.
pub(crate) const MAX_TEXT: usize = 1000;

/// An array, with the elements as bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    element: Element,
    bytes: Vec<u8>,
}

/// The type of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Element {
    kind: Kind,
    /// Size in bytes.
    size: usize,
    is_big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Unsigned,
    Signed,
    Float,
    /// Text of UTF-32 characters.
    Unicode,
    /// Text of bytes.
    Bytes,
}

/// The reason why an array cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArrayError {
    /// Reading failed.
    #[error("cannot read the array")]
    Read(#[from] io::Error),
    /// The array is damaged or not of a supported kind.
    #[error("{0}")]
    Invalid(String),
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ArrayError> {
    Err(ArrayError::Invalid(message.into()))
}

impl Array {
    /// Reads an array to its end.
    ///
    /// # Errors
    /// Returns an error if the array is damaged, or has objects, records or complex numbers.
    pub(crate) fn read(mut stream: impl Read) -> Result<Self, ArrayError> {
        let header = header(&mut stream)?;
        let descr = value(&header, "descr").unwrap_or_default();
        let element = Element::parse(descr.trim_matches(['\'', '"']))?;
        check_order(match value(&header, "fortran_order") {
            Some("False") => false,
            Some("True") => true,
            _ => return invalid("the header has no order"),
        })?;
        let Some(shape) = value(&header, "shape").and_then(shape) else {
            return invalid("the header has no shape");
        };
        let size = size(element, &shape)?;
        let mut bytes = Vec::with_capacity(size.min(MAX_RESERVED));
        stream.take(size as u64).read_to_end(&mut bytes)?;
        if bytes.len() < size {
            return invalid(format!(
                "truncated: the header announces {size} bytes, found {}",
                bytes.len()
            ));
        }
        Ok(Self {
            shape,
            element,
            bytes,
        })
    }

    /// Creates an array from its type, such as `<f4`, its shape and its bytes.
    ///
    /// # Errors
    /// Returns an error if the elements are not numbers or texts, are in Fortran order, or their number is not that of the
    /// shape.
    pub(crate) fn new(
        descr: &str,
        is_fortran: bool,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    ) -> Result<Self, ArrayError> {
        let element = Element::parse(descr)?;
        check_order(is_fortran)?;
        let size = size(element, &shape)?;
        if bytes.len() != size {
            return invalid(format!(
                "the shape {shape:?} has {size} bytes, found {}",
                bytes.len()
            ));
        }
        Ok(Self {
            shape,
            element,
            bytes,
        })
    }

    /// Number of bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the elements as images: `[count, height, width]`, with channels before or after height and width, or
    /// `[count, pixels]` for square images. Whole numbers are values from 0 to 255; fractions are from 0 to 1.
    ///
    /// # Errors
    /// Returns an error for another shape or other values.
    pub(crate) fn into_images(self) -> Result<Images, ArrayError> {
        if self.bytes.is_empty() {
            return invalid(format!("the shape {:?} has no images", self.shape));
        }
        let planes = |channels, height, width, pixels| Images {
            channels,
            height,
            width,
            pixels,
        };
        match self.shape[..] {
            [_, height, width] => Ok(planes(1, height, width, self.into_pixels()?)),
            [_, height, width, channels @ (1 | 3)] => {
                let pixels = to_channels_first(self.into_pixels()?, channels, height * width);
                Ok(planes(channels, height, width, pixels))
            }
            [_, channels @ (1 | 3), height, width] => {
                Ok(planes(channels, height, width, self.into_pixels()?))
            }
            [_, size] => match square(size) {
                Some(shape) => Ok(from_flat(self.into_pixels()?, shape)),
                None => invalid(format!("{size} pixels, expected those of a square image")),
            },
            _ => invalid(format!(
                "the shape {:?}: expected images as [count, height, width], with 1 or 3 channels, or as [count, pixels]",
                self.shape
            )),
        }
    }

    /// Returns the elements as labels: `[count]` or `[count, 1]` of whole numbers or texts, or `[count, classes]` with one 1
    /// in each row.
    ///
    /// # Errors
    /// Returns an error for another shape or other values.
    pub(crate) fn to_labels(&self) -> Result<Labels, ArrayError> {
        let count = self.shape.first().copied().unwrap_or(0);
        match self.shape[..] {
            [_] | [_, 1] => (0..count).map(|at| self.name(at)).collect(),
            [_, classes] => {
                let class = |row: usize| {
                    let values = (0..classes).map(|class| self.number(row * classes + class));
                    let values: Vec<f64> = values.collect::<Option<_>>()?;
                    let class = values.iter().position(|&value| value == 1.0)?;
                    let others = values.iter().filter(|&&value| value == 0.0).count();
                    (others == classes - 1).then(|| class.to_string())
                };
                let labels: Option<Labels> = (0..count).map(class).collect();
                labels.ok_or_else(|| {
                    ArrayError::Invalid(format!(
                        "{classes} columns, expected one label per image, or a single 1 in each row"
                    ))
                })
            }
            _ => invalid(format!(
                "the shape {:?}: expected labels as [count]",
                self.shape
            )),
        }
    }

    /// Returns the elements as texts.
    ///
    /// # Errors
    /// Returns an error if an element is a fraction.
    pub(crate) fn to_names(&self) -> Result<Vec<String>, ArrayError> {
        let count = self.shape.iter().product();
        (0..count).map(|at| self.name(at)).collect()
    }

    /// Returns an element as the name of a class.
    fn name(&self, at: usize) -> Result<String, ArrayError> {
        let element = &self.bytes[at * self.element.size..][..self.element.size];
        let name = match self.element.kind {
            Kind::Unicode => {
                let letters = element.chunks_exact(4).map(|code| {
                    let code = [code[0], code[1], code[2], code[3]];
                    let code = match self.element.is_big_endian {
                        true => u32::from_be_bytes(code),
                        false => u32::from_le_bytes(code),
                    };
                    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                });
                let text: String = letters.collect();
                text.trim_end_matches('\0').to_string()
            }
            Kind::Bytes => String::from_utf8_lossy(element)
                .trim_end_matches('\0')
                .to_string(),
            _ => {
                let number = self.number(at).unwrap_or(f64::NAN);
                if number.fract() != 0.0 {
                    return invalid(format!(
                        "label {number} of image {at}: expected a whole number or a text"
                    ));
                }
                format!("{number:.0}")
            }
        };
        if name.is_empty() || name.contains(char::is_control) {
            return invalid(format!(
                "label {name:?} of image {at}: expected a printable text"
            ));
        }
        Ok(name)
    }

    /// Returns an element as a number; `None` for texts.
    fn number(&self, at: usize) -> Option<f64> {
        self.element
            .number(&self.bytes[at * self.element.size..][..self.element.size])
    }

    /// Converts the elements to bytes from 0 to 255.
    pub(crate) fn into_pixels(self) -> Result<Vec<u8>, ArrayError> {
        if let Element {
            kind: Kind::Unsigned,
            size: 1,
            ..
        } = self.element
        {
            return Ok(self.bytes);
        }
        let numbers = || {
            self.bytes
                .chunks_exact(self.element.size)
                .map(|element| self.element.number(element))
        };
        let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut are_whole = true;
        for number in numbers() {
            match number {
                Some(number) if number.is_finite() => {
                    (lowest, highest) = (lowest.min(number), highest.max(number));
                    are_whole &= number.fract() == 0.0;
                }
                _ => return invalid("expected numbers as pixels"),
            }
        }
        let scale = match (are_whole, self.element.kind) {
            (_, Kind::Bool) => 255.0,
            // Zeros and ones of a floating-point type are black and white.
            (true, Kind::Float) if highest <= 1.0 => 255.0,
            (true, _) if highest <= 255.0 => 1.0,
            (false, _) if highest <= 1.0 => 255.0,
            _ => -1.0,
        };
        if lowest < 0.0 || scale < 0.0 {
            return invalid(format!(
                "pixels from {lowest} to {highest}: expected whole numbers from 0 to 255, or fractions from 0 to 1"
            ));
        }
        Ok(numbers()
            .map(|number| (scale * number.unwrap_or(0.0)).round() as u8)
            .collect())
    }
}

impl Element {
    /// Parses a type such as `|u1`.
    fn parse(descr: &str) -> Result<Self, ArrayError> {
        let unsupported = || {
            invalid(format!(
                "elements of type {descr}: expected numbers or texts"
            ))
        };
        let (order, name) = match descr.chars().next() {
            Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
            _ => ('=', descr),
        };
        let mut letters = name.chars();
        let kind = match letters.next() {
            Some('O') => {
                return invalid(
                    "Python objects, which could run code: save it as an array of numbers",
                );
            }
            Some('b') => Kind::Bool,
            Some('u') => Kind::Unsigned,
            Some('i') => Kind::Signed,
            Some('f') => Kind::Float,
            Some('U') => Kind::Unicode,
            Some('S' | 'a') => Kind::Bytes,
            _ => return unsupported(),
        };
        let size: Option<usize> = letters.as_str().parse().ok();
        let size = match (kind, size) {
            (Kind::Bool, Some(1)) => 1,
            (Kind::Unsigned | Kind::Signed, Some(size @ (1 | 2 | 4 | 8))) => size,
            (Kind::Float, Some(size @ (4 | 8))) => size,
            (Kind::Unicode, Some(size @ 1..=MAX_TEXT)) => 4 * size,
            (Kind::Bytes, Some(size @ 1..=MAX_TEXT)) => size,
            _ => return unsupported(),
        };
        Ok(Self {
            kind,
            size,
            is_big_endian: order == '>',
        })
    }

    fn number(self, bytes: &[u8]) -> Option<f64> {
        if matches!(self.kind, Kind::Unicode | Kind::Bytes) {
            return None;
        }
        let mut buffer = [0; 8];
        for (at, &byte) in bytes.iter().enumerate() {
            let at = if self.is_big_endian {
                self.size - 1 - at
            } else {
                at
            };
            buffer[at] = byte;
        }
        let bits = u64::from_le_bytes(buffer);
        match self.kind {
            Kind::Bool | Kind::Unsigned => Some(bits as f64),
            // The sign bit is moved to the highest bit and back.
            Kind::Signed => {
                let unused = 64 - 8 * self.size;
                Some(((bits << unused) as i64 >> unused) as f64)
            }
            Kind::Float if self.size == 4 => Some(f64::from(f32::from_bits(bits as u32))),
            Kind::Float => Some(f64::from_bits(bits)),
            Kind::Unicode | Kind::Bytes => None,
        }
    }
}

/// Returns the number of bytes of an array.
fn size(element: Element, shape: &[usize]) -> Result<usize, ArrayError> {
    let size = shape
        .iter()
        .try_fold(element.size, |size, &length| size.checked_mul(length));
    match size.filter(|size| *size <= MAX_BYTES) {
        Some(size) => Ok(size),
        None => invalid(format!(
            "the shape {shape:?} has more than {} GB",
            MAX_BYTES >> 30
        )),
    }
}

fn check_order(is_fortran: bool) -> Result<(), ArrayError> {
    match is_fortran {
        true => invalid("its elements are in Fortran order; save numpy.ascontiguousarray(array)"),
        false => Ok(()),
    }
}

/// Reads the signature, the version and the header.
fn header(stream: &mut impl Read) -> Result<String, ArrayError> {
    let mut start = [0; 8];
    stream.read_exact(&mut start)?;
    if !start.starts_with(SIGNATURE) {
        return invalid("not an array of NumPy");
    }
    let length = match start[6] {
        1 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            u32::from_le_bytes(length) as usize
        }
        version => return invalid(format!("version {version} of the format, expected 1 to 3")),
    };
    if length > MAX_HEADER {
        return invalid(format!("a header of {length} bytes"));
    }
    let mut header = vec![0; length];
    stream.read_exact(&mut header)?;
    Ok(String::from_utf8_lossy(&header).into_owned())
}

/// Returns the text of a value in a Python dictionary of simple values.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let after = ['\'', '"']
        .iter()
        .find_map(|quote| header.split_once(&format!("{quote}{key}{quote}")))?
        .1;
    let after = after.trim_start().strip_prefix(':')?.trim_start();
    let end = match after.chars().next()? {
        '(' => after.find(')')? + 1,
        '[' => after.rfind(']')? + 1,
        quote @ ('\'' | '"') => after[1..].find(quote)? + 2,
        _ => after.find([',', '}'])?,
    };
    Some(after[..end].trim())
}

/// Parses a tuple of sizes.
fn shape(tuple: &str) -> Option<Vec<usize>> {
    let sizes = tuple.strip_prefix('(')?.strip_suffix(')')?.split(',');
    let sizes = sizes.map(str::trim).filter(|size| !size.is_empty());
    sizes
        .map(|size| size.trim_end_matches('L').parse().ok())
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the file of an array.
    pub(crate) fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\0".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(elements);
        bytes
    }

    fn array(descr: &str, shape: &str, elements: &[u8]) -> Array {
        Array::read(npy(descr, shape, elements).as_slice()).unwrap()
    }

    fn bytes<const N: usize>(numbers: &[f64], convert: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
        numbers.iter().flat_map(|&number| convert(number)).collect()
    }

    #[test]
    fn images_of_all_types_are_equal() {
        let values = [0.0, 51.0, 102.0, 255.0];
        let fractions = values.map(|value| value / 255.0);
        for (descr, elements) in [
            ("'|u1'", bytes(&values, |value| [value as u8])),
            (
                "'<i8'",
                bytes(&values, |value| (value as i64).to_le_bytes()),
            ),
            (
                "'>u2'",
                bytes(&values, |value| (value as u16).to_be_bytes()),
            ),
            (
                "'<f4'",
                bytes(&values, |value| (value as f32).to_le_bytes()),
            ),
            (
                "'<f4'",
                bytes(&fractions, |value| (value as f32).to_le_bytes()),
            ),
            ("'>f8'", bytes(&fractions, f64::to_be_bytes)),
        ] {
            let images = array(descr, "(1, 2, 2)", &elements).into_images().unwrap();
            assert_eq!(images.pixels, [0, 51, 102, 255], "{descr}");
        }
        let masks = array("'|b1'", "(1, 2, 2)", &[0, 1, 1, 0])
            .into_images()
            .unwrap();
        assert_eq!(masks.pixels, [0, 255, 255, 0]);
    }

    #[test]
    fn images_of_all_shapes_are_equal() {
        let gray: Vec<u8> = (0..8).collect();
        for shape in ["(2, 2, 2)", "(2, 2, 2, 1)", "(2, 1, 2, 2)", "(2, 4)"] {
            let images = array("'|u1'", shape, &gray).into_images().unwrap();
            assert_eq!(
                (images.shape(), &images.pixels),
                ([1, 2, 2], &gray),
                "{shape}"
            );
        }
        let planes: Vec<u8> = (0..12).collect();
        let interleaved = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11];
        for (shape, elements) in [
            ("(1, 3, 2, 2)", &planes[..]),
            ("(1, 2, 2, 3)", &interleaved),
        ] {
            let images = array("'|u1'", shape, elements).into_images().unwrap();
            assert_eq!(
                (images.shape(), &images.pixels),
                ([3, 2, 2], &planes),
                "{shape}"
            );
        }
    }

    #[test]
    fn labels_of_all_types_are_equal() {
        let wide: Vec<u8> = "100 "
            .replace(' ', "\0")
            .bytes()
            .flat_map(|letter| [letter, 0, 0, 0])
            .collect();
        for (descr, shape, elements) in [
            ("'|u1'", "(2,)", vec![10, 0]),
            ("'|i1'", "(2, 1)", vec![10, 0]),
            ("'<i4'", "(2L,)", vec![10, 0, 0, 0, 0, 0, 0, 0]),
            ("'<f8'", "(2,)", bytes(&[10.0, 0.0], f64::to_le_bytes)),
            ("'<U2'", "(2,)", wide[..16].to_vec()),
            ("'|S2'", "(2,)", b"100\0".to_vec()),
        ] {
            let labels = array(descr, shape, &elements).to_labels().unwrap();
            assert_eq!(labels.names().collect::<Vec<_>>()[0], "10", "{descr}");
        }
        let one_hot = array("'|u1'", "(2, 3)", &[0, 0, 1, 1, 0, 0])
            .to_labels()
            .unwrap();
        assert_eq!(one_hot.names().collect::<Vec<_>>(), ["2", "0"]);
        let negative = array("'|i1'", "(1,)", &[255]).to_labels().unwrap();
        assert_eq!(negative.names().collect::<Vec<_>>(), ["-1"]);
    }

    #[test]
    fn wrong_arrays_are_described() {
        let error = |bytes: Vec<u8>| Array::read(bytes.as_slice()).unwrap_err().to_string();
        for (descr, expected) in [
            (
                "'|O'",
                "Python objects, which could run code: save it as an array of numbers",
            ),
            ("'<c8'", "elements of type <c8: expected numbers or texts"),
            (
                "[('a', '<i4')]",
                "elements of type [('a', '<i4')]: expected numbers or texts",
            ),
        ] {
            assert_eq!(error(npy(descr, "(1,)", &[0; 8])), expected);
        }
        assert_eq!(
            error(npy("'|u1'", "(3,)", &[0; 2])),
            "truncated: the header announces 3 bytes, found 2"
        );
        assert_eq!(
            error(npy("'|u1'", "(99999999999, 99999999999)", &[])),
            "the shape [99999999999, 99999999999] has more than 16 GB"
        );
        let fortran = String::from_utf8_lossy(&npy("'<i4'", "(1,)", &[])).replace("False", "True ");
        assert!(Array::read(fortran.as_bytes()).is_err());
        assert_eq!(error(b"no array".to_vec()), "not an array of NumPy");
        let images = |descr: &str, shape: &str, elements: &[u8]| {
            array(descr, shape, elements)
                .into_images()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            images("'<i2'", "(1, 1, 2)", &[0, 1, 0, 0]),
            "pixels from 0 to 256: expected whole numbers from 0 to 255, or fractions from 0 to 1"
        );
        assert_eq!(
            images("'|u1'", "(1, 2, 2, 4)", &[0; 16]),
            "the shape [1, 2, 2, 4]: expected images as [count, height, width], with 1 or 3 channels, or as [count, pixels]"
        );
        let labels = |shape: &str| {
            array("'|u1'", shape, &[1, 1])
                .to_labels()
                .unwrap_err()
                .to_string()
        };
        for descr in ["'>U3'", "'>S12'"] {
            let texts = array(descr, "(1, 2)", &[b'a'; 24]);
            assert!(texts.to_labels().is_err() && texts.into_images().is_err());
        }
        assert_eq!(
            labels("(1, 2)"),
            "2 columns, expected one label per image, or a single 1 in each row"
        );
    }

    proptest! {
        #[test]
        fn never_panics(header in "[{}'(),:a-zUSO0-9<>| ]{0,80}", elements: Vec<u8>) {
            let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {header}");
            for header in [header, text] {
                let mut bytes = b"\x93NUMPY\x01\0".to_vec();
                bytes.extend((header.len() as u16).to_le_bytes());
                bytes.extend(header.as_bytes());
                bytes.extend(&elements);
                if let Ok(array) = Array::read(bytes.as_slice()) {
                    let _ = (array.to_labels(), array.to_names(), array.into_images());
                }
            }
        }
    }
}
