//! A plot in text: the mean over time as a line of steps, in the band of its minimum and maximum or
//! of its standard deviation.
//!
//! Called by `print.rs` and `cli/watch/screen.rs`; the time axis is `axis.rs`. Own, because a step from bucket to bucket in a
//! band, on a local clock, is less code than to lay it out for a library. A bucket is as wide as it
//! is long; what was never measured stays blank. Pure: values in, text out.

use super::axis;
use crate::stats::Millis;
use crate::stats::calendar::Zone;
use std::cmp::Ordering;
use std::fmt::Write;

/// Rows of a plot at most, where nothing else decides; several plots of a screen's width stay comparable.
pub(in crate::cli) const ROWS: usize = 16;
/// Below this a plot says nothing; the lines are then wider than the terminal.
const MIN_COLUMNS: usize = 16;
/// Columns a label of the time axis takes, with what keeps it from the next one.
const TICK_COLUMNS: usize = 12;
/// Values that differ by less, relatively, are drawn as equal: the rest is rounding.
const FLAT: f64 = 1e-12;
/// The same near zero.
const TINY: f64 = 1e-280;

/// What is shown around the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Band {
    /// From the smallest reading to the largest
    #[default]
    Minmax,
    /// One standard deviation (of the sample) to each side
    Stddev,
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Point {
    pub start: Millis,
    pub end: Millis,
    pub count: f64,
    pub mean: f64,
    /// The band.
    pub low: f64,
    pub high: f64,
}

/// The buckets of one source, in any order.
pub(in crate::cli) struct Series {
    pub source: String,
    pub points: Vec<Point>,
}

/// How to draw.
pub(in crate::cli) struct Look {
    pub zone: Zone,
    /// Characters of a line.
    pub width: usize,
    /// Of a plot at most, without its heading and its axis; at least 3.
    pub rows: usize,
    /// Whether more than ASCII can be shown.
    pub unicode: bool,
    pub band: Band,
}

/// What it is drawn with.
struct Ink {
    flat: char,
    upright: char,
    /// From the left up, from the left down, up to the right, down to the right.
    corners: [char; 4],
    band: char,
    axis: char,
    tick_left: char,
    origin: char,
    tick_below: char,
    around: &'static str,
}

const UNICODE: Ink = Ink {
    flat: '─',
    upright: '│',
    corners: ['╯', '╮', '╰', '╭'],
    band: '░',
    axis: '│',
    tick_left: '┤',
    origin: '└',
    tick_below: '┬',
    around: "±",
};

const ASCII: Ink = Ink {
    flat: '-',
    upright: '|',
    corners: ['+'; 4],
    band: ':',
    axis: '|',
    tick_left: '+',
    origin: '+',
    tick_below: '+',
    around: "+-",
};

/// Draws the sources below each other, over the same time. Empty if there is nothing to draw.
pub(in crate::cli) fn draw(series: &[Series], period: &str, look: &Look) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let (Some(from), Some(to)) = (points().map(|p| p.start).min(), points().map(|p| p.end).max()) else {
        return String::new();
    };
    let ink = if look.unicode { &UNICODE } else { &ASCII };
    let band = match look.band {
        Band::Minmax => "min..max".to_owned(),
        Band::Stddev => format!("{} stddev", ink.around),
    };
    let scales: Vec<Scale> = series.iter().map(|series| Scale::of(&series.points, look.rows)).collect();
    let lengths = scales.iter().flat_map(|scale| (0..scale.rows).map(|row| scale.label(row).len()));
    // One for all, so that the same time stands in the same column.
    let margin = lengths.max().unwrap_or(0);
    // A blank and the axis.
    let columns = look.width.saturating_sub(margin + 2).max(MIN_COLUMNS);
    let plots = series.iter().zip(&scales).map(|(series, scale)| {
        let grid = grid(&columns_of(&series.points, from, to, columns), scale, ink);
        let mut text = format!("{}: mean and {band} of each {period}\n", series.source);
        for (row, line) in grid.iter().enumerate().rev() {
            let label = scale.label(row);
            let axis = if label.is_empty() { ink.axis } else { ink.tick_left };
            let line: String = line.iter().collect();
            let _ = writeln!(text, "{}", format!("{label:>margin$} {axis}{line}").trim_end());
        }
        text + &time_axis(from, to, columns, margin, look, ink)
    });
    plots.collect::<Vec<_>>().join("\n")
}

/// The buckets of each column. Where several share one: their mean by count, and a band that holds
/// all of theirs.
fn columns_of(points: &[Point], from: Millis, to: Millis, columns: usize) -> Vec<Option<Point>> {
    let mut cells: Vec<Option<Point>> = vec![None; columns];
    for point in points {
        let first = column(point.start, from, to, columns).min(columns - 1);
        // Buckets that follow each other share no column unless they have to.
        let last = column(point.end, from, to, columns).max(first + 1).min(columns);
        for cell in &mut cells[first..last] {
            *cell = Some(cell.map_or(*point, |other| Point {
                count: other.count + point.count,
                mean: other.mean + (point.mean - other.mean) * (point.count / (other.count + point.count)),
                low: other.low.min(point.low),
                high: other.high.max(point.high),
                ..other
            }));
        }
    }
    cells
}

/// The column in which an instant of `[from, to]` lies; `to` lies behind the last.
fn column(t: Millis, from: Millis, to: Millis, columns: usize) -> usize {
    let wide = i128::from(t - from) * columns as i128 / i128::from((to - from).max(1));
    usize::try_from(wide).unwrap_or(0)
}

/// The characters of the plot, the lowest row first.
fn grid(cells: &[Option<Point>], scale: &Scale, ink: &Ink) -> Vec<Vec<char>> {
    let mut grid = vec![vec![' '; cells.len()]; scale.rows];
    let mut before: Option<usize> = None;
    for (column, cell) in cells.iter().enumerate() {
        let Some(cell) = cell else {
            before = None;
            continue;
        };
        for row in &mut grid[scale.row(cell.low)..=scale.row(cell.high)] {
            row[column] = ink.band;
        }
        let here = scale.row(cell.mean);
        let there = before.replace(here).unwrap_or(here);
        let [left_up, left_down, right_up, right_down] = ink.corners;
        for row in &mut grid[here.min(there)..=here.max(there)] {
            row[column] = ink.upright;
        }
        let (end, start) = match here.cmp(&there) {
            Ordering::Greater => (right_down, left_up),
            Ordering::Less => (right_up, left_down),
            Ordering::Equal => (ink.flat, ink.flat),
        };
        grid[there][column] = start;
        grid[here][column] = end;
    }
    grid
}

/// The line below the plot, the labels of its ticks, and from when to when it is.
fn time_axis(from: Millis, to: Millis, columns: usize, margin: usize, look: &Look, ink: &Ink) -> String {
    let mut line = vec![ink.flat; columns];
    let mut labels = String::new();
    for (t, label) in axis::ticks(&look.zone, from, to, columns / TICK_COLUMNS) {
        let at = column(t, from, to, columns);
        line[at.min(columns - 1)] = ink.tick_below;
        // Centred, but not over either edge, and never into its neighbour.
        let start = at.saturating_sub(label.len() / 2).min(columns.saturating_sub(label.len()));
        if labels.is_empty() || labels.len() < start {
            let _ = write!(labels, "{:width$}{label}", "", width = start - labels.len());
        }
    }
    let clock = |t: Millis| look.zone.local(t).strftime("%Y-%m-%d %H:%M").to_string();
    let line: String = line.into_iter().collect();
    let range = format!("{} to {} ({})", clock(from), clock(to), look.zone);
    let indent = margin + 2;
    // The range below all of it: with a long name of a zone it is wider than few columns.
    let text = format!(
        "{:margin$} {}{line}\n{:indent$}{labels}\n{range:^width$}",
        "",
        ink.origin,
        "",
        width = indent + columns
    );
    text.trim_end().to_owned() + "\n"
}

/// Which row a value is drawn in: the multiple of the unit that is nearest.
struct Scale {
    unit: f64,
    /// The lowest row, in units.
    bottom: i64,
    rows: usize,
    format: Digits,
}

#[derive(Clone, Copy)]
enum Digits {
    Decimals(usize),
    /// After the point of a mantissa.
    Exponent(usize),
}

impl Scale {
    /// Of as few rows as hold all points at a unit of 1, 2, 2.5 or 5 times a power of ten.
    fn of(points: &[Point], rows: usize) -> Self {
        let mut low = points.iter().map(|point| point.low).fold(f64::INFINITY, f64::min);
        let mut high = points.iter().map(|point| point.high).fold(f64::NEG_INFINITY, f64::max);
        let size = low.abs().max(high.abs());
        if high - low < (size * FLAT).max(TINY) {
            let around = if size < TINY { 0.5 } else { size * 0.05 };
            (low, high) = (low - around, high + around);
        }
        let wanted = (high - low) / (rows.max(3) - 2) as f64;
        let mut power = wanted.log10().floor() as i32;
        let near = |factor: &f64| factor * 10f64.powi(power) >= wanted;
        let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(near).unwrap_or(10.0);
        let unit = factor * 10f64.powi(power);
        // Every second row is labelled, by multiples of 2, 4, 5, 10 or 20 times that power.
        power += i32::from(factor >= 5.0);
        let (bottom, top) = ((low / unit).round() as i64, (high / unit).round() as i64);
        let format = if (-6..=6).contains(&power) {
            Digits::Decimals(usize::try_from(-power).unwrap_or(0))
        } else {
            let size = low.abs().max(high.abs()).log10().floor() as i32;
            Digits::Exponent(usize::try_from(size - power).unwrap_or(0))
        };
        Self { unit, bottom, rows: usize::try_from(top - bottom).unwrap_or(0) + 1, format }
    }

    fn row(&self, value: f64) -> usize {
        let row = (value / self.unit).round() as i64 - self.bottom;
        usize::try_from(row).unwrap_or(0).min(self.rows - 1)
    }

    /// Empty in every second row.
    fn label(&self, row: usize) -> String {
        let units = self.bottom + row.cast_signed() as i64;
        let value = units as f64 * self.unit;
        match self.format {
            _ if units % 2 != 0 => String::new(),
            Digits::Decimals(n) => format!("{value:.n$}"),
            Digits::Exponent(n) => format!("{value:.n$e}"),
        }
    }
}

#[cfg(test)]
mod tests;
