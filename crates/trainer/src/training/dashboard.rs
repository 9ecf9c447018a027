//! burn-train's dashboard: its renderer and its metrics.

use std::panic::{AssertUnwindSafe, catch_unwind, take_hook};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::TensorReadError;
use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, MetricLogger, TrainingProgressLogger};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{
    Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use crate::process::interruption;
use crate::process::logging::ConsolePause;

/// burn-train's dashboard, or nothing: its renderer for pipes prints a line per batch without metrics.
pub(crate) struct Renderer {
    dashboard: Option<(TuiMetricsRendererWrapper, ConsolePause)>,
}

impl Renderer {
    /// Opens the dashboard of a training of which `epochs_completed` epochs are completed. Its keys stop
    /// the training through `interrupter`.
    pub(crate) fn dashboard(interrupter: Interrupter, epochs_completed: usize) -> Self {
        let pause = ConsolePause::new();
        let dashboard = TuiMetricsRendererWrapper::new(interrupter, Some(epochs_completed));
        interruption::keep_signals();
        Self {
            dashboard: Some((dashboard, pause)),
        }
    }

    /// Creates a renderer that draws nothing.
    pub(crate) fn none() -> Self {
        Self { dashboard: None }
    }

    /// Calls the dashboard. Its kill key makes each call panic; the panic closes the dashboard and
    /// interrupts the training as Ctrl-C does, so that nothing is lost.
    fn draw(&mut self, draw: impl FnOnce(&mut TuiMetricsRendererWrapper)) {
        let Some((dashboard, _)) = &mut self.dashboard else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| draw(dashboard))).is_err() {
            interruption::request();
            self.close();
        }
    }

    fn close(&mut self) {
        let dashboard = self.dashboard.take();
        if catch_unwind(AssertUnwindSafe(|| drop(dashboard))).is_err() {
            // After the kill key the dashboard's panic hook remains and would hide later panics.
            let _ = take_hook();
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        self.close();
    }
}

impl MetricsRenderer for Renderer {
    fn manual_close(&mut self) {
        self.draw(MetricsRenderer::manual_close);
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.draw(|dashboard| dashboard.register_metric(definition));
    }
}

impl MetricsRendererTraining for Renderer {
    fn update_train(&mut self, state: MetricState) {
        self.draw(|dashboard| dashboard.update_train(state));
    }

    fn update_valid(&mut self, state: MetricState) {
        self.draw(|dashboard| dashboard.update_valid(state));
    }
}

impl MetricsRendererEvaluation for Renderer {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl TrainingProgressLogger for Renderer {
    fn start(&mut self, epochs: usize, first: usize, items: Option<usize>, label: Option<&str>) {
        self.draw(|dashboard| {
            TrainingProgressLogger::start(dashboard, epochs, first, items, label)
        });
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.draw(|dashboard| dashboard.update_epoch(epoch));
    }

    fn start_split(&mut self, split: &str, items: usize) {
        self.draw(|dashboard| dashboard.start_split(split, items));
    }

    fn update_split(&mut self, items: usize) {
        self.draw(|dashboard| dashboard.update_split(items));
    }

    fn end_split(&mut self) {
        self.draw(TrainingProgressLogger::end_split);
    }

    fn end(&mut self) {
        self.draw(TrainingProgressLogger::end);
    }

    fn log_event_training(&mut self, event: String) {
        self.draw(|dashboard| dashboard.log_event_training(event));
    }
}

/// Required by burn-train; its evaluator is not used.
impl EvaluationProgressLogger for Renderer {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

/// A metric logger that stores nothing: burn-train's own loggers write files or grow in memory with
/// each step, and the run folder has its own log.
pub(crate) struct NoMetricLog;

impl MetricLogger for NoMetricLog {
    fn log(&mut self, _: MetricsUpdate, _: usize, _: &Split) {}

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}
    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}

/// Training speed in images per second, measured from batch to batch. burn-train's own metric counts
/// iterations since the start of the epoch, which is wrong after resuming within an epoch.
#[derive(Clone)]
pub(crate) struct SpeedMetric {
    name: MetricName,
    state: NumericMetricState,
    /// Time of the last batch, and the images processed by then.
    last: Option<(Instant, usize)>,
}

impl SpeedMetric {
    pub(crate) fn new() -> Self {
        Self {
            name: Arc::new("Speed".into()),
            state: NumericMetricState::default(),
            last: None,
        }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name())
            .unit("images/s")
            .precision(0)
    }
}

impl Metric for SpeedMetric {
    type Input = ();

    fn update(
        &mut self,
        (): &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let now = Instant::now();
        let images = metadata.progress.items_processed;
        if let Some((then, seen)) = self.last.replace((now, images)) {
            let images = images.saturating_sub(seen);
            let rate = images as f64 / (now - then).as_secs_f64();
            self.state.update(rate, images);
        }
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.last = None;
        self.state.reset();
    }

    fn name(&self) -> MetricName {
        Arc::clone(&self.name)
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some("images/s".into()),
            higher_is_better: true,
        }
        .into()
    }
}

impl Numeric for SpeedMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
