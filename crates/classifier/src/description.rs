//! The description of a trained network: the part of a run's `config.toml` that inference needs.

use std::path::Path;

use data::{DatasetInfo, Normalization, Scaling, regular_file};
use model::ConvNetConfig;
use serde::Deserialize;

use crate::error::Error;
use crate::files::{CONFIG_FILE, MAX_CONFIG_BYTES};

/// The network, its images and their normalization.
///
/// In `config.toml` these are the tables `model` and `images`, and the key `data.normalization`.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The network, as it was trained: possibly with batch normalization.
    pub model: ConvNetConfig,
    /// Classes, shape, pixel statistics and preparation of the images.
    pub images: DatasetInfo,
    /// Normalization of the pixels.
    pub normalization: Normalization,
}

/// The tables of `config.toml` that a [`Description`] is read from. Other tables and the other keys of `data`
/// are settings of the training.
#[derive(Deserialize)]
struct ConfigFile {
    model: ConvNetConfig,
    images: DatasetInfo,
    data: DataTable,
}

#[derive(Deserialize)]
struct DataTable {
    normalization: Normalization,
}

impl Description {
    /// Reads a `config.toml`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, and the errors of [`from_toml`](Self::from_toml).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text =
            regular_file::read_to_string(path, MAX_CONFIG_BYTES).map_err(|source| Error::Read {
                path: path.into(),
                source,
            })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a `config.toml`.
    ///
    /// # Errors
    /// Returns an error if the text is not TOML, a table or key is missing, `model` or `images` has an unknown
    /// key, no such network exists, or its input and output do not fit the images.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Self::parse(text, CONFIG_FILE.as_ref())
    }

    /// Parses a description; `path` names it in errors.
    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let file: ConfigFile = toml::from_str(text).map_err(|source| Error::Description {
            path: path.into(),
            source: Box::new(source),
        })?;
        let description = Self {
            model: file.model,
            images: file.images,
            normalization: file.data.normalization,
        };
        description.check(path)?;
        Ok(description)
    }

    /// Checks that the network exists and that its input and output fit the images.
    pub(crate) fn check(&self, path: &Path) -> Result<(), Error> {
        let Self { model, images, .. } = self;
        if let Err(source) = model.layers() {
            return Err(Error::Network {
                path: path.into(),
                source,
            });
        }
        let [height, width] = model.input;
        let numbers = [
            ("images.channels", images.channels, model.channels),
            ("images.height", images.height, height),
            ("images.width", images.width, width),
            (
                "the number of images.classes",
                images.classes.len(),
                model.classes,
            ),
        ];
        let mismatch = |key, found, expected| {
            Err(Error::Mismatch {
                path: path.into(),
                key,
                found,
                expected,
            })
        };
        for (key, found, expected) in numbers {
            if found != expected {
                return mismatch(
                    key,
                    found.to_string(),
                    format!("{expected}, as the network has"),
                );
            }
        }
        let Scaling { mean, std } = self.scaling();
        for (key, numbers) in [("images.mean", mean), ("images.std", std)] {
            if !numbers.fits(images.channels) {
                let expected = "one number, as the images are gray";
                return mismatch(key, numbers.to_string(), expected.into());
            }
        }
        if !mean.all(f64::is_finite) {
            return mismatch("images.mean", mean.to_string(), "a finite number".into());
        }
        if !std.all(|std| std.is_finite() && std > 0.0) {
            return mismatch("images.std", std.to_string(), "a number above 0".into());
        }
        Ok(())
    }

    /// Returns the mean and the standard deviation that pixels are normalized with.
    pub fn scaling(&self) -> Scaling {
        self.normalization.scaling(self.images.scaling())
    }
}

#[cfg(test)]
mod tests {
    use data::PerChannel;

    use super::*;

    const CONFIG: &str = r#"
        preset = "mine"
        [data]
        source = "/pictures"
        normalization = "0.5,0.25"
        [training]
        epochs = 3
        [model]
        channels = 3
        input = [8, 6]
        classes = 2
        dense = [16]
        blocks = [{ channels = 4, norm = true }]
        [images]
        name = "pets"
        classes = ["cat", "dog"]
        channels = 3
        height = 8
        width = 6
        mean = 0.4
        std = 0.2
        preparation = "picture"
    "#;

    #[track_caller]
    fn error(text: &str) -> String {
        let error = Description::from_toml(text).unwrap_err();
        let source = std::error::Error::source(&error);
        let source = source.map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }

    #[test]
    fn ignores_training_settings() {
        let description = Description::from_toml(CONFIG).unwrap();
        assert_eq!(description.images.shape(), [3, 8, 6]);
        assert!(description.model.has_batch_norm());
        assert_eq!(description.scaling(), Scaling::same(0.5, 0.25));
    }

    #[test]
    fn statistics_are_numbers_or_arrays_of_three() {
        let measured = CONFIG.replace("\"0.5,0.25\"", "\"mean-std\"");
        let scaling = |text: &str| Description::from_toml(text).unwrap().scaling();
        assert_eq!(scaling(&measured), Scaling::same(0.4, 0.2));
        let each = measured.replace("mean = 0.4", "mean = [0.5, 0.4, 1]");
        let each = each.replace("std = 0.2", "std = [0.25, 0.2, 0.3]");
        let expected = Scaling {
            mean: PerChannel::Each([0.5, 0.4, 1.0]),
            std: PerChannel::Each([0.25, 0.2, 0.3]),
        };
        assert_eq!(scaling(&each), expected);
        let images = Description::from_toml(&each).unwrap().images;
        let text = toml::to_string(&images).unwrap();
        assert!(text.contains("mean = [0.5, 0.4, 1.0]\n"), "{text}");
        assert_eq!(toml::from_str::<DatasetInfo>(&text).unwrap(), images);

        let message = error(&measured.replace("mean = 0.4", "mean = [0.5, 0.4]"));
        let expected = "expected a number, or an array of three numbers, one for each channel";
        assert!(message.contains(expected), "{message}");
        let gray = each.replace("channels = 3", "channels = 1");
        assert_eq!(
            error(&gray),
            "config.toml: images.mean = [0.5, 0.4, 1.0], expected one number, as the images are gray"
        );
        let message = error(&each.replace("[0.25, 0.2, 0.3]", "[0.25, 0.0, 0.3]"));
        assert_eq!(
            message,
            "config.toml: images.std = [0.25, 0.0, 0.3], expected a number above 0"
        );
    }

    #[test]
    fn names_missing_and_unknown_keys() {
        assert!(error("model = ").starts_with("config.toml: not the description of a network: "));
        assert!(error("").contains("missing field `model`"), "{}", error(""));
        for (part, replacement, expected) in [
            ("[images]", "[pictures]", "missing field `images`"),
            ("normalization", "normalisation", "`normalization`"),
            ("dense", "dens", "unknown field `dens`"),
            ("\"0.5,0.25\"", "\"0.5\"", "expected unit, half"),
        ] {
            let message = error(&CONFIG.replace(part, replacement));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn rejects_networks_that_do_not_fit_the_images() {
        for (part, replacement, expected) in [
            (
                "width = 6",
                "width = 7",
                "config.toml: images.width = 7, expected 6, as the network has",
            ),
            (
                "\"dog\"]",
                "\"dog\", \"eel\"]",
                "config.toml: the number of images.classes = 3, expected 2, as the network has",
            ),
            (
                "dense = [16]",
                "dense = [0]",
                "config.toml: not a valid network: ",
            ),
        ] {
            let message = error(&CONFIG.replace(part, replacement));
            assert!(message.starts_with(expected), "{message}");
        }
        let flat = CONFIG.replace("\"0.5,0.25\"", "\"mean-std\"");
        let message = error(&flat.replace("std = 0.2", "std = 0.0"));
        assert_eq!(
            message,
            "config.toml: images.std = 0, expected a number above 0"
        );
    }
}
