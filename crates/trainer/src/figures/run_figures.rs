//! The figures of a run, drawn from its folder and its images.

use anyhow::{Context, Result, bail, ensure};
use burn::data::dataset::Dataset;
use data::loader::permutation;
use data::{ImageDataset, Picture, Splits};

use crate::config::run_config::Config;
use crate::figures::{self, Changed, Figure, Judged, Seen};
use crate::inference::classifier::{Classifier, Probabilities};
use crate::inference::evaluation::Evaluation;
use crate::run::epoch::Epoch;
use crate::run::images::{self, DataSplit};
use crate::run::run_dir::RunDir;

/// What to draw.
#[derive(Clone, Debug)]
pub(crate) struct FigureOptions {
    /// Whose feature maps: a number of the test split, or a picture's path.
    pub(crate) image: String,
    /// Whether that picture is shown to the network as it is.
    pub(crate) raw: bool,
    /// Which block's filters and feature maps, from 1.
    pub(crate) block: Option<usize>,
    /// Which of its feature maps; the first eight.
    pub(crate) maps: Option<Vec<usize>>,
    /// For which of the channels before the block its filters are shown.
    pub(crate) channel: usize,
    /// Random test images.
    pub(crate) count: usize,
    /// Decides which.
    pub(crate) seed: u64,
    /// Mistakes.
    pub(crate) mistakes: usize,
}

impl Default for FigureOptions {
    fn default() -> Self {
        Self {
            image: "0".into(),
            raw: false,
            block: None,
            maps: None,
            channel: 0,
            count: 5,
            seed: 42,
            mistakes: 10,
        }
    }
}

/// Feature maps that are shown unless others are asked for.
const MAPS: usize = 8;

/// The figures of a run, and what some of them show.
#[derive(Debug)]
pub(crate) struct RunFigures {
    pub(crate) figures: Vec<Figure>,
    pub(crate) evaluation: Evaluation,
}

impl RunFigures {
    /// Judges the test split of a run, and draws that and its epochs.
    ///
    /// # Errors
    /// When something is asked for that is not there: the error says what is.
    pub(crate) fn draw(
        run: &RunDir,
        classifier: &Classifier,
        epochs: &[Epoch],
        choices: &FigureOptions,
    ) -> Result<Self> {
        let splits = images::of_run(run, &classifier.config, None)?;
        let test = &splits.test;
        let mut figures = Vec::new();
        figures.extend(augmentation(&classifier.config, &splits)?);
        if !epochs.is_empty() {
            figures.push(figures::curves(epochs));
        }
        if let Some(block) = block(classifier, choices.block)? {
            figures.push(filters(classifier, block, choices.channel)?);
            figures.push(feature_maps(classifier, block, test, choices)?);
        }
        let classes = classifier.classes();
        let (evaluation, judged) = judge(classifier, test)?;
        let random = permutation(judged.len(), choices.seed, 0)
            .into_iter()
            .take(choices.count);
        let random: Vec<Judged> = random.map(|at| judged[at as usize].image(test)).collect();
        figures.push(figures::predictions(&random, classes));

        let wrong = mistakes(&judged);
        let worst = wrong.iter().take(choices.mistakes);
        let worst: Vec<Judged> = worst.map(|guess| guess.image(test)).collect();
        figures.push(figures::mistakes(&worst, wrong.len(), classes));
        figures.push(figures::confusion(&evaluation));
        figures.push(figures::class_accuracies(&evaluation));
        Ok(Self {
            figures,
            evaluation,
        })
    }
}

/// Training images that are shown with their changes, and changes of each.
const CHANGED: (usize, usize) = (6, 8);

/// Some images that a run trains on, as they are and as they are changed; `None` where they are not.
///
/// # Errors
/// When the training split cannot be divided as the run says.
pub(crate) fn augmentation(config: &Config, splits: &Splits) -> Result<Option<Figure>> {
    let augmentation = config.augmentation;
    if augmentation.is_none() {
        return Ok(None);
    }
    let seed = config.training.seed;
    let DataSplit { train, .. } =
        DataSplit::new(&config.data, seed, &splits.train, splits.test.clone())?;
    let (images, changes) = CHANGED;
    let shown = 0..images.min(train.len());
    let changed = shown.map(|index| {
        let original = train.get(index)?;
        let changes = (1..=changes as u64).map(|epoch| {
            let mut sample = original.clone();
            augmentation.apply(&mut sample, config.training.seed, epoch, index);
            sample.pixels
        });
        Ok(Changed {
            changes: changes.collect(),
            original: original.pixels,
        })
    });
    let changed = changed.collect::<Result<Vec<_>>>()?;
    Ok(Some(figures::augmentation(&changed, config.images.shape())))
}

/// What the network makes of a test image.
pub(crate) struct Guess {
    pub(crate) index: usize,
    pub(crate) label: usize,
    pub(crate) probabilities: Probabilities,
}

impl Guess {
    fn is_wrong(&self) -> bool {
        self.probabilities.best().0 != self.label
    }

    fn loss(&self) -> f32 {
        self.probabilities.loss(self.label)
    }

    fn image(&self, test: &ImageDataset) -> Judged {
        Judged {
            index: self.index,
            pixels: test.pixels(self.index).to_vec(),
            shape: [test.channels(), test.height(), test.width()],
            label: self.label,
            probabilities: self.probabilities.clone(),
        }
    }
}

/// The images that are taken for something else, the worst first.
pub(crate) fn mistakes(guesses: &[Guess]) -> Vec<&Guess> {
    let mut wrong: Vec<&Guess> = guesses.iter().filter(|guess| guess.is_wrong()).collect();
    wrong.sort_by(|a, b| b.loss().total_cmp(&a.loss()));
    wrong
}

/// Judges all images of the test split.
///
/// # Errors
/// When the device fails.
pub(crate) fn judge(
    classifier: &Classifier,
    test: &ImageDataset,
) -> Result<(Evaluation, Vec<Guess>)> {
    let mut guesses = Vec::with_capacity(test.len());
    let evaluation = classifier.evaluate(test, |batch| {
        for probabilities in Probabilities::from_logits(batch.logits)? {
            let index = guesses.len();
            guesses.push(Guess {
                index,
                label: test.label(index).into(),
                probabilities,
            });
        }
        Ok(())
    })?;
    Ok((evaluation, guesses))
}

/// Which block to show, from 0: the first unless another is asked for; `None` of a dense network.
fn block(classifier: &Classifier, asked: Option<usize>) -> Result<Option<usize>> {
    let count = classifier.model.blocks().len();
    match asked {
        None => Ok((count > 0).then_some(0)),
        Some(block) if (1..=count).contains(&block) => Ok(Some(block - 1)),
        Some(block) if count == 0 => {
            bail!("block {block}: this network has no convolution blocks, only dense layers")
        }
        Some(block) => bail!("block {block}: this network has blocks 1 to {count}"),
    }
}

/// The filters of a block for one of the channels before it.
fn filters(classifier: &Classifier, block: usize, channel: usize) -> Result<Figure> {
    let weights = classifier.model.blocks()[block].weights();
    let [filters, channels, height, width] = weights.dims();
    ensure!(
        channel < channels,
        "channel {channel}: block {} takes channels 0 to {}",
        block + 1,
        channels - 1
    );
    let weights = weights.slice([0..filters, channel..channel + 1]);
    let seen = planes(weights.into_data().iter::<f32>().collect(), height, width);
    Ok(figures::filters(block + 1, channel, channels, &seen))
}

/// What a block makes of the chosen image.
fn feature_maps(
    classifier: &Classifier,
    block: usize,
    test: &ImageDataset,
    choices: &FigureOptions,
) -> Result<Figure> {
    let (pixels, caption) = chosen_image(classifier, test, choices)?;
    let images = classifier.normalized(vec![pixels.clone()]);
    let maps = classifier.model.feature_maps(images).swap_remove(block);
    let [_, count, height, width] = maps.dims();
    let chosen = match &choices.maps {
        Some(maps) => maps.clone(),
        None => (0..count.min(MAPS)).collect(),
    };
    if let Some(map) = chosen.iter().find(|&&map| map >= count) {
        bail!(
            "feature map {map}: block {} makes maps 0 to {}",
            block + 1,
            count - 1
        );
    }
    let all = planes(maps.into_data().iter::<f32>().collect(), height, width);
    let chosen: Vec<Seen> = chosen.into_iter().map(|map| all[map].clone()).collect();
    let image = (pixels.as_slice(), classifier.config.images.shape());
    Ok(figures::feature_maps(
        block + 1,
        count,
        image,
        &caption,
        &chosen,
    ))
}

/// The image whose feature maps are drawn, as the network sees it, and what it is.
fn chosen_image(
    classifier: &Classifier,
    test: &ImageDataset,
    choices: &FigureOptions,
) -> Result<(Vec<u8>, String)> {
    let image = choices.image.as_str();
    if let Ok(index) = image.parse::<usize>() {
        ensure!(
            index < test.len(),
            "test image {index}: there are 0 to {}",
            test.len() - 1
        );
        let class = &classifier.classes()[usize::from(test.label(index))];
        return Ok((test.pixels(index).to_vec(), format!("label {class}")));
    }
    let pixels = Picture::open(image.as_ref())
        .and_then(|picture| classifier.prepared(&picture, choices.raw))
        .with_context(|| image.to_string())?;
    let (class, _) = classifier.classify(vec![pixels.clone()])?[0].best();
    Ok((pixels, format!("taken for {}", classifier.classes()[class])))
}

/// Numbers `[N, height, width]` as N planes.
fn planes(values: Vec<f32>, height: usize, width: usize) -> Vec<Seen> {
    let planes = values.chunks(height * width).enumerate();
    planes
        .map(|(number, values)| Seen {
            number,
            values: values.to_vec(),
            height,
            width,
        })
        .collect()
}
