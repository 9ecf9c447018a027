//! Reading of pictures with several characters, such as numbers.

use std::str::FromStr;

use anyhow::Result;
use classifier::{Page, Picture, Preparation, Reading, Verdict};
use data::PictureError;
use serde::Deserialize;

use crate::inference::classifier::{Answer, Classifier};

/// When a picture is read as several characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Split {
    /// If it is not sure as one character, and the ink clearly falls apart.
    #[default]
    Auto,
    /// Always, such as for `--split`.
    Always,
    /// Never.
    Never,
}

impl FromStr for Split {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("expected auto, always or never"),
        }
    }
}

/// A picture as the input of the network, and as a page that may have several characters.
pub(crate) struct PreparedPicture {
    /// `[channels, height, width]`.
    pub(crate) image: Vec<u8>,
    pub(crate) page: Option<Page>,
}

impl Classifier {
    /// Whether several characters can be read: the network is one for handwriting, and each class is a character.
    pub(crate) fn reads_characters(&self) -> bool {
        let is_character = |class: &String| class.chars().count() == 1;
        self.config.images.preparation == Preparation::Handwriting
            && self.classes().iter().all(is_character)
    }

    /// Converts a picture, and keeps it as a page if it may be read as several characters.
    ///
    /// # Errors
    /// Returns an error if nothing is written on a picture of handwriting.
    pub(crate) fn prepared_page(
        &self,
        picture: &Picture,
        raw: bool,
        split: Split,
    ) -> std::result::Result<PreparedPicture, PictureError> {
        let is_read = split != Split::Never && !raw && self.reads_characters();
        Ok(PreparedPicture {
            image: self.prepared(picture, raw)?,
            page: is_read.then(|| Page::new(picture)),
        })
    }

    /// Reads the characters of a page whose image got an answer; `None` if it is a single character.
    ///
    /// # Errors
    /// Returns an error if the device fails, or if the page is always split and is no writing.
    pub(crate) fn read_if_split(
        &self,
        page: &Page,
        answer: &Answer,
        split: Split,
        min_probability: f32,
    ) -> Result<Option<Reading>> {
        match split {
            Split::Never => Ok(None),
            Split::Always => Ok(Some(self.read(page)?)),
            Split::Auto if is_sure(answer, min_probability) => Ok(None),
            Split::Auto => {
                // What cannot be read is a single character.
                let reading = self.read(page).ok();
                Ok(reading.filter(|reading| falls_apart(reading, min_probability)))
            }
        }
    }
}

/// Whether a verdict says so, or cannot tell.
fn is_sure(answer: &Answer, min_probability: f32) -> bool {
    let assessment = answer.assessment;
    assessment.is_none_or(|it| it.verdict(min_probability) == Verdict::Sure)
}

/// Whether a reading has at least two characters with paper between them, and two of three are sure.
fn falls_apart(reading: &Reading, min_probability: f32) -> bool {
    let characters = &reading.characters;
    let sure = characters
        .iter()
        .filter(|it| is_sure(&it.answer, min_probability))
        .count();
    let has_gap = characters.iter().skip(1).any(|it| !it.is_cut);
    characters.len() > 1 && has_gap && 3 * sure >= 2 * characters.len()
}
