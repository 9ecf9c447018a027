//! The progress of a training as lines of text.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Instant;

use tracing::{debug, info};

use crate::config::time::format_seconds;
use crate::run::epoch::Epoch;

/// Start of the process, accurate to a few milliseconds: initialized by the first line of `run`.
pub(crate) static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How a training shows its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// burn-train's dashboard.
    Dashboard,
    /// Lines of text.
    Lines,
    /// Lines at debug level, for trainings within another command.
    Details,
}

/// Writes the progress of a training, and measures its speed.
#[derive(Debug)]
pub(crate) struct ProgressLines {
    style: Style,
    epochs: usize,
    batches_per_epoch: usize,
    start: Instant,
    /// Images from `start` to the end of the training.
    images_total: usize,
    images_seen: usize,
    /// Time of the last line, and the images seen by then.
    last: (Instant, usize),
}

impl ProgressLines {
    /// Starts the clock of a training with `images_total` images left.
    pub(crate) fn new(
        style: Style,
        epochs: usize,
        batches_per_epoch: usize,
        images_total: usize,
    ) -> Self {
        let now = Instant::now();
        Self {
            style,
            epochs,
            batches_per_epoch,
            start: now,
            images_total,
            images_seen: 0,
            last: (now, 0),
        }
    }

    /// Counts a batch. The first one is reported with its shapes and the time since the process started.
    pub(crate) fn batch(&mut self, images: [usize; 4], logits: [usize; 2]) {
        if self.images_seen == 0 {
            let since = PROCESS_START.elapsed().as_secs_f64();
            self.line(format_args!(
                "first batch: images {images:?}, logits {logits:?}; {since:.2}s after the start"
            ));
        }
        self.images_seen += images[0];
    }

    /// Writes the running loss, and returns the images per second since the last line.
    pub(crate) fn running_loss(&mut self, epoch: usize, batch: usize, loss: f64) -> f64 {
        let now = Instant::now();
        let (then, seen) = std::mem::replace(&mut self.last, (now, self.images_seen));
        let speed = (self.images_seen - seen) as f64 / (now - then).as_secs_f64();
        self.line(format_args!(
            "epoch {epoch}/{}  batch {batch:>4}/{}  running loss {loss:.4}  {speed:.0} images/s",
            self.epochs, self.batches_per_epoch
        ));
        speed
    }

    /// Writes the metrics of an epoch and the estimated time left.
    pub(crate) fn epoch(&mut self, epoch: &Epoch) {
        match self.time_left() {
            Some(left) => self.line(format_args!("{epoch}  {left} left")),
            None => self.line(epoch),
        }
        self.last = (Instant::now(), self.images_seen);
    }

    /// Estimates the time left from the images seen so far.
    fn time_left(&self) -> Option<String> {
        if self.images_seen == 0 {
            return None;
        }
        let left = self.images_total.saturating_sub(self.images_seen);
        let per_image = self.start.elapsed().as_secs_f64() / self.images_seen as f64;
        Some(format_seconds(per_image * left as f64))
    }

    fn line(&self, text: impl Display) {
        match self.style {
            Style::Dashboard | Style::Lines => info!("{text}"),
            Style::Details => debug!("{text}"),
        }
    }
}
