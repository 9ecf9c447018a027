//! `/api/samples` and `/api/mistakes`: images of the test split, to try the network on.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use data::permutation;
use serde::Deserialize;

use crate::serve::app::App;
use crate::serve::problem::Problem;
use crate::serve::test_images::{Sample, TestImages};

/// Maximum number of images in a response.
const MAX_COUNT: usize = 100;

/// The query of `/api/samples`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SampleOptions {
    #[serde(default = "count")]
    count: usize,
    /// The seed of the random selection.
    #[serde(default)]
    seed: u64,
}

/// The query of `/api/mistakes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MistakeOptions {
    #[serde(default = "count")]
    count: usize,
}

fn count() -> usize {
    10
}

/// `GET /api/samples`: random images of the test split.
pub(crate) async fn samples(
    State(app): State<Arc<App>>,
    Query(options): Query<SampleOptions>,
) -> Result<Json<Vec<Sample>>, Problem> {
    let images = test_images(&app).await?;
    let order = permutation(images.len(), options.seed, 0);
    let indices = order.into_iter().map(|index| index as usize);
    select(&images, indices, options.count)
}

/// `GET /api/mistakes`: the images that the network misclassifies, the worst first.
pub(crate) async fn mistakes(
    State(app): State<Arc<App>>,
    Query(options): Query<MistakeOptions>,
) -> Result<Json<Vec<Sample>>, Problem> {
    let images = test_images(&app).await?;
    let indices = images.mistakes.iter().copied();
    select(&images, indices, options.count)
}

fn select(
    images: &TestImages,
    indices: impl Iterator<Item = usize>,
    count: usize,
) -> Result<Json<Vec<Sample>>, Problem> {
    let indices = indices.take(count.min(MAX_COUNT));
    let samples = indices.map(|index| images.sample(index).map_err(Problem::internal));
    samples.collect::<Result<_, _>>().map(Json)
}

/// Returns the predictions for the test split. The first call computes them, to the end even if its
/// client disconnects.
async fn test_images(app: &Arc<App>) -> Result<Arc<TestImages>, Problem> {
    if let Some(images) = app.test_images.get() {
        return Ok(Arc::clone(images));
    }
    let app = Arc::clone(app);
    let task = tokio::spawn(async move {
        let (run, classifier) = (app.run.clone(), Arc::clone(&app.classifier));
        let predict = || {
            app.slow_pool.run(move || {
                let images = TestImages::predict(&run, &classifier);
                images.map(Arc::new).map_err(Problem::internal)
            })
        };
        app.test_images.get_or_try_init(predict).await.cloned()
    });
    task.await.map_err(Problem::internal)?
}
