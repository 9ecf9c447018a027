//! Images as lists of pixels in JSON.

use std::fmt;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Images of one request.
const MAX_IMAGES: usize = 1000;

/// One image `[channels, height, width]` with pixels from 0 to 255, or several. It is read as it comes:
/// nothing takes more memory than its images do.
#[derive(Debug)]
pub(crate) enum Pixels {
    One(Vec<u8>),
    Batch(Vec<Vec<u8>>),
}

impl Pixels {
    /// Reads JSON for a network that sees images of this shape.
    ///
    /// # Errors
    /// When it is something else; the error says what and where.
    pub(crate) fn read(json: &[u8], shape: [usize; 3]) -> Result<Self, String> {
        let pixels = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let images = match &pixels {
            Self::One(image) => std::slice::from_ref(image),
            Self::Batch(images) => images,
        };
        let count: usize = shape.iter().product();
        match images.iter().map(Vec::len).find(|&found| found != count) {
            None => Ok(pixels),
            Some(found) => Err(format!(
                "{found} pixels, expected {count}, which is {shape:?}"
            )),
        }
    }

    /// The images, at least one.
    pub(crate) fn into_images(self) -> Vec<Vec<u8>> {
        match self {
            Self::One(image) => vec![image],
            Self::Batch(images) => images,
        }
    }
}

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outer;

        impl<'de> Visitor<'de> for Outer {
            type Value = Pixels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of whole numbers from 0 to 255, or a list of such lists")
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

        deserializer.deserialize_seq(Outer)
    }
}

/// The first element, which tells what the others are.
enum First {
    Pixel(u8),
    Image(Vec<u8>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Element;

        impl<'de> Visitor<'de> for Element {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 255, or a list of them")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<First, E> {
                let pixel = u8::try_from(value);
                let wrong = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
                pixel.map(First::Pixel).map_err(wrong)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First, A::Error> {
                let mut image = Vec::new();
                while let Some(pixel) = list.next_element()? {
                    image.push(pixel);
                }
                Ok(First::Image(image))
            }
        }

        deserializer.deserialize_any(Element)
    }
}
