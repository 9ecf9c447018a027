//! Connected components of ink.

use crate::plane::Plane;

/// Components with less than this fraction of the largest mass are not large.
const LARGE: f64 = 0.2;

/// Pixels that are connected by their sides or corners.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    /// Indices of the pixels.
    pub(crate) pixels: Vec<usize>,
    /// Sum of their values.
    pub(crate) mass: f64,
    pub(crate) bounds: Bounds,
}

/// A rectangle of pixels. `right` and `bottom` are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) right: usize,
    pub(crate) bottom: usize,
}

impl Plane {
    /// Returns the connected components of the pixels for which `is_part` is true, in the order of their first pixels.
    pub(crate) fn components(&self, is_part: impl Fn(usize) -> bool) -> Vec<Component> {
        let mut components = Vec::new();
        let mut seen = vec![false; self.values.len()];
        for start in 0..self.values.len() {
            if seen[start] || !is_part(start) {
                continue;
            }
            seen[start] = true;
            let mut pixels = vec![start];
            let mut visited = 0;
            while let Some(&at) = pixels.get(visited) {
                visited += 1;
                for next in self.neighbors(at) {
                    if !seen[next] && is_part(next) {
                        seen[next] = true;
                        pixels.push(next);
                    }
                }
            }
            components.push(Component::new(pixels, self));
        }
        components
    }
}

impl Component {
    /// Creates a component of pixels of a plane.
    ///
    /// # Panics
    /// Panics if there are no pixels.
    pub(crate) fn new(pixels: Vec<usize>, plane: &Plane) -> Self {
        let mass = pixels.iter().map(|&at| f64::from(plane.values[at])).sum();
        let points = pixels
            .iter()
            .map(|&at| (at % plane.width, at / plane.width));
        let bounds = points
            .map(|(x, y)| Bounds {
                left: x,
                top: y,
                right: x + 1,
                bottom: y + 1,
            })
            .reduce(Bounds::union)
            .expect("a component has pixels");
        Self {
            pixels,
            mass,
            bounds,
        }
    }
}

impl Bounds {
    pub(crate) fn width(self) -> usize {
        self.right - self.left
    }

    pub(crate) fn height(self) -> usize {
        self.bottom - self.top
    }

    /// Returns the smallest rectangle that contains both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// Returns the number of rows that both have.
    pub(crate) fn common_rows(self, other: Self) -> usize {
        let (top, bottom) = (self.top.max(other.top), self.bottom.min(other.bottom));
        bottom.saturating_sub(top)
    }

    /// Returns the number of columns between the two, negative if they have columns in common.
    pub(crate) fn gap(self, other: Self) -> isize {
        self.left.max(other.left) as isize - self.right.min(other.right) as isize
    }
}

/// Returns the components that are not much smaller than the largest.
pub(crate) fn large(components: &[Component]) -> impl Iterator<Item = &Component> {
    let largest = components.iter().map(|it| it.mass).fold(0.0, f64::max);
    components
        .iter()
        .filter(move |it| it.mass >= LARGE * largest)
}

/// Returns the median height of the large components; `None` without components.
pub(crate) fn typical_height(components: &[Component]) -> Option<usize> {
    let mut heights: Vec<usize> = large(components).map(|it| it.bounds.height()).collect();
    heights.sort_unstable();
    heights.get(heights.len() / 2).copied()
}
