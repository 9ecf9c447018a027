//! Work that takes its time, where that keeps nobody waiting.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::problem::Problem;

/// So many pieces of work at a time; the others wait without a thread.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Arc<Semaphore>);

impl Workers {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Does some work. It goes on, and counts, even if nobody waits for it any more.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.map_err(Problem::failed)?;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        working.await.map_err(Problem::failed)?
    }
}
