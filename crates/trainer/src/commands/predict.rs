//! `trainer predict RUN PATH...`: what a network takes pictures for.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use clap::builder::RangedU64ValueParser;
use data::listing::picture_files;
use data::picture::to_png;
use data::{ImageDataset, Picture};
use rayon::prelude::*;
use tracing::error;

use crate::commands::flags::RunFlags;
use crate::inference::classifier::Classifier;
use crate::inference::prediction::{Prediction, Sink};
use crate::process::progress_bar::bar;
use crate::run::images;
use crate::run::run_dir::RunDir;

/// Pictures that are decoded on all cores, then judged together.
const CHUNK: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    /// Pictures (PNG, JPEG, BMP, GIF, WebP), folders of them, or - for standard input
    #[arg(value_name = "PATH", required_unless_present = "test_index")]
    paths: Vec<PathBuf>,
    /// Images of the test split, by their numbers from 0
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    test_index: Vec<usize>,
    /// Show the network the picture as it is, only scaled: not inverted, cut out and centred
    #[arg(long)]
    raw: bool,
    /// Draw what the network saw, and save it in figures/seen of the run
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    show: bool,
    /// How many classes to name, the most likely first
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    top: usize,
    /// Print a JSON object for each picture
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values
    #[arg(long)]
    csv: bool,
}

/// Where a picture comes from.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    StandardInput,
    Test(usize),
}

/// A picture as the network sees it.
struct Seen {
    source: Source,
    pixels: Vec<u8>,
    /// Its class, if that is known.
    actual: Option<usize>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (run, classifier) = args.run.open()?;
    let test = match args.test_index.as_slice() {
        [] => None,
        indices => {
            let splits = images::load_for_trained(&run, &classifier.config, None)?;
            let count = splits.test.len();
            if let Some(index) = indices.iter().find(|&&index| index >= count) {
                bail!("test image {index}: there are 0 to {}", count - 1);
            }
            Some(splits.test)
        }
    };
    let (sources, mut failures) = sources(&args)?;
    let total = sources.len() + failures.len();
    let work = Work {
        run: &run,
        classifier: &classifier,
        test,
        args: &args,
    };
    work.predict(&sources, &mut failures)?;
    match failures.len() {
        0 => Ok(()),
        1 if total == 1 => Err(failures.remove(0)),
        failed => {
            failures.iter().for_each(|failure| error!("{failure:#}"));
            bail!("{failed} of {total} failed");
        }
    }
}

/// All pictures that the paths name, folders searched, and what is wrong with other paths.
///
/// # Errors
/// When standard input is to be read twice.
fn sources(args: &Args) -> Result<(Vec<Source>, Vec<Error>)> {
    let is_input = |path: &&PathBuf| path.as_path() == Path::new("-");
    ensure!(
        args.paths.iter().filter(is_input).count() <= 1,
        "-: standard input holds one picture, name it once"
    );
    let mut sources: Vec<Source> = args.test_index.iter().copied().map(Source::Test).collect();
    let mut failures = Vec::new();
    for path in &args.paths {
        if is_input(&path) {
            sources.push(Source::StandardInput);
        } else if path.is_dir() {
            let (found, errors) = picture_files(path);
            if found.is_empty() && errors.is_empty() {
                let path = path.display();
                failures.push(anyhow!(
                    "{path}: no pictures in this folder (png, jpg, bmp, gif, webp)"
                ));
            }
            failures.extend(errors.into_iter().map(Error::msg));
            sources.extend(found.into_iter().map(Source::File));
        } else {
            sources.push(Source::File(path.clone()));
        }
    }
    Ok((sources, failures))
}

/// What predictions are made with.
struct Work<'a> {
    run: &'a RunDir,
    classifier: &'a Classifier,
    test: Option<ImageDataset>,
    args: &'a Args,
}

impl Work<'_> {
    /// Predicts and prints, in the order of the sources; what cannot be read goes to `failures`.
    fn predict(&self, sources: &[Source], failures: &mut Vec<Error>) -> Result<()> {
        let bar = bar(sources.len() as u64, "pictures");
        let Args {
            json,
            csv,
            top,
            show,
            ref test_index,
            ..
        } = *self.args;
        let classes = self.classifier.classes();
        let mut sink = match (json, csv) {
            (true, _) => Sink::json(),
            (_, true) => Sink::csv(top.min(classes.len()), !test_index.is_empty())?,
            _ => Sink::text(),
        };
        for chunk in sources.chunks(CHUNK) {
            let read: Vec<Result<Seen>> =
                chunk.par_iter().map(|source| self.read(source)).collect();
            let mut seen = Vec::with_capacity(read.len());
            for picture in read {
                match picture {
                    Ok(picture) => seen.push(picture),
                    Err(failure) => failures.push(failure),
                }
            }
            if !seen.is_empty() {
                let pixels = seen.iter().map(|seen| seen.pixels.clone()).collect();
                let probabilities = self.classifier.classify(pixels)?;
                bar.suspend(|| {
                    for (seen, found) in seen.iter().zip(&probabilities) {
                        let path = seen.source.to_string();
                        sink.write(&Prediction::new(path, found, classes, top, seen.actual))?;
                        if show {
                            self.show(&mut sink, seen, failures)?;
                        }
                    }
                    anyhow::Ok(())
                })?;
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        sink.finish()
    }

    fn read(&self, source: &Source) -> Result<Seen> {
        let picture = match source {
            Source::Test(index) => {
                let test = self.test.as_ref().context("no test split")?;
                return Ok(Seen {
                    source: source.clone(),
                    pixels: test.pixels(*index).to_vec(),
                    actual: Some(test.label(*index).into()),
                });
            }
            Source::File(path) => Picture::open(path),
            Source::StandardInput => Picture::read(io::stdin().lock()),
        };
        let pixels = picture
            .and_then(|picture| self.classifier.prepared(&picture, self.args.raw))
            .with_context(|| source.to_string())?;
        Ok(Seen {
            source: source.clone(),
            pixels,
            actual: None,
        })
    }

    /// Draws what the network saw, and saves it.
    fn show(&self, sink: &mut Sink, seen: &Seen, failures: &mut Vec<Error>) -> Result<()> {
        let [channels, height, width] = self.classifier.config.images.shape();
        sink.line(blocks(&seen.pixels, height, width).trim_end_matches('\n'))?;
        let save = || {
            let path = self.run.unused_input_path(&seen.source.file_name())?;
            self.run
                .write(&path, &to_png(&seen.pixels, channels, height, width))?;
            anyhow::Ok(path)
        };
        match save() {
            Ok(path) => sink.line(&format!("saved as {}", path.display())),
            Err(failure) => {
                failures.push(failure);
                Ok(())
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::StandardInput => f.write_str("-"),
            Self::Test(index) => write!(f, "test:{index}"),
        }
    }
}

impl Source {
    /// What the picture that the network saw is called.
    fn file_name(&self) -> String {
        match self {
            Self::File(path) => path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            Self::StandardInput => "stdin".into(),
            Self::Test(index) => format!("test-{index}"),
        }
    }
}

/// An image in characters, the mean of its channels: two for each pixel, since they are narrow.
fn blocks(pixels: &[u8], height: usize, width: usize) -> String {
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
    fn shades_of_an_image() {
        assert_eq!(blocks(&[0, 60, 128, 255], 2, 2), "  ░░\n▒▒██\n");
    }
}
