//! Entry points of the fuzz targets in `fuzz/`: parsers of untrusted bytes.
//!
//! Any input must yield a value or an error, and a value must survive a round trip.

use crate::config::run_config::Config;
use crate::config::settings::Settings;
use crate::config::time::Time;
use crate::device::Request as DeviceRequest;
use crate::figures::{class_accuracies, confusion, curves};
use crate::inference::evaluation::Evaluation;
use crate::run::checkpoint::Checkpoint;
use crate::run::epoch::{best_epoch, to_csv};
use crate::run::event_log::Events;
use crate::run::image_record::ImageRecord;
#[cfg(feature = "serve")]
use crate::serve::{AccessPolicy, Pixels, request_of_lines};

/// Parses `text` as the configuration of a run, as a description of a trained network, and as settings.
///
/// # Panics
/// Panics if an accepted value does not survive a round trip.
pub fn config(text: &str) {
    let _ = classifier::Description::from_toml(text);
    let Ok(table) = text.parse::<toml::Table>() else {
        return;
    };
    if let Ok(config) = Config::from_table(table.clone()) {
        let text = config.to_toml().expect("serializable");
        let again = text.parse().map(Config::from_table);
        assert_eq!(again.expect("TOML").expect("a configuration"), config);
    }
    let mut settings = Settings::preset("convnet").expect("a preset");
    if settings.overlay(table).is_ok() {
        let network = settings.model();
        let _ = network.map(|network| network.layers());
        let text = settings.to_toml();
        text.parse::<toml::Table>().expect("a serializable table");
    }
}

/// Parses `bytes` as a checkpoint, as they are and with a valid checksum appended.
///
/// # Panics
/// Panics if an accepted checkpoint does not survive a round trip.
pub fn checkpoint(bytes: &[u8]) {
    let _ = Checkpoint::from_bytes(bytes);
    if let Ok(checkpoint) = Checkpoint::from_bytes(&Checkpoint::seal(bytes.to_vec())) {
        let bytes = checkpoint.to_bytes().expect("serializable");
        let again = Checkpoint::from_bytes(&bytes);
        assert_eq!(again.expect("a checkpoint"), checkpoint);
    }
}

/// Parses `text` as the values of flags: a normalization, a time, and a device.
///
/// # Panics
/// Panics if an accepted value does not survive a round trip.
pub fn flags(text: &str) {
    if let Ok(normalization) = text.parse::<data::Normalization>() {
        assert_eq!(normalization.to_string().parse(), Ok(normalization));
    }
    if let Ok(time) = Time::try_from(text.to_string()) {
        assert_eq!(Time::try_from(String::from(time)), Ok(time));
    }
    let _ = text.parse::<DeviceRequest>();
}

/// Parses `bytes` as the event log of a run, as an evaluation and as a record of images. Draws the figures of the
/// first two.
pub fn results(bytes: &[u8]) {
    let epochs = Events::from_bytes(bytes).epochs();
    if let Some(best) = best_epoch(&epochs) {
        let _ = (best.to_string(), to_csv(&epochs));
        let _ = curves(&epochs).drawing.to_svg();
    }
    if let Ok(evaluation) = Evaluation::from_json(bytes) {
        let _ = evaluation.to_string();
        for figure in [confusion(&evaluation), class_accuracies(&evaluation)] {
            let _ = figure.drawing.to_svg();
        }
    }
    if let Ok(record) = ImageRecord::from_json(bytes) {
        let _ = (record.sha256(), record.duplicates());
    }
}

/// Checks the access of a request whose address is the first line of `text`, and whose headers are the others.
///
/// # Panics
/// Panics if a request without the token is accepted.
#[cfg(feature = "serve")]
pub fn access(text: &str) {
    const TOKEN: &str = "open-sesame";
    let Some(request) = request_of_lines(text) else {
        return;
    };
    let policy = AccessPolicy {
        hosts: vec!["my.host".into()],
        token: Some(TOKEN.into()),
    };
    if policy.check(&request).is_ok() {
        assert!(request.uri().path() == "/healthz" || text.contains(TOKEN));
    }
}

/// Parses `json` as the images of a request to the server.
///
/// # Panics
/// Panics if accepted images do not survive a round trip, or have a wrong size.
#[cfg(feature = "serve")]
pub fn pixels(json: &[u8]) {
    if let Ok(pixels) = Pixels::read(json, [1, 2, 2]) {
        let images = pixels.into_images();
        assert!(!images.is_empty() && images.iter().all(|image| image.len() == 4));
        let text = serde_json::to_vec(&images).expect("lists of numbers");
        let again = Pixels::read(&text, [1, 2, 2]);
        assert_eq!(again.expect("images").into_images(), images);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Returns the seed inputs and the inputs that fuzzing found.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/corpus")
            .join(target);
        let files = fs::read_dir(folder).unwrap();
        let inputs: Vec<_> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(!inputs.is_empty());
        inputs
    }

    #[test]
    fn corpus_of_configurations_passes() {
        for input in corpus("config") {
            super::config(&String::from_utf8_lossy(&input));
        }
    }

    #[test]
    fn corpus_of_flags_passes() {
        for input in corpus("flags") {
            super::flags(&String::from_utf8_lossy(&input));
        }
    }

    #[test]
    fn corpus_of_results_passes() {
        for input in corpus("results") {
            super::results(&input);
        }
    }

    #[cfg(feature = "serve")]
    #[test]
    fn corpus_of_access_passes() {
        for input in corpus("access") {
            super::access(&String::from_utf8_lossy(&input));
        }
    }

    #[cfg(feature = "serve")]
    #[test]
    fn corpus_of_pixels_passes() {
        for input in corpus("pixels") {
            super::pixels(&input);
        }
    }

    #[test]
    fn corpus_of_checkpoints_passes() {
        for input in corpus("checkpoint") {
            super::checkpoint(&input);
        }
    }
}
