//! The state that all handlers share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OnceCell, watch};

use crate::inference::classifier::Classifier;
use crate::run::run_dir::RunDir;
use crate::serve::access::AccessPolicy;
use crate::serve::batch_queue::BatchQueue;
use crate::serve::blocking_pool::BlockingPool;
use crate::serve::metrics::ServerMetrics;
use crate::serve::request_body::BodyReader;
use crate::serve::test_images::TestImages;

/// The state that all handlers share.
pub(crate) struct App {
    /// The folder of runs.
    pub(crate) root: PathBuf,
    /// The run whose network predicts.
    pub(crate) run: RunDir,
    pub(crate) classifier: Arc<Classifier>,
    /// The name of the device.
    pub(crate) device: String,
    pub(crate) batch_queue: BatchQueue,
    pub(crate) bodies: BodyReader,
    /// For decoding pictures, computing feature maps, and reading the files of runs.
    pub(crate) pool: BlockingPool,
    /// For work that takes seconds: reports, and predictions for the whole test split.
    pub(crate) slow_pool: BlockingPool,
    /// The predictions for the test split, computed at the first request.
    pub(crate) test_images: OnceCell<Arc<TestImages>>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) access: AccessPolicy,
    /// Becomes true when the server shuts down.
    pub(crate) shutdown: watch::Receiver<bool>,
}
