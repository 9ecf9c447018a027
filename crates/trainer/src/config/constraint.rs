//! The values that a setting accepts.

use std::fmt;

use toml::{Table, Value};

use crate::config::time::Time;

/// The type and the range of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Constraint {
    /// An integer between two bounds, both included.
    Integer(i64, i64),
    /// An integer or float between two bounds, both included.
    Number(f64, f64),
    /// A number between two bounds, both included, or three such numbers, one for each channel.
    PerChannel(f64, f64),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// Any string.
    Text,
    /// A [`data::Normalization`] as a string.
    Normalization,
    /// A [`Time`] above 0 as a string.
    Duration,
    /// `true` or `false`.
    Boolean,
    /// `true`, `false`, or one of these strings. Its flag sets `true`, or the value after `=`.
    BooleanOr(&'static [&'static str]),
    /// `balanced`, a path, or an array of positive numbers.
    ClassWeights,
    /// An array; the setting whose key ends in `[]` constrains its elements.
    Array,
}

use Constraint::{
    Array, Boolean, BooleanOr, ClassWeights, Duration, Integer, Normalization, Number, OneOf,
    PerChannel, Text,
};

impl Constraint {
    /// Returns whether `value` has the type and is in the range.
    pub(crate) fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Integer(min, max), &Value::Integer(number)) => (min..=max).contains(&number),
            (Number(min, max), &Value::Float(number)) => (min..=max).contains(&number),
            (Number(min, max), &Value::Integer(number)) => (min..=max).contains(&(number as f64)),
            (PerChannel(min, max), Value::Array(numbers)) => {
                let is_accepted = |number| Number(min, max).accepts(number);
                numbers.len() == 3 && numbers.iter().all(is_accepted)
            }
            (PerChannel(min, max), number) => Number(min, max).accepts(number),
            (OneOf(words) | BooleanOr(words), Value::String(text)) => {
                words.contains(&text.as_str())
            }
            (Normalization, Value::String(text)) => text.parse::<data::Normalization>().is_ok(),
            (Duration, Value::String(text)) => {
                Time::try_from(text.clone()).is_ok_and(|Time(time)| !time.is_zero())
            }
            (ClassWeights, Value::Array(weights)) => weights
                .iter()
                .all(|weight| Number(1e-6, 1e6).accepts(weight)),
            (Text | ClassWeights, Value::String(_))
            | (Boolean | BooleanOr(_), Value::Boolean(_))
            | (Array, Value::Array(_)) => true,
            _ => false,
        }
    }

    /// Reads the text of a flag or a default. Text of another type becomes the value that it would be in a
    /// file, so that an error shows it as the user wrote it.
    pub(crate) fn parse(self, text: &str) -> Value {
        let string = || Value::String(text.into());
        match self {
            // A data folder may be called 2024.
            Text => string(),
            ClassWeights if !text.starts_with('[') => string(),
            Boolean | BooleanOr(_) => text.parse().map_or_else(|_| string(), Value::Boolean),
            Array | ClassWeights => {
                let table = format!("array = {text}").parse::<Table>();
                let array = table.ok().and_then(|mut table| table.remove("array"));
                array.unwrap_or_else(string)
            }
            _ => text
                .parse()
                .map(Value::Integer)
                .or_else(|_| text.parse().map(Value::Float))
                .unwrap_or_else(|_| string()),
        }
    }

    /// Returns the accepted values in short, for the help: `1 to 65536` or `adam, adamw or sgd`.
    pub(crate) fn values(self) -> String {
        match self {
            Integer(min, i64::MAX) => format!("{min} or more"),
            Integer(min, max) => format!("{min} to {max}"),
            Number(min, max) | PerChannel(min, max) => format!("{min} to {max}"),
            OneOf(words) => alternatives(words),
            Text => "text".into(),
            ClassWeights => "balanced, a path, or numbers".into(),
            Normalization => alternatives(&["unit", "half", "mean-std", "MEAN,STD"]),
            Duration => alternatives(&["90s", "10m", "1h30m"]),
            Boolean => alternatives(&["true", "false"]),
            BooleanOr(words) => alternatives(&[&["true", "false"], words].concat()),
            Array => "array".into(),
        }
    }
}

/// Joins words: `a, b or c`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Integer(min, max) => write!(f, "an integer from {min} to {max}"),
            Number(min, max) => write!(f, "a number from {min} to {max}"),
            PerChannel(min, max) => {
                write!(f, "a number from {min} to {max}, or three of them, one for each channel")
            }
            OneOf(words) => f.write_str(&words.join(" or ")),
            Text => f.write_str("a string"),
            ClassWeights => f.write_str("balanced, the path of a table, or an array of numbers from 0.000001 to 1000000"),
            Normalization => f.write_str(
                "unit, half, mean-std, MEAN,STD such as 0.1307,0.3081, or for RGB images three means and three standard \
                 deviations, which are above 0",
            ),
            Duration => f.write_str("a time such as 90s, 10m or 1h30m"),
            Boolean => f.write_str("true or false"),
            BooleanOr(words) => write!(f, "true or false or {}", words.join(" or ")),
            Array => f.write_str("an array"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_text_as_the_type_of_the_setting() {
        assert_eq!(Integer(1, 9).parse("5"), Value::Integer(5));
        assert_eq!(Number(0.0, 1.0).parse("0.5"), Value::Float(0.5));
        assert_eq!(Text.parse("2024"), Value::String("2024".into()));
        assert_eq!(Boolean.parse("true"), Value::Boolean(true));
        let flip = BooleanOr(&["alternating"]);
        assert_eq!(flip.parse("true"), Value::Boolean(true));
        assert_eq!(flip.parse("alternating"), "alternating".into());
        assert!(flip.accepts(&"alternating".into()) && !flip.accepts(&"odd".into()));
        assert_eq!(Array.parse("[1]"), Value::Array(vec![1.into()]));
    }

    #[test]
    fn numbers_per_channel_are_one_or_three() {
        let accepts = |text| PerChannel(0.0, 1.0).accepts(&Array.parse(text));
        for text in ["0.5", "1", "[0.5, 0.25, 1]"] {
            assert!(accepts(text), "{text}");
        }
        for text in ["2", "[0.5]", "[0.5, 0.25, 2]", "[0, 0, 0, 0]", "\"a\""] {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn keeps_text_of_another_type_for_the_error() {
        assert_eq!(Integer(1, 9).parse("1.5"), Value::Float(1.5));
        assert_eq!(Integer(1, 9).parse("many"), Value::String("many".into()));
        assert_eq!(Array.parse("[1"), Value::String("[1".into()));
    }
}
