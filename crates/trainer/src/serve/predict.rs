//! `/api/predict` and `/api/inspect`: what the network takes a picture for, and what it sees in it.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::Picture;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::{App, blocking};
use crate::prediction::Prediction;

/// Images of one request.
const MAX_IMAGES: usize = 1000;

/// What may be asked for besides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// How many classes to name.
    #[serde(default = "top")]
    top: usize,
    /// Whether a picture is only scaled.
    #[serde(default)]
    raw: bool,
    /// What the picture is called in the answer.
    #[serde(default = "name")]
    name: String,
}

fn top() -> usize {
    3
}

fn name() -> String {
    "-".into()
}

/// Pixels in JSON, `[channels, height, width]` from 0 to 255.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pixels {
    One(Vec<u8>),
    Batch(Vec<Vec<u8>>),
}

/// The images of a request, as the network sees them.
struct Asked {
    images: Vec<Vec<u8>>,
    is_batch: bool,
}

/// `POST /api/predict`: an object as `predict --json` prints it, or a list of them.
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let asked = read(&app, &options, &headers, body).await?;
    let judged = app.judge.judge(asked.images).await?;
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
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let asked = read(&app, &options, &headers, body).await?;
    let [image] = asked.images.as_slice() else {
        return Err(Problem::bad("one image at a time"));
    };
    let pixels = STANDARD.encode(image);
    let judged = app.judge.judge(asked.images.clone()).await?;
    let work = Arc::clone(&app);
    let blocks = blocking(move || maps(&work, asked.images)).await?;
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
fn maps(app: &App, images: Vec<Vec<u8>>) -> Result<Vec<Maps>, Problem> {
    let images = app.classifier.normalized(images);
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
    let maps = app.classifier.model.feature_maps(images);
    maps.into_iter().map(of_block).collect()
}

/// The images of a body: a picture in any format, or pixels in JSON.
async fn read(
    app: &Arc<App>,
    options: &Options,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Asked, Problem> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("").split(';').next().unwrap_or("").trim();
    match kind {
        "application/json" => pixels(app, &body),
        "" | "application/octet-stream" => picture(app, options.raw, body).await,
        kind if kind.starts_with("image/") => picture(app, options.raw, body).await,
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("{other}: expected application/json, or image/png and its like"),
        )),
    }
}

fn pixels(app: &App, body: &[u8]) -> Result<Asked, Problem> {
    let shape = app.classifier.config.images.shape();
    let count: usize = shape.iter().product();
    let parsed = serde_json::from_slice::<Pixels>(body);
    let (images, is_batch) = match parsed {
        Ok(Pixels::One(image)) if !image.is_empty() => (vec![image], false),
        Ok(Pixels::Batch(images)) if !images.is_empty() => (images, true),
        Ok(_) => return Err(Problem::bad("no pixels")),
        Err(error) if error.is_data() => {
            return Err(Problem::bad(
                "expected a list of whole numbers from 0 to 255, or a list of such lists",
            ));
        }
        Err(error) => return Err(Problem::bad(format!("no JSON: {error}"))),
    };
    if images.len() > MAX_IMAGES {
        let found = images.len();
        return Err(Problem::bad(format!(
            "{found} images, more than {MAX_IMAGES}"
        )));
    }
    if let Some(image) = images.iter().find(|image| image.len() != count) {
        let found = image.len();
        return Err(Problem::bad(format!(
            "{found} pixels, expected {count}, which is {shape:?}"
        )));
    }
    Ok(Asked { images, is_batch })
}

async fn picture(app: &Arc<App>, is_raw: bool, body: Bytes) -> Result<Asked, Problem> {
    let work = Arc::clone(app);
    // So many at a time as there are cores; the others wait without a thread.
    let _permit = app.decoders.acquire().await.map_err(Problem::failed)?;
    let image = blocking(move || {
        let picture = Picture::decode(&body);
        let prepared = picture.and_then(|picture| work.classifier.prepared(&picture, is_raw));
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        prepared.map_err(|error| Problem::new(status, error.to_string()))
    })
    .await?;
    Ok(Asked {
        images: vec![image],
        is_batch: false,
    })
}
