//! Request bodies, with limits on their memory.

use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::timeout::TimeoutError;

use crate::serve::problem::Problem;

/// Maximum size of a request body, in bytes.
const MAX_BODY: usize = 16 << 20;
/// Maximum size of all bodies of pending requests, in bytes.
const MAX_BODIES: usize = 256 << 20;

/// Reads request bodies, and limits the memory that all of them use.
#[derive(Debug)]
pub(crate) struct BodyReader(Arc<Semaphore>);

/// The memory of a body, reserved until dropped.
pub(crate) type Reservation = OwnedSemaphorePermit;

impl BodyReader {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }

    /// Reads a body. Memory is reserved as the data arrives, whatever the announced length.
    ///
    /// # Errors
    /// Returns a problem if the body is too long, malformed, truncated or late, or all memory is reserved.
    pub(crate) async fn read(&self, body: Body) -> Result<(Vec<u8>, Reservation), Problem> {
        let reserve = |bytes: usize| {
            let reservation = Arc::clone(&self.0).try_acquire_many_owned(bytes as u32);
            reservation.map_err(|_| Problem::overloaded())
        };
        let mut reservation = reserve(0)?;
        let mut bytes = Vec::new();
        let mut length = 0;
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| read_problem(&error))?;
            length += chunk.len();
            if length > MAX_BODY {
                // Reads on, because a client that is still writing would not see the response.
                (bytes, reservation) = (Vec::new(), reserve(0)?);
                continue;
            }
            reservation.merge(reserve(chunk.len())?);
            bytes.extend_from_slice(&chunk);
        }
        if length > MAX_BODY {
            let detail = format!("a body of {length} bytes, expected at most {MAX_BODY}");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Ok((bytes, reservation))
    }
}

/// Returns the problem of a body that cannot be read: too late, or not framed as HTTP defines.
fn read_problem(error: &(dyn Error + 'static)) -> Problem {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<TimeoutError>() {
        let detail = format!("incomplete request body: {cause}");
        return Problem::new(StatusCode::REQUEST_TIMEOUT, detail);
    }
    Problem::bad_request(format!("malformed or truncated request body: {cause}"))
}
