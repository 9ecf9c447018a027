//! What a user sees while a run goes on: burn-train's dashboard on a terminal, lines elsewhere.

use std::fmt::{self, Display};
use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::train::Interrupter;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tracing::{Level, debug, info};

use crate::history::Epoch;
use crate::interruption;
use crate::renderer::Renderer;

/// When this process started, to a few milliseconds: set by the first line of `run`.
pub(crate) static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Progress {
    /// The dashboard on a terminal, lines elsewhere
    Auto,
    /// burn-train's dashboard
    Tui,
    /// A line every 100 batches and one per epoch
    Plain,
    /// Nothing but the result, as --quiet
    None,
}

/// A bar for long work of `total` pieces, on a terminal; nothing elsewhere, or with --quiet.
pub(crate) fn bar(total: u64, pieces: &str) -> ProgressBar {
    if !tracing::enabled!(Level::INFO) {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:30}} {{pos}}/{{len}} {pieces}, {{rate}}, {{eta}} left");
    let bar = ProgressBar::new(total);
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style.with_key(
            "rate",
            |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = write!(text, "{:.0}/s", state.per_sec());
            },
        )),
        Err(_) => bar,
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// burn-train's.
    Dashboard,
    /// Of text.
    Lines,
    /// For those who ask: trainings that are measured.
    Details,
}

impl Progress {
    /// What it comes to here.
    ///
    /// # Errors
    /// When a dashboard is asked for and there is no terminal.
    pub(crate) fn style(self) -> Result<Style> {
        let is_terminal = std::io::stdout().is_terminal() && interruption::has_terminal();
        match self {
            Self::Auto if is_terminal => Ok(Style::Dashboard),
            Self::Auto | Self::Plain | Self::None => Ok(Style::Lines),
            Self::Tui => {
                ensure!(is_terminal, "--progress tui: there is no terminal");
                Ok(Style::Dashboard)
            }
        }
    }
}

impl Style {
    /// What burn-train draws on, in a training that goes on after so many epochs.
    pub(crate) fn renderer(self, interrupter: Interrupter, epochs: usize) -> Renderer {
        match self {
            Self::Dashboard => Renderer::dashboard(interrupter, epochs),
            Self::Lines | Self::Details => Renderer::none(),
        }
    }
}

/// The lines of a training.
#[derive(Debug)]
pub(crate) struct Lines {
    style: Style,
    epochs: usize,
    batches: usize,
    /// Start of the training, and images it will see.
    start: Instant,
    images_total: usize,
    images_seen: usize,
    /// When the last line was written, and how many images had been seen.
    last: (Instant, usize),
}

impl Lines {
    /// For a training of `epochs` passes in `batches`, with `images_total` images to come.
    pub(crate) fn new(style: Style, epochs: usize, batches: usize, images_total: usize) -> Self {
        let now = Instant::now();
        Self {
            style,
            epochs,
            batches,
            start: now,
            images_total,
            images_seen: 0,
            last: (now, 0),
        }
    }

    /// Counts a batch; the first one shows that the network works, and how soon.
    pub(crate) fn batch(&mut self, images: [usize; 4], logits: [usize; 2]) {
        if self.images_seen == 0 {
            let since = PROCESS_START.elapsed().as_secs_f64();
            self.line(format_args!(
                "first batch: images {images:?}, logits {logits:?}; {since:.2}s after the start"
            ));
        }
        self.images_seen += images[0];
    }

    /// The line of the batches since the last one, and how many images a second they took.
    pub(crate) fn running(&mut self, epoch: usize, batch: usize, running_loss: f64) -> f64 {
        let now = Instant::now();
        let (then, seen) = std::mem::replace(&mut self.last, (now, self.images_seen));
        let speed = (self.images_seen - seen) as f64 / (now - then).as_secs_f64();
        self.line(format_args!(
            "epoch {epoch}/{}  batch {batch:>4}/{}  running loss {running_loss:.4}  \
             {speed:.0} images/s",
            self.epochs, self.batches
        ));
        speed
    }

    /// The line of an epoch.
    pub(crate) fn epoch(&mut self, epoch: &Epoch) {
        match self.left() {
            Some(left) => self.line(format_args!("{epoch}  {left} left")),
            None => self.line(epoch),
        }
        self.last = (Instant::now(), self.images_seen);
    }

    /// How long the images to come will take; unknown before the first.
    fn left(&self) -> Option<String> {
        if self.images_seen == 0 {
            return None;
        }
        let left = self.images_total.saturating_sub(self.images_seen);
        let per_image = self.start.elapsed().as_secs_f64() / self.images_seen as f64;
        let left = Duration::from_secs_f64(per_image * left as f64);
        Some(duration(left))
    }

    fn line(&self, text: impl Display) {
        match self.style {
            Style::Dashboard | Style::Lines => info!("{text}"),
            Style::Details => debug!("{text}"),
        }
    }
}

/// A time from its seconds; none where they are no time.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// `42s`, `3m05s`, `1h02m`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_for_people() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.6, "1m00s"),
            (185.0, "3m05s"),
            (3725.0, "1h02m"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}
