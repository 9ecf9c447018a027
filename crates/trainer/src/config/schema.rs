//! Every setting a configuration may hold, and the values it may take.
//!
//! Presets, files and flags are checked here, before they are merged, so that an error names the
//! place where the user can mend it.

use std::fmt;

use anyhow::{Result, bail};
use data::Normalization;
use toml::{Table, Value};

use crate::config::suggest::did_you_mean;
use crate::config::time::Time;

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Constraint {
    /// A whole number between these, both included.
    Whole(i64, i64),
    /// A number between these, both included.
    Number(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any words.
    Text,
    /// A [`Normalization`] as text.
    Normalized,
    /// A [`Time`] as text.
    Span,
    /// `true` or `false`.
    Switch,
    /// A list, each element of which is accepted by the key followed by `[]`.
    List,
}

use Constraint::{List, Normalized, Number, OneOf, Span, Switch, Text, Whole};

const SIZE: Constraint = Whole(1, model::MAX_SIZE as i64);

/// All settings, in the order of a configuration file.
pub(crate) const KEYS: &[(&str, Constraint)] = &[
    ("preset", Text),
    ("about", Text),
    ("data.source", Text),
    ("data.normalization", Normalized),
    ("data.validation", Number(0.0, 0.9)),
    ("data.validation_split", OneOf(&["random", "last"])),
    ("data.image_size", Whole(8, 1024)),
    ("data.limit_train", Whole(1, u32::MAX as i64)),
    ("model.channels", Whole(1, 3)),
    ("model.input", List),
    ("model.input[]", SIZE),
    ("model.classes", SIZE),
    ("model.dense", List),
    ("model.dense[]", SIZE),
    ("model.dropout", Number(0.0, 0.99)),
    ("model.initialization", OneOf(&["pytorch", "keras"])),
    ("model.blocks", List),
    ("model.blocks[].channels", SIZE),
    ("model.blocks[].kernel", Whole(1, model::MAX_KERNEL as i64)),
    (
        "model.blocks[].padding",
        Whole(0, model::MAX_KERNEL as i64 - 1),
    ),
    ("model.blocks[].pool", Switch),
    ("model.blocks[].norm", Switch),
    ("training.epochs", Whole(1, 100_000)),
    ("training.max_steps", Whole(1, i64::MAX)),
    ("training.max_time", Span),
    ("training.checkpoint_every", Whole(1, i64::MAX)),
    ("training.batch_size", Whole(1, 65_536)),
    ("training.precision", OneOf(&["f32", "bf16", "f16"])),
    ("training.eval_batch_size", Whole(1, 65_536)),
    ("training.accumulate", Whole(1, 65_536)),
    ("training.optimizer", OneOf(&["adam", "adamw", "sgd"])),
    ("training.beta1", Number(0.0, 0.999_999)),
    ("training.beta2", Number(0.0, 0.999_999)),
    ("training.learning_rate", Number(1e-10, 100.0)),
    (
        "training.schedule",
        OneOf(&["constant", "cosine", "one-cycle", "step", "plateau"]),
    ),
    ("training.warmup_steps", Whole(0, i64::MAX)),
    ("training.decay", Number(1e-6, 1.0)),
    ("training.decay_epochs", Whole(1, 100_000)),
    ("training.weight_decay", Number(0.0, 10.0)),
    ("training.gradient_clip", Number(1e-6, 1e6)),
    ("training.ema_decay", Number(0.0, 0.999_999)),
    ("training.label_smoothing", Number(0.0, 0.9)),
    ("training.early_stopping", Whole(1, 100_000)),
    ("training.seed", Whole(0, i64::MAX)),
    ("training.report_train", Switch),
    ("training.report_test", Switch),
    ("augmentation.rotation", Number(0.0, 180.0)),
    ("augmentation.translation", Number(0.0, 1.0)),
    ("augmentation.scale", Number(0.0, 0.9)),
    ("augmentation.shear", Number(0.0, 80.0)),
    ("augmentation.elastic", Number(0.0, 0.5)),
    ("augmentation.erasing", Number(0.0, 1.0)),
    ("augmentation.flip", Switch),
    ("images.name", Text),
    ("images.classes", List),
    ("images.classes[]", Text),
    ("images.channels", Whole(1, 3)),
    ("images.height", SIZE),
    ("images.width", SIZE),
    ("images.mean", Number(0.0, 1.0)),
    ("images.std", Number(1e-6, 1.0)),
    (
        "images.preparation",
        OneOf(&["handwriting", "object", "picture"]),
    ),
];

impl Constraint {
    fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Whole(least, most), &Value::Integer(number)) => (least..=most).contains(&number),
            (Number(least, most), &Value::Float(number)) => (least..=most).contains(&number),
            (Number(least, most), &Value::Integer(number)) => {
                (least..=most).contains(&(number as f64))
            }
            (OneOf(words), Value::String(text)) => words.contains(&text.as_str()),
            (Normalized, Value::String(text)) => text.parse::<Normalization>().is_ok(),
            (Span, Value::String(text)) => {
                Time::try_from(text.clone()).is_ok_and(|Time(time)| !time.is_zero())
            }
            (Text, Value::String(_)) | (Switch, Value::Boolean(_)) | (List, Value::Array(_)) => {
                true
            }
            _ => false,
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whole(least, most) => write!(f, "a whole number from {least} to {most}"),
            Number(least, most) => write!(f, "a number from {least} to {most}"),
            OneOf(words) => f.write_str(&words.join(" or ")),
            Text => f.write_str("a text"),
            Normalized => f.write_str(
                "unit, half, mean-std, or MEAN,STD such as 0.1307,0.3081, the latter above 0",
            ),
            Span => f.write_str("a time such as 90s, 10m or 1h30m"),
            Switch => f.write_str("true or false"),
            List => f.write_str("a list"),
        }
    }
}

/// Checks that every key of `table` is known and every value accepted.
///
/// # Errors
/// For the first one that is not: the key, what was found, what was expected.
pub(crate) fn check(table: &Table) -> Result<()> {
    check_table("", table)
}

fn check_table(path: &str, table: &Table) -> Result<()> {
    for (name, value) in table {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        check_value(&path, value)?;
    }
    Ok(())
}

fn check_value(path: &str, value: &Value) -> Result<()> {
    let is_section = KEYS.iter().any(|(key, _)| {
        key.strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    });
    if let (true, Value::Table(table)) = (is_section, value) {
        return check_table(path, table);
    }
    if is_section {
        bail!("{path} = {value}: expected a table");
    }
    let Some((_, accepts)) = KEYS.iter().find(|(key, _)| *key == path) else {
        let known = KEYS.iter().map(|(key, _)| *key);
        bail!("unknown key {path}{}", did_you_mean(path, known));
    };
    if !accepts.accepts(value) {
        bail!("{path} = {value}: expected {accepts}");
    }
    if let Value::Array(elements) = value {
        for element in elements {
            check_value(&format!("{path}[]"), element)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn error(text: &str) -> String {
        check(&text.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_suggest_the_near_one() {
        assert_eq!(
            error("training.epocs = 3"),
            "unknown key training.epocs (did you mean training.epochs?)"
        );
        assert_eq!(
            error("batch_size = 3"),
            "unknown key batch_size (did you mean training.batch_size?)"
        );
        assert_eq!(
            error("model.blocks = [{ kernal = 3 }]"),
            "unknown key model.blocks[].kernal (did you mean model.blocks[].kernel?)"
        );
        assert_eq!(error("xyz = 3"), "unknown key xyz");
    }

    #[test]
    fn values_out_of_range_name_the_range() {
        assert_eq!(
            error("training.batch_size = 0"),
            "training.batch_size = 0: expected a whole number from 1 to 65536"
        );
        assert_eq!(
            error("training.batch_size = -5"),
            "training.batch_size = -5: expected a whole number from 1 to 65536"
        );
        assert_eq!(
            error("training.learning_rate = nan"),
            "training.learning_rate = nan: expected a number from 0.0000000001 to 100"
        );
        assert_eq!(
            error("training.optimizer = \"adm\""),
            "training.optimizer = \"adm\": expected adam or adamw or sgd"
        );
        assert_eq!(error("training = 3"), "training = 3: expected a table");
    }
}
