//! The printed form of a prediction: text, JSON or CSV.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::Result;
use classifier::{Character, Reading, Verdict};
use serde::{Serialize, Serializer};

use crate::inference::classifier::Answer;
use crate::process::printable::printable;

/// The prediction for one picture.
#[derive(Debug, Serialize)]
pub(crate) struct Prediction<'a> {
    pub(crate) path: String,
    /// The most likely class; of several characters, their classes as text.
    pub(crate) class: Cow<'a, str>,
    pub(crate) probability: f32,
    /// Whether the prediction can be trusted, if it is known.
    #[serde(flatten)]
    pub(crate) trust: Option<Trust>,
    /// The most likely classes, in descending order.
    pub(crate) top: Vec<Candidate<'a>>,
    /// The characters, if the picture was read as several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) characters: Option<Vec<ReadCharacter<'a>>>,
    /// The label, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actual: Option<&'a str>,
}

/// A character of a picture with several.
#[derive(Debug, Serialize)]
pub(crate) struct ReadCharacter<'a> {
    class: &'a str,
    probability: f32,
    #[serde(flatten)]
    trust: Option<Trust>,
    /// Left, top, width and height in pixels of the picture.
    #[serde(rename = "box")]
    area: [u32; 4],
    /// Number of its line, from 0.
    line: usize,
}

/// Whether a prediction can be trusted, and why.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Trust {
    #[serde(serialize_with = "serialize_verdict")]
    pub(crate) verdict: Verdict,
    /// Calibrated probability of the class.
    pub(crate) calibrated: f32,
    /// Distance from the training images of the class; above 1 it is unlike them.
    pub(crate) distance: f32,
}

fn serialize_verdict<S: Serializer>(
    verdict: &Verdict,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.name())
}

/// A class and its probability.
#[derive(Debug, Serialize)]
pub(crate) struct Candidate<'a> {
    pub(crate) class: Cow<'a, str>,
    pub(crate) probability: f32,
}

impl<'a> Prediction<'a> {
    /// Creates the prediction for a picture, with its `top` most likely classes. It is sure with a calibrated probability of
    /// `min_probability`.
    pub(crate) fn new(
        path: String,
        answer: &Answer,
        classes: &'a [String],
        top: usize,
        min_probability: f32,
        label: Option<usize>,
    ) -> Self {
        let probabilities = &answer.probabilities;
        let candidate = |(class, probability): (usize, f32)| Candidate {
            class: Cow::Borrowed(&classes[class]),
            probability,
        };
        let (class, probability) = probabilities.best();
        Self {
            path,
            class: Cow::Borrowed(&classes[class]),
            probability,
            trust: Trust::of(answer, min_probability),
            characters: None,
            top: probabilities
                .ranked()
                .into_iter()
                .take(top)
                .map(candidate)
                .collect(),
            actual: label.map(|class| classes[class].as_str()),
        }
    }

    /// Creates the prediction for a picture of several characters. Its verdict is the worst of theirs.
    pub(crate) fn of_reading(
        path: String,
        reading: &Reading,
        classes: &'a [String],
        min_probability: f32,
    ) -> Self {
        let character = |character: &Character| {
            let (class, probability) = character.answer.probabilities.best();
            ReadCharacter {
                class: &classes[class],
                probability,
                trust: Trust::of(&character.answer, min_probability),
                area: character.area,
                line: character.line,
            }
        };
        let characters: Vec<_> = reading.characters.iter().map(character).collect();
        let trusts: Option<Vec<Trust>> = characters.iter().map(|it| it.trust).collect();
        let class: Cow<'_, str> = reading.text(classes).into();
        let probability = reading.probability();
        Self {
            path,
            class: class.clone(),
            probability,
            trust: trusts.and_then(|trusts| trusts.into_iter().reduce(Trust::joined)),
            top: vec![Candidate { class, probability }],
            characters: Some(characters),
            actual: None,
        }
    }

    /// Returns the prediction as a line of text, with its names escaped.
    fn line(&self) -> String {
        let percent = |probability: f32| format!("{:.1}%", 100.0 * probability);
        let mut line = format!(
            "{}  {}  {}",
            self.path,
            self.class,
            percent(self.probability)
        );
        let named = |class: &str, probability| format!("{class} {}", percent(probability));
        let others: Vec<String> = match &self.characters {
            Some(characters) => characters
                .iter()
                .map(|character| named(character.class, character.probability))
                .collect(),
            None => self.top[1..]
                .iter()
                .map(|other| named(&other.class, other.probability))
                .collect(),
        };
        if !others.is_empty() {
            let _ = write!(line, "  ({})", others.join(", "));
        }
        if let Some(trust) = &self.trust {
            let _ = match (trust.verdict, self.top.as_slice()) {
                (Verdict::Unsure, [first, second, ..]) => {
                    write!(line, "  unsure: {} or {}", first.class, second.class)
                }
                (verdict, _) => write!(line, "  {verdict}"),
            };
        }
        if let Some(actual) = self.actual {
            let outcome = if self.class == actual {
                "right"
            } else {
                "wrong"
            };
            let _ = write!(line, "  true {actual}, {outcome}");
        }
        printable(line).to_string()
    }
}

impl Trust {
    fn of(answer: &Answer, min_probability: f32) -> Option<Self> {
        let assessment = answer.assessment?;
        Some(Self {
            verdict: assessment.verdict(min_probability),
            calibrated: assessment.calibrated,
            distance: assessment.distance,
        })
    }

    /// Returns whether two characters together can be trusted.
    fn joined(self, other: Self) -> Self {
        let severity = |verdict: Verdict| match verdict {
            Verdict::Sure => 0,
            Verdict::Unsure => 1,
            Verdict::Unlike => 2,
        };
        Self {
            verdict: match severity(self.verdict) < severity(other.verdict) {
                true => other.verdict,
                false => self.verdict,
            },
            calibrated: self.calibrated * other.calibrated,
            distance: self.distance.max(other.distance),
        }
    }
}

/// Writes predictions to standard output.
pub(crate) enum Sink {
    Text(BufWriter<StdoutLock<'static>>),
    Json(BufWriter<StdoutLock<'static>>),
    /// With the number of classes in a row.
    Csv(Box<csv::Writer<StdoutLock<'static>>>, usize),
    /// The numbers of images from 1, and their classes.
    Submission(Box<csv::Writer<StdoutLock<'static>>>, u64),
}

impl Sink {
    /// Writes lines of text.
    pub(crate) fn text() -> Self {
        Self::Text(BufWriter::new(io::stdout().lock()))
    }

    /// Writes one JSON object per line.
    pub(crate) fn json() -> Self {
        Self::Json(BufWriter::new(io::stdout().lock()))
    }

    /// Writes comma-separated values: a header, and a row with `top` classes per picture. With labels there is a
    /// last column `actual`.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written to.
    pub(crate) fn csv(top: usize, has_labels: bool) -> Result<Self> {
        let mut columns = vec!["path".to_string(), "class".into(), "probability".into()];
        for place in 2..=top {
            columns.push(format!("class_{place}"));
            columns.push(format!("probability_{place}"));
        }
        columns.extend(["verdict", "calibrated", "distance"].map(String::from));
        if has_labels {
            columns.push("actual".into());
        }
        // Pictures have no label, so their rows are shorter than those of test images.
        let mut writer = csv::WriterBuilder::new()
            .flexible(true)
            .from_writer(io::stdout().lock());
        writer.write_record(columns)?;
        Ok(Self::Csv(Box::new(writer), top))
    }

    /// Writes the number of each image and its class, as a submission to a competition on Kaggle.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written to.
    pub(crate) fn submission() -> Result<Self> {
        let mut writer = csv::Writer::from_writer(io::stdout().lock());
        writer.write_record(["ImageId", "Label"])?;
        Ok(Self::Submission(Box::new(writer), 0))
    }

    /// Writes a prediction.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written to.
    pub(crate) fn write(&mut self, prediction: &Prediction<'_>) -> Result<()> {
        match self {
            Self::Text(_) => self.line(&prediction.line()),
            Self::Json(out) => Ok(writeln!(out, "{}", serde_json::to_string(prediction)?)?),
            Self::Submission(writer, number) => {
                *number += 1;
                Ok(writer.write_record([number.to_string().as_str(), &prediction.class])?)
            }
            Self::Csv(writer, top) => {
                let mut row = vec![prediction.path.clone()];
                for Candidate { class, probability } in &prediction.top {
                    row.extend([class.to_string(), probability.to_string()]);
                }
                // Several characters have one reading.
                row.resize(1 + 2 * *top, String::new());
                row.extend(match &prediction.trust {
                    Some(trust) => [
                        trust.verdict.name().into(),
                        trust.calibrated.to_string(),
                        trust.distance.to_string(),
                    ],
                    None => [const { String::new() }; 3],
                });
                row.extend(prediction.actual.map(String::from));
                Ok(writer.write_record(row)?)
            }
        }
    }

    /// Writes a line of text; in JSON and CSV, nothing.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written to.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        match self {
            Self::Text(out) => Ok(writeln!(out, "{line}")?),
            Self::Json(_) | Self::Csv(..) | Self::Submission(..) => Ok(()),
        }
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written to.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Text(mut out) | Self::Json(mut out) => Ok(out.flush()?),
            Self::Csv(mut writer, _) | Self::Submission(mut writer, _) => Ok(writer.flush()?),
        }
    }
}
