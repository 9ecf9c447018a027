//! Labels of images, as the names of their classes.

use std::collections::HashMap;

use crate::class_name::ClassName;

/// Largest number of classes, because labels are `u8`.
pub(crate) const MAX_CLASSES: usize = 256;

/// The class names of images, each stored once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    /// Distinct names, in the order of their first image.
    names: Vec<String>,
    /// Index of the name of each image.
    indices: Vec<u32>,
    known: HashMap<String, u32>,
}

impl Labels {
    /// Appends the label of an image.
    pub(crate) fn push(&mut self, name: &str) {
        let index = match self.known.get(name) {
            Some(&index) => index,
            None => {
                let index = self.names.len() as u32;
                self.names.push(name.to_string());
                self.known.insert(name.to_string(), index);
                index
            }
        };
        self.indices.push(index);
    }

    /// Iterates over the names of all images.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let indices = self.indices.iter();
        indices.map(|&index| self.names[index as usize].as_str())
    }

    /// Replaces each name by that which `rename` returns.
    pub(crate) fn renamed(&self, rename: impl Fn(&str) -> String) -> Self {
        let names: Vec<String> = self.names.iter().map(|name| rename(name)).collect();
        let renamed = self
            .indices
            .iter()
            .map(|&index| names[index as usize].as_str());
        renamed.collect()
    }

    /// Returns the distinct names in the order of classes.
    pub(crate) fn classes(&self) -> Vec<String> {
        let mut classes: Vec<ClassName> = self.names.iter().cloned().map(ClassName::new).collect();
        classes.sort();
        classes.into_iter().map(ClassName::into_string).collect()
    }

    /// Returns the index of the class of each image.
    ///
    /// # Errors
    /// Returns the first name that is not a class, and the index of its image.
    pub(crate) fn in_classes(&self, classes: &[String]) -> Result<Vec<u8>, (String, usize)> {
        let positions = self
            .names
            .iter()
            .map(|name| classes.iter().position(|class| class == name));
        let positions: Vec<Option<usize>> = positions.collect();
        let indices = self.indices.iter().enumerate();
        let class = |(image, &index): (usize, &u32)| {
            let name = index as usize;
            positions[name]
                .and_then(|class| u8::try_from(class).ok())
                .ok_or_else(|| (self.names[name].clone(), image))
        };
        indices.map(class).collect()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Labels {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let mut labels = Self::default();
        for name in names {
            labels.push(name.as_ref());
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_sorted_by_number_and_name() {
        let labels: Labels = ["10", "b", "2", "10", "a"].into_iter().collect();
        assert_eq!(labels.classes(), ["2", "10", "a", "b"]);
        assert_eq!(
            labels.in_classes(&labels.classes()),
            Ok(vec![1, 3, 0, 1, 2])
        );
        assert_eq!(
            labels.in_classes(&["10".into(), "2".into()]),
            Err(("b".into(), 1))
        );
    }
}
