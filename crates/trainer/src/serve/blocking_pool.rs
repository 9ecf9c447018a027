//! Blocking work, with a limit on how much of it runs at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::serve::problem::Problem;

/// Runs blocking work, at most `limit` closures at a time. Waiting work occupies no thread.
#[derive(Clone, Debug)]
pub(crate) struct BlockingPool(Arc<Semaphore>);

impl BlockingPool {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit)))
    }

    /// Runs `work`. It runs to its end, and counts, even if the returned future is dropped.
    ///
    /// # Errors
    /// Returns the problem of `work`, or an internal one if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.map_err(Problem::internal)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        task.await.map_err(Problem::internal)?
    }
}
