//! What `/metrics` tells.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Requests by their route and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

/// Counts since the program started.
#[derive(Debug)]
pub(crate) struct Counters {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    images: Counter,
    batches: Histogram,
    /// Open now.
    pub(crate) connections: Gauge,
}

impl Counters {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("trainer");
        let requests = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 14));
        let images = Counter::default();
        let batches = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let connections = Gauge::default();
        registry.register("requests", "Requests by route and status", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer's",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("images", "Images judged", images.clone());
        registry.register("batch_images", "Images judged together", batches.clone());
        registry.register("connections", "Open connections", connections.clone());
        Self {
            registry,
            requests,
            seconds,
            images,
            batches,
            connections,
        }
    }

    /// Images that were judged together.
    pub(crate) fn batch(&self, images: usize) {
        self.images.inc_by(images as u64);
        self.batches.observe(images as f64);
    }

    /// A request that was answered.
    pub(crate) fn request(&self, route: &str, status: u16, time: Duration) {
        let request = Request {
            route: route.into(),
            status,
        };
        self.requests.get_or_create(&request).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    /// All of them, in Prometheus's text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
