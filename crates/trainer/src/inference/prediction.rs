//! What is told of a picture: as text, JSON or CSV.

use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::Result;
use serde::Serialize;

use crate::inference::classifier::Probabilities;

/// What is told of a picture.
#[derive(Debug, Serialize)]
pub(crate) struct Prediction<'a> {
    pub(crate) path: String,
    pub(crate) class: &'a str,
    pub(crate) probability: f32,
    pub(crate) top: Vec<Candidate<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actual: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Candidate<'a> {
    pub(crate) class: &'a str,
    pub(crate) probability: f32,
}

impl<'a> Prediction<'a> {
    /// The prediction for the picture called `path`, which is of class `actual` if that is known,
    /// with its `top` likeliest classes.
    pub(crate) fn new(
        path: String,
        found: &Probabilities,
        classes: &'a [String],
        top: usize,
        actual: Option<usize>,
    ) -> Self {
        let candidate = |(class, probability): (usize, f32)| Candidate {
            class: &classes[class],
            probability,
        };
        let (class, probability) = found.best();
        Self {
            path,
            class: &classes[class],
            probability,
            top: found
                .ranked()
                .into_iter()
                .take(top)
                .map(candidate)
                .collect(),
            actual: actual.map(|class| classes[class].as_str()),
        }
    }

    /// For people.
    fn line(&self) -> String {
        let percent = |probability: f32| format!("{:.1}%", 100.0 * probability);
        let mut line = format!(
            "{}  {}  {}",
            self.path,
            self.class,
            percent(self.probability)
        );
        let others: Vec<String> = self.top[1..]
            .iter()
            .map(|other| format!("{} {}", other.class, percent(other.probability)))
            .collect();
        if !others.is_empty() {
            let _ = write!(line, "  ({})", others.join(", "));
        }
        if let Some(actual) = self.actual {
            let verdict = if actual == self.class {
                "right"
            } else {
                "wrong"
            };
            let _ = write!(line, "  true {actual}, {verdict}");
        }
        line
    }
}

/// Where predictions go, and in which form.
pub(crate) enum Sink {
    Text(BufWriter<StdoutLock<'static>>),
    Json(BufWriter<StdoutLock<'static>>),
    Csv(Box<csv::Writer<StdoutLock<'static>>>),
}

impl Sink {
    /// ProgressLines for people.
    pub(crate) fn text() -> Self {
        Self::Text(BufWriter::new(io::stdout().lock()))
    }

    /// An object for each picture.
    pub(crate) fn json() -> Self {
        Self::Json(BufWriter::new(io::stdout().lock()))
    }

    /// Comma-separated values under a header, of `top` classes for each picture, and of its own
    /// class if that is known.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(crate) fn csv(top: usize, has_actual: bool) -> Result<Self> {
        let mut columns = vec!["path".to_string(), "class".into(), "probability".into()];
        for place in 2..=top {
            columns.push(format!("class_{place}"));
            columns.push(format!("probability_{place}"));
        }
        if has_actual {
            columns.push("actual".into());
        }
        // Only pictures of the test split have the last column.
        let mut writer = csv::WriterBuilder::new()
            .flexible(true)
            .from_writer(io::stdout().lock());
        writer.write_record(columns)?;
        Ok(Self::Csv(Box::new(writer)))
    }

    /// Writes a prediction.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(crate) fn write(&mut self, prediction: &Prediction<'_>) -> Result<()> {
        match self {
            Self::Text(_) => self.line(&prediction.line()),
            Self::Json(out) => Ok(writeln!(out, "{}", serde_json::to_string(prediction)?)?),
            Self::Csv(writer) => {
                let mut row = vec![prediction.path.clone()];
                for Candidate { class, probability } in &prediction.top {
                    row.extend([(*class).to_string(), probability.to_string()]);
                }
                row.extend(prediction.actual.map(String::from));
                Ok(writer.write_record(row)?)
            }
        }
    }

    /// Writes a line for people.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        match self {
            Self::Text(out) => Ok(writeln!(out, "{line}")?),
            Self::Json(_) | Self::Csv(_) => Ok(()),
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Text(mut out) | Self::Json(mut out) => Ok(out.flush()?),
            Self::Csv(mut writer) => Ok(writer.flush()?),
        }
    }
}
