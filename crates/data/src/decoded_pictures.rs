//! The pictures of a folder, decoded into images of one shape.

use std::fs;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::digest::sha256_hex;
use crate::error::DataError;
use crate::image_dataset::{ImageDataset, Images};
use crate::info::DatasetInfo;
use crate::picture::{Picture, PictureError};
use crate::picture_folder::{LabeledFile, PictureFolder};
use crate::preparation::Preparation;

/// Version of decoding and preparation. Increase it when either produces different pixels.
const DECODER_VERSION: u32 = 2;
/// Maximum number of decoding errors listed in an error message.
const MAX_LISTED_ERRORS: usize = 5;

/// The conversion of pictures into images.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Preparation of the pictures.
    pub preparation: Preparation,
    /// Height of the images in pixels.
    pub height: usize,
    /// Width of the images in pixels.
    pub width: usize,
}

/// The pictures of a folder, decoded.
#[derive(Debug)]
pub struct DecodedPictures {
    /// Training images.
    pub train: ImageDataset,
    /// Test images.
    pub test: ImageDataset,
    /// One message for each picture that could not be read and was left out.
    pub unreadable: Vec<String>,
    /// Whether some pictures are missing because of an I/O error, which may be temporary.
    pub has_io_errors: bool,
}

/// The pixels, `[channels, height, width]`, and label of a decoded picture.
type LabeledPixels = (Vec<u8>, u8);

/// A picture that could not be decoded.
struct Failure {
    message: String,
    is_io_error: bool,
}

impl PictureFolder {
    /// Returns a checksum of the options and of the paths, labels, sizes and modification times of
    /// all pictures. It identifies the result of [`decode`](Self::decode).
    pub fn fingerprint(&self, options: DecodeOptions) -> String {
        let DecodeOptions {
            preparation,
            height,
            width,
        } = options;
        // The exact text, `Wanted` included, keeps earlier fingerprints valid.
        let mut lines = vec![format!(
            "{DECODER_VERSION} Wanted {{ preparation: {preparation:?}, height: {height}, \
             width: {width} }}\n"
        )];
        for (split, files) in [("train", &self.train), ("test", &self.test)] {
            for LabeledFile { path, label } in files {
                let metadata = fs::metadata(path).ok();
                let modified = metadata
                    .as_ref()
                    .and_then(|metadata| metadata.modified().ok());
                let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let bytes = metadata.map(|metadata| metadata.len());
                lines.push(format!("{split} {label} {path:?} {bytes:?} {modified:?}\n"));
            }
        }
        sha256_hex(lines)
    }

    /// Decodes all pictures in parallel, and calls `progress` after each. Unreadable pictures are
    /// left out.
    ///
    /// With [`Preparation::Picture`], the images are RGB, or gray if no training picture has color;
    /// otherwise they are gray.
    ///
    /// # Errors
    /// Returns an error if a class or the test split has no readable picture.
    pub fn decode(
        &self,
        options: DecodeOptions,
        progress: &(dyn Fn() + Sync),
    ) -> Result<DecodedPictures, DataError> {
        let channels = match options.preparation {
            Preparation::Picture => 3,
            Preparation::Handwriting | Preparation::Object => 1,
        };
        let shape = [channels, options.height, options.width];
        let decode = |file: &LabeledFile| {
            let decoded = decode_file(file, options.preparation, shape);
            progress();
            decoded
        };
        let mut unreadable = self.listing_errors.clone();
        let mut has_io_errors = !unreadable.is_empty();
        let mut decode_all = |files: &[LabeledFile]| {
            let decoded: Vec<_> = files.par_iter().map(decode).collect();
            let mut pictures = Vec::with_capacity(decoded.len());
            for picture in decoded {
                match picture {
                    Ok(picture) => pictures.push(picture),
                    Err(failure) => {
                        unreadable.push(failure.message);
                        has_io_errors |= failure.is_io_error;
                    }
                }
            }
            pictures
        };
        let (train, test) = (decode_all(&self.train), decode_all(&self.test));
        self.check_coverage(&train, &test, &unreadable)?;
        let (mut train, mut test) = (stack(train, shape), stack(test, shape));
        if channels == 3 && train.is_gray() {
            (train, test) = (train.with_channels(1), test.with_channels(1));
        }
        Ok(DecodedPictures {
            train,
            test,
            unreadable,
            has_io_errors,
        })
    }

    /// Returns an error if a class or the test split has no readable picture.
    fn check_coverage(
        &self,
        train: &[LabeledPixels],
        test: &[LabeledPixels],
        unreadable: &[String],
    ) -> Result<(), DataError> {
        let is_missing = |class: &usize| {
            let mut labels = train.iter().map(|(_, label)| usize::from(*label));
            !labels.any(|label| label == *class)
        };
        let part = match (0..self.classes.len()).find(is_missing) {
            Some(class) => format!("class {}", self.classes[class]),
            None if test.is_empty() => "the test split".into(),
            None => return Ok(()),
        };
        let listed = unreadable[..unreadable.len().min(MAX_LISTED_ERRORS)].join("; ");
        let more = match unreadable.len().saturating_sub(MAX_LISTED_ERRORS) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Err(DataError::Pictures {
            folder: self.path.clone(),
            message: format!("no readable picture of {part}: {listed}{more}"),
        })
    }

    /// Converts the folder and its decoded pictures into a dataset.
    pub fn into_dataset(self, preparation: Preparation, pictures: DecodedPictures) -> Dataset {
        let DecodedPictures {
            train,
            test,
            unreadable,
            ..
        } = pictures;
        let info = DatasetInfo::measured(&self.path, self.classes, preparation, &train);
        Dataset {
            info,
            train,
            test,
            unreadable,
        }
    }
}

fn decode_file(
    file: &LabeledFile,
    preparation: Preparation,
    shape: [usize; 3],
) -> Result<LabeledPixels, Failure> {
    let pixels = Picture::open(&file.path).and_then(|picture| preparation.prepare(&picture, shape));
    let failure = |error: PictureError| Failure {
        message: format!("{}: {}", file.path.display(), error.with_source()),
        is_io_error: matches!(error, PictureError::Read(_)),
    };
    Ok((pixels.map_err(failure)?, file.label))
}

/// Stacks decoded pictures of one shape.
fn stack(pictures: Vec<LabeledPixels>, [channels, height, width]: [usize; 3]) -> ImageDataset {
    let mut pixels = Vec::with_capacity(pictures.len() * channels * height * width);
    let mut labels = Vec::with_capacity(pictures.len());
    for (picture, label) in pictures {
        pixels.extend(picture);
        labels.push(label);
    }
    let images = Images {
        channels,
        height,
        width,
        pixels,
    };
    ImageDataset::new(images, labels).expect("a label for each picture")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;
    use crate::picture::tests::file;

    /// Creates a temporary folder with the given files.
    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn gray(value: u8) -> Vec<u8> {
        file(
            GrayImage::from_pixel(10, 12, Luma([value])),
            ImageFormat::Png,
        )
    }

    fn options(side: usize) -> DecodeOptions {
        DecodeOptions {
            preparation: Preparation::Picture,
            height: side,
            width: side,
        }
    }

    fn load(folder: &Path) -> Result<Dataset, DataError> {
        let folder = PictureFolder::list(folder)?;
        let pictures = folder.decode(options(8), &|| {})?;
        Ok(folder.into_dataset(Preparation::Picture, pictures))
    }

    #[track_caller]
    fn error(files: &[(&str, Vec<u8>)]) -> String {
        let folder = folder(files);
        let message = load(folder.path()).unwrap_err().to_string();
        let path = folder.path().display().to_string();
        message
            .strip_prefix(&format!("{path}: "))
            .unwrap_or(&message)
            .into()
    }

    #[test]
    fn a_fifth_of_each_class_becomes_the_test_split() {
        let names: Vec<String> = ["10", "9", "cat"]
            .iter()
            .flat_map(|class| (0..10).map(move |at| format!("{class}/sub{}/{at}.PNG", at % 2)))
            .collect();
        let files: Vec<(&str, Vec<u8>)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), gray(at as u8)))
            .chain([
                ("cat/notes.txt", vec![1]),
                ("cat/._0.png", vec![1]),
                (".git/config", vec![2]),
                ("__MACOSX/cat/0.png", vec![3]),
            ])
            .collect();
        let folder = folder(&files);
        assert!(PictureFolder::is_at(folder.path()));
        let dataset = load(folder.path()).unwrap();
        // Numbers in numeric order, then words.
        assert_eq!(dataset.info.classes, ["9", "10", "cat"]);
        assert_eq!(dataset.info.shape(), [1, 8, 8]);
        assert_eq!(dataset.info.preparation, Preparation::Picture);
        assert_eq!((dataset.train.len(), dataset.test.len()), (24, 6));
        let test_labels: Vec<u8> = dataset.test.labels().collect();
        assert_eq!(test_labels, [0, 0, 1, 1, 2, 2]);
        // The first training images cover all classes.
        let mut first: Vec<u8> = dataset.train.labels().take(8).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first, [0, 1, 2]);
        for split in [&dataset.train, &dataset.test] {
            for at in 0..split.len() {
                let expected = [1, 0, 2][usize::from(split.pixels(at)[0] / 10)];
                assert_eq!(split.label(at), expected);
            }
        }
        let again = load(folder.path()).unwrap();
        assert_eq!(again.test.pixels(3), dataset.test.pixels(3));
    }

    #[test]
    fn train_and_test_folders_become_the_splits() {
        let red = RgbImage::from_pixel(10, 10, Rgb([200, 0, 0]));
        let folder = folder(&[
            ("train/a/1.png", gray(1)),
            ("train/a/2.png", b"no picture".to_vec()),
            ("train/b/1.bmp", file(red, ImageFormat::Bmp)),
            ("test/b/1.png", gray(9)),
        ]);
        let dataset = load(folder.path()).unwrap();
        // One picture has color.
        assert_eq!(dataset.info.shape(), [3, 8, 8]);
        assert_eq!((dataset.train.len(), dataset.test.len()), (2, 1));
        assert_eq!(dataset.test.label(0), 1);
        assert_eq!(dataset.train.pixels(1)[63..66], [200, 0, 0]);
        assert_eq!(dataset.unreadable.len(), 1);
        assert!(
            dataset.unreadable[0]
                .ends_with("2.png: not a picture: expected PNG, JPEG, BMP, GIF or WebP")
        );
    }

    #[test]
    fn fingerprint_depends_on_files_and_options() {
        let files = [
            ("a/1.png", gray(1)),
            ("b/1.png", gray(2)),
            ("b/2.png", gray(2)),
        ];
        let folder = folder(&files);
        for number in 3..9 {
            fs::write(folder.path().join(format!("a/{number}.png")), gray(number)).unwrap();
        }
        let fingerprint = |side| {
            PictureFolder::list(folder.path())
                .unwrap()
                .fingerprint(options(side))
        };
        let first = fingerprint(8);
        assert_eq!(fingerprint(8), first);
        assert_ne!(fingerprint(9), first);
        fs::write(
            folder.path().join("a/1.png"),
            file(GrayImage::new(99, 1), ImageFormat::Bmp),
        )
        .unwrap();
        assert_ne!(fingerprint(8), first);
    }

    #[test]
    fn rejects_unusable_folders() {
        assert!(error(&[("1.png", gray(1))]).starts_with("found no sub-folders; expected"));
        assert!(error(&[("a/1.png", gray(1))]).starts_with("found a single class; expected"));
        let message = error(&[("a/1.png", gray(1)), ("b/1.txt", vec![])]);
        assert!(
            message.starts_with("found no picture in class folder b; expected"),
            "{message}"
        );
        for other in ["val", "Train", "validation"] {
            let name = format!("{other}/cat/1.png");
            let message = error(&[("train/cat/1.png", gray(1)), (&name, gray(1))]);
            assert!(
                message.contains(": expected either train and test"),
                "{message}"
            );
        }
        let message = error(&[("a\n/1.png", gray(1)), ("b/1.png", gray(1))]);
        assert_eq!(
            message,
            "sub-folder \"a\\n\": expected a name in Unicode without control characters"
        );
        assert!(
            error(&[("a/1.png", gray(1)), ("b/1.png", gray(1))])
                .starts_with("found no test pictures; expected 5 or more pictures of some class")
        );
        assert_eq!(
            error(&[
                ("train/a/1.png", gray(1)),
                ("train/b/1.png", gray(1)),
                ("test/c/1.png", gray(1)),
            ]),
            "test has class c, expected one of the classes of train: a, b"
        );
        let message = error(&[
            ("train/a/1.png", gray(1)),
            ("train/b/1.png", vec![]),
            ("test/a/1.png", gray(1)),
        ]);
        assert!(
            message.starts_with("no readable picture of class b: "),
            "{message}"
        );
        assert!(message.ends_with("1.png: empty file"), "{message}");
    }
}
