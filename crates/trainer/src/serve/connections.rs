//! Connections, with limits on their number and on the time a client may take.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tracing::debug;

use crate::serve::metrics::ServerMetrics;

/// Maximum time for a client to send the head of a request or a chunk of its body, or to receive a chunk
/// of the response.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of connections. Further connections are closed at once.
const MAX_CONNECTIONS: usize = 4096;
/// Number of file descriptors reserved for other uses than connections.
const RESERVED_FILES: usize = 128;
/// Maximum time for pending requests at the shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until `end`, then calls `on_shutdown` and completes pending requests.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    metrics: Arc<ServerMetrics>,
    end: impl Future<Output = ()>,
    on_shutdown: impl FnOnce(),
) {
    let connections = Arc::new(Semaphore::new(max_connections()));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let Ok((stream, _)) = accepted else {
            // Waits for file descriptors to be closed: the process has too many.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            continue;
        };
        let connection = graceful.watch(connection(stream, routes.clone()));
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            metrics.connection_opened();
            if let Err(error) = connection.await {
                debug!("connection: {error}");
            }
            metrics.connection_closed();
            drop(permit);
        });
    }
    drop(listener);
    on_shutdown();
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
}

type Stream = TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>;

fn connection(
    stream: TcpStream,
    routes: Router,
) -> http1::Connection<Stream, TowerToHyperService<Router>> {
    // Responses are small, so that Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(CLIENT_TIMEOUT));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_TIMEOUT)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(routes),
        )
}

/// Returns the number of connections that the limit on open files permits, after raising that limit as far
/// as necessary and allowed.
fn max_connections() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let needed = (MAX_CONNECTIONS + RESERVED_FILES) as u64;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let mut files = current.unwrap_or(u64::MAX);
        if files < needed {
            let raised = needed.min(maximum.unwrap_or(u64::MAX));
            let limit = Rlimit {
                current: Some(raised),
                maximum,
            };
            if setrlimit(Resource::Nofile, limit).is_ok() {
                files = raised;
            }
        }
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        files
            .saturating_sub(RESERVED_FILES)
            .clamp(1, MAX_CONNECTIONS)
    }
    #[cfg(not(unix))]
    MAX_CONNECTIONS
}
