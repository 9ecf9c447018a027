//! What reads bytes that it cannot trust, for the targets in `fuzz/`: any bytes end in a value or an
//! error, and a value that was read is written and read again unchanged.

use crate::config::run_config::Config;
use crate::run::checkpoint::Checkpoint;

use crate::config::settings::Settings;
#[cfg(feature = "serve")]
use crate::serve::Pixels;

/// Reads `text` as a configuration of a run, and as settings for one.
///
/// # Panics
/// Where the program has an error.
pub fn config(text: &str) {
    let Ok(table) = text.parse::<toml::Table>() else {
        return;
    };
    if let Ok(config) = Config::from_table(table.clone()) {
        let text = config.to_toml().expect("what was read can be written");
        let again = text.parse().map(Config::from_table);
        assert_eq!(again.expect("TOML").expect("a configuration"), config);
    }
    let mut settings = Settings::preset("convnet").expect("a preset");
    if settings.overlay(table).is_ok() {
        let network = settings.model();
        let _ = network.map(|network| network.layers());
        let text = settings.to_toml();
        text.parse::<toml::Table>()
            .expect("what was accepted can be written");
    }
}

/// Reads `bytes` as a checkpoint: as they are, and with the checksum that belongs to them.
///
/// # Panics
/// Where the program has an error.
pub fn checkpoint(bytes: &[u8]) {
    let _ = Checkpoint::from_bytes(bytes);
    if let Ok(checkpoint) = Checkpoint::from_bytes(&Checkpoint::seal(bytes.to_vec())) {
        let bytes = checkpoint.to_bytes().expect("what was read can be written");
        let again = Checkpoint::from_bytes(&bytes);
        assert_eq!(again.expect("a checkpoint"), checkpoint);
    }
}

/// Reads `json` as images of a request.
///
/// # Panics
/// Where the program has an error.
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

    /// Where fuzzing starts from, and what it found on the way.
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
    fn configurations_end_in_a_value_or_an_error() {
        for input in corpus("config") {
            super::config(&String::from_utf8_lossy(&input));
        }
    }

    #[cfg(feature = "serve")]
    #[test]
    fn pixels_end_in_a_value_or_an_error() {
        for input in corpus("pixels") {
            super::pixels(&input);
        }
    }

    #[test]
    fn checkpoints_end_in_a_value_or_an_error() {
        for input in corpus("checkpoint") {
            super::checkpoint(&input);
        }
    }
}
