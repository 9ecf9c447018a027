//! Connections: how many there may be, and how long a client may take.

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

use super::counters::Counters;

/// How long a client may take for its request's head, for each part of its body, and to take in a part
/// of the answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 4096;
/// Files that the program needs besides.
const OTHER_FILES: usize = 128;
/// How long requests may go on once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Answers until `end`, calls `stopping`, and answers to the end what was asked before.
pub(crate) async fn answer(
    listener: TcpListener,
    routes: Router,
    counters: Arc<Counters>,
    end: impl Future<Output = ()>,
    stopping: impl FnOnce(),
) {
    let connections = Arc::new(Semaphore::new(limit()));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let Ok((stream, _)) = accepted else {
            // Too many files are open; some will be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            continue;
        };
        let connection = graceful.watch(connection(stream, routes.clone()));
        let counters = Arc::clone(&counters);
        tokio::spawn(async move {
            counters.connections.inc();
            if let Err(error) = connection.await {
                debug!("connection: {error}");
            }
            counters.connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    stopping();
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

type Stream = TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>;

fn connection(
    stream: TcpStream,
    routes: Router,
) -> http1::Connection<Stream, TowerToHyperService<Router>> {
    // Answers are small, and wait for nothing.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(PATIENCE));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(routes),
        )
}

/// How many connections the system leaves room for, once it is asked for as much as it gives.
fn limit() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let wanted = (MAX_CONNECTIONS + OTHER_FILES) as u64;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let mut files = current.unwrap_or(u64::MAX);
        if files < wanted {
            let raised = wanted.min(maximum.unwrap_or(u64::MAX));
            let limit = Rlimit {
                current: Some(raised),
                maximum,
            };
            if setrlimit(Resource::Nofile, limit).is_ok() {
                files = raised;
            }
        }
        let left = usize::try_from(files).unwrap_or(usize::MAX);
        left.saturating_sub(OTHER_FILES).clamp(1, MAX_CONNECTIONS)
    }
    #[cfg(not(unix))]
    MAX_CONNECTIONS
}
