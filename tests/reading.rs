//! Reading of numbers: strings of MNIST's digits with the spacing of handwriting, some of them touching; strings that are drawn
//! as pen strokes; ruled paper, lines, and pictures of anything else.

use std::fs;
use std::time::{Duration, Instant};

use classifier::{Classifier, Device, Page, Picture};
use data::picture::to_png;
use data::{Dataset, ImageDataset};
use serde_json::Value;

use crate::pen::{Random, Strokes, characters, drawn};
use crate::support::{Output, WorkDir};

/// Side of a digit in the pictures: MNIST's images are enlarged.
const SIDE: usize = 84;
/// Paper around the digits.
const MARGIN: usize = 30;

impl Random {
    fn below(&mut self, count: usize) -> usize {
        (self.between(0.0, count as f32) as usize).min(count - 1)
    }
}

/// The ink of a picture, 0 to 1, in rows of `width`.
#[derive(Clone)]
struct Ink {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Ink {
    fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            values: vec![0.0; width * height],
        }
    }

    /// Scales a square image by bilinear interpolation.
    fn scaled(pixels: &[u8], source: usize, side: usize) -> Self {
        let at = |x: isize, y: isize| {
            let inside = 0..source as isize;
            match inside.contains(&x) && inside.contains(&y) {
                true => f32::from(pixels[y as usize * source + x as usize]) / 255.0,
                false => 0.0,
            }
        };
        let mut ink = Self::new(side, side);
        for (index, value) in ink.values.iter_mut().enumerate() {
            let [u, v] = [index % side, index / side]
                .map(|at| (at as f32 + 0.5) * source as f32 / side as f32 - 0.5);
            let (a, b) = (u - u.floor(), v - v.floor());
            let (x, y) = (u.floor() as isize, v.floor() as isize);
            let row = |y| (1.0 - a) * at(x, y) + a * at(x + 1, y);
            *value = (1.0 - b) * row(y) + b * row(y + 1);
        }
        ink
    }

    /// Returns the first and the last column with ink in a row.
    fn extent(&self, row: usize) -> Option<(usize, usize)> {
        let row = &self.values[row * self.width..][..self.width];
        let first = row.iter().position(|ink| *ink > 0.3)?;
        Some((first, row.iter().rposition(|ink| *ink > 0.3)?))
    }

    /// Draws another one over this, at a position.
    fn draw(&mut self, other: &Self, left: isize, top: usize) {
        for (index, ink) in other.values.iter().enumerate() {
            let (x, y) = (
                left + (index % other.width) as isize,
                top + index / other.width,
            );
            if (0..self.width as isize).contains(&x) && y < self.height {
                let value = &mut self.values[y * self.width + x as usize];
                *value = value.max(*ink);
            }
        }
    }

    /// Returns the left part.
    fn cropped(&self, width: usize) -> Self {
        let rows = self.values.chunks(self.width);
        Self {
            values: rows.flat_map(|row| row[..width].to_vec()).collect(),
            width,
            height: self.height,
        }
    }

    /// Returns a PNG file of dark ink on light paper.
    fn png(&self) -> Vec<u8> {
        let pixels = self.values.iter().map(|ink| 250 - (210.0 * ink) as u8);
        to_png(&pixels.collect::<Vec<u8>>(), 1, self.height, self.width)
    }
}

/// A digit as it is written.
type Digit = (String, Ink);

/// A number as it is written.
struct Written {
    text: String,
    ink: Ink,
}

impl Written {
    fn page(&self) -> Page {
        Page::new(&Picture::decode(&self.ink.png()).unwrap())
    }
}

/// Writes digits in a row. A gap is measured between the ink of two digits, along the rows, in pixels of MNIST; digits with
/// negative gaps touch.
fn written(digits: &[Digit], gaps: &[f32], random: &mut Random) -> Written {
    let mut page = Ink::new(2 * MARGIN + digits.len() * 2 * SIDE, 2 * MARGIN + 2 * SIDE);
    let slope = random.between(-0.04, 0.04);
    // The last column with ink in each row.
    let mut right: Vec<Option<usize>> = vec![None; page.height];
    let mut last = MARGIN;
    for ((_, ink), gap) in digits.iter().zip(gaps) {
        let drift = random.between(-5.0, 5.0) + slope * last as f32;
        let top = (MARGIN as f32 + SIDE as f32 / 2.0 + drift) as usize;
        let gap = (gap * SIDE as f32 / 28.0) as isize;
        let needed = |row: usize| {
            let (first, _) = ink.extent(row)?;
            let near = &right[(row + top).saturating_sub(2)..(row + top + 3).min(page.height)];
            let before = near.iter().filter_map(|end| *end).max()?;
            Some(before as isize + 1 + gap - first as isize)
        };
        let left = (0..ink.height).filter_map(needed).max();
        let left = left.unwrap_or(last as isize);
        page.draw(ink, left, top);
        for row in 0..ink.height {
            if let Some((_, end)) = ink.extent(row) {
                let end = (left + end as isize) as usize;
                right[row + top] = Some(right[row + top].map_or(end, |known| known.max(end)));
                last = last.max(end);
            }
        }
    }
    Written {
        text: digits.iter().map(|(digit, _)| digit.as_str()).collect(),
        ink: page.cropped(last + MARGIN),
    }
}

/// Writes numbers of 2 to 8 digits. In every third one, digits touch.
fn numbers(count: usize, seed: u64, mut digit: impl FnMut(&mut Random) -> Digit) -> Vec<Written> {
    let mut random = Random(seed);
    let number = |number: usize| {
        let length = 2 + random.below(7);
        let digits: Vec<Digit> = (0..length).map(|_| digit(&mut random)).collect();
        let mut gaps: Vec<f32> = digits.iter().map(|_| random.between(1.0, 8.0)).collect();
        if number.is_multiple_of(3) {
            let always = 1 + random.below(length - 1);
            for (at, gap) in gaps.iter_mut().enumerate() {
                if at == always || random.between(0.0, 1.0) < 0.4 {
                    *gap = random.between(-1.5, -0.3);
                }
            }
        }
        written(&digits, &gaps, &mut random)
    };
    (0..count).map(number).collect()
}

fn numbers_of_images(images: &ImageDataset, count: usize, seed: u64) -> Vec<Written> {
    numbers(count, seed, |random| {
        let index = random.below(images.len());
        let side = SIDE as f32 * random.between(0.85, 1.1);
        let pixels = images.pixels(index).unwrap();
        let ink = Ink::scaled(&pixels, 28, side as usize);
        (images.label(index).to_string(), ink)
    })
}

/// Draws a digit with a pen.
fn drawn_ink(strokes: &Strokes, random: &mut Random) -> Ink {
    let picture = drawn(strokes, random);
    let ink: Vec<u8> = picture.iter().map(|value| 255 - value).collect();
    Ink::scaled(&ink, picture.width() as usize, SIDE)
}

fn numbers_of_strokes(count: usize, seed: u64) -> Vec<Written> {
    let digits = characters("digits.txt");
    numbers(count, seed, |random| {
        let (digit, strokes) = &digits[random.below(digits.len())];
        (digit.to_string(), drawn_ink(strokes, random))
    })
}

/// Returns the edit distance (Levenshtein 1966).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Returns the fractions of digits and of numbers that are read correctly.
fn accuracy(classifier: &Classifier, numbers: &[Written]) -> [f64; 2] {
    let (mut wrong, mut digits, mut right) = (0, 0, 0);
    for number in numbers {
        let reading = classifier.read(&number.page()).unwrap();
        let text = reading.text(classifier.classes()).replace(' ', "");
        wrong += edits(&text, &number.text);
        digits += number.text.len();
        right += usize::from(text == number.text);
    }
    [
        1.0 - wrong as f64 / digits as f64,
        right as f64 / numbers.len() as f64,
    ]
}

fn pretrained(name: &str) -> Classifier {
    Classifier::pretrained(name, &Device::default()).unwrap()
}

#[test]
fn numbers_are_read() {
    let test = Dataset::embedded_mnist().unwrap().test;
    let images = numbers_of_images(&test, 200, 11);
    let strokes = numbers_of_strokes(30, 12);
    for (name, least) in [
        ("pretrained", [0.95, 0.85, 0.96, 0.85]),
        ("pretrained-best", [0.96, 0.85, 0.97, 0.9]),
    ] {
        let classifier = pretrained(name);
        let found = [&images, &strokes].map(|numbers| accuracy(&classifier, numbers));
        let [[digits, numbers], [drawn_digits, drawn_numbers]] = found;
        println!(
            "{name}: of MNIST's digits {:.2}%, numbers {:.1}%; drawn digits {:.2}%, numbers {:.1}%",
            100.0 * digits,
            100.0 * numbers,
            100.0 * drawn_digits,
            100.0 * drawn_numbers
        );
        for (found, least) in found.as_flattened().iter().zip(least) {
            assert!(*found >= least, "{found}, expected {least}");
        }
    }
}

/// Writes the digits of a number far from each other.
fn spaced(text: &str) -> Written {
    let digits = characters("digits.txt");
    let mut random = Random(5);
    let digit = |name: char| {
        let (_, strokes) = digits.iter().find(|(digit, _)| *digit == name).unwrap();
        (name.to_string(), drawn_ink(strokes, &mut random))
    };
    let digits: Vec<Digit> = text.chars().map(digit).collect();
    written(&digits, &vec![7.0; digits.len()], &mut Random(6))
}

#[test]
fn a_number_is_recognized_without_a_flag_and_has_boxes() {
    let dir = WorkDir::new();
    let number = spaced("13542");
    fs::write(dir.path("number.png"), number.ink.png()).unwrap();
    let output = dir
        .trainer("predict pretrained-best number.png --json")
        .success();
    let prediction: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(prediction["class"], "13542");
    let characters = prediction["characters"].as_array().unwrap();
    assert_eq!(characters.len(), 5);
    let mut last = 0;
    for (character, digit) in characters.iter().zip("13542".chars()) {
        assert_eq!(character["class"], digit.to_string());
        let area: Vec<u64> = serde_json::from_value(character["box"].clone()).unwrap();
        let [left, top, width, height] = area[..] else {
            panic!("{area:?}")
        };
        assert!(left >= last && left + width <= number.ink.width as u64);
        assert!(top + height <= number.ink.height as u64);
        last = left + width / 2;
    }
    let line = dir
        .trainer("predict pretrained-best number.png --show")
        .success();
    assert!(
        line.stdout.starts_with("number.png  13542  "),
        "{}",
        line.stdout
    );
    let csv = dir
        .trainer("predict pretrained-best number.png --csv")
        .success();
    let rows: Vec<Vec<&str>> = csv
        .stdout
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    assert_eq!(rows[0].len(), rows[1].len());

    let never = dir.trainer("predict pretrained-best number.png --json --split=never");
    let prediction: Value = serde_json::from_str(&never.success().stdout).unwrap();
    assert_eq!(prediction["characters"], Value::Null);
    let refused = dir
        .trainer("predict pretrained-cifar number.png --split")
        .error_lines();
    let expected =
        "error: --split: expected a network for handwriting whose classes are single characters";
    assert_eq!(refused.last().unwrap(), expected);
}

#[test]
fn single_digits_stay_single() {
    let dir = WorkDir::new();
    let mut command = dir.command("predict pretrained-best --json");
    let folder = crate::support::project("tests/handwriting");
    let output = Output::of(command.arg(folder)).success();
    for line in output.stdout.lines() {
        let prediction: Value = serde_json::from_str(line).unwrap();
        assert_eq!(prediction["characters"], Value::Null, "{line}");
    }
}

#[test]
fn lines_of_ruled_paper_are_no_ink() {
    let classifier = pretrained("pretrained-best");
    let read = |ink: Ink| {
        let page = Page::new(&Picture::decode(&ink.png()).unwrap());
        classifier.read(&page).unwrap().text(classifier.classes())
    };
    let number = spaced("2715").ink;
    assert_eq!(read(number.clone()), "2715");
    let (width, height) = (number.width, number.height);
    let mut ruled = number.clone();
    for (index, value) in ruled.values.iter_mut().enumerate() {
        let (x, y) = (index % width, index / width);
        // A line through the feet of the digits, and one above them, that fall a little.
        if [40, 132]
            .iter()
            .any(|line| (line + x / 60..line + x / 60 + 2).contains(&y))
        {
            *value = value.max(0.6);
        }
    }
    assert_eq!(read(ruled), "2715");
    let mut framed = number.clone();
    for (index, value) in framed.values.iter_mut().enumerate() {
        let (x, y) = (index % width, index / width);
        if !(4..width - 4).contains(&x) || !(4..height - 4).contains(&y) {
            *value = 0.9;
        }
    }
    assert_eq!(read(framed), "2715");

    // Two lines of writing.
    let mut page = Ink::new(width, 2 * height);
    page.draw(&number, 0, 0);
    page.draw(&number, 0, height - 40);
    assert_eq!(read(page), "2715 2715");
}

#[test]
fn pictures_without_writing_get_an_answer_within_a_second() {
    let classifier = pretrained("pretrained-best");
    let mut random = Random(3);
    let mut gravel = Ink::new(1600, 1600);
    for _ in 0..10_000 {
        let (x, y) = (random.below(1590), random.below(1590));
        gravel.draw(
            &Ink {
                width: 5,
                height: 5,
                values: vec![1.0; 25],
            },
            x as isize,
            y,
        );
    }
    let mut dots = Ink::new(640, 640);
    for at in 0..10_000 {
        dots.values[at / 100 * 6 * 640 + at % 100 * 6] = 1.0;
    }
    for (name, ink) in [
        ("paper", Ink::new(200, 200)),
        (
            "black",
            Ink {
                width: 200,
                height: 200,
                values: vec![1.0; 40_000],
            },
        ),
        (
            "a pixel",
            Ink {
                width: 1,
                height: 1,
                values: vec![1.0],
            },
        ),
        (
            "a row",
            Ink {
                width: 3_000,
                height: 1,
                values: (0..3_000).map(|x| (x % 2) as f32).collect(),
            },
        ),
        ("gravel", gravel),
        ("dots", dots),
    ] {
        let page = Page::new(&Picture::decode(&ink.png()).unwrap());
        let start = Instant::now();
        let reading = classifier.read(&page);
        let time = start.elapsed();
        println!(
            "{name}: {time:?} {:?}",
            reading
                .as_ref()
                .map(|it| it.characters.len())
                .map_err(ToString::to_string)
        );
        assert!(
            time < Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 }),
            "{name}: {time:?}"
        );
    }
}
