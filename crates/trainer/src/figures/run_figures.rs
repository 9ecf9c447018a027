//! The figures of a run, drawn from its folder and its images.

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use data::{ImageDataset, Loader, Mixing, MnistBatcher, Order, permutation};

use crate::config::run_config::Config;
use crate::figures::{self, AugmentedEpoch, ColorFilter, ExplainedMistake, Figure, Plane};
use crate::inference::chosen_image::ChosenImage;
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::inference::labeled_prediction::{
    LabeledPrediction, Mistake, mistake_rows, mistakes, predict_dataset,
};
use crate::inference::robustness::corrupted;
use crate::run::epoch::Epoch;
use crate::run::images;
use crate::run::run_dir::RunDir;

/// Number of feature maps drawn by default.
const FEATURE_MAPS: usize = 8;
/// Number of training images in the augmentation figure.
const AUGMENTED_IMAGES: usize = 6;
/// Number of mistakes that a report lists.
const MAX_MISTAKES: usize = 50;
/// Number of mistakes that Grad-CAM explains.
const EXPLAINED_MISTAKES: usize = 6;
/// Number of variants of each image in the augmentation figure.
const VARIANTS: u64 = 8;

/// Options of a run's figures.
#[derive(Clone, Debug)]
pub(crate) struct FigureOptions {
    /// Image whose feature maps are drawn: an index in the test split or a picture file.
    pub(crate) image: String,
    /// Whether the picture file is only scaled, without further preparation.
    pub(crate) raw: bool,
    /// Block whose filters and feature maps are drawn, from 1; the first by default.
    pub(crate) block: Option<usize>,
    /// Indices of the feature maps, from 0; the first eight by default.
    pub(crate) maps: Option<Vec<usize>>,
    /// Input channel of the block for which its filters are drawn, from 0; by default, the first one, or the three
    /// channels of a color image together.
    pub(crate) channel: Option<usize>,
    /// Number of random test images.
    pub(crate) count: usize,
    /// Seed of the random selection.
    pub(crate) seed: u64,
    /// Number of mistakes.
    pub(crate) mistakes: usize,
}

impl Default for FigureOptions {
    fn default() -> Self {
        Self {
            image: "0".into(),
            raw: false,
            block: None,
            maps: None,
            channel: None,
            count: 5,
            seed: 42,
            mistakes: 10,
        }
    }
}

/// The figures of a run, and the evaluation on its test split that they show.
#[derive(Debug)]
pub(crate) struct RunFigures {
    pub(crate) figures: Vec<Figure>,
    pub(crate) evaluation: Evaluation,
    /// The worst mistakes, at most [`MAX_MISTAKES`].
    pub(crate) mistakes: Vec<Mistake>,
}

impl RunFigures {
    /// Evaluates the network of a run on the test split, and draws all figures.
    ///
    /// # Errors
    /// Returns an error if the images cannot be read, the options name a block, feature map, channel or
    /// image that does not exist, or the device fails.
    pub(crate) fn draw(
        run: &RunDir,
        classifier: &Classifier,
        epochs: &[Epoch],
        options: &FigureOptions,
    ) -> Result<Self> {
        let test = &images::load_test(run, &classifier.config)?;
        let mut figures = Vec::new();
        figures.extend(augmentation(run, &classifier.config, &classifier.device)?);
        if !epochs.is_empty() {
            figures.push(figures::curves(epochs));
        }
        if let Some(block) = block_index(classifier, options.block)? {
            figures.push(filters(classifier, block, options.channel)?);
            figures.push(feature_maps(classifier, block, test, options)?);
        }
        let classes = classifier.classes();
        let (evaluation, predictions) = predict_dataset(classifier, test)?;
        let random: Vec<&LabeledPrediction> = permutation(predictions.len(), options.seed, 0)
            .into_iter()
            .take(options.count)
            .map(|index| &predictions[index as usize])
            .collect();
        figures.push(figures::predictions(&random, test, classes)?);

        let mistakes = mistakes(&predictions);
        let worst = &mistakes[..mistakes.len().min(options.mistakes)];
        figures.push(figures::mistakes(worst, mistakes.len(), test, classes)?);
        figures.extend(grad_cam(classifier, &mistakes, test)?);
        figures.push(figures::confusion(&evaluation));
        figures.push(figures::class_accuracies(&evaluation));
        let listed = &mistakes[..mistakes.len().min(MAX_MISTAKES)];
        Ok(Self {
            figures,
            evaluation,
            mistakes: mistake_rows(listed, test, classes),
        })
    }
}

/// Draws training images of a run with their random variants; `None` without augmentation. mixup and CutMix
/// mix the drawn images with each other.
///
/// # Errors
/// Returns an error if no training image can be read.
pub(crate) fn augmentation(
    run: &RunDir,
    config: &Config,
    device: &Device,
) -> Result<Option<Figure>> {
    let (augmentation, seed) = (config.augmentation, config.training.seed);
    let mixing = Mixing::of(&augmentation);
    if augmentation.is_identity() && mixing.is_none() {
        return Ok(None);
    }
    let train = images::load_training_examples(run, config, AUGMENTED_IMAGES)?;
    ensure!(!train.is_empty(), "the run has no training images");
    let scaling = config.scaling();
    let (batcher, order) = (MnistBatcher { scaling }, Order::Sequential);
    let loader = Loader::new(train.clone(), batcher, train.len(), order, device.clone())
        .with_augmentation(augmentation, seed)
        .with_mixing(mixing, seed);
    let plane = train.height() * train.width();
    let epochs = (1..=VARIANTS).map(|epoch| {
        let batch = loader.batches(epoch).next_batch().context("no batch")??;
        let values = batch.images.try_into_data()?;
        let channel = |at: usize| at / plane % config.images.channels;
        let pixels = values.iter::<f32>().enumerate();
        let pixels = pixels.map(|(at, value)| scaling.pixel(value, channel(at)));
        let pixels: Vec<u8> = pixels.collect();
        let images = pixels.chunks(pixels.len() / train.len());
        Ok(AugmentedEpoch {
            images: images.map(<[u8]>::to_vec).collect(),
            second_weight: batch.mixed.map(|mixed| mixed.weight),
        })
    });
    let epochs = epochs.collect::<Result<Vec<_>>>()?;
    let originals = (0..train.len()).map(|index| train.pixels(index));
    let originals = originals.collect::<Result<Vec<_>, _>>()?;
    let originals: Vec<&[u8]> = originals.iter().map(|pixels| &**pixels).collect();
    let figure = figures::augmentation(&originals, &epochs, config.images.shape());
    Ok(Some(figure))
}

/// Draws an image under each corruption that images of the run can have.
///
/// # Errors
/// Returns an error if the image does not exist, cannot be read, or is too small or too large to be corrupted.
pub(crate) fn corruption_examples(
    run: &RunDir,
    classifier: &Classifier,
    options: &FigureOptions,
) -> Result<Figure> {
    let test = images::load_test(run, &classifier.config)?;
    let (pixels, caption) = chosen_image(classifier, &test, options)?;
    let index = options.image.parse().unwrap_or(0);
    let images = &classifier.config.images;
    let corrupted = corrupted(&pixels, images.shape(), images.preparation, index)?;
    Ok(figures::corruption_examples(
        &pixels,
        &corrupted,
        images.shape(),
        &caption,
    ))
}

/// Returns the index of block `number`, counted from 1, or of the first block by default; `None` for a
/// dense network.
fn block_index(classifier: &Classifier, number: Option<usize>) -> Result<Option<usize>> {
    let count = classifier.model.blocks().len();
    match number {
        None => Ok((count > 0).then_some(0)),
        Some(block) if (1..=count).contains(&block) => Ok(Some(block - 1)),
        Some(block) if count == 0 => {
            bail!("block {block}: this network has no convolution blocks, only dense layers")
        }
        Some(block) => bail!("block {block}: this network has blocks 1 to {count}"),
    }
}

/// Draws the filters of a block for one of its input channels, or in color.
fn filters(classifier: &Classifier, block: usize, channel: Option<usize>) -> Result<Figure> {
    let weights = classifier.model.blocks()[block].weights();
    let [filters, channels, height, width] = weights.dims();
    let sees_color = block == 0 && classifier.config.images.channels == 3;
    if sees_color && channel.is_none() {
        let values: Vec<f32> = weights.into_data().iter::<f32>().collect();
        let filters: Vec<ColorFilter> = values
            .chunks(channels * height * width)
            .map(|values| ColorFilter {
                values: values.to_vec(),
                height,
                width,
            })
            .collect();
        return Ok(figures::color_filters(block + 1, &filters));
    }
    let channel = channel.unwrap_or(0);
    ensure!(
        channel < channels,
        "channel {channel}: block {} has input channels 0 to {}",
        block + 1,
        channels - 1
    );
    let weights = weights.slice([0..filters, channel..channel + 1]);
    let planes = planes(weights.into_data().iter::<f32>().collect(), height, width);
    Ok(figures::filters(block + 1, channel, channels, &planes))
}

/// Draws the feature maps that a block computes of the chosen image.
fn feature_maps(
    classifier: &Classifier,
    block: usize,
    test: &ImageDataset,
    options: &FigureOptions,
) -> Result<Figure> {
    let (pixels, caption) = chosen_image(classifier, test, options)?;
    let images = classifier.normalized(vec![pixels.clone()]);
    let maps = classifier.model.feature_maps(images).swap_remove(block);
    let [_, count, height, width] = maps.dims();
    let chosen = match &options.maps {
        Some(maps) => maps.clone(),
        None => (0..count.min(FEATURE_MAPS)).collect(),
    };
    if let Some(map) = chosen.iter().find(|&&map| map >= count) {
        bail!(
            "feature map {map}: block {} has feature maps 0 to {}",
            block + 1,
            count - 1
        );
    }
    let all = planes(maps.into_data().iter::<f32>().collect(), height, width);
    let chosen: Vec<Plane> = chosen.into_iter().map(|map| all[map].clone()).collect();
    let image = (pixels.as_slice(), classifier.config.images.shape());
    Ok(figures::feature_maps(
        block + 1,
        count,
        image,
        &caption,
        &chosen,
    ))
}

/// Returns the pixels of the image whose feature maps are drawn, `[channels, height, width]`, and a
/// caption with its label or predicted class.
fn chosen_image(
    classifier: &Classifier,
    test: &ImageDataset,
    options: &FigureOptions,
) -> Result<(Vec<u8>, String)> {
    let test = || Ok(test.clone());
    let ChosenImage { pixels, label } =
        ChosenImage::open(&options.image, options.raw, classifier, test)?;
    let classes = classifier.classes();
    let caption = match label {
        Some(label) => format!("label {}", classes[label]),
        None => {
            let answers = classifier.classify(vec![pixels.clone()])?;
            let (class, _) = answers[0].probabilities.best();
            format!("predicted {}", classes[class])
        }
    };
    Ok((pixels, caption))
}

/// Draws Grad-CAM of the first mistakes; `None` without mistakes, or for a dense network.
fn grad_cam(
    classifier: &Classifier,
    mistakes: &[&LabeledPrediction],
    test: &ImageDataset,
) -> Result<Option<Figure>> {
    let mut explained = Vec::new();
    for mistake in mistakes.iter().take(EXPLAINED_MISTAKES) {
        let (predicted, _) = mistake.probabilities.best();
        let pixels = test.pixels(mistake.index)?.into_owned();
        let Some(grad_cam) = classifier.grad_cam(&pixels, predicted)? else {
            return Ok(None);
        };
        explained.push(ExplainedMistake {
            pixels,
            index: mistake.index,
            label: mistake.label,
            predicted,
            map: grad_cam.map,
        });
    }
    let shape = classifier.config.images.shape();
    Ok((!explained.is_empty()).then(|| figures::grad_cam(&explained, shape, classifier.classes())))
}

/// Splits values of shape `[N, height, width]` into N planes.
fn planes(values: Vec<f32>, height: usize, width: usize) -> Vec<Plane> {
    let planes = values.chunks(height * width).enumerate();
    planes
        .map(|(index, values)| Plane {
            index,
            values: values.to_vec(),
            height,
            width,
        })
        .collect()
}
