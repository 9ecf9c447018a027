//! The order of class names.

/// A class name, which sorts by its number first: `2` before `10`, and numbers before words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClassName(u64, String);

impl ClassName {
    pub(crate) fn new(name: String) -> Self {
        Self(name.parse().unwrap_or(u64::MAX), name)
    }

    pub(crate) fn into_string(self) -> String {
        self.1
    }
}
