//! Dynamic batching: the images of concurrent requests are classified together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use anyhow::anyhow;
use tokio::sync::{mpsc, oneshot};

use crate::inference::classifier::{Answer, Classifier};
use crate::serve::metrics::ServerMetrics;
use crate::serve::problem::Problem;
use crate::serve::request_body::Reservation;

/// Number of images at which a batch is full. A single request may contain more.
const BATCH_SIZE: usize = 64;
/// Maximum number of waiting requests. Further requests are refused.
const MAX_QUEUED: usize = 1024;

/// The images of a request, and the channel for the answers.
struct Job {
    images: Vec<Vec<u8>>,
    memory: Reservation,
    reply: oneshot::Sender<Result<Vec<Answer>, String>>,
}

/// Sends images to the thread that classifies them. The thread ends when the queue is dropped.
#[derive(Debug)]
pub(crate) struct BatchQueue {
    jobs: mpsc::Sender<Job>,
}

impl BatchQueue {
    /// Starts the thread.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(crate) fn start(
        classifier: Arc<Classifier>,
        metrics: Arc<ServerMetrics>,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel(MAX_QUEUED);
        thread::Builder::new()
            .name("classifier".into())
            .spawn(move || classify_jobs(receiver, &classifier, &metrics))?;
        Ok(Self { jobs })
    }

    /// Classifies images `[channels, height, width]`.
    ///
    /// # Errors
    /// Returns a problem if the queue is full or the device fails.
    pub(crate) async fn classify(
        &self,
        images: Vec<Vec<u8>>,
        memory: Reservation,
    ) -> Result<Vec<Answer>, Problem> {
        let (reply, answers) = oneshot::channel();
        let job = Job {
            images,
            memory,
            reply,
        };
        self.jobs.try_send(job).map_err(|_| Problem::overloaded())?;
        let answers = answers.await.map_err(Problem::internal)?;
        answers.map_err(Problem::internal)
    }
}

/// Classifies the images of all jobs, in batches of the jobs that are waiting.
fn classify_jobs(mut jobs: mpsc::Receiver<Job>, classifier: &Classifier, metrics: &ServerMetrics) {
    while let Some(first) = jobs.blocking_recv() {
        let mut images = Vec::new();
        let mut clients = Vec::new();
        let mut next = Some(first);
        while let Some(mut job) = next {
            // Skips the jobs of clients that have disconnected.
            if !job.reply.is_closed() {
                clients.push((job.images.len(), job.reply, job.memory));
                images.append(&mut job.images);
            }
            let is_full = images.len() >= BATCH_SIZE;
            next = if is_full { None } else { jobs.try_recv().ok() };
        }
        if images.is_empty() {
            continue;
        }
        metrics.batch(images.len());
        // Burn panics if a device fails; the next batch may succeed.
        let result = catch_unwind(AssertUnwindSafe(|| classifier.classify(images)));
        let result = result.unwrap_or_else(|_| Err(anyhow!("the device failed")));
        match result {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for (count, reply, _memory) in clients {
                    let _ = reply.send(Ok(answers.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, reply, _memory) in clients {
                    let _ = reply.send(Err(format!("{error:#}")));
                }
            }
        }
    }
}
