//! The map of the test images by their features.

use crate::figures::Figure;
use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};
use crate::inference::embedding::{EmbeddedImage, Embedding, Quality};

/// Side of the map.
const SIDE: f64 = 640.0;
const LEFT: f64 = 12.0;
const TOP: f64 = 58.0;
const LEGEND: f64 = 170.0;
/// Number of classes that the legend lists.
const MAX_LISTED: usize = 30;
/// Maximum number of classes that are labeled on the map.
pub(crate) const MAX_LABELED: usize = 40;
/// Height of a line of the legend.
const LINE: f64 = 19.0;

/// Draws the map of test images: a dot for each, in the color of its true class, and a cross on each mistake.
pub(crate) fn embedding(embedding: &Embedding, classes: &[String]) -> Figure {
    let map = Area {
        x: LEFT,
        y: TOP,
        width: SIDE,
        height: SIDE,
    };
    let (width, height) = (LEFT + SIDE + 16.0 + LEGEND, TOP + SIDE + 14.0);
    let mut drawing = Drawing::new(&headline(embedding), width, height);
    let font = Font::new(12.0, Anchor::Start).with_color(color::FAINT);
    drawing.text(LEFT, 42.0, font, &axes(embedding));
    drawing.frame(map, color::GRID, 1.0);

    let (center, half) = embedding.square();
    // A margin for the dots at the edge.
    let scale = 0.5 * (SIDE - 16.0) / half;
    let place = |[x, y]: [f64; 2]| {
        (
            map.x + 0.5 * SIDE + scale * (x - center[0]),
            map.y + 0.5 * SIDE - scale * (y - center[1]),
        )
    };
    let places = |is_chosen: &dyn Fn(&EmbeddedImage) -> bool| -> Vec<(f64, f64)> {
        let chosen = embedding.images.iter().filter(|image| is_chosen(image));
        chosen.map(|image| place(image.position)).collect()
    };
    let size = diameter(embedding.images.len());
    for class in 0..classes.len() {
        let points = places(&|image| image.label == class);
        if !points.is_empty() {
            drawing.dots(&points, class_color(class), size);
        }
    }
    let mistakes = places(&|image| !image.is_correct());
    if !mistakes.is_empty() {
        drawing.crosses(&mistakes, color::INK, 0.6 * size + 1.2);
    }
    if classes.len() <= MAX_LABELED {
        let centers = embedding.centers(classes.len()).into_iter().zip(classes);
        let labels = centers.filter_map(|(center, name)| Some((place(center?), name.as_str())));
        draw_names(&mut drawing, labels.collect(), map);
    }
    draw_legend(&mut drawing, embedding, classes);
    let name = "embedding".into();
    Figure { name, drawing }
}

/// Describes the method and its result.
pub(crate) fn headline(embedding: &Embedding) -> String {
    let (count, total) = (embedding.images.len(), embedding.total);
    let images = match count < total {
        true => format!("{count} of {total} test images"),
        false => format!("{count} test images"),
    };
    match embedding.quality {
        Quality::Pca { shares } => format!(
            "PCA of {images}: two components with {:.1}% of the variance",
            100.0 * (shares[0] + shares[1])
        ),
        Quality::Tsne { perplexity, .. } => {
            format!("t-SNE of {images}, perplexity {perplexity:.0}")
        }
    }
}

/// Describes the features and the axes.
pub(crate) fn axes(embedding: &Embedding) -> String {
    let axes = match embedding.quality {
        Quality::Pca { shares } => format!(
            "across: component 1, {:.1}% of the variance; up: component 2, {:.1}%",
            100.0 * shares[0],
            100.0 * shares[1]
        ),
        Quality::Tsne { divergence, .. } => format!(
            "near points are similar, wide distances mean little; KL divergence {divergence:.2}"
        ),
    };
    let features = embedding.features;
    format!("{features} features before the output layer; {axes}")
}

/// Returns the color of a class. Classes beyond the tenth repeat the colors.
pub(crate) fn class_color(class: usize) -> &'static str {
    color::CLASSES[class % color::CLASSES.len()]
}

/// Returns the diameter of the dots: smaller for more images.
fn diameter(count: usize) -> f64 {
    (0.2 * SIDE / (count as f64).sqrt()).clamp(2.4, 7.0)
}

/// Writes names at the centers of their classes, and moves a name down that would lie on another one.
fn draw_names(drawing: &mut Drawing, mut labels: Vec<((f64, f64), &str)>, map: Area) {
    labels.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
    let font = Font::new(15.0, Anchor::Middle);
    let mut drawn: Vec<(f64, f64, f64)> = Vec::new();
    for ((x, y), name) in labels {
        let name = font.fit(name, 140.0);
        let half = 0.5 * font.width(&name) + 2.0;
        let x = x.clamp(map.x + half, map.x + map.width - half);
        let mut y = y;
        let is_on = |y: f64, other: &(f64, f64, f64)| {
            (other.0 - x).abs() < other.2 + half && (other.1 - y).abs() < font.size
        };
        while let Some(other) = drawn.iter().find(|other| is_on(y, other)) {
            y = other.1 + font.size;
        }
        drawn.push((x, y, half));
        drawing.label(x, y + 0.36 * font.size, font, &name);
    }
}

/// Lists the classes with their numbers of images, and explains the crosses.
fn draw_legend(drawing: &mut Drawing, embedding: &Embedding, classes: &[String]) {
    let (x, mut y) = (LEFT + SIDE + 20.0, TOP + 10.0);
    let font = Font::new(12.0, Anchor::Start);
    let counts = embedding.counts(classes.len());
    let listed = match classes.len() <= MAX_LISTED {
        true => classes.len(),
        false => MAX_LISTED - 1,
    };
    for (class, name) in classes.iter().enumerate().take(listed) {
        drawing.dots(&[(x, y)], class_color(class), 8.0);
        let count = counts[class].to_string();
        let name = font.fit(name, LEGEND - 30.0 - font.width(&count));
        drawing.text(x + 10.0, y + 4.0, font, &name);
        let font = font.with_anchor(Anchor::End).with_color(color::FAINT);
        drawing.text(LEFT + SIDE + 8.0 + LEGEND, y + 4.0, font, &count);
        y += LINE;
    }
    if listed < classes.len() {
        let font = font.with_color(color::FAINT);
        let text = format!("and {} more classes", classes.len() - listed);
        drawing.text(x - 4.0, y + 4.0, font, &text);
        y += LINE;
    }
    let (mistakes, count) = (embedding.mistakes(), embedding.images.len());
    drawing.crosses(&[(x, y + 8.0)], color::INK, 3.5);
    let share = 100.0 * mistakes as f64 / count.max(1) as f64;
    let text = match mistakes {
        1 => format!("1 mistake, {share:.2}%"),
        _ => format!("{mistakes} mistakes, {share:.2}%"),
    };
    drawing.text(x + 10.0, y + 12.0, font, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(count: usize, classes: usize) -> Embedding {
        let image = |index: usize| EmbeddedImage {
            index,
            label: index % classes,
            predicted: if index == 1 { 0 } else { index % classes },
            probability: 0.5,
            position: [(index as f64).cos(), 3.0 + 2.0 * (index as f64).sin()],
        };
        Embedding {
            images: (0..count).map(image).collect(),
            quality: Quality::Pca {
                shares: [0.5, 0.25],
            },
            features: 8,
            total: 2 * count,
        }
    }

    #[test]
    fn every_image_and_mistake_is_drawn_inside_the_frame() {
        let classes = ["a".into(), "b".into(), "<c>".into(), "none".into()];
        let svg = embedding(&map(300, 3), &classes).drawing.to_svg();
        let paths: Vec<&str> = svg.split(" d=\"").skip(1).collect();
        let dots = |path: &&str| path.split('"').next().unwrap().matches('M').count();
        let counts: Vec<usize> = paths.iter().map(dots).collect();
        // Three classes; a cross with its margin; four dots and a cross with its margin in the legend.
        assert_eq!(counts, [100, 100, 100, 1, 1, 1, 1, 1, 1, 1, 1]);
        for point in paths[..3].iter().flat_map(|path| path.split('M').skip(1)) {
            let (x, rest) = point.split_once(',').unwrap();
            let y = rest.split('h').next().unwrap();
            for (value, start) in [(x, LEFT), (y, TOP)] {
                let value: f64 = value.parse().unwrap();
                assert!((start..=start + SIDE).contains(&value), "{point}");
            }
        }
        assert!(
            svg.contains(
                "PCA of 300 of 600 test images: two components with 75.0% of the variance"
            )
        );
        assert!(
            svg.contains("1 mistake, 0.33%") && svg.contains("&lt;c&gt;"),
            "{svg}"
        );
    }

    #[test]
    fn many_classes_are_counted_in_the_legend() {
        let classes: Vec<String> = (0..256).map(|class| format!("class {class}")).collect();
        let svg = embedding(&map(256, 256), &classes).drawing.to_svg();
        assert!(
            svg.contains("and 227 more classes") && !svg.contains("class 29"),
            "{svg}"
        );
        assert_eq!(class_color(3), class_color(253));
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let mut drawing = Drawing::new("", 100.0, 100.0);
        let map = Area {
            x: 0.0,
            y: 0.0,
            width: 100.0,
            height: 100.0,
        };
        let labels = vec![
            ((50.0, 20.0), "one"),
            ((52.0, 22.0), "two"),
            ((50.0, 21.0), "six"),
        ];
        draw_names(&mut drawing, labels, map);
        let svg = drawing.to_svg();
        for y in ["25.4", "40.4", "55.4"] {
            assert!(svg.contains(&format!("y=\"{y}\"")), "{y}: {svg}");
        }
    }
}
