//! The IDX format of the MNIST family, as a pure function of bytes.
//!
//! A file is a big-endian header (a magic number that spells the element type and the rank, then
//! one 32-bit size per dimension) followed by the elements. Two kinds matter here: rank-3 `u8`
//! images (magic `0x00000803`) and rank-1 `u8` labels (magic `0x00000801`). Either may be
//! gzip-compressed, which is recognised by its first two bytes, never by the file name.
//!
//! Format: <https://yann.lecun.com/exdb/mnist/>, section "File formats".

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::dataset::{ImageDataset, Images};

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// No DEFLATE stream expands by more than this factor, so a header that promises more is lying
/// and must not decide how much memory is reserved.
/// Source: <https://www.zlib.net/zlib_tech.html>, "Maximum Compression Factor".
const MAX_DEFLATE_RATIO: usize = 1032;

/// Why bytes are not the IDX file they should be.
#[derive(Debug, thiserror::Error)]
pub enum IdxError {
    /// Not even a header.
    #[error("found {found} bytes, expected an IDX header of {expected}")]
    NoHeader {
        /// Bytes of the header.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The other kind of IDX file.
    #[error("found {found}, expected {expected}: are two files swapped?")]
    Swapped {
        /// What was asked for.
        expected: &'static str,
        /// What the magic number says.
        found: &'static str,
    },
    /// Neither kind of IDX file.
    #[error("found magic number {found:#010x}, expected {expected:#010x}: not an IDX file of u8")]
    Magic {
        /// The magic number asked for.
        expected: u32,
        /// The magic number found.
        found: u32,
    },
    /// Some dimension is zero.
    #[error("the header announces {sizes:?}: nothing to read")]
    Empty {
        /// Sizes of the dimensions.
        sizes: Vec<usize>,
    },
    /// More elements than memory has addresses.
    #[error("the header announces {sizes:?}: more than this machine can address")]
    Overflow {
        /// Sizes of the dimensions.
        sizes: Vec<usize>,
    },
    /// Fewer bytes than the header announces.
    #[error("truncated: the header announces {expected} bytes, found {found}")]
    Truncated {
        /// Bytes announced.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// More bytes than the header announces.
    #[error("the header announces {expected} bytes, but the file goes on after them")]
    Trailing {
        /// Bytes announced.
        expected: usize,
    },
    /// A damaged or cut compressed file.
    #[error("damaged or truncated gzip data")]
    Gzip(#[source] std::io::Error),
}

/// Reads rank-3 `u8` images, gzipped or not.
///
/// # Errors
/// When `bytes` are not exactly one such file: see [`IdxError`].
pub fn parse_images(bytes: &[u8]) -> Result<Images, IdxError> {
    let ([_, height, width], pixels) = parse(bytes, IMAGES_MAGIC)?;
    Ok(Images {
        channels: 1,
        height,
        width,
        pixels,
    })
}

/// Reads rank-1 `u8` labels, gzipped or not.
///
/// # Errors
/// When `bytes` are not exactly one such file: see [`IdxError`].
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    let ([_], labels) = parse(bytes, LABELS_MAGIC)?;
    Ok(labels)
}

/// A dataset as two IDX files, images and labels. The channels of an image lie below each other, as
/// one image of as many times its height.
pub fn write(dataset: &ImageDataset) -> (Vec<u8>, Vec<u8>) {
    let header = |magic: u32, sizes: &[usize]| -> Vec<u8> {
        let sizes = sizes.iter().map(|&size| size as u32);
        [magic]
            .into_iter()
            .chain(sizes)
            .flat_map(u32::to_be_bytes)
            .collect()
    };
    let rows = dataset.channels() * dataset.height();
    let mut images = header(IMAGES_MAGIC, &[dataset.len(), rows, dataset.width()]);
    let mut labels = header(LABELS_MAGIC, &[dataset.len()]);
    for index in 0..dataset.len() {
        images.extend_from_slice(dataset.pixels(index));
        labels.push(dataset.label(index));
    }
    (images, labels)
}

/// The sizes and the elements of an IDX file of the given magic number.
fn parse<const RANK: usize>(
    bytes: &[u8],
    magic: u32,
) -> Result<([usize; RANK], Vec<u8>), IdxError> {
    if bytes.starts_with(&GZIP_MAGIC) {
        let most = bytes.len().saturating_mul(MAX_DEFLATE_RATIO);
        parse_stream(MultiGzDecoder::new(bytes), most, magic)
    } else {
        parse_stream(bytes, bytes.len(), magic)
    }
}

/// `most` bounds what the stream can hold, whatever its header says.
fn parse_stream<const RANK: usize>(
    mut stream: impl Read,
    most: usize,
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
    let expected = sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .filter(|&expected| isize::try_from(expected).is_ok())
        .ok_or_else(|| IdxError::Overflow {
            sizes: sizes.to_vec(),
        })?;
    if expected == 0 {
        return Err(IdxError::Empty {
            sizes: sizes.to_vec(),
        });
    }

    let mut elements = read_up_to(&mut stream, expected, expected.min(most))?;
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
        LABELS_MAGIC => Some("labels"),
        _ => None,
    };
    match (kind(expected), kind(found)) {
        _ if expected == found => Ok(()),
        (Some(expected), Some(found)) => Err(IdxError::Swapped { expected, found }),
        _ => Err(IdxError::Magic { expected, found }),
    }
}

/// At most `limit` bytes of the stream, with memory for `capacity` of them reserved at once.
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
    fn what_fuzzing_found_ends_in_a_value_or_an_error() {
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
        fn images_survive_the_round_trip(
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
        fn no_bytes_make_the_parser_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            prefix in prop_oneof![
                Just(vec![]),
                Just(GZIP_MAGIC.to_vec()),
                Just(IMAGES_MAGIC.to_be_bytes().to_vec()),
                Just(LABELS_MAGIC.to_be_bytes().to_vec()),
            ],
        ) {
            let bytes = [prefix, bytes].concat();
            let _ = parse_images(&bytes);
            let _ = parse_labels(&bytes);
        }

        #[test]
        fn every_cut_is_an_error(cut in 0usize..24, compressed: bool) {
            let plain = idx(IMAGES_MAGIC, &[2, 2, 2], &[7; 8]);
            let bytes = if compressed { gzip(&plain) } else { plain };
            prop_assert!(parse_images(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        }
    }

    #[test]
    fn labels_are_their_bytes() {
        let bytes = idx(LABELS_MAGIC, &[3], &[5, 0, 4]);
        assert_eq!(parse_labels(&bytes).unwrap(), [5, 0, 4]);
    }

    #[test]
    fn header_larger_than_the_file() {
        let bytes = idx(IMAGES_MAGIC, &[60_000, 28, 28], &[0; 100]);
        assert_eq!(
            message(parse_images(&bytes)),
            "truncated: the header announces 47040000 bytes, found 100"
        );
    }

    #[test]
    fn header_that_promises_gigabytes_reserves_little() {
        // 2^62 bytes fit an address, but no memory: the parser must see the lie before it asks.
        let bytes = idx(IMAGES_MAGIC, &[1 << 30, 1 << 16, 1 << 16], &[0; 4]);
        assert!(matches!(
            parse_images(&gzip(&bytes)),
            Err(IdxError::Truncated { .. })
        ));
    }

    #[test]
    fn header_that_overflows() {
        let bytes = idx(IMAGES_MAGIC, &[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert_eq!(
            message(parse_images(&bytes)),
            "the header announces [4294967295, 4294967295, 4294967295]: more than this machine can address"
        );
    }

    #[test]
    fn no_images() {
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
    fn swapped_files() {
        let labels = idx(LABELS_MAGIC, &[12], &[0; 12]);
        assert_eq!(
            message(parse_images(&labels)),
            "found labels, expected images: are two files swapped?"
        );
    }

    #[test]
    fn other_magic_number() {
        // Rank-3 of i32: the element type is the third byte.
        let bytes = idx(0x0000_0C03, &[1, 1, 1], &[0; 4]);
        assert_eq!(
            message(parse_images(&bytes)),
            "found magic number 0x00000c03, expected 0x00000803: not an IDX file of u8"
        );
    }

    #[test]
    fn bytes_after_the_end() {
        let bytes = idx(LABELS_MAGIC, &[2], &[1, 2, 3]);
        assert_eq!(
            message(parse_labels(&bytes)),
            "the header announces 2 bytes, but the file goes on after them"
        );
    }

    #[test]
    fn damaged_gzip() {
        let mut bytes = gzip(&idx(LABELS_MAGIC, &[4], &[1, 2, 3, 4]));
        let crc = bytes.len() - 8;
        bytes[crc] ^= 0xff;
        assert!(message(parse_labels(&bytes)).starts_with("damaged or truncated gzip data"));
    }
}
