//! A trained network with everything that is needed to use it.

use std::io::ErrorKind;
use std::path::Path;

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{DType, Device, Tensor};
use data::digest::sha256_hex;
use data::{MnistBatcher, Picture, PictureError, Preparation, Sample, regular_file};
use model::InferenceNet;

use crate::confidence::Confidence;
use crate::description::Description;
use crate::error::Error;
use crate::files::{
    CONFIDENCE_FILE, CONFIG_FILE, MAX_CONFIDENCE_BYTES, MAX_WEIGHTS_BYTES, WEIGHTS_FILE,
};
use crate::prediction::{Answer, Prediction};
use crate::probabilities::Probabilities;

/// A trained network on a device, with the preprocessing of its inputs and the names of its classes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Classifier {
    /// The network, its images and their normalization.
    pub description: Description,
    /// The network, with batch normalization folded into its weights.
    pub model: InferenceNet,
    /// SHA-256 of the file of weights.
    weights: String,
    /// The device that the network is on.
    pub device: Device,
    /// What verdicts on predictions need; `None` if it was not measured, or for other weights.
    pub confidence: Option<Confidence>,
    /// Conversion of pictures into images: that of the training images, unless it was replaced.
    preparation: Preparation,
}

impl Classifier {
    /// Opens a run folder: its `config.toml` and `model.safetensors`.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or the weights do not fit the described network.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let config = folder.join(CONFIG_FILE);
        let description = Description::open(&config)?;
        let path = folder.join(WEIGHTS_FILE);
        let weights = regular_file::read(&path, MAX_WEIGHTS_BYTES);
        let weights = weights.map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::NoWeights { path: path.clone() },
            _ => Error::Read {
                path: path.clone(),
                source,
            },
        })?;
        let path_of_confidence = folder.join(CONFIDENCE_FILE);
        let confidence = match regular_file::read(&path_of_confidence, MAX_CONFIDENCE_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => {
                return Err(Error::Read {
                    path: path_of_confidence,
                    source,
                });
            }
        };
        Self::load(description, weights, device, &config, &path)?
            .with_confidence_file(confidence.as_deref(), &path_of_confidence)
    }

    /// Opens the embedded network `name`: `pretrained`, `pretrained-best` or `pretrained-cifar`.
    ///
    /// # Errors
    /// Returns an error if there is no network of this name.
    #[cfg(feature = "pretrained")]
    pub fn pretrained(name: &str, device: &Device) -> Result<Self, Error> {
        let network = crate::pretrained::find(name);
        let network = network.ok_or_else(|| Error::UnknownName { name: name.into() })?;
        let description = Description::from_toml(network.config)?;
        Self::new(description, network.weights.to_vec(), device)?
            .with_confidence_file(Some(network.confidence), CONFIDENCE_FILE.as_ref())
    }

    /// Creates a classifier from a description and the bytes of a safetensors file with PyTorch's names and
    /// layout.
    ///
    /// # Errors
    /// Returns an error if no such network exists, its input and output do not fit the images, or the weights
    /// are damaged or do not fit the described network.
    pub fn new(description: Description, weights: Vec<u8>, device: &Device) -> Result<Self, Error> {
        let [config, path] = [CONFIG_FILE, WEIGHTS_FILE].map(Path::new);
        Self::load(description, weights, device, config, path)
    }

    /// Creates a classifier; `config` and `path` name the description and the weights in errors.
    fn load(
        description: Description,
        weights: Vec<u8>,
        device: &Device,
        config: &Path,
        path: &Path,
    ) -> Result<Self, Error> {
        description.check(config)?;
        let digest = sha256_hex([weights.as_slice()]);
        // Files of weights are written after batch normalization is folded into them.
        let model = description.model.folded();
        let model = model.init(device).map_err(|source| Error::Network {
            path: config.into(),
            source,
        })?;
        let model = model
            .with_safetensors(weights)
            .map_err(|source| Error::Weights {
                path: path.into(),
                source,
            })?;
        if !model.is_finite() {
            return Err(Error::NotFinite { path: path.into() });
        }
        Ok(Self {
            preparation: description.images.preparation,
            description,
            model: model.into(),
            weights: digest,
            device: device.clone(),
            confidence: None,
        })
    }

    /// Reads the confidence of the network from the bytes of a file.
    fn with_confidence_file(self, bytes: Option<&[u8]>, path: &Path) -> Result<Self, Error> {
        let confidence = bytes.map(|bytes| Confidence::from_bytes(bytes, &self.weights));
        let confidence = confidence.transpose().map_err(|source| Error::Confidence {
            path: path.into(),
            source,
        })?;
        let confidence = confidence.flatten();
        let classes = self.classes().len();
        let features = self.model.features();
        // The digest in a file that was edited may be that of other weights.
        let is_of_network = |confidence: &Confidence| confidence.shape() == [classes, features];
        Ok(Self {
            confidence: confidence.filter(is_of_network),
            ..self
        })
    }

    /// Returns the SHA-256 of the weights, which a file of [`Confidence`] names.
    pub fn weights_digest(&self) -> &str {
        &self.weights
    }

    /// Replaces the preparation of pictures. [`Preparation::Picture`] only scales them, as
    /// `trainer predict --raw`.
    #[must_use]
    pub fn with_preparation(self, preparation: Preparation) -> Self {
        Self {
            preparation,
            ..self
        }
    }

    /// Returns the names of the classes, in the order of the probabilities.
    pub fn classes(&self) -> &[String] {
        &self.description.images.classes
    }

    /// Classifies the file of a picture: PNG, JPEG, BMP, GIF, WebP, TIFF, PNM, QOI, TGA or ICO.
    ///
    /// # Errors
    /// Returns an error if the picture cannot be decoded, or if nothing is written on a picture of handwriting.
    pub fn classify_picture(&self, file: &[u8]) -> Result<Prediction<'_>, Error> {
        self.classify_image(self.decode(0, file)?)
    }

    /// Classifies the files of several pictures in one batch.
    ///
    /// # Errors
    /// Returns an error for the first picture that cannot be decoded, or that should show handwriting and is
    /// blank.
    pub fn classify_pictures(
        &self,
        files: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Prediction<'_>>, Error> {
        let images = files.iter().enumerate();
        let images = images.map(|(index, file)| self.decode(index, file.as_ref()));
        self.classify_images(images.collect::<Result<_, _>>()?)
    }

    /// Classifies an image, `[channels, height, width]`.
    ///
    /// # Errors
    /// Returns an error if the image has another size, or the device fails.
    pub fn classify_image(&self, image: Vec<u8>) -> Result<Prediction<'_>, Error> {
        let mut answers = self.answers(vec![image])?;
        Ok(Prediction::new(self.classes(), answers.swap_remove(0)))
    }

    /// Classifies several images, each `[channels, height, width]`, in one batch.
    ///
    /// # Errors
    /// Returns an error if an image has another size, or the device fails.
    pub fn classify_images(&self, images: Vec<Vec<u8>>) -> Result<Vec<Prediction<'_>>, Error> {
        let answers = self.answers(images)?.into_iter();
        Ok(answers
            .map(|answer| Prediction::new(self.classes(), answer))
            .collect())
    }

    /// Computes the class probabilities of several images, each `[channels, height, width]`, in one batch.
    ///
    /// The probabilities of an image depend on the size of its batch by rounding, by less than 1e-5.
    ///
    /// # Errors
    /// Returns an error if an image has another size, or the device fails.
    pub fn probabilities(&self, images: Vec<Vec<u8>>) -> Result<Vec<Probabilities>, Error> {
        let answers = self.answers(images)?.into_iter();
        Ok(answers.map(|answer| answer.probabilities).collect())
    }

    /// Computes the class probabilities of several images, as [`probabilities`](Self::probabilities) does, and what decides on
    /// their verdicts.
    ///
    /// # Errors
    /// Returns an error if an image has another size, or the device fails.
    pub fn answers(&self, mut images: Vec<Vec<u8>>) -> Result<Vec<Answer>, Error> {
        let expected = self.description.images.shape();
        let size: usize = expected.iter().product();
        if let Some(index) = images.iter().position(|image| image.len() != size) {
            return Err(Error::ImageSize {
                index,
                found: images[index].len(),
                expected,
            });
        }
        let count = images.len();
        match count {
            0 => return Ok(Vec::new()),
            // Burn computes a matrix product of one row in another order than one of several rows. Doubled, a
            // single image gets the probabilities that it gets in a small batch.
            1 => images.extend_from_within(..),
            _ => {}
        }
        let outputs = outputs(&self.model, self.normalized(images))?;
        let confidence = self.confidence.as_ref();
        let answer = |(probabilities, features): (Probabilities, Vec<f32>)| Answer {
            assessment: confidence.map(|it| it.assess(&probabilities, &features)),
            probabilities,
        };
        Ok(outputs.into_iter().take(count).map(answer).collect())
    }

    /// Converts a picture into an image, `[channels, height, width]`.
    ///
    /// # Errors
    /// Returns an error if nothing is written on a picture of handwriting.
    pub fn prepared(&self, picture: &Picture) -> Result<Vec<u8>, PictureError> {
        self.preparation
            .prepare(picture, self.description.images.shape())
    }

    /// Returns images as the input of the network, `[N, channels, height, width]`.
    ///
    /// # Panics
    /// Panics if there are no images, or if an image has another size than the network's input.
    pub fn normalized(&self, images: Vec<Vec<u8>>) -> Tensor<4> {
        let [channels, height, width] = self.description.images.shape();
        let sample = |pixels| Sample {
            channels,
            height,
            width,
            pixels,
            label: 0,
        };
        let batcher = MnistBatcher {
            scaling: self.description.scaling(),
        };
        let samples = images.into_iter().map(sample).collect();
        batcher.batch(samples, &self.device).images
    }

    fn decode(&self, index: usize, file: &[u8]) -> Result<Vec<u8>, Error> {
        Picture::decode(file)
            .and_then(|picture| self.prepared(&picture))
            .map_err(|source| Error::Picture { index, source })
    }
}

/// Computes the class probabilities of normalized images, and the features before the dense layers.
///
/// # Errors
/// Returns an error if the device fails.
pub fn outputs(
    model: &InferenceNet,
    images: Tensor<4>,
) -> Result<Vec<(Probabilities, Vec<f32>)>, Error> {
    by_image(model.forward_with_features(images))
}

/// Computes the class probabilities of normalized images, and the activations of the last hidden dense layer; of a network
/// without, the features before the output layer.
///
/// # Errors
/// Returns an error if the device fails.
pub fn last_hidden_outputs(
    model: &InferenceNet,
    images: Tensor<4>,
) -> Result<Vec<(Probabilities, Vec<f32>)>, Error> {
    by_image(model.forward_with_last_hidden(images))
}

/// Splits logits `[N, classes]` and features `[N, size]` by image.
fn by_image(
    (logits, features): (Tensor<2>, Tensor<2>),
) -> Result<Vec<(Probabilities, Vec<f32>)>, Error> {
    let [_, size] = features.dims();
    let probabilities = Probabilities::from_logits(logits)?;
    let features: Vec<f32> = features
        .cast(DType::F32)
        .into_data()
        .try_to_vec()
        .map_err(|error| Error::Device(format!("{error:?}")))?;
    let features = features.chunks_exact(size).map(<[f32]>::to_vec);
    Ok(probabilities.into_iter().zip(features).collect())
}
