//! The choice of a preset for pictures and color images.

use anyhow::Result;
use data::{DataSource, PictureSurvey, TestSelection};
use toml::{Table, Value};

use crate::config::presets;
use crate::config::run_config::TrainingConfig;
use crate::config::settings::Settings;
use crate::run::image_source::{EMBEDDED, absolute_source, file_labels, open};
use crate::run::picture_cache::PictureCache;

/// Largest side of pictures that keep the size of the small images that a preset is made for.
const SMALL: u32 = 48;
/// Largest side of pictures that become images of 64 pixels.
const MEDIUM: u32 = 96;
/// Least number of optimizer steps of a training.
const MIN_STEPS: usize = 1000;
/// Largest number of epochs that is chosen.
const MAX_EPOCHS: usize = 100;

/// A preset with settings over it, and the reason for the choice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PresetChoice {
    pub(crate) preset: &'static str,
    pub(crate) settings: Table,
    pub(crate) reason: String,
}

/// Opens the data source of `settings`, and chooses a preset for its images; none for small gray images and for the embedded
/// data set.
///
/// # Errors
/// Returns an error if the data cannot be opened.
pub(crate) fn choose(
    settings: &Settings,
    cache: PictureCache<'_>,
) -> Result<(Option<PresetChoice>, Option<DataSource>)> {
    let data = settings.data()?;
    if data.source == EMBEDDED {
        return Ok((None, None));
    }
    let labels = file_labels(&data)?;
    let source = absolute_source(&data.source)?;
    let source = open(&source, labels.as_ref(), TestSelection::ByPath, cache)?;
    let (survey, count) = match &source {
        DataSource::Pictures(folder) => {
            (PictureSurvey::of(&folder.all_files()), folder.train.len())
        }
        DataSource::Images(dataset) => {
            let info = &dataset.info;
            let survey = PictureSurvey {
                side: info.height.min(info.width) as u32,
                has_color: info.channels == 3,
            };
            // Images keep their size.
            let is_small_gray = !survey.has_color && survey.side <= SMALL;
            (Some(survey).filter(|_| !is_small_gray), dataset.train.len())
        }
    };
    let Some(mut survey) = survey else {
        return Ok((None, Some(source)));
    };
    survey.has_color = data
        .channels
        .map_or(survey.has_color, |channels| channels > 1);
    let mut choice = choose_for(survey, count)?;
    if let DataSource::Images(_) = &source {
        choice.settings.remove("data");
    }
    Ok((Some(choice), Some(source)))
}

fn choose_for(survey: PictureSurvey, pictures: usize) -> Result<PresetChoice> {
    let PictureSurvey { side, has_color } = survey;
    let (preset, size) = match (has_color, side) {
        (false, ..=SMALL) => (presets::DEFAULT, 28),
        (true, ..=SMALL) => ("vgg", 32),
        (_, ..=MEDIUM) => ("pictures", 64),
        _ => ("pictures", 128),
    };
    let mut settings = Table::new();
    let mut set = |table: &str, key: &str, value: i64| {
        let table = settings
            .entry(table)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(table) = table {
            table.insert(key.into(), Value::Integer(value));
        }
    };
    set("data", "image_size", size);
    let kind = if has_color { "color" } else { "gray" };
    let mut reason = format!(
        "{pictures} training pictures in {kind}, {side} pixels in the median: preset {preset} at {size}x{size}"
    );
    // The preset for digits keeps its epochs.
    if preset != presets::DEFAULT {
        let training: TrainingConfig = Settings::preset(preset)?.training()?;
        let steps = pictures.div_ceil(training.batch_size).max(1);
        let epochs = MIN_STEPS.div_ceil(steps).min(MAX_EPOCHS);
        if epochs > training.epochs {
            set("training", "epochs", epochs as i64);
            reason.push_str(&format!(", {epochs} epochs for some {MIN_STEPS} steps"));
        }
    }
    Ok(PresetChoice {
        preset,
        settings,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{GrayImage, Luma};

    use super::*;
    use crate::run::images::resolve_opened;
    use crate::run::picture_cache::PictureCache;

    #[test]
    fn choice_depends_on_size_color_and_number() {
        let reason = |side, has_color, pictures| {
            let choice = choose_for(PictureSurvey { side, has_color }, pictures);
            choice.unwrap().reason
        };
        for (side, has_color, pictures, expected) in [
            (
                28,
                false,
                900,
                "900 training pictures in gray, 28 pixels in the median: preset convnet at 28x28",
            ),
            (
                32,
                true,
                50_000,
                "50000 training pictures in color, 32 pixels in the median: preset vgg at 32x32",
            ),
            (
                32,
                true,
                7000,
                "7000 training pictures in color, 32 pixels in the median: preset vgg at 32x32, 19 epochs for some \
                 1000 steps",
            ),
            (
                70,
                false,
                9000,
                "9000 training pictures in gray, 70 pixels in the median: preset pictures at 64x64",
            ),
            (
                480,
                true,
                1280,
                "1280 training pictures in color, 480 pixels in the median: preset pictures at 128x128, \
                 50 epochs for some 1000 steps",
            ),
        ] {
            assert_eq!(reason(side, has_color, pictures), expected);
        }
    }

    /// Returns the settings of the default preset with a data source.
    fn settings(source: &str) -> Settings {
        let mut settings = Settings::preset(presets::DEFAULT).unwrap();
        settings.set_source(source.into());
        settings
    }

    #[test]
    fn the_embedded_data_set_is_no_folder() {
        let (choice, source) = choose(&settings(EMBEDDED), PictureCache::No).unwrap();
        assert!(choice.is_none() && source.is_none());
    }

    #[test]
    fn chosen_settings_lie_over_the_preset() {
        let survey = PictureSurvey {
            side: 300,
            has_color: true,
        };
        let choice = choose_for(survey, 200).unwrap();
        let mut settings = Settings::preset(choice.preset).unwrap();
        settings.overlay(choice.settings).unwrap();
        assert_eq!(settings.data().unwrap().image_size, 128);
    }

    #[test]
    fn a_chosen_folder_is_listed_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(9, 9, Luma([90])).save(path).unwrap();
        };
        for number in 0..5 {
            write(&format!("a/{number}.png"));
            write(&format!("b/{number}.png"));
        }
        let path = folder.path().to_str().unwrap();
        let (choice, source) = choose(&settings(path), PictureCache::No).unwrap();
        let choice = choice.unwrap();
        let mut settings = Settings::preset(choice.preset).unwrap();
        settings.overlay(choice.settings).unwrap();
        settings.set_source(path.into());
        write("c/0.png");
        let (config, _) = resolve_opened(settings, source, PictureCache::No).unwrap();
        assert_eq!(config.images.classes, ["a", "b"]);
    }
}
