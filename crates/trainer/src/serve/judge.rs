//! The network behind a queue: what several clients ask at once is computed together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use anyhow::anyhow;
use tokio::sync::{mpsc, oneshot};

use super::body::Room;
use super::counters::Counters;
use super::problem::Problem;
use crate::inference::classifier::{Classifier, Probabilities};

/// Images that are computed together, unless one client has more.
const BATCH: usize = 64;
/// Requests that wait; more are turned away.
const QUEUE: usize = 1024;

/// Images of a client, and where their probabilities go.
struct Job {
    images: Vec<Vec<u8>>,
    room: Room,
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
    pub(crate) async fn judge(
        &self,
        images: Vec<Vec<u8>>,
        room: Room,
    ) -> Result<Vec<Probabilities>, Problem> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            images,
            room,
            answer,
        };
        self.queue.try_send(job).map_err(|_| Problem::busy())?;
        let judged = answered.await.map_err(Problem::failed)?;
        judged.map_err(Problem::failed)
    }
}

fn work(mut jobs: mpsc::Receiver<Job>, classifier: &Classifier, counters: &Counters) {
    while let Some(first) = jobs.blocking_recv() {
        let mut images = Vec::new();
        let mut clients = Vec::new();
        let mut next = Some(first);
        while let Some(mut job) = next {
            // Who left needs no answer.
            if !job.answer.is_closed() {
                clients.push((job.images.len(), job.answer, job.room));
                images.append(&mut job.images);
            }
            let has_room = images.len() < BATCH;
            next = has_room.then(|| jobs.try_recv().ok()).flatten();
        }
        if images.is_empty() {
            continue;
        }
        counters.batch(images.len());
        // A device that fails makes Burn panic; the next batch may do better.
        let judged = catch_unwind(AssertUnwindSafe(|| classifier.classify(images)));
        let judged = judged.unwrap_or_else(|_| Err(anyhow!("the device failed")));
        match judged {
            Ok(judged) => {
                let mut judged = judged.into_iter();
                for (count, answer, _room) in clients {
                    let _ = answer.send(Ok(judged.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, answer, _room) in clients {
                    let _ = answer.send(Err(format!("{error:#}")));
                }
            }
        }
    }
}
