//! What a user sees while a run goes on: burn-train's dashboard on a terminal, lines elsewhere.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use crate::history::Epoch;

/// When this process started, to a few milliseconds: set by the first line of `main`.
pub(crate) static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Writes a line to standard error. A reader that has left is no reason to stop.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Progress {
    /// The dashboard on a terminal, lines elsewhere
    Auto,
    /// burn-train's dashboard
    Tui,
    /// A line every 100 batches and one per epoch
    Plain,
    /// Nothing but the result
    None,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Dashboard,
    Lines,
    Silent,
}

impl Progress {
    /// What it comes to here.
    ///
    /// # Errors
    /// When a dashboard is asked for and there is no terminal.
    pub(crate) fn style(self) -> Result<Style> {
        let is_terminal = std::io::stdout().is_terminal();
        match self {
            Self::Auto if is_terminal => Ok(Style::Dashboard),
            Self::Auto | Self::Plain => Ok(Style::Lines),
            Self::None => Ok(Style::Silent),
            Self::Tui => {
                ensure!(
                    is_terminal,
                    "--progress tui: standard output is no terminal"
                );
                Ok(Style::Dashboard)
            }
        }
    }
}

impl Style {
    /// What burn-train draws on.
    pub(crate) fn renderer(self, interrupter: Interrupter) -> Box<dyn MetricsRenderer> {
        match self {
            Self::Dashboard => Box::new(TuiMetricsRendererWrapper::new(interrupter, None)),
            Self::Lines | Self::Silent => Box::new(Undrawn),
        }
    }

    /// Says something about the run as a whole, unless nothing is to be said.
    pub(crate) fn note(self, line: impl Display) {
        if self != Self::Silent {
            say(line);
        }
    }
}

/// Writes the lines of a training to standard error.
#[derive(Debug)]
pub(crate) struct Lines {
    style: Style,
    epochs: usize,
    batches: usize,
    /// Start of the training, and images it will see in all.
    start: Instant,
    images_total: usize,
    images_seen: usize,
    /// When the last line was written, and how many images had been seen.
    last: (Instant, usize),
}

impl Lines {
    /// For a training of `epochs` passes in `batches`, with `images_total` images in all.
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

    /// Counts images of a step.
    pub(crate) fn step(&mut self, images: usize) {
        self.images_seen += images;
    }

    /// The line that shows that the network works, and how soon.
    pub(crate) fn first_step(&self, images: [usize; 4], logits: [usize; 2]) {
        let since = PROCESS_START.elapsed().as_secs_f64();
        self.line(format_args!(
            "first batch: images {images:?}, logits {logits:?}; stepped {since:.2}s after the start"
        ));
    }

    /// The line of the batches since the last one.
    pub(crate) fn running(&mut self, epoch: usize, batch: usize, running_loss: f64) {
        let now = Instant::now();
        let (then, seen) = std::mem::replace(&mut self.last, (now, self.images_seen));
        let speed = (self.images_seen - seen) as f64 / (now - then).as_secs_f64();
        self.line(format_args!(
            "epoch {epoch}/{}  batch {batch:>4}/{}  running loss {running_loss:.4}  \
             {speed:.0} images/s",
            self.epochs, self.batches
        ));
    }

    /// The line of an epoch.
    pub(crate) fn epoch(&mut self, epoch: &Epoch) {
        let left = self.left();
        self.line(format_args!("{epoch}  {left}"));
        self.last = (Instant::now(), self.images_seen);
    }

    fn left(&self) -> String {
        let left = self.images_total.saturating_sub(self.images_seen);
        let per_image = self.start.elapsed().as_secs_f64() / self.images_seen.max(1) as f64;
        let left = Duration::from_secs_f64(per_image * left as f64);
        format!("{} left", duration(left))
    }

    fn line(&self, text: std::fmt::Arguments<'_>) {
        if self.style == Style::Lines {
            say(text);
        }
    }
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

/// Draws nothing: burn-train's own renderer for pipes prints a line per batch without figures.
struct Undrawn;

impl MetricsRenderer for Undrawn {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _: MetricDefinition) {}
}

impl MetricsRendererTraining for Undrawn {
    fn update_train(&mut self, _: MetricState) {}
    fn update_valid(&mut self, _: MetricState) {}
}

impl MetricsRendererEvaluation for Undrawn {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl TrainingProgressLogger for Undrawn {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}
    fn update_epoch(&mut self, _: usize) {}
    fn start_split(&mut self, _: &str, _: usize) {}
    fn update_split(&mut self, _: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _: String) {}
}

impl EvaluationProgressLogger for Undrawn {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
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
