//! The cells of a map, for the repulsion of t-SNE (Barnes and Hut 1986; van der Maaten 2014).
//!
//! Each cell is halved at the middle of its longer side, and is as small as its points permit. In the original, cells are
//! squares, cut in four.

/// A point of the map.
pub(super) type Point = [f64; 2];

/// A cell counts as one point if its longer side is below this share of its distance.
const THETA: f64 = 0.5;
/// Number of points of a cell that is not cut.
const LEAF: usize = 6;

/// The cells, each before those that it is cut into.
#[derive(Debug, Default)]
pub(super) struct Tree {
    cells: Vec<Cell>,
    /// The points with their indices in the map, ordered such that each cell has a range of them.
    points: Vec<(Point, u32)>,
}

#[derive(Debug)]
struct Cell {
    center: Point,
    count: f64,
    /// Square of the longer side, divided by the square of THETA.
    limit: f64,
    /// Index of the first cell outside.
    next: usize,
    /// The points of a cell that is not cut; otherwise empty.
    first: usize,
    end: usize,
}

impl Tree {
    /// Sorts the points into cells.
    pub(super) fn build(&mut self, map: &[Point]) {
        if self.points.len() == map.len() {
            // In the order of the last map, which is nearly that of this one.
            for (point, index) in &mut self.points {
                *point = map[*index as usize];
            }
        } else {
            self.points = (0..).zip(map).map(|(at, &point)| (point, at)).collect();
        }
        self.cells.clear();
        if !map.is_empty() {
            cut(&mut self.cells, &mut self.points, 0);
        }
    }

    /// Returns the points with their indices, neighbors near each other.
    pub(super) fn points(&self) -> &[(Point, u32)] {
        &self.points
    }

    /// Returns the sum over the other points j of w² (y - yj), and of w, with w = 1 / (1 + |y - yj|²). `point` is one of the map.
    pub(super) fn repulsion(&self, point: Point) -> (Point, f64) {
        let (mut force, mut sum, mut at) = ([0.0; 2], 0.0, 0);
        let mut add = |other: Point, count: f64| {
            let [x, y] = difference(point, other);
            let weight = 1.0 / (1.0 + x * x + y * y);
            let all = count * weight;
            sum += all;
            force[0] += all * weight * x;
            force[1] += all * weight * y;
        };
        while let Some(cell) = self.cells.get(at) {
            let [x, y] = difference(point, cell.center);
            // Never so for a cell with the point, except for one of equal points.
            if cell.limit <= x * x + y * y {
                add(cell.center, cell.count);
                at = cell.next;
            } else if cell.end > cell.first {
                for (other, _) in &self.points[cell.first..cell.end] {
                    add(*other, 1.0);
                }
                at = cell.next;
            } else {
                at += 1;
            }
        }
        // Without the point itself.
        (force, sum - 1.0)
    }
}

/// Returns a - b.
pub(super) fn difference(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

/// Appends the cell of points, which start at index `first`, and those that it is cut into.
fn cut(cells: &mut Vec<Cell>, points: &mut [(Point, u32)], first: usize) {
    let (mut low, mut high, mut sum) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2], [0.0; 2]);
    for (point, _) in &*points {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
            sum[axis] += point[axis];
        }
    }
    let [width, height] = difference(high, low);
    let axis = usize::from(height > width);
    let side = width.max(height);
    let count = points.len() as f64;
    let own = cells.len();
    // Points that are not numbers are not cut either.
    let is_leaf =
        points.len() <= LEAF || side.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater);
    cells.push(Cell {
        // Of equal points, without rounding.
        center: if side > 0.0 {
            sum.map(|sum| sum / count)
        } else {
            low
        },
        count,
        limit: (side / THETA).powi(2),
        next: 0,
        first,
        end: if is_leaf { first + points.len() } else { first },
    });
    if !is_leaf {
        let middle = 0.5 * (low[axis] + high[axis]);
        // The largest value is on the right, also if the middle is rounded to it.
        let is_left = |point: &Point| point[axis] <= middle && point[axis] < high[axis];
        let left = partition(points, is_left);
        let (start, rest) = points.split_at_mut(left);
        cut(cells, start, first);
        cut(cells, rest, first + left);
    }
    cells[own].next = cells.len();
}

/// Moves the points for which `is_left` holds to the start, and returns their number.
fn partition(points: &mut [(Point, u32)], is_left: impl Fn(&Point) -> bool) -> usize {
    let mut left = 0;
    for at in 0..points.len() {
        if is_left(&points[at].0) {
            points.swap(left, at);
            left += 1;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns points on a spiral, the last two of which are equal.
    fn spiral(count: usize) -> Vec<Point> {
        let point = |at: usize| {
            let turn = 0.1 * at.min(count - 2) as f64;
            [turn * turn.cos(), turn * turn.sin()]
        };
        (0..count).map(point).collect()
    }

    /// The sums over all pairs.
    fn exact(map: &[Point], own: usize) -> (Point, f64) {
        let (mut force, mut sum) = ([0.0; 2], 0.0);
        for (_, &other) in map.iter().enumerate().filter(|(at, _)| *at != own) {
            let [x, y] = difference(map[own], other);
            let weight = 1.0 / (1.0 + x * x + y * y);
            sum += weight;
            force[0] += weight * weight * x;
            force[1] += weight * weight * y;
        }
        (force, sum)
    }

    #[test]
    fn repulsion_is_near_the_sum_over_all_pairs() {
        let map = spiral(500);
        let mut tree = Tree::default();
        // Twice, because the second tree starts from the order of the first.
        for _ in 0..2 {
            tree.build(&map);
            let (mut all, mut expected_all) = (0.0, 0.0);
            for (point, index) in tree.points() {
                assert_eq!(*point, map[*index as usize]);
                let (force, sum) = tree.repulsion(*point);
                let (expected, expected_sum) = exact(&map, *index as usize);
                all += sum;
                expected_all += expected_sum;
                // Points at the edge have the largest error.
                assert!(
                    (sum / expected_sum - 1.0).abs() < 0.06,
                    "{sum} {expected_sum}"
                );
                let [x, y] = difference(force, expected);
                assert!(x.hypot(y) < 0.06 * expected_sum, "{force:?} {expected:?}");
            }
            assert!(
                (all / expected_all - 1.0).abs() < 0.02,
                "{all} {expected_all}"
            );
        }
    }

    #[test]
    fn equal_points_do_not_repel_each_other() {
        let mut tree = Tree::default();
        tree.build(&[[0.1, 0.3]; 1000]);
        let (force, sum) = tree.repulsion([0.1, 0.3]);
        assert_eq!((force, sum), ([0.0; 2], 999.0));
        tree.build(&[]);
        assert!(tree.points().is_empty());
    }
}
