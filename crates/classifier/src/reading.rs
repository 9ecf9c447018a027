//! Reading of several characters, such as the digits of a number.
//!
//! The ink is cut into pieces, more than there are characters. Of all ways to join neighboring pieces to characters, the one with the
//! least cost is read, by dynamic programming (LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
//! 1998, section V). The cost of a character is the negative logarithm of its calibrated probability, and grows with its
//! distance from the training images, and with an unusual size; a cut costs, too. The weights were tuned on strings of
//! MNIST's training images.

use std::{iter, mem};

use data::writing::{Joint, Line, Page, Segment, Writing};

use crate::classifier::Classifier;
use crate::error::Error;
use crate::prediction::Answer;

/// Maximum number of images in a batch.
const BATCH: usize = 512;

/// The weights of the costs.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// Of each cut through connected ink.
    cut: f32,
    /// Of the ink on a cut, in heights of the line.
    ink: f32,
    /// Of paper within a character, in heights of the line.
    gap: f32,
    /// Of the square of the distance from the training images.
    distance: f32,
    /// Of the square of the width above the usual, in heights of the line.
    width: f32,
    /// Of the square of the height below the usual, in heights of the line.
    height: f32,
}

const COSTS: Costs = Costs {
    cut: 0.03,
    ink: 1.0,
    gap: 0.7,
    distance: 5.3,
    width: 26.0,
    height: 28.0,
};

/// Width of most digits, in heights of the line.
const USUAL_WIDTH: f32 = 0.85;
/// Least height of most digits, in heights of the line.
const USUAL_HEIGHT: f32 = 0.75;

/// Cost of a character without finite probabilities.
const UNREADABLE: f32 = 1e6;

/// Paper of this width, in heights of the line, separates words.
const WORD_GAP: f32 = 1.2;

/// Characters that were read, in the order of writing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// From left to right, and from the top down.
    pub characters: Vec<Character>,
}

/// A character of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Character {
    /// The probabilities of its classes.
    pub answer: Answer,
    /// Its image, as the network sees it: `[channels, height, width]`.
    pub image: Vec<u8>,
    /// Left, top, width and height in pixels of the picture.
    pub area: [u32; 4],
    /// Number of its line, from 0.
    pub line: usize,
    /// Whether it begins a word or a line.
    pub starts_word: bool,
    /// Whether it was cut from the character before; else there is paper between the two.
    pub is_cut: bool,
}

impl Reading {
    /// Returns the names of the characters' classes as text, with a space between words and between lines.
    pub fn text(&self, classes: &[String]) -> String {
        let mut text = String::new();
        for (number, character) in self.characters.iter().enumerate() {
            if character.starts_word && number > 0 {
                text.push(' ');
            }
            text.push_str(&classes[character.answer.probabilities.best().0]);
        }
        text
    }

    /// Returns the product of the characters' probabilities.
    pub fn probability(&self) -> f32 {
        let characters = self.characters.iter();
        characters
            .map(|it| it.answer.probabilities.best().1)
            .product()
    }
}

impl Classifier {
    /// Reads all characters on a page. The network should be one for handwriting.
    ///
    /// # Errors
    /// Returns an error if the page is blank or has too many separate marks, or the device fails.
    pub fn read(&self, page: &Page) -> Result<Reading, Error> {
        let writing = page.writing();
        let writing = writing.map_err(|source| Error::Picture { index: 0, source })?;
        let mut characters = Vec::new();
        for (number, line) in writing.lines().iter().enumerate() {
            characters.extend(self.read_line(&writing, line, number)?);
        }
        Ok(Reading { characters })
    }

    fn read_line(
        &self,
        writing: &Writing,
        line: &Line,
        number: usize,
    ) -> Result<Vec<Character>, Error> {
        let [channels, height, width] = self.description.images.shape();
        let mut segments = writing.segments(line, [height, width]);
        let mut answers = Vec::with_capacity(segments.len());
        for chunk in segments.chunks(BATCH) {
            let images = chunk.iter().map(|segment| segment.image.repeat(channels));
            answers.extend(self.answers(images.collect())?);
        }
        let temperature = self.confidence.as_ref().map_or(1.0, |it| it.temperature);
        let costs: Vec<f32> = iter::zip(&segments, &answers)
            .map(|(segment, answer)| COSTS.character(line, segment, answer, temperature))
            .collect();
        let chosen = cheapest(line.pieces(), &segments, &costs);
        let character = |at: usize| {
            let segment = &mut segments[at];
            let joint = line.joint(segment.start);
            Character {
                answer: answers[at].clone(),
                image: mem::take(&mut segment.image).repeat(channels),
                area: segment.area,
                line: number,
                starts_word: matches!(joint, Joint::Gap(gap) if gap > WORD_GAP),
                is_cut: matches!(joint, Joint::Cut(ink) if ink > 0.0),
            }
        };
        Ok(chosen.into_iter().map(character).collect())
    }
}

impl Costs {
    /// Returns the cost of a character, with the cut before it.
    fn character(self, line: &Line, segment: &Segment, answer: &Answer, temperature: f32) -> f32 {
        let probabilities = &answer.probabilities;
        let mut cost = -probabilities.logarithm(probabilities.best().0, temperature);
        if let Some(assessment) = &answer.assessment {
            cost += self.distance * assessment.distance.powi(2);
        }
        let [width, height] = segment.size;
        cost += self.width * (width - USUAL_WIDTH).max(0.0).powi(2);
        cost += self.height * (USUAL_HEIGHT - height).max(0.0).powi(2);
        if let Joint::Cut(ink) = line.joint(segment.start) {
            cost += self.cut + self.ink * ink;
        }
        for piece in segment.start + 1..segment.end {
            if let Joint::Gap(gap) = line.joint(piece) {
                cost += self.gap * gap.max(0.0);
            }
        }
        // Of features that are not finite, no character is read if another one is possible.
        if cost.is_finite() { cost } else { UNREADABLE }
    }
}

/// Returns the segments that together have all pieces once, with the least sum of costs, in order.
fn cheapest(pieces: usize, segments: &[Segment], costs: &[f32]) -> Vec<usize> {
    // For each number of pieces from the left: the least cost, and the last segment.
    let mut best: Vec<(f32, Option<usize>)> = vec![(f32::INFINITY, None); pieces + 1];
    best[0].0 = 0.0;
    // Segments are sorted by their first piece.
    for (number, (segment, cost)) in segments.iter().zip(costs).enumerate() {
        let sum = best[segment.start].0 + cost;
        if sum < best[segment.end].0 {
            best[segment.end] = (sum, Some(number));
        }
    }
    let mut chosen = Vec::new();
    let mut end = pieces;
    while let (_, Some(segment)) = best[end] {
        chosen.push(segment);
        end = segments[segment].start;
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_segments_have_all_pieces_once() {
        let segment = |start: usize, end: usize| Segment {
            start,
            end,
            image: Vec::new(),
            size: [0.5, 1.0],
            area: [0; 4],
        };
        let segments = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)];
        let segments = segments.map(|(start, end)| segment(start, end));
        // The pairs: 2 + 4, 3 + 0.5, 2 + 1 + 0.5.
        assert_eq!(cheapest(3, &segments, &[2.0, 3.0, 1.2, 4.0, 0.5]), [1, 4]);
        assert_eq!(
            cheapest(3, &segments, &[2.0, 3.0, 0.9, 4.0, 0.5]),
            [0, 2, 4]
        );
        assert_eq!(cheapest(3, &segments, &[2.0, 3.0, 1.2, 1.0, 0.5]), [0, 3]);
        assert_eq!(cheapest(0, &[], &[]), [0; 0]);
    }
}
