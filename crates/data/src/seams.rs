//! Places where connected characters can be cut apart.

use crate::components::Bounds;

/// How far cuts may deviate from a vertical line, as a fraction of the height of the writing.
const DEVIATIONS: [f64; 3] = [0.05, 0.12, 0.2];
/// Smallest distance between cuts, as a fraction of the height of the writing.
const MIN_DISTANCE: f64 = 0.05;
/// Cost of a pixel of paper, such that short cuts are preferred.
const PAPER: f32 = 0.01;

/// A path from the top to the bottom of a rectangle through little ink.
#[derive(Clone, Debug)]
pub(crate) struct Seam {
    /// The column at each row: pixels from it on are to the right.
    columns: Vec<usize>,
    /// Sum of the ink on the path.
    pub(crate) ink: f32,
}

impl Seam {
    /// Whether a pixel, relative to the rectangle, is to the right of the path.
    pub(crate) fn is_left_of(&self, x: usize, y: usize) -> bool {
        x >= self.columns[y]
    }

    /// The column in the middle of the height.
    fn middle(&self) -> usize {
        self.columns[self.columns.len() / 2]
    }
}

/// Finds the cuts of a character: of all paths near each column, those with less ink than their neighbors, from left to right.
///
/// `ink` has the rows of the character's rectangle. A path moves by at most a column per row. `height` is that of the writing.
pub(crate) fn seams(ink: &[f32], bounds: Bounds, height: usize) -> Vec<Seam> {
    let width = bounds.width();
    let distance = ((MIN_DISTANCE * height as f64) as usize).max(2);
    let step = (distance / 2).max(1);
    let candidates = (distance..width.saturating_sub(distance)).step_by(step);
    let paths = |center: usize| {
        DEVIATIONS.map(|deviation| {
            let deviation = ((deviation * height as f64) as usize).max(1);
            let band = center.saturating_sub(deviation)..(center + deviation + 1).min(width);
            cheapest_path(ink, width, band)
        })
    };
    let mut candidates: Vec<Seam> = candidates.flat_map(paths).collect();
    candidates.sort_by(|a, b| a.ink.total_cmp(&b.ink));
    let mut chosen: Vec<Seam> = Vec::new();
    for seam in candidates {
        let is_near = |other: &Seam| other.middle().abs_diff(seam.middle()) < distance;
        let is_crossed = |other: &Seam| {
            let pairs = || seam.columns.iter().zip(&other.columns);
            pairs().any(|(a, b)| a < b) && pairs().any(|(a, b)| a > b)
        };
        let cuts_edge = seam.middle() < distance || seam.middle() + distance > width;
        if !cuts_edge
            && !chosen
                .iter()
                .any(|other| is_near(other) || is_crossed(other))
        {
            chosen.push(seam);
        }
    }
    chosen.sort_by_key(Seam::middle);
    chosen
}

/// Returns the path with the least ink within a band of columns, by dynamic programming over the rows.
fn cheapest_path(ink: &[f32], width: usize, band: std::ops::Range<usize>) -> Seam {
    let rows: Vec<&[f32]> = ink.chunks(width).map(|row| &row[band.clone()]).collect();
    let columns = band.len();
    let mut costs = vec![0.0f32; columns];
    // For each row, the column of the row before that the cheapest path to each column comes from.
    let mut origins: Vec<Vec<usize>> = Vec::with_capacity(rows.len());
    for row in &rows {
        let origin = |column: usize| {
            let near = column.saturating_sub(1)..(column + 2).min(columns);
            // Of equal costs, straight down.
            near.min_by(|&a, &b| {
                let key = |at: usize| (costs[at], at.abs_diff(column));
                let (x, y) = (key(a), key(b));
                x.0.total_cmp(&y.0).then(x.1.cmp(&y.1))
            })
            .unwrap_or(column)
        };
        let from: Vec<usize> = (0..columns).map(origin).collect();
        let next = row.iter().zip(&from);
        costs = next.map(|(ink, &from)| costs[from] + ink + PAPER).collect();
        origins.push(from);
    }
    let middle = columns / 2;
    let end = (0..columns).min_by(|&a, &b| {
        let by_cost = costs[a].total_cmp(&costs[b]);
        by_cost.then(a.abs_diff(middle).cmp(&b.abs_diff(middle)))
    });
    let mut column = end.unwrap_or(0);
    let mut path = Vec::with_capacity(rows.len());
    let mut sum = 0.0;
    for (row, origin) in rows.iter().zip(&origins).rev() {
        path.push(band.start + column);
        sum += row[column];
        column = origin[column];
    }
    path.reverse();
    Seam {
        columns: path,
        ink: sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_cut_where_they_join() {
        // Two bars of 4 columns, joined by a bridge of 2 rows.
        let (width, height) = (20, 20);
        let ink: Vec<f32> = (0..width * height)
            .map(|at| {
                let (x, y) = (at % width, at / width);
                let is_ink = !(4..16).contains(&x) || (9..11).contains(&y);
                f32::from(u8::from(is_ink))
            })
            .collect();
        let bounds = Bounds {
            left: 0,
            top: 0,
            right: width,
            bottom: height,
        };
        let seams = seams(&ink, bounds, height);
        let bridge: Vec<&Seam> = seams.iter().filter(|seam| seam.ink <= 2.0).collect();
        assert!(!bridge.is_empty());
        for seam in bridge {
            assert!((4..=16).contains(&seam.middle()), "{}", seam.middle());
            assert!(!seam.is_left_of(3, 10) && seam.is_left_of(16, 10));
        }
    }
}
