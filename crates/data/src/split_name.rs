//! Names of splits in the names of folders, files, arrays and table columns.

/// The use of images that a name states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    /// Returns the split of a single word in lower case.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        match word {
            "train" | "training" | "tr" => Some(Self::Train),
            "val" | "valid" | "validation" | "validate" | "dev" => Some(Self::Validation),
            "test" | "testing" | "t10k" | "te" => Some(Self::Test),
            _ => None,
        }
    }

    /// Name of the folder of the split.
    #[cfg(feature = "parquet")]
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// Returns the split that a folder is named after, such as `train`, `Training`, `trainingSet` or `test_images`.
    pub(crate) fn of_folder(name: &str) -> Option<Self> {
        let letters = name.chars().filter(|letter| letter.is_alphanumeric());
        let name: String = letters.flat_map(char::to_lowercase).collect();
        let suffixes = ["", "set", "data", "images", "sample", "split"];
        let mut words = suffixes
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix));
        words.find_map(|word| {
            if word.len() > 2 && word != "t10k" {
                Self::of_word(word)
            } else {
                None
            }
        })
    }

    /// Returns the split that the outermost of the folders of a file is named after, of those that are.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let (folders, _) = path.rsplit_once('/')?;
        folders.split('/').find_map(Self::of_folder)
    }

    /// Returns the split in a column of a table. FER2013 has `PublicTest` to choose a model by and `PrivateTest` to report on.
    pub(crate) fn of_value(value: &str) -> Option<Self> {
        match value.to_lowercase().as_str() {
            "publictest" => Some(Self::Validation),
            "privatetest" => Some(Self::Test),
            word => Self::of_word(word),
        }
    }
}

/// Returns the words of a name in lower case: `X_train`, `x-train` and `xTrain` are `x` and `train`. Digits belong to the
/// word before them.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for letter in name.chars() {
        let begins = !before.is_alphanumeric() || (before.is_lowercase() && letter.is_uppercase());
        if letter.is_alphanumeric() {
            let lower = letter.to_lowercase();
            match words.last_mut() {
                Some(word) if !begins => word.extend(lower),
                _ => words.push(lower.collect()),
            }
        }
        before = letter;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_all_spellings() {
        for name in ["X_train", "x-train", "xTrain", "x.train"] {
            assert_eq!(words(name), ["x", "train"], "{name}");
        }
        assert_eq!(
            words("t10k-images-idx3-ubyte"),
            ["t10k", "images", "idx3", "ubyte"]
        );
    }

    #[test]
    fn names_of_folders_state_splits() {
        for (name, split) in [
            ("trainingSet", Some(Split::Train)),
            ("Test_Images", Some(Split::Test)),
            ("VALID", Some(Split::Validation)),
            ("trainers", None),
            ("te", None),
        ] {
            assert_eq!(Split::of_folder(name), split, "{name}");
        }
        assert_eq!(Split::of_value("PrivateTest"), Some(Split::Test));
    }
}
