//! Durations in settings and messages.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration as a setting: `90s`, `10m` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Time(pub(crate) Duration);

impl TryFrom<String> for Time {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_duration(&text).map(Self)
    }
}

impl From<Time> for String {
    fn from(Time(duration): Time) -> Self {
        humantime::format_duration(duration).to_string()
    }
}

/// Formats seconds, rounded to integers: `3m 5s`. Negative and non-finite values are formatted as `0s`.
pub(crate) fn format_seconds(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
    humantime::format_duration(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_whole_seconds() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.6, "1m"),
            (185.0, "3m 5s"),
            (3725.0, "1h 2m 5s"),
            (f64::NAN, "0s"),
            (-1.0, "0s"),
        ] {
            assert_eq!(format_seconds(seconds), text);
        }
    }
}
