//! The network behind a queue: what several clients ask at once is computed together.

use std::sync::Arc;
use std::thread;

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::counters::Counters;
use super::problem::Problem;
use crate::classifier::{Classifier, Probabilities};

/// Images that are computed together, unless one client has more.
const BATCH: usize = 64;
/// Requests that wait; more are turned away.
const QUEUE: usize = 1024;

/// Images of a client, and where their probabilities go.
struct Job {
    images: Vec<Vec<u8>>,
    answer: oneshot::Sender<Result<Vec<Probabilities>, String>>,
}

/// The network, in a thread of its own that ends with this.
#[derive(Debug)]
pub(crate) struct Judge {
    queue: mpsc::Sender<Job>,
}

impl Judge {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no more of them.
    pub(crate) fn start(
        classifier: Arc<Classifier>,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("judge".into())
            .spawn(move || work(jobs, &classifier, &counters))?;
        Ok(Self { queue })
    }

    /// What the network makes of images `[channels, height, width]`.
    ///
    /// # Errors
    /// When too many wait, or the device fails.
    pub(crate) async fn judge(&self, images: Vec<Vec<u8>>) -> Result<Vec<Probabilities>, Problem> {
        let (answer, answered) = oneshot::channel();
        let job = Job { images, answer };
        self.queue.try_send(job).map_err(|_| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "too many requests wait; try again")
        })?;
        match answered.await {
            Ok(judged) => judged.map_err(Problem::failed),
            Err(_) => Err(Problem::failed("the network is gone")),
        }
    }
}

fn work(mut jobs: mpsc::Receiver<Job>, classifier: &Classifier, counters: &Counters) {
    while let Some(first) = jobs.blocking_recv() {
        let mut images = first.images;
        let mut clients = vec![(images.len(), first.answer)];
        while images.len() < BATCH
            && let Ok(job) = jobs.try_recv()
        {
            clients.push((job.images.len(), job.answer));
            images.extend(job.images);
        }
        counters.batch(images.len());
        match classifier.classify(images) {
            Ok(judged) => {
                let mut judged = judged.into_iter();
                for (count, answer) in clients {
                    // A client that left needs no answer.
                    let _ = answer.send(Ok(judged.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, answer) in clients {
                    let _ = answer.send(Err(format!("{error:#}")));
                }
            }
        }
    }
}
