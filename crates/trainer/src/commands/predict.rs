//! `trainer predict RUN PATH...`: the classes of pictures.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use clap::builder::RangedU64ValueParser;
use classifier::{MIN_PROBABILITY, Page, Reading};
use data::listing::{PictureListing, picture_files};
use data::picture::to_png;
use data::table_files::{is_table, read_images};
use data::{ImageDataset, Picture};
use rayon::prelude::*;

use crate::commands::flags::RunFlags;
use crate::inference::classifier::{Answer, Classifier, open_picture};
use crate::inference::prediction::{Prediction, Sink};
use crate::inference::reading::{PreparedPicture, Split};
use crate::process::logging::log_error;
use crate::process::printable::printable;
use crate::process::progress_bar::bar;
use crate::run::images;
use crate::run::run_dir::RunDir;

/// Number of pictures that are decoded on all cores and then classified in one batch.
const CHUNK: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    /// Pictures (PNG, JPEG, BMP, GIF, WebP, TIFF and others), folders of them, - for standard input, or a CSV table of pixels
    #[arg(value_name = "PATH", required_unless_present = "test_index")]
    paths: Vec<PathBuf>,
    /// Images of the test split, by their index from 0
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    test_index: Vec<usize>,
    /// Only scale pictures; do not crop, center or invert them
    #[arg(long)]
    raw: bool,
    /// Read several characters, such as the digits of a number: auto, if the ink clearly falls apart;
    /// always; or never [default: auto; --split alone: always]
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "auto",
        default_missing_value = "always",
        hide_default_value = true
    )]
    split: Split,
    /// Print each image as the network sees it, and save it to figures/seen of the run
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    show: bool,
    /// Number of classes to print, the most likely first
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    top: usize,
    /// Smallest calibrated probability of a sure prediction; others are unsure
    #[arg(long, value_name = "P", default_value_t = MIN_PROBABILITY, value_parser = parse_probability)]
    min_probability: f32,
    /// Print one JSON object per picture
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values; for a table of images, the columns ImageId and Label
    #[arg(long)]
    csv: bool,
}

/// Parses a probability.
fn parse_probability(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "expected a number".to_string())?;
    match (0.0..=1.0).contains(&number) {
        true => Ok(number),
        false => Err("expected a number from 0 to 1".into()),
    }
}

/// The origin of a picture.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    StandardInput,
    /// An index in the test split.
    Test(usize),
    /// An index in a table of images.
    Row(usize),
}

/// An input of the network.
struct Input {
    source: Source,
    /// `[channels, height, width]`.
    image: Vec<u8>,
    /// The picture, if it may be read as several characters.
    page: Option<Page>,
    /// Index of the class, if it is known.
    label: Option<usize>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (run, classifier) = args.run.open()?;
    let classifier = classifier.with_verdicts(&run);
    let test = match args.test_index.as_slice() {
        [] => None,
        indices => {
            let test = images::load_test(&run, &classifier.config)?;
            let count = test.len();
            if let Some(index) = indices.iter().find(|&&index| index >= count) {
                bail!("test image {index}: expected an index below {count}");
            }
            Some(test)
        }
    };
    let table = table(&args, &classifier)?;
    let (sources, mut errors) = match &table {
        Some(table) => ((0..table.len()).map(Source::Row).collect(), Vec::new()),
        None => sources(&args)?,
    };
    let total = sources.len() + errors.len();
    let predictor = Predictor {
        run: &run,
        classifier: &classifier,
        test,
        table,
        args: &args,
    };
    ensure!(
        args.split != Split::Always || classifier.reads_characters(),
        "--split: expected a network for handwriting whose classes are single characters"
    );
    predictor.predict(&sources, &mut errors)?;
    match errors.len() {
        0 => Ok(()),
        1 if total == 1 => Err(errors.remove(0)),
        failed => {
            errors.iter().for_each(log_error);
            bail!("{failed} of {total} failed");
        }
    }
}

/// Reads the images of a table, if the path names one.
///
/// # Errors
/// Returns an error if the table cannot be read, or is not the only path.
fn table(args: &Args, classifier: &Classifier) -> Result<Option<ImageDataset>> {
    let Some(path) = args.paths.iter().find(|path| is_table(path)) else {
        return Ok(None);
    };
    ensure!(
        args.paths.len() == 1 && args.test_index.is_empty(),
        "{}: a table of images, expected no other path beside it",
        path.display()
    );
    let [channels, height, width] = classifier.config.images.shape();
    let images = read_images(path)?.with_channels(channels);
    Ok(Some(
        match [images.height(), images.width()] == [height, width] {
            true => images,
            false => images.resized([height, width])?,
        },
    ))
}

/// Lists the test images and the pictures at the paths, with an error for each path without pictures. Folders
/// are searched.
///
/// # Errors
/// Returns an error if standard input is named twice.
fn sources(args: &Args) -> Result<(Vec<Source>, Vec<Error>)> {
    let is_input = |path: &&PathBuf| path.as_path() == Path::new("-");
    ensure!(
        args.paths.iter().filter(is_input).count() <= 1,
        "-: standard input was named twice, but it holds one picture"
    );
    let mut sources: Vec<Source> = args.test_index.iter().copied().map(Source::Test).collect();
    let mut errors = Vec::new();
    for path in &args.paths {
        if is_input(&path) {
            sources.push(Source::StandardInput);
        } else if path.is_dir() {
            let PictureListing {
                files,
                errors: unreadable,
                ..
            } = picture_files(path);
            if files.is_empty() && unreadable.is_empty() {
                let path = path.display();
                errors.push(anyhow!("{path}: no pictures in this folder"));
            }
            errors.extend(unreadable.into_iter().map(Error::msg));
            sources.extend(files.into_iter().map(Source::File));
        } else {
            sources.push(Source::File(path.clone()));
        }
    }
    Ok((sources, errors))
}

/// Predicts and prints the classes of pictures.
struct Predictor<'a> {
    run: &'a RunDir,
    classifier: &'a Classifier,
    test: Option<ImageDataset>,
    table: Option<ImageDataset>,
    args: &'a Args,
}

impl Predictor<'_> {
    /// Prints the predictions in the order of the sources, and adds an error for each picture that cannot be
    /// used.
    fn predict(&self, sources: &[Source], errors: &mut Vec<Error>) -> Result<()> {
        let bar = bar(sources.len() as u64, "pictures");
        let Args {
            json,
            csv,
            top,
            min_probability,
            show,
            ref test_index,
            ..
        } = *self.args;
        let classes = self.classifier.classes();
        let mut sink = match (json, csv) {
            (true, _) => Sink::json(),
            (_, true) if self.table.is_some() => Sink::submission()?,
            (_, true) => Sink::csv(top.min(classes.len()), !test_index.is_empty())?,
            _ => Sink::text(),
        };
        for chunk in sources.chunks(CHUNK) {
            let results: Vec<Result<Input>> =
                chunk.par_iter().map(|source| self.read(source)).collect();
            let mut inputs = Vec::with_capacity(results.len());
            for result in results {
                match result {
                    Ok(input) => inputs.push(input),
                    Err(error) => errors.push(error),
                }
            }
            let images = inputs.iter().map(|input| input.image.clone()).collect();
            let answers = self.classifier.classify(images)?;
            bar.suspend(|| {
                for (input, answer) in inputs.iter().zip(&answers) {
                    let path = input.source.to_string();
                    let reading = match self.reading(input, answer) {
                        Ok(reading) => reading,
                        Err(error) => {
                            errors.push(error.context(path));
                            continue;
                        }
                    };
                    let prediction = match &reading {
                        Some(reading) => {
                            Prediction::of_reading(path, reading, classes, min_probability)
                        }
                        None => {
                            let label = input.label;
                            Prediction::new(path, answer, classes, top, min_probability, label)
                        }
                    };
                    sink.write(&prediction)?;
                    if show {
                        self.show(&mut sink, input, reading.as_ref(), errors)?;
                    }
                }
                anyhow::Ok(())
            })?;
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        sink.finish()
    }

    /// Reads several characters, if the picture is to be read so.
    fn reading(&self, input: &Input, answer: &Answer) -> Result<Option<Reading>> {
        let Args {
            split,
            min_probability,
            ..
        } = *self.args;
        let Some(page) = &input.page else {
            return Ok(None);
        };
        self.classifier
            .read_if_split(page, answer, split, min_probability)
    }

    /// Reads a picture and converts it into an image.
    fn read(&self, source: &Source) -> Result<Input> {
        let picture = match source {
            Source::Test(index) => {
                let test = self.test.as_ref().context("no test split")?;
                return Ok(Input {
                    source: source.clone(),
                    image: test.pixels(*index)?.into_owned(),
                    page: None,
                    label: Some(test.label(*index).into()),
                });
            }
            Source::Row(index) => {
                let table = self.table.as_ref().context("no table")?;
                return Ok(Input {
                    source: source.clone(),
                    image: table.pixels(*index)?.into_owned(),
                    page: None,
                    label: None,
                });
            }
            Source::File(path) => open_picture(path),
            Source::StandardInput => Picture::read(io::stdin().lock()),
        };
        let Args { raw, split, .. } = *self.args;
        let PreparedPicture { image, page } = picture
            .and_then(|picture| self.classifier.prepared_page(&picture, raw, split))
            .with_context(|| source.to_string())?;
        Ok(Input {
            source: source.clone(),
            image,
            page,
            label: None,
        })
    }

    /// Prints an image as text and saves it as PNG; of several characters, the picture with a frame around each.
    fn show(
        &self,
        sink: &mut Sink,
        input: &Input,
        reading: Option<&Reading>,
        errors: &mut Vec<Error>,
    ) -> Result<()> {
        let [channels, height, width] = self.classifier.config.images.shape();
        let png = match (&input.page, reading) {
            (Some(page), Some(Reading { characters, .. })) => {
                for character in characters {
                    sink.line(text_art(&character.image, height, width).trim_end_matches('\n'))?;
                }
                let areas: Vec<[u32; 4]> = characters.iter().map(|it| it.area).collect();
                page.framed_png(&areas)
            }
            _ => {
                sink.line(text_art(&input.image, height, width).trim_end_matches('\n'))?;
                to_png(&input.image, channels, height, width)
            }
        };
        let save = || {
            let path = self.run.unused_input_path(&input.source.file_name())?;
            self.run.write(&path, &png)?;
            anyhow::Ok(path)
        };
        match save() {
            Ok(path) => sink.line(&format!("saved as {}", printable(path.display()))),
            Err(error) => {
                errors.push(error);
                Ok(())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::StandardInput => f.write_str("-"),
            Self::Test(index) => write!(f, "test:{index}"),
            Self::Row(index) => write!(f, "row:{}", index + 1),
        }
    }
}

impl Source {
    /// Returns the name of the PNG file, without extension.
    fn file_name(&self) -> String {
        match self {
            Self::File(path) => path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            Self::StandardInput => "stdin".into(),
            Self::Test(index) => format!("test-{index}"),
            Self::Row(index) => format!("row-{}", index + 1),
        }
    }
}

/// Draws an image, `[channels, height, width]`, with two characters per pixel: the mean over the channels.
fn text_art(pixels: &[u8], height: usize, width: usize) -> String {
    const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
    let plane = height * width;
    let channels = pixels.len() / plane;
    let mut text = String::new();
    for row in 0..height {
        for column in 0..width {
            let at = row * width + column;
            let sum: usize = (0..channels)
                .map(|c| usize::from(pixels[c * plane + at]))
                .sum();
            text.push_str(SHADES[sum * SHADES.len() / (256 * channels)]);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_art_has_five_shades() {
        assert_eq!(text_art(&[0, 60, 128, 255], 2, 2), "  ░░\n▒▒██\n");
    }
}
