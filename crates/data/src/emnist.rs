//! EMNIST: handwritten letters and digits. Its files store the images transposed, and labels as numbers.
//!
//! Source: Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017, arXiv 1702.05373.

use std::collections::HashMap;

/// The classes of the variants `balanced` and `bymerge`: letters whose upper and lower case look alike are merged.
const MERGED: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt";
/// The classes of `byclass`.
const ALL: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The classes of a variant of EMNIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Emnist {
    /// Class names by label.
    classes: HashMap<String, String>,
}

impl Emnist {
    /// Recognizes a variant by the name of its files.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let variant = name.strip_prefix("emnist")?;
        let (first, letters) = match variant.trim_start_matches('-') {
            // Numbered from 1.
            "letters" => (1, &MERGED[10..36]),
            "balanced" | "bymerge" => (0, MERGED),
            "byclass" => (0, ALL),
            _ => (0, &MERGED[..10]),
        };
        let numbered = letters.chars().enumerate();
        Some(Self {
            classes: numbered
                .map(|(at, letter)| ((first + at).to_string(), letter.to_string()))
                .collect(),
        })
    }

    /// Reads a mapping file: lines of a label and the codes of its letters, of which the first names the class.
    pub(crate) fn from_mapping(text: &str) -> Option<Self> {
        let class = |line: &str| {
            let mut numbers = line.split_whitespace();
            let label: u32 = numbers.next()?.parse().ok()?;
            let letter = char::from_u32(numbers.next()?.parse().ok()?)?;
            (!letter.is_control()).then(|| (label.to_string(), letter.to_string()))
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        Some(Self {
            classes: lines.map(class).collect::<Option<_>>()?,
        })
    }

    /// Returns the name of the class with a label.
    pub(crate) fn class(&self, label: &str) -> String {
        self.classes
            .get(label)
            .cloned()
            .unwrap_or_else(|| label.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_their_classes() {
        for (name, label, class) in [
            ("emnist-letters", "1", "A"),
            ("emnist-letters", "26", "Z"),
            ("emnist-balanced", "46", "t"),
            ("emnist-byclass", "61", "z"),
            ("emnist-digits", "7", "7"),
            ("emnist-mnist", "0", "0"),
        ] {
            assert_eq!(Emnist::of(name).unwrap().class(label), class, "{name}");
        }
        assert_eq!(Emnist::of("mnist"), None);
    }

    #[test]
    fn a_mapping_names_the_classes() {
        let mapping = Emnist::from_mapping("1 65 97\n2 66 98\n").unwrap();
        assert_eq!(
            (mapping.class("2"), mapping.class("3")),
            ("B".into(), "3".into())
        );
        assert_eq!(Emnist::from_mapping("1 x\n"), None);
    }
}
