//! `/api/predict` and `/api/inspect`: what the network takes a picture for, and what it sees in it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::Picture;
use serde::{Deserialize, Serialize};

use super::App;
use super::body::Room;
use super::pixels::Pixels;
use super::problem::Problem;
use crate::inference::classifier::Classifier;
use crate::inference::prediction::Prediction;

/// Bytes of a picture's name.
const MAX_NAME: usize = 255;

/// What may be said of the images.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InspectOptions {
    /// Whether a picture is only scaled.
    #[serde(default)]
    raw: bool,
    /// What the picture is called in the answer.
    #[serde(default = "name")]
    name: String,
}

/// The same, and what may be asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PredictOptions {
    /// How many classes to name.
    #[serde(default = "top")]
    top: usize,
    #[serde(default)]
    raw: bool,
    #[serde(default = "name")]
    name: String,
}

fn top() -> usize {
    3
}

fn name() -> String {
    "-".into()
}

/// The images of a request, as the network sees them.
struct Asked {
    images: Vec<Vec<u8>>,
    is_batch: bool,
    room: Room,
}

/// `POST /api/predict`: an object as `predict --json` prints it, or a list of them.
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    Query(options): Query<PredictOptions>,
    request: Request,
) -> Result<Response, Problem> {
    let asked = read(&app, &options.name, options.raw, request).await?;
    let judged = app.judge.judge(asked.images, asked.room).await?;
    let classes = app.classifier.classes();
    let predictions: Vec<Prediction<'_>> = judged
        .iter()
        .map(|found| Prediction::new(options.name.clone(), found, classes, options.top, None))
        .collect();
    Ok(match (asked.is_batch, predictions.as_slice()) {
        (false, [prediction]) => Json(prediction).into_response(),
        _ => Json(predictions).into_response(),
    })
}

/// What the network sees in an image.
#[derive(Serialize)]
struct Inspection<'a> {
    prediction: Prediction<'a>,
    /// The image it was shown.
    seen: Maps,
    /// What each of its blocks makes of it.
    blocks: Vec<Maps>,
}

/// Planes of numbers.
#[derive(Serialize)]
struct Maps {
    channels: usize,
    height: usize,
    width: usize,
    /// From 0 to 255, one after the other, in base64.
    pixels: String,
}

/// `POST /api/inspect`: the same for one image, with what each block makes of it.
pub(crate) async fn inspect(
    State(app): State<Arc<App>>,
    Query(options): Query<InspectOptions>,
    request: Request,
) -> Result<Response, Problem> {
    let asked = read(&app, &options.name, options.raw, request).await?;
    let [image] = asked.images.as_slice() else {
        return Err(Problem::bad("one image at a time"));
    };
    let pixels = STANDARD.encode(image);
    let judged = app.judge.judge(asked.images.clone(), asked.room).await?;
    let classifier = Arc::clone(&app.classifier);
    let blocks = app.workers.run(move || maps(&classifier, asked.images));
    let blocks = blocks.await?;
    let [channels, height, width] = app.classifier.config.images.shape();
    let classes = app.classifier.classes();
    let found = judged.first().ok_or_else(|| Problem::failed("no answer"))?;
    let inspection = Inspection {
        prediction: Prediction::new(options.name, found, classes, classes.len(), None),
        seen: Maps {
            channels,
            height,
            width,
            pixels,
        },
        blocks,
    };
    Ok(Json(inspection).into_response())
}

/// The feature maps of each block, each block in shades of its own.
fn maps(classifier: &Classifier, images: Vec<Vec<u8>>) -> Result<Vec<Maps>, Problem> {
    let images = classifier.normalized(images);
    let of_block = |maps: burn::tensor::Tensor<4>| {
        let [_, channels, height, width] = maps.dims();
        let values: Vec<f32> = maps
            .into_data()
            .try_to_vec()
            .map_err(|error| Problem::failed(format!("cannot read the feature maps: {error:?}")))?;
        // After ReLU nothing is below 0.
        let most = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let shades: Vec<u8> = values
            .iter()
            .map(|value| (255.0 * value / most) as u8)
            .collect();
        Ok(Maps {
            channels,
            height,
            width,
            pixels: STANDARD.encode(shades),
        })
    };
    let maps = classifier.model.feature_maps(images);
    maps.into_iter().map(of_block).collect()
}

/// The images of a body: a picture in any format, or pixels in JSON. No picture begins as JSON does, so that
/// it need not be said which it is.
async fn read(
    app: &Arc<App>,
    name: &str,
    is_raw: bool,
    request: Request,
) -> Result<Asked, Problem> {
    if name.len() > MAX_NAME {
        let found = name.len();
        let detail = format!("a name of {found} bytes, more than {MAX_NAME}");
        return Err(Problem::bad(detail));
    }
    let kind = request.headers().get(CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let (body, room) = app.bodies.read(request.into_body()).await?;
    if is_json || body.trim_ascii_start().starts_with(b"[") {
        let shape = app.classifier.config.images.shape();
        let pixels = Pixels::read(&body, shape).map_err(Problem::bad)?;
        return Ok(Asked {
            is_batch: matches!(pixels, Pixels::Batch(_)),
            images: pixels.into_images(),
            room,
        });
    }
    let classifier = Arc::clone(&app.classifier);
    app.workers
        .run(move || {
            let picture = Picture::decode(&body);
            let prepared = picture.and_then(|picture| classifier.prepared(&picture, is_raw));
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let image = prepared.map_err(|error| Problem::new(status, error.to_string()))?;
            Ok(Asked {
                images: vec![image],
                is_batch: false,
                room,
            })
        })
        .await
}
