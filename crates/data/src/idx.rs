//! The IDX file format of the MNIST family, as functions of bytes.
//!
//! A file consists of a big-endian header (a magic number that encodes the element type and the
//! rank, then one 32-bit size per dimension) and the elements. Three kinds are supported: rank-3 `u8`
//! images (magic `0x00000803`), rank-1 `u8` labels (magic `0x00000801`), and the rank-2 `i32` labels of
//! QMNIST (magic `0x00000C02`), whose first column is the class. All may be compressed with gzip, which
//! is detected by the first two bytes, not by the file name.
//!
//! Format: <https://yann.lecun.com/exdb/mnist/>, section "File formats".

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::image_dataset::Images;

/// Names of the four files of a dataset: training images, training labels, test images and test
/// labels.
pub const FILE_NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Largest accepted file, in bytes.
pub const MAX_BYTES: u64 = 8 << 30;

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
/// Rank-2 `i32` labels: a row of numbers for each image.
const LABEL_ROWS_MAGIC: u32 = 0x0000_0C02;
/// The start of a gzip file.
pub(crate) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Upper bound of the expansion of a DEFLATE stream. It limits the memory that is reserved for the
/// size in a header.
/// Source: <https://www.zlib.net/zlib_tech.html>, "Maximum Compression Factor".
const MAX_DEFLATE_RATIO: usize = 1032;

/// An error of parsing an IDX file.
#[derive(Debug, thiserror::Error)]
pub enum IdxError {
    /// The header is incomplete.
    #[error("found {found} bytes, expected an IDX header of {expected}")]
    NoHeader {
        /// Size of the header in bytes.
        expected: usize,
        /// Size of the file in bytes.
        found: usize,
    },
    /// The file contains labels instead of images, or images instead of labels.
    #[error("found {found}, expected {expected}: are two files swapped?")]
    Swapped {
        /// Expected content: `images` or `labels`.
        expected: &'static str,
        /// Content according to the magic number.
        found: &'static str,
    },
    /// The magic number is neither that of images nor that of labels.
    #[error("found magic number {found:#010x}, expected {expected:#010x}: not an IDX file of u8")]
    Magic {
        /// Expected magic number.
        expected: u32,
        /// Magic number of the file.
        found: u32,
    },
    /// A dimension is zero.
    #[error("the header announces {sizes:?}: nothing to read")]
    Empty {
        /// Sizes of the dimensions.
        sizes: Vec<usize>,
    },
    /// The number of elements exceeds the address space.
    #[error("the header announces {sizes:?}: more than this machine can address")]
    Overflow {
        /// Sizes of the dimensions.
        sizes: Vec<usize>,
    },
    /// The file contains fewer elements than its header announces.
    #[error("truncated: the header announces {expected} bytes, found {found}")]
    Truncated {
        /// Number of bytes announced.
        expected: usize,
        /// Number of bytes found.
        found: usize,
    },
    /// The file contains more elements than its header announces.
    #[error("the header announces {expected} bytes, but the file is longer")]
    Trailing {
        /// Number of bytes announced.
        expected: usize,
    },
    /// A class of QMNIST is out of range.
    #[error("class {class} of image {index}, expected 0 to 255")]
    Class {
        /// The number found.
        class: i32,
        /// Index of its image.
        index: usize,
    },
    /// The gzip data are damaged or truncated.
    #[error("damaged or truncated gzip data")]
    Gzip(#[source] std::io::Error),
}

/// Parses a file of rank-3 `u8` images, gzipped or not.
///
/// # Errors
/// Returns an error if `bytes` are not exactly one such file.
pub fn parse_images(bytes: &[u8]) -> Result<Images, IdxError> {
    let ([_, height, width], pixels) = parse(bytes, IMAGES_MAGIC)?;
    Ok(Images {
        channels: 1,
        height,
        width,
        pixels,
    })
}

/// Parses a file of rank-1 `u8` labels or rank-2 `i32` labels, gzipped or not.
///
/// # Errors
/// Returns an error if `bytes` are not exactly one such file.
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    if !has_label_rows(bytes) {
        let ([_], labels) = parse(bytes, LABELS_MAGIC)?;
        return Ok(labels);
    }
    let ([count, columns], elements) = parse::<2>(bytes, LABEL_ROWS_MAGIC)?;
    let class = |index: usize| {
        let at = 4 * index * columns;
        let class = i32::from_be_bytes([
            elements[at],
            elements[at + 1],
            elements[at + 2],
            elements[at + 3],
        ]);
        u8::try_from(class).map_err(|_| IdxError::Class { class, index })
    };
    (0..count).map(class).collect()
}

/// Whether a file begins as one of rank-2 `i32` labels.
fn has_label_rows(bytes: &[u8]) -> bool {
    let mut magic = [0; 4];
    let is_read = match bytes.starts_with(&GZIP_MAGIC) {
        true => MultiGzDecoder::new(bytes).read_exact(&mut magic),
        false => (&mut &*bytes).read_exact(&mut magic),
    };
    is_read.is_ok() && u32::from_be_bytes(magic) == LABEL_ROWS_MAGIC
}

/// Parses an IDX file with the magic number `magic` into its sizes and the bytes of its elements.
fn parse<const RANK: usize>(
    bytes: &[u8],
    magic: u32,
) -> Result<([usize; RANK], Vec<u8>), IdxError> {
    if bytes.starts_with(&GZIP_MAGIC) {
        let max_len = bytes.len().saturating_mul(MAX_DEFLATE_RATIO);
        parse_stream(MultiGzDecoder::new(bytes), max_len, magic)
    } else {
        parse_stream(bytes, bytes.len(), magic)
    }
}

/// Parses a stream. `max_len` is an upper bound of its length, and limits the memory that is
/// reserved for the size in its header.
fn parse_stream<const RANK: usize>(
    mut stream: impl Read,
    max_len: usize,
    magic: u32,
) -> Result<([usize; RANK], Vec<u8>), IdxError> {
    let header_len = 4 * (1 + RANK);
    let header = read_up_to(&mut stream, header_len, header_len)?;
    if header.len() < header_len {
        return Err(IdxError::NoHeader {
            expected: header_len,
            found: header.len(),
        });
    }
    let word = |i: usize| {
        let at = 4 * i;
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    check_magic(magic, word(0))?;

    let sizes: [usize; RANK] = std::array::from_fn(|i| word(i + 1) as usize);
    let element = if magic == LABEL_ROWS_MAGIC { 4 } else { 1 };
    let expected = sizes
        .iter()
        .try_fold(element, |product: usize, &size| product.checked_mul(size))
        .filter(|&expected| isize::try_from(expected).is_ok())
        .ok_or_else(|| IdxError::Overflow {
            sizes: sizes.to_vec(),
        })?;
    if expected == 0 {
        return Err(IdxError::Empty {
            sizes: sizes.to_vec(),
        });
    }

    let mut elements = read_up_to(&mut stream, expected, expected.min(max_len))?;
    if elements.len() < expected {
        return Err(IdxError::Truncated {
            expected,
            found: elements.len(),
        });
    }
    if !read_up_to(&mut stream, 1, 1)?.is_empty() {
        return Err(IdxError::Trailing { expected });
    }
    elements.shrink_to_fit();
    Ok((sizes, elements))
}

fn check_magic(expected: u32, found: u32) -> Result<(), IdxError> {
    let kind = |magic| match magic {
        IMAGES_MAGIC => Some("images"),
        LABELS_MAGIC | LABEL_ROWS_MAGIC => Some("labels"),
        _ => None,
    };
    match (kind(expected), kind(found)) {
        _ if expected == found => Ok(()),
        (Some(expected), Some(found)) => Err(IdxError::Swapped { expected, found }),
        _ => Err(IdxError::Magic { expected, found }),
    }
}

/// Reads at most `limit` bytes, into a buffer of the initial capacity `capacity`.
fn read_up_to(stream: &mut impl Read, limit: usize, capacity: usize) -> Result<Vec<u8>, IdxError> {
    let mut bytes = Vec::with_capacity(capacity);
    stream
        .take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(IdxError::Gzip)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn idx(magic: u32, sizes: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        for size in sizes {
            bytes.extend(size.to_be_bytes());
        }
        bytes.extend(elements);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[track_caller]
    fn message<T: std::fmt::Debug>(result: Result<T, IdxError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn parses_or_rejects_the_fuzz_corpus() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/idx");
        let mut parsed = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            if let Ok(images) = parse_images(&bytes) {
                let size = images.count() * images.height * images.width;
                assert_eq!(images.pixels.len(), size);
                parsed += 1;
            }
            parsed += u32::from(parse_labels(&bytes).is_ok());
        }
        assert!(parsed > 3);
    }

    proptest! {
        #[test]
        fn parses_valid_images(
            (height, width, pixels) in (1usize..7, 1usize..7, 1usize..6).prop_flat_map(
                |(h, w, n)| (Just(h), Just(w), proptest::collection::vec(any::<u8>(), n * h * w)),
            ),
            compressed: bool,
        ) {
            let count = (pixels.len() / (height * width)) as u32;
            let plain = idx(IMAGES_MAGIC, &[count, height as u32, width as u32], &pixels);
            let bytes = if compressed { gzip(&plain) } else { plain };
            prop_assert_eq!(parse_images(&bytes).unwrap(), Images { channels: 1, height, width, pixels });
        }

        #[test]
        fn never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            prefix in prop_oneof![
                Just(vec![]),
                Just(GZIP_MAGIC.to_vec()),
                Just(IMAGES_MAGIC.to_be_bytes().to_vec()),
                Just(LABELS_MAGIC.to_be_bytes().to_vec()),
                Just(LABEL_ROWS_MAGIC.to_be_bytes().to_vec()),
            ],
        ) {
            let bytes = [prefix, bytes].concat();
            let _ = parse_images(&bytes);
            let _ = parse_labels(&bytes);
        }

        #[test]
        fn rejects_truncated_files(cut in 0usize..24, compressed: bool) {
            let plain = idx(IMAGES_MAGIC, &[2, 2, 2], &[7; 8]);
            let bytes = if compressed { gzip(&plain) } else { plain };
            prop_assert!(parse_images(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        }
    }

    #[test]
    fn parses_labels() {
        let bytes = idx(LABELS_MAGIC, &[3], &[5, 0, 4]);
        assert_eq!(parse_labels(&bytes).unwrap(), [5, 0, 4]);
    }

    #[test]
    fn parses_rows_of_labels() {
        let rows = [5, 1, 2, 7, 0, 0]
            .map(|number: i32| number.to_be_bytes())
            .concat();
        let bytes = idx(LABEL_ROWS_MAGIC, &[2, 3], &rows);
        assert_eq!(parse_labels(&bytes).unwrap(), [5, 7]);
        assert_eq!(parse_labels(&gzip(&bytes)).unwrap(), [5, 7]);
        let bytes = idx(LABEL_ROWS_MAGIC, &[1, 1], &(-1i32).to_be_bytes());
        assert_eq!(
            message(parse_labels(&bytes)),
            "class -1 of image 0, expected 0 to 255"
        );
        assert_eq!(
            message(parse_images(&bytes)),
            "found labels, expected images: are two files swapped?"
        );
    }

    #[test]
    fn rejects_header_larger_than_file() {
        let bytes = idx(IMAGES_MAGIC, &[60_000, 28, 28], &[0; 100]);
        assert_eq!(
            message(parse_images(&bytes)),
            "truncated: the header announces 47040000 bytes, found 100"
        );
    }

    #[test]
    fn header_does_not_control_allocation() {
        // 2^62 bytes are addressable, but cannot be allocated.
        let bytes = idx(IMAGES_MAGIC, &[1 << 30, 1 << 16, 1 << 16], &[0; 4]);
        assert!(matches!(
            parse_images(&gzip(&bytes)),
            Err(IdxError::Truncated { .. })
        ));
    }

    #[test]
    fn rejects_overflowing_header() {
        let bytes = idx(IMAGES_MAGIC, &[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert_eq!(
            message(parse_images(&bytes)),
            "the header announces [4294967295, 4294967295, 4294967295]: more than this machine can address"
        );
    }

    #[test]
    fn rejects_empty_files() {
        let bytes = idx(IMAGES_MAGIC, &[0, 28, 28], &[]);
        assert_eq!(
            message(parse_images(&bytes)),
            "the header announces [0, 28, 28]: nothing to read"
        );
        assert_eq!(
            message(parse_images(&[])),
            "found 0 bytes, expected an IDX header of 16"
        );
    }

    #[test]
    fn rejects_swapped_files() {
        let labels = idx(LABELS_MAGIC, &[12], &[0; 12]);
        assert_eq!(
            message(parse_images(&labels)),
            "found labels, expected images: are two files swapped?"
        );
    }

    #[test]
    fn rejects_other_magic_numbers() {
        // Rank 3, `i32`: the third byte is the element type.
        let bytes = idx(0x0000_0C03, &[1, 1, 1], &[0; 4]);
        assert_eq!(
            message(parse_images(&bytes)),
            "found magic number 0x00000c03, expected 0x00000803: not an IDX file of u8"
        );
    }

    #[test]
    fn rejects_trailing_bytes() {
        let bytes = idx(LABELS_MAGIC, &[2], &[1, 2, 3]);
        assert_eq!(
            message(parse_labels(&bytes)),
            "the header announces 2 bytes, but the file is longer"
        );
    }

    #[test]
    fn rejects_damaged_gzip() {
        let mut bytes = gzip(&idx(LABELS_MAGIC, &[4], &[1, 2, 3, 4]));
        let crc = bytes.len() - 8;
        bytes[crc] ^= 0xff;
        assert!(message(parse_labels(&bytes)).starts_with("damaged or truncated gzip data"));
    }
}
