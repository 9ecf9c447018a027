//! `/api/predict` and `/api/inspect`: the prediction for a picture, and the feature maps.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use classifier::{MIN_PROBABILITY, Page, Reading};
use data::Picture;
use serde::{Deserialize, Serialize};

use crate::inference::classifier::{Answer, Classifier};
use crate::inference::prediction::Prediction;
use crate::inference::reading::{PreparedPicture, Split};
use crate::serve::app::App;
use crate::serve::pixels::Pixels;
use crate::serve::problem::Problem;
use crate::serve::request_body::Reservation;

/// Maximum length of the name of a picture, in bytes.
const MAX_NAME: usize = 255;

/// The query of `/api/inspect`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InspectOptions {
    /// Whether a picture is only scaled, not prepared like the training data.
    #[serde(default)]
    raw: bool,
    /// Whether several characters are read.
    #[serde(default)]
    split: Split,
    /// The `path` in the response.
    #[serde(default = "name")]
    name: String,
}

/// The query of `/api/predict`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PredictOptions {
    /// Number of classes in the response.
    #[serde(default = "top")]
    top: usize,
    /// Smallest calibrated probability of a sure prediction.
    #[serde(default = "min_probability")]
    min_probability: f32,
    /// As in [`InspectOptions`].
    #[serde(default)]
    raw: bool,
    /// As in [`InspectOptions`].
    #[serde(default)]
    split: Split,
    /// As in [`InspectOptions`].
    #[serde(default = "name")]
    name: String,
}

fn min_probability() -> f32 {
    MIN_PROBABILITY
}

fn top() -> usize {
    3
}

fn name() -> String {
    "-".into()
}

/// The images of a request, prepared for the network.
struct RequestImages {
    images: Vec<Vec<u8>>,
    /// The picture, if it may be read as several characters.
    page: Option<Page>,
    /// Whether the response is a list.
    is_list: bool,
    memory: Reservation,
}

/// `POST /api/predict`: an object as `predict --json` prints it, or a list of such objects.
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    Query(options): Query<PredictOptions>,
    request: Request,
) -> Result<Response, Problem> {
    let PredictOptions {
        top,
        min_probability,
        raw,
        split,
        name,
    } = options;
    if !(0.0..=1.0).contains(&min_probability) {
        let detail = format!("min_probability: {min_probability}, expected a number from 0 to 1");
        return Err(Problem::bad_request(detail));
    }
    let RequestImages {
        images,
        page,
        is_list,
        memory,
    } = read_images(&app, &name, raw, split, request).await?;
    let answers = app.batch_queue.classify(images, memory).await?;
    let classes = app.classifier.classes();
    let reading = reading(&app, page, &answers, split, min_probability).await?;
    if let Some(reading) = reading {
        let prediction = Prediction::of_reading(name, &reading, classes, min_probability);
        return Ok(Json(prediction).into_response());
    }
    let predictions: Vec<Prediction<'_>> = answers
        .iter()
        .map(|answer| Prediction::new(name.clone(), answer, classes, top, min_probability, None))
        .collect();
    Ok(match (is_list, predictions.as_slice()) {
        (false, [prediction]) => Json(prediction).into_response(),
        _ => Json(predictions).into_response(),
    })
}

/// The prediction for an image, with the feature maps.
#[derive(Serialize)]
struct Inspection<'a> {
    prediction: Prediction<'a>,
    /// The input of the network.
    seen: Planes,
    /// The feature maps of each block.
    blocks: Vec<Planes>,
}

/// The planes of an image or of feature maps.
#[derive(Serialize)]
struct Planes {
    channels: usize,
    height: usize,
    width: usize,
    /// `[channels, height, width]`, from 0 to 255, in base64.
    pixels: String,
}

/// `POST /api/inspect`: the prediction for one image, with the feature maps.
pub(crate) async fn inspect(
    State(app): State<Arc<App>>,
    Query(options): Query<InspectOptions>,
    request: Request,
) -> Result<Response, Problem> {
    let InspectOptions { raw, split, name } = options;
    let RequestImages {
        images,
        page,
        memory,
        ..
    } = read_images(&app, &name, raw, split, request).await?;
    let [image] = images.as_slice() else {
        return Err(Problem::bad_request("expected one image"));
    };
    let pixels = STANDARD.encode(image);
    let answers = app.batch_queue.classify(images.clone(), memory).await?;
    let classifier = Arc::clone(&app.classifier);
    let blocks = app.pool.run(move || feature_maps(&classifier, images));
    let blocks = blocks.await?;
    let [channels, height, width] = app.classifier.config.images.shape();
    let classes = app.classifier.classes();
    let answer = answers
        .first()
        .ok_or_else(|| Problem::internal("no prediction"))?;
    let reading = reading(&app, page, &answers, split, MIN_PROBABILITY).await?;
    let top = classes.len();
    let inspection = Inspection {
        prediction: match &reading {
            Some(reading) => Prediction::of_reading(name, reading, classes, MIN_PROBABILITY),
            None => Prediction::new(name, answer, classes, top, MIN_PROBABILITY, None),
        },
        seen: Planes {
            channels,
            height,
            width,
            pixels,
        },
        blocks,
    };
    Ok(Json(inspection).into_response())
}

/// Reads the characters of the picture of a request, if it has several.
async fn reading(
    app: &App,
    page: Option<Page>,
    answers: &[Answer],
    split: Split,
    min_probability: f32,
) -> Result<Option<Reading>, Problem> {
    let (Some(page), Some(answer)) = (page, answers.first().cloned()) else {
        return Ok(None);
    };
    let classifier = Arc::clone(&app.classifier);
    let read = move || {
        let reading = classifier.read_if_split(&page, &answer, split, min_probability);
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        reading.map_err(|error| Problem::new(status, format!("{error:#}")))
    };
    app.pool.run(read).await
}

/// Computes the feature maps of each block, scaled such that the maximum of a block is 255.
fn feature_maps(classifier: &Classifier, images: Vec<Vec<u8>>) -> Result<Vec<Planes>, Problem> {
    let images = classifier.normalized(images);
    let planes = |maps: burn::tensor::Tensor<4>| {
        let [_, channels, height, width] = maps.dims();
        let values: Vec<f32> = maps.into_data().try_to_vec().map_err(|error| {
            Problem::internal(format!("cannot read the feature maps: {error:?}"))
        })?;
        // No value after ReLU is negative.
        let max = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let pixels: Vec<u8> = values
            .iter()
            .map(|value| (255.0 * value / max) as u8)
            .collect();
        Ok(Planes {
            channels,
            height,
            width,
            pixels: STANDARD.encode(pixels),
        })
    };
    let maps = classifier.model.feature_maps(images);
    maps.into_iter().map(planes).collect()
}

/// Reads the images of a request: a picture file, or pixels in JSON. A body that begins as a JSON list is
/// JSON whatever its media type, because no picture file does.
async fn read_images(
    app: &Arc<App>,
    name: &str,
    is_raw: bool,
    split: Split,
    request: Request,
) -> Result<RequestImages, Problem> {
    if name.len() > MAX_NAME {
        let len = name.len();
        let detail = format!("name: {len} bytes, expected at most {MAX_NAME}");
        return Err(Problem::bad_request(detail));
    }
    let media_type = request.headers().get(CONTENT_TYPE);
    let is_json = media_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let (body, memory) = app.bodies.read(request.into_body()).await?;
    if is_json || body.trim_ascii_start().starts_with(b"[") {
        let shape = app.classifier.config.images.shape();
        let pixels = Pixels::read(&body, shape).map_err(Problem::bad_request)?;
        return Ok(RequestImages {
            is_list: matches!(pixels, Pixels::Batch(_)),
            images: pixels.into_images(),
            page: None,
            memory,
        });
    }
    let classifier = Arc::clone(&app.classifier);
    app.pool
        .run(move || {
            let picture = Picture::decode(&body);
            let prepared =
                picture.and_then(|picture| classifier.prepared_page(&picture, is_raw, split));
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let PreparedPicture { image, page } =
                prepared.map_err(|error| Problem::new(status, error.to_string()))?;
            Ok(RequestImages {
                images: vec![image],
                page,
                is_list: false,
                memory,
            })
        })
        .await
}
