//! The horizontal flip.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::random::generator;

/// How images are mirrored left to right. In a file `false`, `true` or `"alternating"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub enum Flip {
    /// No image is mirrored.
    #[default]
    Off,
    /// Each image is mirrored with probability 0.5, drawn anew in each epoch.
    Random,
    /// A random half of the images is mirrored in odd epochs, the other half in even epochs; Jordan, "94% on
    /// CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), arXiv 2404.00498.
    Alternating,
}

impl Flip {
    /// Returns whether image `index` is mirrored in epoch `epoch`. `random` is drawn from by
    /// [`Flip::Random`] alone.
    pub(crate) fn draw(self, random: &mut impl Rng, seed: u64, epoch: u64, index: usize) -> bool {
        match self {
            Self::Off => false,
            Self::Random => random.random(),
            Self::Alternating => {
                let is_in_first_half: bool =
                    generator(b"alternating flips.......", seed, 0, index).random();
                is_in_first_half == (epoch % 2 == 1)
            }
        }
    }
}

/// The form of [`Flip`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Switch(bool),
    Word(String),
}

impl TryFrom<Text> for Flip {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        match text {
            Text::Switch(false) => Ok(Self::Off),
            Text::Switch(true) => Ok(Self::Random),
            Text::Word(word) if word == "alternating" => Ok(Self::Alternating),
            Text::Word(word) => Err(format!(
                "flip = \"{word}\": expected true, false or \"alternating\""
            )),
        }
    }
}

impl From<Flip> for Text {
    fn from(flip: Flip) -> Self {
        match flip {
            Flip::Off => Self::Switch(false),
            Flip::Random => Self::Switch(true),
            Flip::Alternating => Self::Word("alternating".into()),
        }
    }
}
