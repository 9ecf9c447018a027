//! The attributes of a node.

use crate::onnx::message::{Attribute, TensorMessage};

/// Largest size of kernels, strides and padding.
const MAX_SIZE: i64 = 1 << 16;

/// The attributes of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [Attribute]);

impl<'a> Attributes<'a> {
    fn get(self, name: &str) -> Option<&'a Attribute> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn int(self, name: &str) -> Option<i64> {
        self.get(name)?.i
    }

    pub(super) fn float(self, name: &str) -> Option<f64> {
        self.get(name)?.f.map(f64::from)
    }

    pub(super) fn ints(self, name: &str) -> Option<Vec<i64>> {
        self.get(name).map(|attribute| attribute.ints.clone())
    }

    pub(super) fn floats(self, name: &str) -> Option<&'a [f32]> {
        self.get(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.get(name)?.s.as_deref()?).ok()
    }

    pub(super) fn tensor(self, name: &str) -> Option<&'a TensorMessage> {
        self.get(name)?.t.as_ref()
    }

    /// Returns a list of sizes; `None` if it is left out.
    pub(super) fn sizes(self, name: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(ints) = self.ints(name) else {
            return Ok(None);
        };
        let size = |int: &i64| usize::try_from(*int).ok().filter(|_| *int <= MAX_SIZE);
        let sizes: Option<Vec<usize>> = ints.iter().map(size).collect();
        match sizes {
            Some(sizes) => Ok(Some(sizes)),
            None => Err(format!("{name} {ints:?}")),
        }
    }

    /// Returns a size that is the same in both dimensions; 1 if it is left out.
    pub(super) fn equal(self, name: &str) -> Result<usize, String> {
        match self.sizes(name)?.as_deref() {
            None | Some([]) => Ok(1),
            Some(&[height, width]) if height == width => Ok(height),
            Some(sizes) => Err(format!(
                "{name} {sizes:?}; only equal sizes of two dimensions are supported"
            )),
        }
    }
}
