//! The training images that are most similar to an image, as the network sees them.

use std::cmp::Ordering;

use anyhow::Result;
use burn::tensor::{DType, Tensor};
use data::ImageDataset;

use crate::inference::classifier::Classifier;
use crate::inference::evaluation::for_each_batch;
use crate::process::progress_bar::bar;
use crate::run::loaders::evaluation_loader;

/// A similar image of a data set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SimilarImage {
    /// Index in the data set.
    pub(crate) index: usize,
    /// Index of the class.
    pub(crate) label: usize,
    /// `[channels, height, width]`.
    pub(crate) pixels: Vec<u8>,
    /// Cosine of the angle between the features of both images.
    pub(crate) similarity: f32,
}

impl Classifier {
    /// Finds the images of a data set that are most similar to an image, `[channels, height, width]`, most similar first:
    /// those with the largest cosine between the features that the network computes before its dense layers.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read, or the device fails.
    pub(crate) fn nearest_images(
        &self,
        pixels: &[u8],
        images: &ImageDataset,
        count: usize,
    ) -> Result<Vec<SimilarImage>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let features = |images| {
            let (_, features) = self.model.forward_with_features(images);
            unit_length(features.cast(DType::F32))
        };
        let image = features(self.normalized(vec![pixels.to_vec()]));
        let loader = evaluation_loader(&self.config, images, &self.device)?;
        let bar = bar(images.len() as u64, "training images");
        let mut similarities: Vec<(usize, f32)> = Vec::with_capacity(images.len());
        for_each_batch(&loader, 1, |batch, _| {
            let cosines = features(batch.images).matmul(image.clone().transpose());
            let cosines = cosines.try_into_data()?;
            let first = similarities.len();
            similarities.extend((first..).zip(cosines.iter::<f32>()));
            bar.set_position(similarities.len() as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        similarities.sort_by(most_similar_first);
        let nearest = similarities.into_iter().take(count);
        nearest
            .map(|(index, similarity)| {
                Ok(SimilarImage {
                    index,
                    label: images.label(index).into(),
                    pixels: images.pixels(index)?.into_owned(),
                    similarity,
                })
            })
            .collect()
    }
}

/// Scales rows to length 1; zeros stay zeros.
fn unit_length(rows: Tensor<2>) -> Tensor<2> {
    let lengths = rows.clone().square().sum_dim(1).sqrt();
    rows / lengths.clamp_min(f64::from(f32::MIN_POSITIVE))
}

/// Orders by similarity, largest first, then by index.
fn most_similar_first(a: &(usize, f32), b: &(usize, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::run::images;
    use crate::run::run_dir::RunDir;

    #[test]
    fn an_image_is_most_similar_to_itself() {
        let run = RunDir::open("artifacts/runs".as_ref(), "pretrained").unwrap();
        let classifier = Classifier::open(&run, Device::default()).unwrap();
        let train = images::load_training_examples(&run, &classifier.config, 300).unwrap();
        let pixels = train.pixels(17).unwrap();
        let nearest = classifier.nearest_images(&pixels, &train, 5).unwrap();
        assert_eq!(nearest.len(), 5);
        assert_eq!(nearest[0].index, 17);
        assert_eq!(nearest[0].pixels, *pixels);
        assert!((nearest[0].similarity - 1.0).abs() < 1e-5);
        assert!(nearest.is_sorted_by(|a, b| a.similarity >= b.similarity));
        let label = usize::from(train.label(17));
        assert!(nearest.iter().all(|similar| similar.label == label));
        // There are fewer images than requested.
        let few = train.select([3, 4]);
        assert_eq!(
            classifier.nearest_images(&pixels, &few, 5).unwrap().len(),
            2
        );
        let none = train.select([]);
        assert_eq!(classifier.nearest_images(&pixels, &none, 5).unwrap(), []);
    }

    #[test]
    fn features_of_zero_have_no_direction() {
        let rows = Tensor::from_floats([[3.0, 4.0], [0.0, 0.0]], &Device::default());
        let values: Vec<f32> = unit_length(rows).into_data().try_to_vec().unwrap();
        assert_eq!(values, [0.6, 0.8, 0.0, 0.0]);
    }
}
