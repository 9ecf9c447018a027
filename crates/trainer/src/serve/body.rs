//! What a client sends, and the room it takes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Bytes of one body.
const MAX_BODY: usize = 16 << 20;
/// Bytes of all bodies whose answers are not ready.
const MAX_BODIES: usize = 256 << 20;

/// Room for what clients send.
#[derive(Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

/// Room that is taken until this is dropped.
pub(crate) type Room = OwnedSemaphorePermit;

impl Bodies {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }

    /// A body to its end. It takes room as it comes, not as it is announced.
    ///
    /// # Errors
    /// When it is too long, does not come, or finds no room.
    pub(crate) async fn read(&self, body: Body) -> Result<(Vec<u8>, Room), Problem> {
        let room = |bytes: usize| {
            let taken = Arc::clone(&self.0).try_acquire_many_owned(bytes as u32);
            taken.map_err(|_| Problem::busy())
        };
        let mut taken = room(0)?;
        let mut bytes = Vec::new();
        let mut length = 0;
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| {
                let detail = format!("the body did not come to its end: {error}");
                Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
            })?;
            length += part.len();
            if length > MAX_BODY {
                // Read on: who still writes does not see an answer.
                (bytes, taken) = (Vec::new(), room(0)?);
                continue;
            }
            taken.merge(room(part.len())?);
            bytes.extend_from_slice(&part);
        }
        if length > MAX_BODY {
            let detail = format!("{length} bytes, more than {MAX_BODY}");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Ok((bytes, taken))
    }
}
