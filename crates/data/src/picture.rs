//! Pictures: PNG, JPEG, BMP, GIF, WebP, TIFF, PNM, QOI, TGA and ICO files of any size.

use std::io::{self, Cursor, Read};
use std::panic;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::error::{DecodingError, ImageFormatHint};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImageView, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits, Luma, Pixel, Rgb, RgbImage, Rgba,
};

use crate::area_average::area_average;
use crate::regular_file;

/// File extensions of pictures in a folder. The format is detected from the content of a file, not
/// from its extension.
pub const EXTENSIONS: [&str; 21] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jif", "jfif", "bmp", "dib", "gif", "webp", "tif", "tiff",
    "pnm", "pbm", "pgm", "ppm", "qoi", "tga", "ico", "cur",
];

/// The formats, as part of messages.
const FORMATS: &str = "PNG, JPEG, BMP, GIF, WebP, TIFF, PNM, QOI, TGA or ICO";

/// Maximum size of a file, checked before it is read.
const MAX_BYTES: u64 = 128 << 20;
/// Maximum number of pixels, checked before decoding: a small file can announce a huge picture.
const MAX_PIXELS: u64 = 64 << 20;
/// Maximum size of a decoded picture in bytes: [`MAX_PIXELS`] in RGB with 16 bits per channel.
const MAX_MEMORY: u64 = 6 * MAX_PIXELS;
/// Pictures with more pixels are decoded one at a time, which limits memory on many cores.
const LARGE_PIXELS: u64 = 8 << 20;
/// Such pictures are reduced to this maximum width and height, which is much more than an image has.
const MAX_LARGE_SIDE: u32 = 2048;

/// Maximum width and height of a [`thumbnail`]. A digit that fills a tenth of the picture still has
/// more pixels than one of MNIST.
const MAX_THUMBNAIL_SIDE: u32 = 256;

/// A decoded picture in 8-bit RGB, without transparency and with the orientation of its metadata
/// applied.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The pixels; of a large picture, the means of areas.
    pixels: RgbImage,
    /// Width and height. The reduction of a large picture does not preserve their ratio.
    size: (u32, u32),
    /// A gray [`thumbnail`] of all pixels of a large picture.
    gray: Option<GrayImage>,
}

/// The properties of a picture in the header of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PictureHeader {
    /// Width and height in pixels, before an orientation is applied.
    size: (u32, u32),
    /// Whether the file stores colors, which may all be gray.
    pub(crate) stores_color: bool,
}

/// An error of reading a picture or of converting it into an image.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] io::Error),
    /// The file is empty.
    #[error("empty file")]
    Empty,
    /// The file is too large.
    #[error("larger than {} MB", MAX_BYTES >> 20)]
    TooManyBytes,
    /// The format is not supported.
    #[error("not a picture: expected {}", FORMATS)]
    NotAPicture,
    /// The format is known, but cannot be decoded.
    #[error("{0} cannot be decoded: convert the picture to PNG or JPEG")]
    UnsupportedFormat(&'static str),
    /// The picture has no pixels, or too many.
    #[error("{width}x{height} pixels: expected 1 to {} million", MAX_PIXELS >> 20)]
    Size {
        /// Width in pixels, according to the header.
        width: u32,
        /// Height in pixels, according to the header.
        height: u32,
    },
    /// The decoded picture needs too much memory.
    #[error("needs {megabytes} MB of memory, expected at most {}", MAX_MEMORY >> 20)]
    TooMuchMemory {
        /// Size of the decoded picture in MB.
        megabytes: u64,
    },
    /// The format has variants that cannot be decoded, and this is one.
    #[error("cannot be decoded: {0}: convert the picture to PNG")]
    UnsupportedVariant(ImageError),
    /// The file is truncated or invalid.
    #[error("damaged: {0}")]
    Damaged(ImageError),
    /// Nothing stands out from the background.
    #[error("blank: found nothing drawn on it")]
    Blank,
    /// The picture has more separate marks than a page of writing.
    #[error("{found} separate marks, expected at most {max}: not a picture of writing")]
    TooManyMarks {
        /// Number of connected components.
        found: usize,
        /// Largest number that is read.
        max: usize,
    },
}

impl PictureError {
    fn of_decoder(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(_) => Self::UnsupportedVariant(error),
            _ => Self::Damaged(error),
        }
    }

    /// Returns the message, followed by that of the source error.
    pub(crate) fn with_source(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

impl Picture {
    /// Reads and decodes a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a picture, or exceeds the size limits.
    pub fn open(path: &Path) -> Result<Self, PictureError> {
        Self::decode(&read_file(path)?)
    }

    /// Reads a stream to its end and decodes it.
    ///
    /// # Errors
    /// Returns the same errors as [`open`](Self::open).
    pub fn read(stream: impl Read) -> Result<Self, PictureError> {
        Self::decode(&read_stream(stream)?)
    }

    /// Decodes the bytes of a file. Of an animation, it returns the first frame.
    ///
    /// # Errors
    /// Returns an error if `bytes` are not a picture, or exceed the size limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        guarded(bytes, Self::decode_with_limits)
    }

    fn decode_with_limits(bytes: &[u8]) -> Result<Self, PictureError> {
        let mut decoder = limited_decoder(bytes)?;
        let (width, height) = decoder.dimensions();
        let is_large = u64::from(width) * u64::from(height) > LARGE_PIXELS;
        static LARGE_DECODING: Mutex<()> = Mutex::new(());
        let _guard = is_large.then(|| {
            LARGE_DECODING
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        });
        // Cameras store the orientation in the EXIF metadata.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let picture = DynamicImage::from_decoder(decoder).map_err(PictureError::of_decoder)?;
        let max_side = if is_large { MAX_LARGE_SIDE } else { u32::MAX };
        Ok(Self::new(&picture, orientation, max_side))
    }

    /// Removes transparency, applies an orientation, and reduces width and height to `max_side` pixels.
    ///
    /// Transparent pixels have colors that are not visible, so pixels are blended with the background
    /// before they are averaged.
    fn new(picture: &DynamicImage, orientation: Orientation, max_side: u32) -> Self {
        let background = background(picture);
        let (width, height) = picture.dimensions();
        let reduced = (width.min(max_side), height.min(max_side));
        let is_reduced = reduced != (width, height);
        let gray_pixels = if is_reduced {
            width as usize * height as usize
        } else {
            0
        };
        let mut gray = Vec::with_capacity(gray_pixels);
        let opaque = picture.pixels().map(|(_, _, pixel)| {
            let pixel = blend(pixel, background);
            if is_reduced {
                gray.push(pixel.to_luma().0[0]);
            }
            pixel.0
        });
        let pixels = area_average(opaque, (width, height), reduced);
        let pixels = oriented(pixels.into(), orientation).into_rgb8();
        if !is_reduced {
            return Self {
                size: pixels.dimensions(),
                pixels,
                gray: None,
            };
        }
        let gray = GrayImage::from_raw(width, height, gray).expect("a value for each pixel");
        let gray = oriented(gray.into(), orientation).into_luma8();
        Self {
            pixels,
            size: gray.dimensions(),
            gray: Some(thumbnail(&gray)),
        }
    }

    /// Makes a picture of the pixels of an image, `[channels, height, width]`.
    pub(crate) fn of_pixels(pixels: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        let plane = height * width;
        let pixels = RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * width + x as usize;
            Rgb([0, 1, 2].map(|channel| pixels[channel.min(channels - 1) * plane + at]))
        });
        Self {
            size: pixels.dimensions(),
            pixels,
            gray: None,
        }
    }

    /// Converts the picture to grayscale; a large one is also scaled down, to a [`thumbnail`].
    pub(crate) fn to_gray(&self) -> GrayImage {
        match &self.gray {
            Some(gray) => gray.clone(),
            None => imageops::grayscale(&self.pixels),
        }
    }

    /// Returns width and height.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Converts the picture to grayscale, and scales it down to at most `side` in width and height.
    pub(crate) fn to_gray_within(&self, side: u32) -> GrayImage {
        let (width, height) = self.size;
        let longer = width.max(height);
        let gray = imageops::grayscale(&self.pixels);
        if longer <= side {
            return gray;
        }
        let scaled = |size: u32| (u64::from(size) * u64::from(side)).div_ceil(u64::from(longer));
        imageops::thumbnail(&gray, scaled(width) as u32, scaled(height) as u32)
    }

    /// Returns whether a pixel is not gray.
    pub(crate) fn has_color(&self) -> bool {
        self.pixels.pixels().any(|pixel| {
            let [red, green, blue] = pixel.0;
            red != green || green != blue
        })
    }

    /// Scales the picture to fit `height` x `width`, with its aspect ratio preserved, and centers
    /// it on the mean color of its edge.
    pub(crate) fn fit(&self, height: usize, width: usize) -> Fitted {
        let (rows, columns) = (height as u32, width as u32);
        if self.size == (columns, rows) {
            return Fitted(self.pixels.clone());
        }
        let scale = f64::min(
            f64::from(columns) / f64::from(self.size.0),
            f64::from(rows) / f64::from(self.size.1),
        );
        let scaled = |size: u32| ((f64::from(size) * scale).round() as u32).max(1);
        let size = (scaled(self.size.0), scaled(self.size.1));
        let small = imageops::resize(&self.pixels, size.0, size.1, FilterType::Triangle);
        let mut fitted = RgbImage::from_pixel(columns, rows, edge_color(&small));
        let margin = |outer: u32, inner: u32| i64::from((outer - inner) / 2);
        let (x, y) = (margin(columns, size.0), margin(rows, size.1));
        imageops::replace(&mut fitted, &small, x, y);
        Fitted(fitted)
    }
}

/// Returns the width and height of a picture file in pixels, before an orientation is applied; `None` if it cannot be read.
pub fn picture_size(path: &Path) -> Option<[u32; 2]> {
    let (width, height) = PictureHeader::open(path).ok()?.size;
    Some([width, height])
}

impl PictureHeader {
    /// Reads a file, and decodes its header.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a picture, or exceeds the size limits.
    pub(crate) fn open(path: &Path) -> Result<Self, PictureError> {
        guarded(&read_file(path)?, |bytes| {
            let decoder = limited_decoder(bytes)?;
            Ok(Self {
                size: decoder.dimensions(),
                stores_color: decoder.color_type().has_color(),
            })
        })
    }

    /// Returns the smaller one of width and height, in pixels.
    pub(crate) fn shorter_side(self) -> u32 {
        self.size.0.min(self.size.1)
    }
}

/// Calls `decode` with the bytes of a file, unless a decoder would fail on them.
///
/// # Errors
/// Returns an error if the file is empty, too large or damaged, or if `decode` does.
fn guarded<T>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, PictureError>,
) -> Result<T, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(PictureError::TooManyBytes);
    }
    if !has_whole_colors(bytes) {
        let reason = "a palette whose length is not a multiple of 3";
        return Err(damaged(ImageFormat::Png.into(), reason));
    }
    // One damaged picture must not end a process that reads many.
    panic::catch_unwind(|| decode(bytes))
        .unwrap_or_else(|_| Err(damaged(ImageFormatHint::Unknown, "its decoder failed")))
}

/// Returns a decoder that has read the header of a picture.
///
/// # Errors
/// Returns an error if `bytes` are not a picture, or exceed the size limits.
fn limited_decoder(bytes: &[u8]) -> Result<impl ImageDecoder, PictureError> {
    let format = format(bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(PictureError::of_decoder)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if !(1..=MAX_PIXELS).contains(&pixels) {
        return Err(PictureError::Size { width, height });
    }
    let memory = decoder.total_bytes();
    if memory > MAX_MEMORY {
        return Err(PictureError::TooMuchMemory {
            megabytes: memory >> 20,
        });
    }
    Ok(decoder)
}

/// Returns the format of a picture by its content.
///
/// # Errors
/// Returns an error if the format is unknown or cannot be decoded.
fn format(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    match image::guess_format(bytes) {
        Ok(format) if format.reading_enabled() => Ok(format),
        _ if is_tga(bytes) => Ok(ImageFormat::Tga),
        _ => Err(match unsupported_format(bytes) {
            Some(name) => PictureError::UnsupportedFormat(name),
            None => PictureError::NotAPicture,
        }),
    }
}

/// Whether a file begins as a picture, whatever its name is. Formats whose first bytes may also be those of a text do
/// not count.
pub(crate) fn begins_as_picture(start: &[u8]) -> bool {
    let is_ambiguous = |format| {
        matches!(
            format,
            ImageFormat::Pnm | ImageFormat::Ico | ImageFormat::Bmp
        )
    };
    image::guess_format(start).is_ok_and(|format| format.reading_enabled() && !is_ambiguous(format))
}

/// Whether the bytes are a Truevision TGA file. The format has no signature at its start, and its footer is optional,
/// so the fields of the header are checked. Source: Truevision TGA file format specification, version 2.0.
fn is_tga(bytes: &[u8]) -> bool {
    let Some(
        &[
            _,
            palettes,
            kind,
            _,
            _,
            _,
            _,
            palette_bits,
            _,
            _,
            _,
            _,
            w0,
            w1,
            h0,
            h1,
            bits,
            _,
        ],
    ) = bytes.first_chunk()
    else {
        return false;
    };
    let has_palette = matches!(kind, 1 | 9);
    let bits_fit = match kind {
        1 | 9 => bits == 8 && matches!(palette_bits, 15 | 16 | 24 | 32),
        2 | 10 => matches!(bits, 15 | 16 | 24 | 32),
        3 | 11 => matches!(bits, 8 | 16),
        _ => false,
    };
    let has_pixels = [w0, w1] != [0, 0] && [h0, h1] != [0, 0];
    bits_fit && has_pixels && palettes == u8::from(has_palette)
}

/// Returns the name of a format that people have, but that cannot be decoded.
fn unsupported_format(bytes: &[u8]) -> Option<&'static str> {
    // A container of the ISO base media file format begins with the length of a box, its type and a brand.
    let brand = bytes
        .get(4..12)
        .and_then(|header| header.strip_prefix(b"ftyp"));
    match brand {
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
            return Some("HEIC");
        }
        Some(b"avif" | b"avis") => return Some("AVIF"),
        _ => {}
    }
    let signatures: [(&[u8], &str); 6] = [
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"%PDF", "PDF"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
    ];
    signatures
        .iter()
        .find_map(|(start, name)| bytes.starts_with(start).then_some(*name))
}

/// Reads the file of a picture.
///
/// # Errors
/// Returns an error if the file cannot be read or is too large.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, PictureError> {
    let file = regular_file::open(path)?;
    if file.metadata()?.len() > MAX_BYTES {
        return Err(PictureError::TooManyBytes);
    }
    read_stream(file)
}

/// Reads a stream up to the first byte that is too many.
fn read_stream(stream: impl Read) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::new();
    stream.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn damaged(format: ImageFormatHint, reason: &str) -> PictureError {
    PictureError::Damaged(ImageError::Decoding(DecodingError::new(format, reason)))
}

/// Whether the palettes of a PNG file have three bytes per color. The decoder, png 0.18.1, panics on others.
fn has_whole_colors(bytes: &[u8]) -> bool {
    let Some(mut chunks) = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n") else {
        return true;
    };
    // A chunk consists of its length, its type, its data, and a checksum of four bytes.
    while let Some(([a, b, c, d, kind @ ..], rest)) = chunks.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        match kind {
            b"PLTE" if !length.is_multiple_of(3) => return false,
            b"IDAT" => break,
            _ => {}
        }
        chunks = length
            .checked_add(4)
            .and_then(|end| rest.get(end..))
            .unwrap_or_default();
    }
    true
}

/// Returns the brightness to blend transparent pixels with: black if the visible content is light, else
/// white.
fn background(picture: &DynamicImage) -> u8 {
    if !picture.color().has_alpha() {
        return u8::MAX;
    }
    let (mut luma, mut opacity) = (0, 0);
    for (_, _, pixel) in picture.pixels() {
        let [r, g, b, a] = pixel.0.map(u64::from);
        luma += a * (299 * r + 587 * g + 114 * b);
        opacity += a;
    }
    if 2 * luma > 255 * 1000 * opacity {
        0
    } else {
        u8::MAX
    }
}

/// Blends a pixel with the background.
fn blend(Rgba([r, g, b, a]): Rgba<u8>, background: u8) -> Rgb<u8> {
    let [opacity, background] = [a, background].map(u16::from);
    Rgb([r, g, b].map(|value| {
        let sum = u16::from(value) * opacity + background * (255 - opacity);
        ((sum + 127) / 255) as u8
    }))
}

fn oriented(mut picture: DynamicImage, orientation: Orientation) -> DynamicImage {
    picture.apply_orientation(orientation);
    picture
}

/// Scales a picture down to at most [`MAX_THUMBNAIL_SIDE`] in width and height.
pub(crate) fn thumbnail(picture: &GrayImage) -> GrayImage {
    let (width, height) = picture.dimensions();
    let side = width.max(height);
    if side <= MAX_THUMBNAIL_SIDE {
        return picture.clone();
    }
    let scaled = |size: u32| {
        let scaled = (u64::from(size) * u64::from(MAX_THUMBNAIL_SIDE)).div_ceil(u64::from(side));
        scaled as u32
    };
    imageops::thumbnail(picture, scaled(width), scaled(height))
}

/// A picture scaled to the image size of a dataset.
pub(crate) struct Fitted(RgbImage);

impl Fitted {
    /// Inverts the picture if its edge is light.
    pub(crate) fn with_dark_background(mut self) -> Self {
        let Rgb(edge) = edge_color(&self.0);
        if edge.map(u32::from).iter().sum::<u32>() > 3 * 128 {
            imageops::invert(&mut self.0);
        }
        self
    }

    /// Returns the pixels, `[channels, height, width]`: gray for one channel, else RGB.
    pub(crate) fn pixels(&self, channels: usize) -> Vec<u8> {
        match channels {
            1 => imageops::grayscale(&self.0).into_raw(),
            _ => (0..3)
                .flat_map(|channel| self.0.pixels().map(move |pixel| pixel.0[channel]))
                .collect(),
        }
    }
}

/// Returns the mean color of the outermost pixels.
fn edge_color(picture: &RgbImage) -> Rgb<u8> {
    let mut sums = [0u64; 3];
    let mut count = 0;
    for (x, y, pixel) in picture.enumerate_pixels() {
        if is_edge(x, y, picture.dimensions(), 1) {
            for (sum, value) in sums.iter_mut().zip(pixel.0) {
                *sum += u64::from(value);
            }
            count += 1;
        }
    }
    Rgb(sums.map(|sum| (sum / u64::max(count, 1)) as u8))
}

/// Returns whether a pixel is within `depth` pixels of the edge.
pub(crate) fn is_edge(x: u32, y: u32, (width, height): (u32, u32), depth: u32) -> bool {
    x.min(y) < depth || (width - 1 - x).min(height - 1 - y) < depth
}

/// Encodes the pixels of an image, `[channels, height, width]`, as PNG.
///
/// # Panics
/// Panics if the number of `pixels` differs from that shape.
pub fn to_png(pixels: &[u8], channels: usize, height: usize, width: usize) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    to_dynamic(pixels, channels, height, width)
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("writing to memory does not fail");
    png.into_inner()
}

/// Converts the pixels of an image, `[channels, height, width]`, into a gray or an RGB picture.
///
/// # Panics
/// Panics if the number of `pixels` differs from that shape.
pub(crate) fn to_dynamic(
    pixels: &[u8],
    channels: usize,
    height: usize,
    width: usize,
) -> DynamicImage {
    let plane = height * width;
    assert_eq!(pixels.len(), channels * plane);
    let (columns, rows) = (width as u32, height as u32);
    let at = |x: u32, y: u32| (y * columns + x) as usize;
    match channels {
        1 => GrayImage::from_fn(columns, rows, |x, y| Luma([pixels[at(x, y)]])).into(),
        _ => RgbImage::from_fn(columns, rows, |x, y| {
            Rgb([0, 1, 2].map(|channel| pixels[channel * plane + at(x, y)]))
        })
        .into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageBuffer, ImageEncoder, ImageFormat, RgbaImage};
    use proptest::prelude::*;

    use super::*;
    use crate::preparation::Preparation;

    /// Encodes a picture as a file of `format`.
    pub(crate) fn file(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// Left half dark red, right half light blue.
    fn two_colors(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| match x < width / 2 {
            true => Rgb([100, 0, 0]),
            false => Rgb([200, 220, 255]),
        })
    }

    /// Returns a picture that is not reduced.
    fn whole(picture: impl Into<DynamicImage>) -> Picture {
        Picture::new(&picture.into(), Orientation::NoTransforms, u32::MAX)
    }

    #[track_caller]
    fn error(bytes: &[u8]) -> String {
        Picture::decode(bytes).unwrap_err().to_string()
    }

    #[test]
    fn decodes_all_formats() {
        let picture = two_colors(40, 40);
        let expected = whole(picture.clone());
        let expected = expected.fit(20, 20).pixels(3);
        for format in [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::Bmp,
            ImageFormat::Gif,
            ImageFormat::WebP,
            ImageFormat::Tiff,
            ImageFormat::Pnm,
            ImageFormat::Qoi,
            ImageFormat::Tga,
            ImageFormat::Ico,
        ] {
            let read = match format {
                // PNG files within it must have transparency.
                ImageFormat::Ico => file(DynamicImage::from(picture.clone()).to_rgba8(), format),
                _ => file(picture.clone(), format),
            };
            let read = Picture::decode(&read).unwrap();
            let pixels = read.fit(20, 20).pixels(3);
            let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) < 24;
            assert!(pixels.iter().zip(&expected).all(near), "{format:?}");
        }
    }

    #[test]
    fn jpeg_in_four_inks_has_the_colors_of_print() {
        // Of Adobe's programs: inverted CMYK, and YCCK.
        for name in ["cmyk.jpg", "ycck.jpg"] {
            let picture = Picture::decode(&corpus(name)).unwrap();
            for (x, expected) in [(8, [200, 60, 20]), (40, [30, 90, 220])] {
                let found = picture.pixels.get_pixel(x, 8).0;
                let difference = largest_difference(&found, &expected);
                assert!(difference <= 2, "{name}: {found:?}");
            }
        }
    }

    #[test]
    fn formats_that_cannot_be_decoded_are_named() {
        let convert = "cannot be decoded: convert the picture to PNG or JPEG";
        for (start, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0"[..], "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
            (b"\xff\x0a\0\0", "JPEG XL"),
            (b"%PDF-1.7", "PDF"),
        ] {
            assert_eq!(error(start), format!("{name} {convert}"));
        }
        let message = error(&corpus("palette.tif"));
        assert!(
            message.starts_with("cannot be decoded: ")
                && message.ends_with(": convert the picture to PNG"),
            "{message}"
        );
    }

    #[test]
    fn decodes_16_bit_gray() {
        let gray = GrayImage::from_fn(6, 4, |x, y| Luma([(40 * x + y) as u8]));
        let wide = ImageBuffer::from_fn(6, 4, |x, y| Luma([(40 * x + y) as u16 * 257]));
        let [a, b] = [
            file(gray.clone(), ImageFormat::Png),
            file(DynamicImage::ImageLuma16(wide), ImageFormat::Png),
        ]
        .map(|bytes| Picture::decode(&bytes).unwrap().fit(4, 6).pixels(1));
        assert_eq!(a, b);
        assert_eq!(a, gray.into_raw());
    }

    #[test]
    fn strokes_on_transparency_stay_visible() {
        for stroke in [0, 255] {
            let drawn = RgbaImage::from_fn(8, 8, |x, _| match x {
                3 => Rgba([stroke, stroke, stroke, 255]),
                _ => Rgba([stroke, stroke, stroke, 0]),
            });
            let picture = Picture::decode(&file(drawn, ImageFormat::Png)).unwrap();
            let gray = picture.to_gray();
            assert_eq!(gray.get_pixel(3, 3).0, [stroke]);
            assert_eq!(gray.get_pixel(0, 3).0, [255 - stroke]);
        }
    }

    /// A drawing of colored shapes with soft and hard edges at any size: color and opacity, 0 to 1, of a
    /// position, 0 to 1. Invisible pixels have another color.
    fn drawing(x: f64, y: f64) -> [f64; 4] {
        let is_drawn = (x - 0.4).hypot(y - 0.6) < 0.3 || y < 0.1 || (0.85..0.9).contains(&x);
        match is_drawn {
            true => [0.9, 0.8 * x, 0.9 * y, 1.0 - 0.5 * x],
            false => [0.1, 0.9, 0.1, 0.0],
        }
    }

    /// Returns the drawing in each pixel format.
    fn drawings(width: u32, height: u32) -> Vec<(&'static str, DynamicImage)> {
        let rgba16 = ImageBuffer::from_fn(width, height, |x, y| {
            let center = |at: u32, size: u32| (f64::from(at) + 0.5) / f64::from(size);
            let color = drawing(center(x, width), center(y, height));
            Rgba(color.map(|value| (65_535.0 * value).round() as u16))
        });
        let rgba16 = DynamicImage::ImageRgba16(rgba16);
        vec![
            ("L8", rgba16.to_luma8().into()),
            ("LA8", rgba16.to_luma_alpha8().into()),
            ("RGB8", rgba16.to_rgb8().into()),
            ("RGBA8", rgba16.to_rgba8().into()),
            ("L16", rgba16.to_luma16().into()),
            ("LA16", rgba16.to_luma_alpha16().into()),
            ("RGB16", rgba16.to_rgb16().into()),
            ("RGBA16", rgba16),
        ]
    }

    fn largest_difference(a: &[u8], b: &[u8]) -> u8 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn reduced_pictures_give_the_same_images() {
        for size in [(600, 500), (1000, 40), (50, 601), (400, 3)] {
            for (format, picture) in drawings(size.0, size.1) {
                for orientation in [Orientation::NoTransforms, Orientation::Rotate90] {
                    let [whole, reduced] = [u32::MAX, 199]
                        .map(|max_side| Picture::new(&picture, orientation, max_side));
                    let [width, height] = [reduced.pixels.width(), reduced.pixels.height()];
                    assert!(width <= 199 && height <= 199, "{width} {height}");
                    let [a, b] = [&whole, &reduced].map(|picture| picture.fit(28, 28).pixels(3));
                    let difference = largest_difference(&a, &b);
                    assert!(difference <= 4, "{size:?} {format}: {difference}");
                    assert_eq!(thumbnail(&whole.to_gray()), reduced.to_gray());
                    let [a, b] = [whole, reduced]
                        .map(|picture| Preparation::Handwriting.prepare(&picture, [1, 28, 28]));
                    assert_eq!(a.ok(), b.ok(), "{size:?} {format}");
                }
            }
        }
    }

    #[test]
    fn pixels_have_8_bits_as_after_a_conversion_of_the_picture() {
        let gray16 = ImageBuffer::from_fn(256, 256, |x, y| Luma([(256 * y + x) as u16]));
        let gray16 = DynamicImage::ImageLuma16(gray16);
        let pixels = gray16.pixels().map(|(_, _, pixel)| pixel);
        assert!(pixels.eq(gray16.to_rgba8().pixels().copied()));
    }

    #[test]
    fn stripes_on_transparency_have_the_same_mean_at_any_size() {
        // Pictures of 2912 and 3072 pixels per side are large.
        for (side, period) in [(700, 3), (2896, 2), (2912, 2), (3072, 3)] {
            let stripes = RgbaImage::from_fn(side, side, |x, _| {
                Rgba([255, 255, 255, if x % period == 0 { 255 } else { 0 }])
            });
            let picture = Picture::decode(&file(stripes, ImageFormat::Bmp)).unwrap();
            assert_eq!(picture.gray.is_some(), side > 2896);
            // The background is black, because the content is white.
            let expected = 255 / period as u8;
            for pixel in picture.fit(7, 7).pixels(1) {
                assert!(pixel.abs_diff(expected) <= 2, "{side} {period}: {pixel}");
            }
        }
    }

    #[test]
    fn the_widest_pictures_keep_their_aspect_ratio() {
        for size in [(9_000_000, 1), (100_000, 100), (3_000, 2_801)] {
            let gray = GrayImage::from_fn(size.0, size.1, |x, _| Luma([(x * 200 / size.0) as u8]));
            let large = Picture::decode(&file(gray.clone(), ImageFormat::Png)).unwrap();
            assert_eq!((large.size, large.pixels.width()), (size, MAX_LARGE_SIDE));
            let [a, b] = [whole(gray), large].map(|picture| picture.fit(28, 28).pixels(1));
            let difference = largest_difference(&a, &b);
            assert!(difference <= 1, "{size:?}: {difference}");
        }
    }

    #[test]
    fn fit_preserves_aspect_ratio_and_fills_with_edge_color() {
        // Aspect ratio 3:1, so 18x6 of 18x18 pixels.
        let wide = whole(two_colors(90, 30));
        let pixels = wide.fit(18, 18).pixels(3);
        assert_eq!(pixels.len(), 3 * 18 * 18);
        let at =
            |channel: usize, row: usize, column: usize| pixels[(channel * 18 + row) * 18 + column];
        assert_eq!([at(0, 9, 1), at(1, 9, 1), at(2, 9, 1)], [100, 0, 0]);
        assert_eq!([at(0, 9, 16), at(1, 9, 16), at(2, 9, 16)], [200, 220, 255]);
        assert_eq!([at(0, 1, 1), at(0, 16, 16)], [150, 150]);
        // A picture of the requested size is not changed.
        let same = whole(two_colors(18, 18));
        assert_eq!(same.fit(18, 18).pixels(3)[..4], [100; 4]);
    }

    #[test]
    fn to_png_is_lossless() {
        let pixels: Vec<u8> = (0..3 * 5 * 4).map(|at| at as u8 * 4).collect();
        let picture = Picture::decode(&to_png(&pixels, 3, 5, 4)).unwrap();
        assert_eq!(picture.fit(5, 4).pixels(3), pixels);
        let gray = Picture::decode(&to_png(&pixels[..20], 1, 5, 4)).unwrap();
        assert_eq!(gray.fit(5, 4).pixels(1), pixels[..20]);
    }

    #[test]
    fn rejects_invalid_files() {
        assert_eq!(error(b""), "empty file");
        let not = "not a picture: expected PNG, JPEG, BMP, GIF, WebP, TIFF, PNM, QOI, TGA or ICO";
        assert_eq!(error(b"digit: 7"), not);
        assert_eq!(error(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), not);
        let png = file(two_colors(40, 40), ImageFormat::Png);
        let message = error(&png[..png.len() / 2]);
        assert!(message.starts_with("damaged: "), "{message}");
    }

    /// Reads a file of the fuzz corpus.
    fn corpus(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/picture");
        std::fs::read(Path::new(folder).join(name)).unwrap()
    }

    #[test]
    fn decodes_or_rejects_the_fuzz_corpus() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/picture");
        let mut pictures = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            if let Ok(picture) = Picture::decode(&bytes) {
                assert_eq!(picture.fit(28, 28).pixels(3).len(), 3 * 28 * 28);
                pictures += 1;
            }
        }
        assert!(pictures >= 29, "{pictures}");
    }

    #[test]
    fn rejects_a_palette_with_an_incomplete_color() {
        let message = error(&corpus("found-palette-length.png"));
        assert!(
            message.ends_with("a palette whose length is not a multiple of 3"),
            "{message}"
        );
    }

    #[test]
    fn applies_exif_orientation() {
        let [plain, rotated] = ["colour.jpg", "turned.jpg"]
            .map(|name| Picture::decode(&corpus(name)).unwrap().pixels.dimensions());
        assert_eq!((plain, rotated), ((12, 9), (9, 12)));
    }

    /// Returns a PNG with the data of one pixel, whose header announces `width` x `height`.
    fn png_announcing(width: u32, height: u32) -> Vec<u8> {
        let mut png = Vec::new();
        let encoder = PngEncoder::new(&mut png);
        encoder
            .write_image(&[0], 1, 1, ExtendedColorType::L8)
            .unwrap();
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&png[12..29]);
        png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        png
    }

    #[test]
    fn header_does_not_control_allocation() {
        assert_eq!(
            error(&png_announcing(60_000, 60_000)),
            "60000x60000 pixels: expected 1 to 64 million"
        );
        assert!(error(&png_announcing(0, 10)).starts_with("damaged: "));
        // Within the limits, but the pixels are missing.
        assert!(error(&png_announcing(8_000, 8_000)).starts_with("damaged: "));
    }

    proptest! {
        #[test]
        fn never_panics(
            format in prop_oneof![
                Just(ImageFormat::Png),
                Just(ImageFormat::Jpeg),
                Just(ImageFormat::Bmp),
                Just(ImageFormat::Gif),
                Just(ImageFormat::WebP),
                Just(ImageFormat::Tiff),
                Just(ImageFormat::Pnm),
                Just(ImageFormat::Qoi),
                Just(ImageFormat::Tga),
                Just(ImageFormat::Ico),
            ],
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut: prop::sample::Index,
            is_cut: bool,
        ) {
            let mut bytes = file(two_colors(12, 9), format);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(picture) = Picture::decode(&bytes) {
                prop_assert_eq!(picture.fit(28, 28).pixels(3).len(), 3 * 28 * 28);
            }
        }
    }
}
