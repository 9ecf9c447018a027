//! Images as lists of pixels, in JSON.

use std::fmt;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Maximum number of images in a request.
const MAX_IMAGES: usize = 1000;

/// One image `[channels, height, width]` with pixels from 0 to 255, or a list of images.
///
/// It is deserialized without an intermediate tree of JSON values, so that a request takes no more memory
/// than its images.
#[derive(Debug)]
pub(crate) enum Pixels {
    One(Vec<u8>),
    Batch(Vec<Vec<u8>>),
}

impl Pixels {
    /// Parses JSON as images of this shape.
    ///
    /// # Errors
    /// Returns an error with the position if the JSON is malformed, or an image has another size.
    pub(crate) fn read(json: &[u8], shape: [usize; 3]) -> Result<Self, String> {
        let pixels = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let images = match &pixels {
            Self::One(image) => std::slice::from_ref(image),
            Self::Batch(images) => images,
        };
        let count: usize = shape.iter().product();
        match images.iter().map(Vec::len).find(|&len| len != count) {
            None => Ok(pixels),
            Some(len) => {
                let [channels, height, width] = shape;
                Err(format!(
                    "{len} pixels, expected {count}: {channels} x {height} x {width}"
                ))
            }
        }
    }

    /// Returns the images, at least one.
    pub(crate) fn into_images(self) -> Vec<Vec<u8>> {
        match self {
            Self::One(image) => vec![image],
            Self::Batch(images) => images,
        }
    }
}

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PixelsVisitor;

        impl<'de> Visitor<'de> for PixelsVisitor {
            type Value = Pixels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of integers from 0 to 255, or a list of such lists")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pixels, A::Error> {
                match list.next_element()? {
                    None => Err(A::Error::custom("no pixels")),
                    Some(First::Pixel(first)) => {
                        let mut image = vec![first];
                        while let Some(pixel) = list.next_element()? {
                            image.push(pixel);
                        }
                        Ok(Pixels::One(image))
                    }
                    Some(First::Image(first)) => {
                        let mut images = vec![first];
                        while let Some(image) = list.next_element()? {
                            if images.len() == MAX_IMAGES {
                                let message = format!("more than {MAX_IMAGES} images");
                                return Err(A::Error::custom(message));
                            }
                            images.push(image);
                        }
                        Ok(Pixels::Batch(images))
                    }
                }
            }
        }

        deserializer.deserialize_seq(PixelsVisitor)
    }
}

/// The first element of the outer list. It determines the type of the others.
enum First {
    Pixel(u8),
    Image(Vec<u8>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstVisitor;

        impl<'de> Visitor<'de> for FirstVisitor {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 0 to 255, or a list of integers")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<First, E> {
                let pixel = u8::try_from(value);
                let error = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
                pixel.map(First::Pixel).map_err(error)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First, A::Error> {
                let mut image = Vec::new();
                while let Some(pixel) = list.next_element()? {
                    image.push(pixel);
                }
                Ok(First::Image(image))
            }
        }

        deserializer.deserialize_any(FirstVisitor)
    }
}
