//! Ruled lines, frames and the borders of tables, which are told from writing.

use std::collections::HashSet;

use crate::components::{Component, typical_height};
use crate::plane::Plane;

/// Shortest rule, as a fraction of the side of the picture.
const MIN_SPAN: f64 = 0.6;
/// Shortest rule, in heights of the writing.
const MIN_HEIGHTS: f64 = 1.3;
/// Thickest rule, as a fraction of its length.
const MAX_THICKNESS: f64 = 1.0 / 15.0;
/// Largest slope of a rule.
const MAX_SLOPE: f64 = 0.1;
/// Shortest part of a rule in one row of pixels, as a fraction of the side of the picture. It allows a slope of some degrees.
const MIN_RUN: f64 = 0.04;

/// The direction of a rule.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Horizontal,
    Vertical,
}

/// A straight line.
struct Rule {
    /// The part that no stroke crosses or touches.
    thin: Component,
    /// Indices of all pixels.
    whole: Vec<usize>,
}

impl Plane {
    /// Clears long straight lines where no stroke crosses them. Without other ink, nothing is a rule: the line may be a one.
    pub(crate) fn remove_rules(mut self) -> Self {
        let [mut horizontal, mut vertical] =
            [Direction::Horizontal, Direction::Vertical].map(|direction| self.rules(direction));
        if horizontal.is_empty() && vertical.is_empty() {
            return self;
        }
        let mut cleared = self.clone();
        for rule in horizontal.iter().chain(&vertical) {
            rule.thin
                .pixels
                .iter()
                .for_each(|&at| cleared.values[at] = 0.0);
        }
        let writing = cleared.components(|at| cleared.values[at] > 0.0);
        let Some(height) = typical_height(&writing) else {
            return self;
        };
        for rules in [&mut horizontal, &mut vertical] {
            rules.retain(|rule| {
                let length = rule.thin.bounds.width().max(rule.thin.bounds.height());
                length as f64 >= MIN_HEIGHTS * height as f64
            });
            for rule in rules {
                rule.thin
                    .pixels
                    .iter()
                    .for_each(|&at| self.values[at] = 0.0);
            }
        }
        // Where two rules cross, neither is thin.
        let whole = |rules: &[Rule]| -> HashSet<usize> {
            rules
                .iter()
                .flat_map(|rule| rule.whole.iter().copied())
                .collect()
        };
        for at in whole(&horizontal).intersection(&whole(&vertical)) {
            self.values[*at] = 0.0;
        }
        self
    }

    /// Finds straight lines: runs of ink in neighboring rows, or columns, that together span most of the picture.
    fn rules(&self, direction: Direction) -> Vec<Rule> {
        let side = match direction {
            Direction::Horizontal => self.width,
            Direction::Vertical => self.height,
        };
        let is_run = self.long_runs(direction, (MIN_RUN * side as f64).max(6.0) as usize);
        let lines = self.components(|at| is_run[at]);
        let mut rules = Vec::new();
        for line in lines {
            let [length, _] = extent(&line, direction);
            let thickness = line.pixels.len() as f64 / length as f64;
            if (length as f64) < MIN_SPAN * side as f64 || thickness > MAX_THICKNESS * length as f64
            {
                continue;
            }
            let across = line.pixels.iter().map(|&at| self.thickness(at, direction));
            let across: Vec<usize> = across.collect();
            // Where a stroke crosses or touches the rule, there is more ink across it.
            let most = self.usual_thickness(&line, &across, direction) + 1;
            let pixels = line.pixels.iter().zip(across);
            let pixels: Vec<usize> = pixels
                .filter(|(_, across)| *across <= most)
                .map(|(&at, _)| at)
                .collect();
            if pixels.is_empty() {
                continue;
            }
            let thin = Component::new(pixels, self);
            let [length, rise] = extent(&thin, direction);
            if rise as f64 <= most as f64 + MAX_SLOPE * length as f64 {
                let whole = line.pixels;
                rules.push(Rule { thin, whole });
            }
        }
        rules
    }

    /// Marks the runs of ink of at least `min` pixels along a direction.
    fn long_runs(&self, direction: Direction, min: usize) -> Vec<bool> {
        let mut marks = vec![false; self.values.len()];
        let (lines, length) = match direction {
            Direction::Horizontal => (self.height, self.width),
            Direction::Vertical => (self.width, self.height),
        };
        let index = |line: usize, along: usize| match direction {
            Direction::Horizontal => line * self.width + along,
            Direction::Vertical => along * self.width + line,
        };
        for line in 0..lines {
            let mut start = 0;
            for along in 0..=length {
                if along < length && self.values[index(line, along)] > 0.0 {
                    continue;
                }
                if along - start >= min {
                    (start..along).for_each(|at| marks[index(line, at)] = true);
                }
                start = along + 1;
            }
        }
        marks
    }

    /// Returns the median along a line of its thickness, from that of its pixels.
    fn usual_thickness(&self, line: &Component, across: &[usize], direction: Direction) -> usize {
        let start = match direction {
            Direction::Horizontal => line.bounds.left,
            Direction::Vertical => line.bounds.top,
        };
        let [length, _] = extent(line, direction);
        let mut thinnest = vec![usize::MAX; length];
        for (&at, &across) in line.pixels.iter().zip(across) {
            let along = match direction {
                Direction::Horizontal => at % self.width,
                Direction::Vertical => at / self.width,
            };
            let known = &mut thinnest[along - start];
            *known = across.min(*known);
        }
        thinnest.retain(|&across| across < usize::MAX);
        thinnest.sort_unstable();
        thinnest.get(thinnest.len() / 2).copied().unwrap_or(0)
    }

    /// Returns the length of the run of ink across a direction through a pixel.
    fn thickness(&self, at: usize, direction: Direction) -> usize {
        let (x, y) = (at % self.width, at / self.width);
        let (place, length, step) = match direction {
            Direction::Horizontal => (y, self.height, self.width),
            Direction::Vertical => (x, self.width, 1),
        };
        let is_ink = |offset: &usize| self.values[*offset] > 0.0;
        let before = (1..=place).map(|n| at - n * step).take_while(is_ink);
        let after = (1..length - place)
            .map(|n| at + n * step)
            .take_while(is_ink);
        1 + before.count() + after.count()
    }
}

/// Returns the size of a component along a direction, and across it.
fn extent(component: &Component, direction: Direction) -> [usize; 2] {
    let [width, height] = [component.bounds.width(), component.bounds.height()];
    match direction {
        Direction::Horizontal => [width, height],
        Direction::Vertical => [height, width],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a plane with ink where `is_ink` holds.
    fn plane(width: usize, height: usize, is_ink: impl Fn(usize, usize) -> bool) -> Plane {
        let values = (0..width * height)
            .map(|at| f32::from(u8::from(is_ink(at % width, at / width))))
            .collect();
        Plane {
            width,
            height,
            values,
        }
    }

    /// A bar, as a one.
    fn is_bar(x: usize, y: usize) -> bool {
        (45..52).contains(&x) && (20..70).contains(&y)
    }

    #[test]
    fn lines_and_frames_are_removed_but_not_the_strokes_that_cross_them() {
        let expected = plane(120, 90, is_bar);
        let sloped_line = |x: usize, y: usize| (60 + x / 30..63 + x / 30).contains(&y);
        let lined = plane(120, 90, |x, y| is_bar(x, y) || sloped_line(x, y));
        let cleared = lined.remove_rules();
        let differences = cleared.values.iter().zip(&expected.values);
        let differences = differences.filter(|(a, b)| a != b).count();
        assert!(differences <= 12, "{differences}");

        let is_frame = |x: usize, y: usize| !(3..117).contains(&x) || !(3..87).contains(&y);
        let framed = plane(120, 90, |x, y| is_bar(x, y) || is_frame(x, y));
        assert!(framed.remove_rules().values == expected.values);
    }

    #[test]
    fn a_long_stroke_alone_is_no_rule() {
        // A one that fills the picture, and a seven.
        let one = plane(60, 60, |x, y| (28..31).contains(&x) && (2..58).contains(&y));
        let seven = plane(60, 60, |x, y| {
            (2..5).contains(&y) || (y > 2 && (55 - y / 2..58 - y / 2).contains(&x))
        });
        for digit in [one, seven] {
            assert!(digit.clone().remove_rules().values == digit.values);
        }
    }
}
