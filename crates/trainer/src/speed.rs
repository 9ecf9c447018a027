//! A figure for burn-train's dashboard.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

/// Images per second, from one batch to the next. burn-train's own speed counts iterations since
/// the epoch began, which is wrong where a training goes on within one.
#[derive(Clone)]
pub(crate) struct SpeedMetric {
    name: MetricName,
    state: NumericMetricState,
    /// When the last batch was done, and how many images had been seen.
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
