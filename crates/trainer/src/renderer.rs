//! What burn-train draws on: its dashboard, or nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, take_hook};

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, MetricLogger, TrainingProgressLogger};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, NumericEntry};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use crate::interruption;
use crate::logging::ConsolePause;

/// burn-train's own renderer for pipes prints a line per batch without figures; here it draws
/// nothing.
pub(crate) struct Renderer {
    dashboard: Option<(TuiMetricsRendererWrapper, ConsolePause)>,
}

impl Renderer {
    /// Opens the dashboard of a training that goes on after so many epochs; its keys stop the
    /// training through `interrupter`.
    pub(crate) fn dashboard(interrupter: Interrupter, epochs: usize) -> Self {
        let pause = ConsolePause::new();
        let dashboard = TuiMetricsRendererWrapper::new(interrupter, Some(epochs));
        interruption::keep_signals();
        Self {
            dashboard: Some((dashboard, pause)),
        }
    }

    /// Draws nothing.
    pub(crate) fn none() -> Self {
        Self { dashboard: None }
    }

    /// The dashboard's key to kill the program makes each call of it panic: here it closes the
    /// dashboard and stops the training as Ctrl-C does, so that nothing is lost.
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
            // The dashboard's hook for panics, which stays after its key, would hide later ones.
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

/// For burn-train's evaluator, which is not used here.
impl EvaluationProgressLogger for Renderer {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

/// Keeps no figures: those of burn-train's loggers fill files or, step by step, the memory, and the
/// training keeps its own.
pub(crate) struct Unlogged;

impl MetricLogger for Unlogged {
    fn log(&mut self, _: MetricsUpdate, _: usize, _: &Split) {}

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}
    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}
