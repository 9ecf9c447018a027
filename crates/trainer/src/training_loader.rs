//! The training loader in the type that burn-train expects.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use data::Batch;
use model::{Objective, TrainingBatch};

/// A loader of batches with the training objective, the input of `ConvNet`'s training step.
///
/// burn-train takes the loader of a training in this type. The training loop reads the batches from the
/// `data::Loader` inside, whose passes can start at any epoch and batch.
pub(crate) struct TrainingLoader {
    batches: Arc<dyn DataLoader<Batch>>,
    objective: Objective,
}

impl TrainingLoader {
    pub(crate) fn new(batches: Arc<dyn DataLoader<Batch>>, objective: Objective) -> Self {
        Self { batches, objective }
    }
}

impl DataLoader<TrainingBatch> for TrainingLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TrainingBatch> + 'a> {
        Box::new(TrainingBatches {
            batches: self.batches.iter(),
            objective: self.objective,
        })
    }

    fn num_items(&self) -> usize {
        self.batches.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<TrainingBatch>> {
        Arc::new(Self::new(self.batches.to_device(device), self.objective))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<TrainingBatch>> {
        Arc::new(Self::new(self.batches.slice(start, end), self.objective))
    }
}

struct TrainingBatches<'a> {
    batches: Box<dyn DataLoaderIterator<Batch> + 'a>,
    objective: Objective,
}

impl Iterator for TrainingBatches<'_> {
    type Item = Result<TrainingBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.map(|batch| TrainingBatch {
            batch,
            objective: self.objective,
            weight: 1.0,
        }))
    }
}

impl DataLoaderIterator<TrainingBatch> for TrainingBatches<'_> {
    fn progress(&self) -> Progress {
        self.batches.progress()
    }
}
