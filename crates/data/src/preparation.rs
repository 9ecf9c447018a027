//! Conversion of a picture into an image of a dataset.

use serde::{Deserialize, Serialize};

use crate::handwriting;
use crate::picture::{Picture, PictureError};

/// A conversion of a picture into an image in the style of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparation {
    /// As in MNIST: the strokes become white on black, scaled into 20/28 of the image, with their
    /// center of mass in the middle.
    #[default]
    Handwriting,
    /// As in Fashion-MNIST: scaled to fit, and inverted if the edge is light.
    Object,
    /// Scaled to fit, otherwise unchanged.
    Picture,
}

impl Preparation {
    /// Returns a description of the resulting images.
    pub fn description(self) -> &'static str {
        match self {
            Self::Handwriting => {
                "white strokes on black, scaled into 20 of 28 pixels, with their center of mass in \
                 the middle, as in MNIST"
            }
            Self::Object => "scaled to fit, on a dark background, as in Fashion-MNIST",
            Self::Picture => "scaled to fit",
        }
    }

    /// Converts a picture into an image, `[channels, height, width]`.
    ///
    /// # Errors
    /// Returns [`PictureError::Blank`] if [`Handwriting`](Self::Handwriting) finds no strokes.
    pub fn prepare(
        self,
        picture: &Picture,
        [channels, height, width]: [usize; 3],
    ) -> Result<Vec<u8>, PictureError> {
        match self {
            Self::Handwriting => {
                let strokes = handwriting::prepare(&picture.to_gray(), height, width);
                Ok(strokes.ok_or(PictureError::Blank)?.repeat(channels))
            }
            Self::Object => Ok(picture
                .fit(height, width)
                .with_dark_background()
                .pixels(channels)),
            Self::Picture => Ok(picture.fit(height, width).pixels(channels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma};

    use super::*;
    use crate::picture::tests::file;

    /// Returns a picture of a gray square on a background.
    fn square(background: u8) -> Picture {
        let picture = GrayImage::from_fn(40, 40, |x, y| {
            let is_inside = (10..30).contains(&x) && (10..30).contains(&y);
            Luma([if is_inside { 128 } else { background }])
        });
        Picture::decode(&file(picture, ImageFormat::Png)).unwrap()
    }

    #[test]
    fn objects_get_a_dark_background() {
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
