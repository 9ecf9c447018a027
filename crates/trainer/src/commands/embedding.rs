//! `trainer inspect RUN --embedding`: a map of the test images by their features.

use anyhow::Result;
use clap::builder::RangedU64ValueParser;

use crate::figures::embedding_page;
use crate::figures::{self, Figure};
use crate::inference::classifier::Classifier;
use crate::inference::embedding::{Embedding, Method};
use crate::run::data_report::image_names;
use crate::run::images;
use crate::run::run_dir::RunDir;

#[derive(Debug, clap::Args)]
pub(crate) struct EmbeddingFlags {
    /// Draw only a map of the test images
    ///
    /// Images are near each other if the network computes similar features of them before its output layer. Also writes
    /// embedding.html to the run, a page on which a point shows its picture. Without METHOD: pca.
    #[arg(long, value_name = "METHOD", num_args = 0..=1, default_missing_value = "pca", conflicts_with_all =
        ["image", "raw", "block", "maps", "channel", "augmentation", "corruptions", "count", "mistakes"])]
    embedding: Option<MethodFlag>,
    /// Maximum number of images on the map
    ///
    /// By default 10000, or fewer if the images are larger than those of MNIST. The sample is stratified by class.
    #[arg(long, value_name = "N", requires = "embedding", hide_short_help = true, value_parser = RangedU64ValueParser::<usize>::new().range(3..=20_000))]
    points: Option<usize>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MethodFlag {
    /// The first two principal components, in seconds
    Pca,
    /// t-SNE: neighbors stay neighbors; less than a minute for 10000 images
    Tsne,
}

/// Maximum number of images by default.
const MAX_POINTS: usize = 10_000;
/// Number of images by default, however large their pictures are.
const MIN_POINTS: usize = 2_000;
/// Maximum number of pixel values by default: that of MNIST's test split.
const MAX_VALUES: usize = 10_000 * 28 * 28;

impl EmbeddingFlags {
    /// Whether the map is asked for.
    pub(crate) fn is_given(&self) -> bool {
        self.embedding.is_some()
    }

    /// Computes the map, writes its page, and returns its figure. Writes nothing before everything is computed.
    ///
    /// # Errors
    /// Returns an error if there are fewer than three test images, all have equal features, one cannot be read, the device fails, or
    /// the page cannot be written.
    pub(crate) fn draw(&self, run: &RunDir, classifier: &Classifier, seed: u64) -> Result<Figure> {
        let method = match self.embedding {
            Some(MethodFlag::Tsne) => Method::Tsne,
            Some(MethodFlag::Pca) | None => Method::Pca,
        };
        let test = images::load_test(run, &classifier.config)?;
        let values = test.channels() * test.height() * test.width();
        let default = (MAX_VALUES / values).clamp(MIN_POINTS, MAX_POINTS);
        let count = self.points.unwrap_or(default);
        let map = Embedding::of(classifier, &test, method, count, seed)?;
        let classes = classifier.classes();
        let names = image_names(&test, "test");
        let page = embedding_page::page(&run.name(), &map, &test, &names, classes)?;
        run.write(&run.embedding_page_path(), page.as_bytes())?;
        Ok(figures::embedding(&map, classes))
    }
}
