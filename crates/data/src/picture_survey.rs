//! Typical size and color of the pictures of a folder, from a sample.

use std::path::PathBuf;

use rayon::prelude::*;

use crate::picture::{Picture, PictureHeader};
use crate::picture_files::PictureFiles;

/// Maximum number of pictures whose headers are read.
const SAMPLE: usize = 64;

/// Typical size and color of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSurvey {
    /// Median of the shorter sides, in pixels.
    pub side: u32,
    /// Whether a picture has color.
    pub has_color: bool,
}

impl PictureSurvey {
    /// Reads the headers of a sample, evenly spread over the list, and decodes its pictures until one has color.
    /// Returns `None` if no header of the sample can be read.
    pub fn of(pictures: &PictureFiles) -> Option<Self> {
        let count = pictures.files.len();
        let sample: Vec<usize> = (0..count.min(SAMPLE))
            .map(|index| index * count / count.min(SAMPLE))
            .collect();
        let headers = sample.into_par_iter().filter_map(|index| {
            let path = pictures.folder.join(&pictures.files[index].path);
            let header = PictureHeader::open(&path).ok()?;
            Some((path, header))
        });
        let headers: Vec<(PathBuf, PictureHeader)> = headers.collect();
        let sides = headers.iter().map(|(_, header)| header.shorter_side());
        let mut sides: Vec<u32> = sides.collect();
        sides.sort_unstable();
        let has_color = headers.par_iter().any(|(path, header)| {
            header.stores_color && Picture::open(path).is_ok_and(|picture| picture.has_color())
        });
        Some(Self {
            side: *sides.get(sides.len() / 2)?,
            has_color,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;
    use crate::picture::tests::file;
    use crate::picture_files::LabeledFile;

    fn survey(pictures: Vec<DynamicImage>) -> Option<PictureSurvey> {
        let folder = tempfile::tempdir().unwrap();
        let files = pictures.into_iter().enumerate().map(|(index, picture)| {
            let path = format!("{index}.png");
            fs::write(folder.path().join(&path), file(picture, ImageFormat::Png)).unwrap();
            LabeledFile { path, label: 0 }
        });
        PictureSurvey::of(&PictureFiles {
            folder: folder.path().into(),
            files: files.collect(),
        })
    }

    #[test]
    fn finds_the_median_side_and_color() {
        let gray =
            |width, height| DynamicImage::from(GrayImage::from_pixel(width, height, Luma([9])));
        let color = DynamicImage::from(RgbImage::from_pixel(30, 40, Rgb([200, 10, 10])));
        let sides = vec![gray(10, 20), gray(300, 100), gray(50, 40)];
        let expected = PictureSurvey {
            side: 40,
            has_color: false,
        };
        assert_eq!(survey(sides.clone()), Some(expected));
        // Gray pictures in RGB are gray.
        let rgb = sides.iter().map(|picture| picture.to_rgb8().into());
        assert_eq!(survey(rgb.collect()), Some(expected));
        let expected = PictureSurvey {
            side: 40,
            has_color: true,
        };
        assert_eq!(survey([sides, vec![color]].concat()), Some(expected));
        assert_eq!(survey(vec![]), None);
    }
}
