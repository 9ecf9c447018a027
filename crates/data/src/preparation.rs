//! How a picture is brought to what the images of a dataset look like.

use serde::{Deserialize, Serialize};

use crate::handwriting;
use crate::picture::{Picture, PictureError};

/// How a picture is brought to what the images of a dataset look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparation {
    /// As the images of MNIST were made: ink on paper becomes white on black, in a box of 20/28 of
    /// the size, its centre of mass in the middle.
    #[default]
    Handwriting,
    /// An object before a dark background, as in Fashion-MNIST: inverted if its edge is light.
    Object,
    /// Scaled to fit, and otherwise as it is.
    Picture,
}

impl Preparation {
    /// What it makes of a picture, in words.
    pub fn about(self) -> &'static str {
        match self {
            Self::Handwriting => {
                "white strokes on black, 20 pixels of 28 large, their centre of mass in the middle, \
                 as in MNIST"
            }
            Self::Object => "before a dark background, as in Fashion-MNIST",
            Self::Picture => "scaled to fit",
        }
    }

    /// The image that a network sees: `[channels, height, width]`.
    ///
    /// # Errors
    /// When nothing is written on what should be [`Handwriting`](Self::Handwriting).
    pub fn prepare(
        self,
        picture: &Picture,
        [channels, height, width]: [usize; 3],
    ) -> Result<Vec<u8>, PictureError> {
        match self {
            Self::Handwriting if channels == 1 => {
                handwriting::prepare(&picture.grey(), height, width).ok_or(PictureError::Blank)
            }
            Self::Object => Ok(picture.fit(height, width).on_dark().pixels(channels)),
            Self::Handwriting | Self::Picture => Ok(picture.fit(height, width).pixels(channels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma};

    use super::*;
    use crate::picture::tests::file;

    /// A grey square on a background.
    fn square(background: u8) -> Picture {
        let picture = GrayImage::from_fn(40, 40, |x, y| {
            let is_inside = (10..30).contains(&x) && (10..30).contains(&y);
            Luma([if is_inside { 128 } else { background }])
        });
        Picture::decode(&file(picture, ImageFormat::Png)).unwrap()
    }

    #[test]
    fn objects_are_put_before_a_dark_background() {
        for background in [0, 255] {
            let prepare = |preparation: Preparation| {
                let pixels = preparation.prepare(&square(background), [1, 20, 20]);
                pixels.unwrap()[0]
            };
            assert_eq!(prepare(Preparation::Object), 0);
            assert_eq!(prepare(Preparation::Picture), background);
        }
    }
}
