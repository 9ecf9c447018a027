//! Images to try the network on: some of the test split, and its mistakes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::permutation;
use serde::{Deserialize, Serialize};

use super::App;
use super::problem::Problem;
use crate::inference::labeled_prediction::{self, LabeledPrediction};
use crate::run::images;

/// Images of one answer.
const MAX_COUNT: usize = 100;

/// Which images of the test split.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SampleOptions {
    #[serde(default = "count")]
    count: usize,
    /// Decides which are taken.
    #[serde(default)]
    seed: u64,
}

/// How many mistakes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MistakeOptions {
    #[serde(default = "count")]
    count: usize,
}

fn count() -> usize {
    10
}

/// An image of the test split.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Its number.
    index: usize,
    /// Its class.
    class: String,
    /// What the network takes it for, and how surely.
    predicted: String,
    probability: f32,
    /// `[channels, height, width]` from 0 to 255, in base64.
    pixels: String,
}

/// The test split as the network sees it, judged.
#[derive(Debug)]
pub(crate) struct Samples {
    all: Vec<Sample>,
    /// Places of mistakes, the worst first.
    mistakes: Vec<usize>,
}

/// `GET /api/samples`: some images of the test split.
pub(crate) async fn samples(
    State(app): State<Arc<App>>,
    Query(options): Query<SampleOptions>,
) -> Result<Json<Vec<Sample>>, Problem> {
    let samples = of(&app).await?;
    let order = permutation(samples.all.len(), options.seed, 0);
    let places = order.into_iter().map(|place| place as usize);
    Ok(Json(taken(&samples.all, places, options.count)))
}

/// `GET /api/mistakes`: those that the network takes for something else, the worst first.
pub(crate) async fn mistakes(
    State(app): State<Arc<App>>,
    Query(options): Query<MistakeOptions>,
) -> Result<Json<Vec<Sample>>, Problem> {
    let samples = of(&app).await?;
    let places = samples.mistakes.iter().copied();
    Ok(Json(taken(&samples.all, places, options.count)))
}

fn taken(all: &[Sample], places: impl Iterator<Item = usize>, count: usize) -> Vec<Sample> {
    let places = places.take(count.min(MAX_COUNT));
    places.map(|place| all[place].clone()).collect()
}

/// The test split, judged when it is asked for first, whether or not who asked still waits.
async fn of(app: &Arc<App>) -> Result<Arc<Samples>, Problem> {
    if let Some(samples) = app.samples.get() {
        return Ok(Arc::clone(samples));
    }
    let app = Arc::clone(app);
    let loading = tokio::spawn(async move {
        let work = Arc::clone(&app);
        let load = || {
            app.slow
                .run(move || load(&work).map(Arc::new).map_err(Problem::failed))
        };
        app.samples.get_or_try_init(load).await.cloned()
    });
    loading.await.map_err(Problem::failed)?
}

fn load(app: &App) -> anyhow::Result<Samples> {
    let splits = images::of_run(&app.run, &app.classifier.config, None)?;
    let (_, guesses) = labeled_prediction::predict_dataset(&app.classifier, &splits.test)?;
    let classes = app.classifier.classes();
    let sample = |guess: &LabeledPrediction| {
        let (predicted, probability) = guess.probabilities.best();
        Sample {
            index: guess.index,
            class: classes[guess.label].clone(),
            predicted: classes[predicted].clone(),
            probability,
            pixels: STANDARD.encode(splits.test.pixels(guess.index)),
        }
    };
    let wrong = labeled_prediction::mistakes(&guesses);
    Ok(Samples {
        all: guesses.iter().map(sample).collect(),
        mistakes: wrong.into_iter().map(|guess| guess.index).collect(),
    })
}
