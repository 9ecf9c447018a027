//! Scales and axes: numbers as positions on a drawing.

use crate::figures::drawing::{Anchor, Area, Drawing, Font, color};

/// A minus sign as wide as a plus.
pub(crate) const MINUS: &str = "\u{2212}";

/// The range of an axis, with ticks at round numbers.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    min: f64,
    max: f64,
    /// Distance between ticks.
    step: f64,
    /// Whether `min`, `max` and `step` are decimal logarithms.
    is_logarithmic: bool,
}

impl Scale {
    /// Creates a linear scale with about `ticks` ticks that covers the finite ones of `values`.
    pub(crate) fn linear(values: impl IntoIterator<Item = f64>, ticks: usize) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (mut min, mut max) = range(finite);
        if min > max {
            (min, max) = (0.0, 1.0);
        }
        if max - min < 1e-9 {
            let room = (0.1 * max.abs()).max(0.01);
            // Nonnegative values keep a nonnegative axis.
            let floor = if min >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
            (min, max) = (f64::max(min - room, floor), max + room);
        }
        let step = round_step((max - min) / ticks.max(1) as f64);
        Self {
            min: (min / step).floor() * step,
            max: (max / step).ceil() * step,
            step,
            is_logarithmic: false,
        }
    }

    /// Creates a logarithmic scale that covers `values`, which must be positive.
    pub(crate) fn logarithmic(values: impl IntoIterator<Item = f64>) -> Self {
        let (min, max) = range(values.into_iter().map(f64::log10));
        let (min, max) = (min.floor(), max.ceil());
        Self {
            min,
            max: max.max(min + 1.0),
            step: round_step((max - min) / 10.0).max(1.0),
            is_logarithmic: true,
        }
    }

    /// Creates a scale of integers from `min` to `max`.
    pub(crate) fn integers(min: usize, max: usize) -> Self {
        let room = if min == max { 0.5 } else { 0.0 };
        let (min, max) = (min as f64 - room, max as f64 + room);
        Self {
            min,
            max,
            step: round_step((max - min) / 10.0).max(1.0),
            is_logarithmic: false,
        }
    }

    /// Returns the scale, cut off at `max`.
    pub(crate) fn up_to(self, max: f64) -> Self {
        Self {
            max: self.max.min(max),
            ..self
        }
    }

    /// Returns the position of a value: 0 at the start of the axis, 1 at its end.
    fn position(&self, value: f64) -> f64 {
        let value = match self.is_logarithmic {
            true => value.log10(),
            false => value,
        };
        (value - self.min) / (self.max - self.min)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.min / self.step - 1e-9).ceil();
        let last = (self.max / self.step + 1e-9).floor();
        (first as i64..=last as i64).map(|tick| match self.is_logarithmic {
            true => 10f64.powf(tick as f64 * self.step),
            false => tick as f64 * self.step,
        })
    }

    /// Formats a tick with as many digits as the step needs.
    fn label(&self, tick: f64) -> String {
        if self.is_logarithmic {
            return format!("{tick:.0e}").replace('-', MINUS);
        }
        if tick.abs() >= 1e5 {
            return format!("{tick:.1e}");
        }
        let digits = (-self.step.log10() - 1e-9).ceil().max(0.0) as usize;
        format!("{tick:.digits$}").replace('-', MINUS)
    }
}

/// Returns the smallest and the largest value; infinity and minus infinity if there are none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
        (min.min(value), max.max(value))
    })
}

/// Returns the smallest of 1, 2 and 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

/// An area of a drawing with an x axis below it and a y axis to its left.
#[derive(Debug)]
pub(crate) struct Axes {
    pub(crate) area: Area,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

impl Axes {
    /// Draws both axes, with grid lines for the y axis.
    pub(crate) fn draw(&self, drawing: &mut Drawing, x_name: &str, y_name: &str) {
        let Area { x, y, width, .. } = self.area;
        for tick in self.y.ticks() {
            let tick_y = self.y_of(tick);
            drawing.line((x, tick_y), (x + width, tick_y), color::GRID, "");
            let font = Font::new(11.0, Anchor::End);
            drawing.text(x - 6.0, tick_y + 4.0, font, &self.y.label(tick));
        }
        drawing.text(x, y - 10.0, Font::new(12.0, Anchor::Start), y_name);
        self.draw_x_axis(drawing, x_name);
    }

    /// Draws the x axis only.
    pub(crate) fn draw_x_axis(&self, drawing: &mut Drawing, name: &str) {
        let Area { x, width, .. } = self.area;
        let bottom = self.area.y + self.area.height;
        for tick in self.x.ticks() {
            let tick_x = self.x_of(tick);
            drawing.line((tick_x, bottom), (tick_x, bottom + 4.0), color::INK, "");
            let font = Font::new(11.0, Anchor::Middle);
            drawing.text(tick_x, bottom + 17.0, font, &self.x.label(tick));
        }
        drawing.line((x, bottom), (x + width, bottom), color::INK, "");
        let font = Font::new(12.0, Anchor::Middle);
        drawing.text(x + width / 2.0, bottom + 34.0, font, name);
    }

    /// Returns the coordinates of a data point on the drawing.
    pub(crate) fn point(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x_of(x), self.y_of(y))
    }

    /// Returns the x coordinate of a value on the drawing.
    pub(crate) fn x_of(&self, x: f64) -> f64 {
        self.area.x + self.area.width * self.x.position(x)
    }

    fn y_of(&self, y: f64) -> f64 {
        self.area.y + self.area.height * (1.0 - self.y.position(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().map(|tick| scale.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_that_enclose_all_values() {
        let scale = Scale::linear([0.9712, 0.9907, 0.985], 5);
        assert_eq!(
            labels(&scale),
            ["0.970", "0.975", "0.980", "0.985", "0.990", "0.995"]
        );
        assert_eq!(labels(&Scale::linear([], 2)), ["0.0", "0.5", "1.0"]);
        assert_eq!(
            labels(&Scale::linear([3.0, f64::NAN], 2)),
            ["2.5", "3.0", "3.5"]
        );
        assert_eq!(labels(&Scale::integers(1, 5)), ["1", "2", "3", "4", "5"]);
        assert_eq!(labels(&Scale::integers(1, 1)), ["1"]);
        assert_eq!(
            labels(&Scale::linear([0.0], 2)),
            ["0.000", "0.005", "0.010"]
        );
        assert_eq!(
            labels(&Scale::linear([0.0, 4e12], 2)),
            ["0", "2.0e12", "4.0e12"]
        );
        assert_eq!(
            labels(&Scale::linear([-1.0, 1.0], 2)),
            ["\u{2212}1", "0", "1"]
        );
        assert_eq!(labels(&Scale::integers(1, 200)).len(), 10);
        assert_eq!(
            labels(&Scale::logarithmic([2e-3, 0.5])),
            ["1e\u{2212}3", "1e\u{2212}2", "1e\u{2212}1", "1e0"]
        );
    }

    #[test]
    fn y_axis_points_up() {
        let axes = Axes {
            area: Area {
                x: 10.0,
                y: 20.0,
                width: 100.0,
                height: 50.0,
            },
            x: Scale::integers(0, 10),
            y: Scale::linear([0.0, 1.0], 5),
        };
        assert_eq!(axes.point(0.0, 0.0), (10.0, 70.0));
        assert_eq!(axes.point(10.0, 1.0), (110.0, 20.0));
    }
}
