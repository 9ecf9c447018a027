//! Patterns for labels in the names of files, such as `{label}_*` for `3_001.png`.

use std::str::FromStr;

/// The mark of the label.
const LABEL: &str = "{label}";

/// A pattern for the name of a file without its extension. `{label}` stands for the label, a word of letters and digits, and
/// `*` for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPattern {
    before: String,
    after: String,
}

/// A text that is no pattern.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected a pattern with {{label}} once, such as {{label}}_* for files such as cat_001.png"
)]
pub struct LabelPatternError;

impl FromStr for LabelPattern {
    type Err = LabelPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (before, after) = text.split_once(LABEL).ok_or(LabelPatternError)?;
        match after.contains(LABEL) || text.contains('/') {
            true => Err(LabelPatternError),
            false => Ok(Self {
                before: before.into(),
                after: after.into(),
            }),
        }
    }
}

impl LabelPattern {
    /// Returns the label in the name of a file without its extension: the first and longest word that fits.
    pub fn label<'a>(&self, name: &'a str) -> Option<&'a str> {
        let starts = name.char_indices().map(|(at, _)| at);
        let starts = starts.filter(|&at| matches(&self.before, &name[..at]));
        let mut words = starts.filter_map(|start| {
            let word = &name[start..];
            let longest = word
                .find(|letter: char| !letter.is_alphanumeric())
                .unwrap_or(word.len());
            let ends = word[..longest]
                .char_indices()
                .rev()
                .map(|(at, letter)| at + letter.len_utf8());
            ends.map(|end| &word[..end])
                .find(|label| matches(&self.after, &word[label.len()..]))
        });
        words.next()
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_of_the_name() {
        for (pattern, name, label) in [
            ("{label}_*", "3_001", Some("3")),
            ("{label}.*", "cat.0", Some("cat")),
            ("*_{label}", "img_12_dog", Some("dog")),
            ("*-num{label}", "image01-num7", Some("7")),
            ("{label}*", "cat", Some("cat")),
            ("img{label}-*", "img042-001", Some("042")),
            ("*_{label}_*", "a_b_c", Some("b")),
            ("{label}_*", "no number", None),
            ("x{label}", "y1", None),
        ] {
            let pattern: LabelPattern = pattern.parse().unwrap();
            assert_eq!(pattern.label(name), label, "{pattern:?} {name}");
        }
    }

    #[test]
    fn a_pattern_has_one_label() {
        for text in ["*", "", "{label}{label}", "{label}/x"] {
            assert!(text.parse::<LabelPattern>().is_err(), "{text}");
        }
    }
}
