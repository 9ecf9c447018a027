//! The metrics of the server, for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// Metrics since the start of the server.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    images: Counter,
    batch_images: Histogram,
    connections: Gauge,
}

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("trainer");
        let requests = Family::default();
        let request_seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 14));
        let images = Counter::default();
        let batch_images = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let connections = Gauge::default();
        registry.register("requests", "Requests by route and status", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from the head of a request to the head of its response",
            Unit::Seconds,
            request_seconds.clone(),
        );
        registry.register("images", "Images classified", images.clone());
        registry.register("batch_images", "Images per batch", batch_images.clone());
        registry.register("connections", "Open connections", connections.clone());
        Self {
            registry,
            requests,
            request_seconds,
            images,
            batch_images,
            connections,
        }
    }

    /// Records a batch of images.
    pub(crate) fn batch(&self, images: usize) {
        self.images.inc_by(images as u64);
        self.batch_images.observe(images as f64);
    }

    /// Records a request and its response.
    pub(crate) fn request(&self, route: &str, status: u16, duration: Duration) {
        let labels = RequestLabels {
            route: route.into(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.observe(duration.as_secs_f64());
    }

    /// Records an opened connection.
    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    /// Records a closed connection.
    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    /// Returns all metrics in Prometheus's text format.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
