//! Maps of labeled images: each is a point in the plane, near images with similar features in the last hidden layer.

use anyhow::{Result, ensure};
use classifier::last_hidden_outputs;
use data::{ImageDataset, permutation};
use tracing::info;

use crate::inference::classifier::{Classifier, Probabilities};
use crate::inference::evaluation::for_each_batch;
use crate::inference::principal_components::PrincipalComponents;
use crate::inference::tsne::{STEPS, Tsne};
use crate::process::progress_bar;
use crate::run::loaders::evaluation_loader;

/// Fewest images of a map.
const MIN_IMAGES: usize = 3;
/// Perplexity of t-SNE: about the number of neighbors of a point.
const PERPLEXITY: f64 = 30.0;
/// Number of principal components that t-SNE computes distances from (van der Maaten and Hinton 2008, section 4.2, use 30).
const TSNE_COMPONENTS: usize = 50;

/// How features become points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The first two principal components.
    Pca,
    /// t-distributed stochastic neighbor embedding.
    Tsne,
}

/// A map of labeled images.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    /// The images, in the order of the data set.
    pub(crate) images: Vec<EmbeddedImage>,
    pub(crate) quality: Quality,
    /// Number of values that an image's features are.
    pub(crate) features: usize,
    /// Number of images of the data set, of which there may be fewer on the map.
    pub(crate) total: usize,
}

/// A point of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmbeddedImage {
    /// Index of the image in its data set.
    pub(crate) index: usize,
    /// Index of the true class.
    pub(crate) label: usize,
    pub(crate) predicted: usize,
    /// Probability of the predicted class.
    pub(crate) probability: f32,
    pub(crate) position: [f64; 2],
}

/// The result of a method besides the points.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quality {
    /// The shares of both components in the variance of the features.
    Pca { shares: [f64; 2] },
    /// The perplexity, and the Kullback-Leibler divergence of the map.
    Tsne { perplexity: f64, divergence: f64 },
}

impl EmbeddedImage {
    /// Whether the predicted class is the label.
    pub(crate) fn is_correct(&self) -> bool {
        self.predicted == self.label
    }
}

impl Embedding {
    /// Computes a map of at most `count` images, in which each class has its share. `seed` selects them if there are more.
    ///
    /// # Errors
    /// Returns an error if there are fewer than three images, all have equal features, an image cannot be read, or the device fails.
    pub(crate) fn of(
        classifier: &Classifier,
        images: &ImageDataset,
        method: Method,
        count: usize,
        seed: u64,
    ) -> Result<Self> {
        let total = images.len();
        ensure!(
            total >= MIN_IMAGES,
            "the run has {total} test images; a map needs at least {MIN_IMAGES}"
        );
        let indices = sample(images, count, seed);
        let outputs = outputs(classifier, &images.select(indices.iter().copied()))?;
        let (probabilities, features): (Vec<Probabilities>, Vec<Vec<f32>>) =
            outputs.into_iter().unzip();
        let size = features.first().map_or(0, Vec::len);
        let (positions, quality) = place(features, method)?;
        let image = |(at, &index): (usize, &usize)| {
            let (predicted, probability) = probabilities[at].best();
            EmbeddedImage {
                index,
                label: images.label(index).into(),
                predicted,
                probability,
                position: positions[at],
            }
        };
        Ok(Self {
            images: indices.iter().enumerate().map(image).collect(),
            quality,
            features: size,
            total,
        })
    }

    /// Returns the number of wrong predictions.
    pub(crate) fn mistakes(&self) -> usize {
        self.images
            .iter()
            .filter(|image| !image.is_correct())
            .count()
    }

    /// Returns the number of images of each class.
    pub(crate) fn counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        self.images
            .iter()
            .for_each(|image| counts[image.label] += 1);
        counts
    }

    /// Returns the median position of each class, by coordinate; `None` for classes without images.
    pub(crate) fn centers(&self, classes: usize) -> Vec<Option<[f64; 2]>> {
        let center = |class: usize| {
            let of_class = self.images.iter().filter(|image| image.label == class);
            let positions: Vec<[f64; 2]> = of_class.map(|image| image.position).collect();
            (!positions.is_empty()).then(|| [0, 1].map(|axis| median(&positions, axis)))
        };
        (0..classes).map(center).collect()
    }

    /// Returns the center of the smallest square that contains all points, and half of its side.
    pub(crate) fn square(&self) -> ([f64; 2], f64) {
        let range = |axis: usize| {
            let values = self.images.iter().map(|image| image.position[axis]);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let ranges = [range(0), range(1)];
        let half = ranges.map(|(low, high)| 0.5 * (high - low));
        let center = ranges.map(|(low, high)| 0.5 * (low + high));
        (center, half[0].max(half[1]).max(f64::MIN_POSITIVE))
    }
}

fn median(positions: &[[f64; 2]], axis: usize) -> f64 {
    let mut values: Vec<f64> = positions.iter().map(|position| position[axis]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the indices of at most `count` images in ascending order: evenly many of all classes' images, which of them by `seed`.
fn sample(images: &ImageDataset, count: usize, seed: u64) -> Vec<usize> {
    let total = images.len();
    let mut order: Vec<usize> = permutation(total, seed, 0)
        .into_iter()
        .map(|index| index as usize)
        .collect();
    order.sort_by_key(|&index| images.label(index));
    let count = count.min(total);
    let mut indices: Vec<usize> = (0..count).map(|at| order[at * total / count]).collect();
    indices.sort_unstable();
    indices
}

/// Computes probabilities and features of all images.
fn outputs(
    classifier: &Classifier,
    images: &ImageDataset,
) -> Result<Vec<(Probabilities, Vec<f32>)>> {
    let loader = evaluation_loader(&classifier.config, images, &classifier.device)?;
    let mut outputs = Vec::with_capacity(images.len());
    for_each_batch(&loader, 1, |batch, _| {
        outputs.extend(last_hidden_outputs(&classifier.model, batch.images)?);
        Ok(())
    })?;
    Ok(outputs)
}

/// Computes a point for each vector of features.
fn place(features: Vec<Vec<f32>>, method: Method) -> Result<(Vec<[f64; 2]>, Quality)> {
    let count = features.len();
    let is_finite = features.iter().flatten().all(|value| value.is_finite());
    ensure!(is_finite, "the features of an image are not finite");
    let components = match method {
        Method::Pca => 2,
        Method::Tsne => TSNE_COMPONENTS,
    };
    let Some(components) = PrincipalComponents::of(features, components) else {
        anyhow::bail!("the features of all {count} images are equal: there is nothing to map");
    };
    if method == Method::Pca {
        let value =
            |score: &Vec<f32>, axis: usize| f64::from(score.get(axis).copied().unwrap_or(0.0));
        let positions = components.scores.iter();
        let share = |axis| components.shares.get(axis).copied().unwrap_or(0.0);
        return Ok((
            positions
                .map(|score| [value(score, 0), value(score, 1)])
                .collect(),
            Quality::Pca {
                shares: [share(0), share(1)],
            },
        ));
    }
    let perplexity = PERPLEXITY.min((count - 1) as f64 / 3.0).max(1.0);
    if perplexity < PERPLEXITY {
        info!("t-SNE: perplexity {perplexity:.1} instead of {PERPLEXITY}, for {count} images");
    }
    let bar = progress_bar::bar(STEPS as u64, "steps of t-SNE");
    let mut tsne = Tsne::new(&components.scores, perplexity);
    for _ in 0..STEPS {
        tsne.step();
        bar.inc(1);
    }
    bar.finish_and_clear();
    let divergence = tsne.divergence();
    ensure!(divergence.is_finite(), "t-SNE: the points are not finite");
    let quality = Quality::Tsne {
        perplexity,
        divergence,
    };
    Ok((tsne.points().to_vec(), quality))
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray")))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::run::images::load_test;
    use crate::run::run_dir::RunDir;

    fn open_pretrained() -> (Classifier, ImageDataset) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path(), "pretrained").unwrap();
        let classifier = Classifier::open(&run, Device::default()).unwrap();
        let test = load_test(&run, &classifier.config).unwrap();
        (classifier, test)
    }

    /// Returns the share of the points whose nearest other point has the same class.
    fn agreement(embedding: &Embedding) -> f64 {
        let images = &embedding.images;
        let has_neighbor_of_its_class = |own: &usize| {
            let distance = |other: &usize| {
                let [a, b] = [*own, *other].map(|at| images[at].position);
                (a[0] - b[0]).hypot(a[1] - b[1])
            };
            let others = (0..images.len()).filter(|other| other != own);
            let nearest = others.min_by(|a, b| distance(a).total_cmp(&distance(b)));
            nearest.is_some_and(|nearest| images[nearest].label == images[*own].label)
        };
        let count = (0..images.len()).filter(has_neighbor_of_its_class).count();
        count as f64 / images.len() as f64
    }

    #[test]
    fn tsne_separates_the_digits_and_principal_components_do_less() {
        let (classifier, test) = open_pretrained();
        let map = |method| Embedding::of(&classifier, &test, method, 1000, 1).unwrap();
        let tsne = map(Method::Tsne);
        let pca = map(Method::Pca);
        let (by_tsne, by_pca) = (agreement(&tsne), agreement(&pca));
        assert!(by_tsne > 0.95 && by_pca < 0.8, "{by_tsne} {by_pca}");
        assert_eq!((tsne.features, tsne.total), (128, 10_000));
        assert!(tsne.mistakes() < 25);
        let Quality::Tsne {
            perplexity,
            divergence,
        } = tsne.quality
        else {
            panic!("{:?}", tsne.quality);
        };
        assert!(
            perplexity == 30.0 && (0.1..1.5).contains(&divergence),
            "{divergence}"
        );
        let Quality::Pca { shares } = pca.quality else {
            panic!("{:?}", pca.quality);
        };
        assert!(shares[0] > shares[1] && shares[1] > 0.05, "{shares:?}");
    }

    #[test]
    fn a_sample_has_the_shares_of_the_classes() {
        let (_, test) = open_pretrained();
        let indices = sample(&test, 1000, 7);
        assert!(indices.is_sorted_by(|a, b| a < b) && indices.len() == 1000);
        for class in 0..10 {
            let count = |indices: &[usize]| {
                let labels = indices.iter().map(|&index| test.label(index));
                labels.filter(|&label| label == class).count()
            };
            let all: Vec<usize> = (0..test.len()).collect();
            assert!(count(&indices).abs_diff(count(&all) / 10) <= 1);
        }
        assert_ne!(indices, sample(&test, 1000, 8));
        assert_eq!(sample(&test, 20_000, 7), (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn few_images_are_mapped_with_less_perplexity() {
        let (classifier, test) = open_pretrained();
        let some = |count| test.select(0..count);
        let map = |count| Embedding::of(&classifier, &some(count), Method::Tsne, 100, 1);
        for (count, expected) in [(3, 1.0), (31, 10.0), (91, 30.0)] {
            let Quality::Tsne { perplexity, .. } = map(count).unwrap().quality else {
                panic!("not t-SNE");
            };
            assert_eq!(perplexity, expected);
        }
        for count in [0, 2] {
            let error = map(count).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("the run has {count} test images; a map needs at least 3")
            );
        }
        let equal = test.select([5; 40]);
        let error = Embedding::of(&classifier, &equal, Method::Pca, 100, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the features of all 40 images are equal: there is nothing to map"
        );
    }
}
