//! The server, from binding its address to its shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, watch};

use crate::inference::classifier::Classifier;
use crate::process::interruption;
use crate::run::run_dir::RunDir;
use crate::serve::access::AccessPolicy;
use crate::serve::app::App;
use crate::serve::batch_queue::BatchQueue;
use crate::serve::blocking_pool::BlockingPool;
use crate::serve::connections;
use crate::serve::metrics::ServerMetrics;
use crate::serve::request_body::BodyReader;
use crate::serve::routes::router;

/// A server that is bound to its address.
pub(crate) struct Server {
    listener: std::net::TcpListener,
    root: PathBuf,
    run: RunDir,
    classifier: Classifier,
    device: String,
    access: AccessPolicy,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// Returns an error if the address is not available.
    pub(crate) fn bind(
        address: SocketAddr,
        root: PathBuf,
        (run, classifier): (RunDir, Classifier),
        device: String,
        access: AccessPolicy,
    ) -> Result<Self> {
        let listener = std::net::TcpListener::bind(address)
            .with_context(|| format!("{address}: cannot listen"))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            root,
            run,
            classifier,
            device,
            access,
        })
    }

    /// Returns the bound address, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// Returns an error if the system does not provide it.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the process is interrupted, and then completes pending requests.
    ///
    /// # Errors
    /// Returns an error if no thread can be started.
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start threads")?;
        let outcome = runtime.block_on(self.serve());
        // Does not wait for blocking work whose clients are gone.
        runtime.shutdown_background();
        outcome
    }

    async fn serve(self) -> Result<()> {
        let classifier = Arc::new(self.classifier);
        let metrics = Arc::new(ServerMetrics::new());
        let batch_queue = BatchQueue::start(Arc::clone(&classifier), Arc::clone(&metrics))
            .context("cannot start a thread")?;
        let (shut_down, shutdown) = watch::channel(false);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let app = Arc::new(App {
            root: self.root,
            run: self.run,
            classifier,
            device: self.device,
            batch_queue,
            bodies: BodyReader::new(),
            pool: BlockingPool::new(cores),
            slow_pool: BlockingPool::new(1),
            test_images: OnceCell::new(),
            metrics: Arc::clone(&metrics),
            access: self.access,
            shutdown,
        });
        let listener = TcpListener::from_std(self.listener)?;
        let on_shutdown = || {
            let _ = shut_down.send(true);
        };
        connections::serve(listener, router(app), metrics, interrupted(), on_shutdown).await;
        Ok(())
    }
}

/// Waits until the process is interrupted.
async fn interrupted() {
    while !interruption::is_requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
