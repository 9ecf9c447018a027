//! Axes: numbers as places on a drawing.

use super::drawing::{Anchor, Area, Drawing, Font, colour};

/// A minus sign as wide as a plus.
pub(crate) const MINUS: &str = "\u{2212}";

/// Numbers, to be shown from `least` to `most`, with ticks at round numbers.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    least: f64,
    most: f64,
    step: f64,
    /// Whether numbers are shown by their powers of ten, in which all of these are counted.
    is_of_powers: bool,
}

impl Scale {
    /// A scale of about `ticks` ticks that shows all `values`, of which there may be none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>, ticks: usize) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (mut least, mut most) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), v| {
            (l.min(v), m.max(v))
        });
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        if most - least < 1e-9 {
            let room = (0.1 * most.abs()).max(0.01);
            // What is never negative is not shown to be.
            let floor = if least >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
            (least, most) = (f64::max(least - room, floor), most + room);
        }
        let step = round_step((most - least) / ticks.max(1) as f64);
        Self {
            least: (least / step).floor() * step,
            most: (most / step).ceil() * step,
            step,
            is_of_powers: false,
        }
    }

    /// A scale of positive numbers on which each power of ten is as far from the next.
    pub(crate) fn powers(values: impl IntoIterator<Item = f64>) -> Self {
        let powers = values.into_iter().map(f64::log10);
        let (least, most) = powers.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), power| {
            (l.min(power.floor()), m.max(power.ceil()))
        });
        Self {
            least,
            most: most.max(least + 1.0),
            step: round_step((most - least) / 10.0).max(1.0),
            is_of_powers: true,
        }
    }

    /// A scale of whole numbers.
    pub(crate) fn whole(least: usize, most: usize) -> Self {
        let room = if least == most { 0.5 } else { 0.0 };
        let (least, most) = (least as f64 - room, most as f64 + room);
        Self {
            least,
            most,
            step: round_step((most - least) / 10.0).max(1.0),
            is_of_powers: false,
        }
    }

    /// The same, but not beyond `most`.
    pub(crate) fn up_to(self, most: f64) -> Self {
        Self {
            most: self.most.min(most),
            ..self
        }
    }

    /// Where a number is: 0 at the beginning, 1 at the end.
    fn part(&self, value: f64) -> f64 {
        let value = match self.is_of_powers {
            true => value.log10(),
            false => value,
        };
        (value - self.least) / (self.most - self.least)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.least / self.step - 1e-9).ceil();
        let last = (self.most / self.step + 1e-9).floor();
        (first as i64..=last as i64).map(|tick| match self.is_of_powers {
            true => 10f64.powf(tick as f64 * self.step),
            false => tick as f64 * self.step,
        })
    }

    /// A tick in as few digits as tell it from the others.
    fn label(&self, tick: f64) -> String {
        if self.is_of_powers {
            return format!("{tick:.0e}").replace('-', MINUS);
        }
        if tick.abs() >= 1e5 {
            return format!("{tick:.1e}");
        }
        let digits = (-self.step.log10() - 1e-9).ceil().max(0.0) as usize;
        format!("{tick:.digits$}").replace('-', MINUS)
    }
}

/// 1, 2 or 5 times a power of ten: the least that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

/// An area of a drawing with a scale to its left and one below.
#[derive(Debug)]
pub(crate) struct Axes {
    pub(crate) area: Area,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

impl Axes {
    /// Draws the axes, and what they show.
    pub(crate) fn draw(&self, drawing: &mut Drawing, x_name: &str, y_name: &str) {
        let Area { x, y, width, .. } = self.area;
        for tick in self.y.ticks() {
            let at = self.up(tick);
            drawing.line((x, at), (x + width, at), colour::GRID, "");
            let font = Font::new(11.0, Anchor::End);
            drawing.text(x - 6.0, at + 4.0, font, &self.y.label(tick));
        }
        drawing.text(x, y - 10.0, Font::new(12.0, Anchor::Start), y_name);
        self.draw_below(drawing, x_name);
    }

    /// Draws the axis below alone.
    pub(crate) fn draw_below(&self, drawing: &mut Drawing, x_name: &str) {
        let Area { x, width, .. } = self.area;
        let bottom = self.area.y + self.area.height;
        for tick in self.x.ticks() {
            let at = self.across(tick);
            drawing.line((at, bottom), (at, bottom + 4.0), colour::INK, "");
            let font = Font::new(11.0, Anchor::Middle);
            drawing.text(at, bottom + 17.0, font, &self.x.label(tick));
        }
        drawing.line((x, bottom), (x + width, bottom), colour::INK, "");
        let font = Font::new(12.0, Anchor::Middle);
        drawing.text(x + width / 2.0, bottom + 34.0, font, x_name);
    }

    /// Where a point is.
    pub(crate) fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.across(x), self.up(y))
    }

    fn across(&self, x: f64) -> f64 {
        self.area.x + self.area.width * self.x.part(x)
    }

    fn up(&self, y: f64) -> f64 {
        self.area.y + self.area.height * (1.0 - self.y.part(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().map(|tick| scale.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_around_all_values() {
        let scale = Scale::of([0.9712, 0.9907, 0.985], 5);
        assert_eq!(
            labels(&scale),
            ["0.970", "0.975", "0.980", "0.985", "0.990", "0.995"]
        );
        assert_eq!(labels(&Scale::of([], 2)), ["0.0", "0.5", "1.0"]);
        assert_eq!(
            labels(&Scale::of([3.0, f64::NAN], 2)),
            ["2.5", "3.0", "3.5"]
        );
        assert_eq!(labels(&Scale::whole(1, 5)), ["1", "2", "3", "4", "5"]);
        assert_eq!(labels(&Scale::whole(1, 1)), ["1"]);
        assert_eq!(labels(&Scale::of([0.0], 2)), ["0.000", "0.005", "0.010"]);
        assert_eq!(
            labels(&Scale::of([0.0, 4e12], 2)),
            ["0", "2.0e12", "4.0e12"]
        );
        assert_eq!(labels(&Scale::of([-1.0, 1.0], 2)), ["\u{2212}1", "0", "1"]);
        assert_eq!(labels(&Scale::whole(1, 200)).len(), 10);
        assert_eq!(
            labels(&Scale::powers([2e-3, 0.5])),
            ["1e\u{2212}3", "1e\u{2212}2", "1e\u{2212}1", "1e0"]
        );
    }

    #[test]
    fn places_are_inside_and_upright() {
        let axes = Axes {
            area: Area {
                x: 10.0,
                y: 20.0,
                width: 100.0,
                height: 50.0,
            },
            x: Scale::whole(0, 10),
            y: Scale::of([0.0, 1.0], 5),
        };
        assert_eq!(axes.place(0.0, 0.0), (10.0, 70.0));
        assert_eq!(axes.place(10.0, 1.0), (110.0, 20.0));
    }
}
