//! The screen of `watch`: the present buckets of all sources above, the closed ones of the chosen source below, as a
//! table and as a plot.
//!
//! Called by `terminal.rs` for each picture. Draws a state and changes nothing; the time is an argument. Numbers are
//! rounded to seven digits, so that columns stay narrow: `meanwhile query` has all of them. Guarantees: nothing but
//! ASCII where the terminal takes no more, but for the ids; what does not fit is left out, the plot first.

mod columns;

use self::columns::{Cells, Columns};
use super::state::{Closed, Link, Row, State, Statistic, Watched};
use crate::cli::output;
use crate::cli::query::plot::{self, Band, Point, Series};
use crate::config::Secret;
use crate::stats::Millis;
use crate::stats::calendar::Zone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use std::iter;

/// Digits of a number that are shown.
const DIGITS: i32 = 7;
/// From this power of ten on, and below the other, numbers are shown with an exponent.
const EXPONENTS: std::ops::Range<i32> = -4..9;
/// What is shown of a long id before numbers give way to it.
const SOURCE_COLUMNS: usize = 16;
/// Lines of a plot beside its rows: heading, axis, labels, range.
const AROUND_PLOT: u16 = 4;
/// Below this a plot says nothing.
const PLOT_ROWS: u16 = 4;
/// What is left to the closed buckets beside a plot: heading, names of the columns, two of them, an empty line.
const CLOSED_LINES: u16 = 5;

const NUMBERS: [&str; 5] = ["count", "mean", "stddev", "min", "max"];

/// What does not change while it runs.
pub(super) struct Look {
    pub zone: Zone,
    /// Whether more than ASCII can be shown.
    pub unicode: bool,
    /// Of the service.
    pub url: Secret,
}

/// Draws the state as it is `now`.
pub(super) fn draw(frame: &mut Frame, state: &State, look: &Look, now: Millis) {
    let [status, body, help] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(link(state, look, now), status);
    let keys = if state.sources.len() > 1 { "q quit  Tab next source" } else { "q quit" };
    frame.render_widget(Line::from(keys).dim(), help);

    let chosen = &state.sources[state.chosen];
    let (present, seen) = present(state, look);
    let present = present.lines(body.width.into());
    let [above, _, below] = Layout::vertical([
        Constraint::Length((present.len() as u16).min(body.height / 2)),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(body);
    // Where not all have room, the chosen source has.
    let hidden = (seen + 1).saturating_sub(above.height.into());
    let present = present.into_iter().enumerate().filter(|(i, _)| *i == 0 || *i > hidden).map(|(_, line)| line);
    frame.render_widget(Paragraph::new(present.collect::<Vec<_>>()), above);
    let room = below.height.saturating_sub(AROUND_PLOT + CLOSED_LINES);
    let rows = room.min(below.height / 2).min(plot::ROWS as u16);
    let plot = if rows < PLOT_ROWS { Vec::new() } else { plot_lines(chosen, state, look, below.width, rows) };
    let [closed_area, plot_area] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(plot.len() as u16)]).areas(below);
    draw_closed(frame, closed_area, chosen, state, look);
    frame.render_widget(Paragraph::new(plot), plot_area);
}

/// How it stands with the connection.
fn link(state: &State, look: &Look, now: Millis) -> Line<'static> {
    let url = &look.url;
    match &state.link {
        Link::Connecting => Line::from(format!("connecting to {url}")),
        Link::Connected { instance } => Line::from(format!("connected to {instance} at {url}")),
        Link::Lost { since, reason } => {
            let clock = look.zone.local(*since).strftime("%H:%M:%S");
            let seconds = (now - since).max(0) / 1_000;
            Line::from(format!("reconnecting since {clock} ({seconds} s): {reason}")).bold().fg(Color::Yellow)
        }
    }
}

/// The present buckets of all sources, a line for each, and which is the last one of the chosen source. What they were
/// when the connection broke is dim.
fn present(state: &State, look: &Look) -> (Columns, usize) {
    let style = if matches!(state.link, Link::Connected { .. }) { Style::new() } else { Style::new().dim() };
    let (mut rows, mut seen) = (Vec::new(), 0);
    for (i, watched) in state.sources.iter().enumerate() {
        let mark = match (state.sources.len(), i == state.chosen) {
            (1, _) => "",
            (_, true) => "> ",
            (_, false) => "  ",
        };
        let mut name = format!("{mark}{}", watched.id);
        if watched.present.is_empty() {
            let none = if watched.closed.is_empty() { "no readings yet" } else { "no readings now" };
            rows.push(Cells { cells: vec![name.clone(), none.to_owned()], style });
        }
        for row in &watched.present {
            let cells = [std::mem::take(&mut name), row.period.clone()].into_iter().chain(numbers(row, look));
            rows.push(Cells { cells: cells.collect(), style });
        }
        if i == state.chosen {
            seen = rows.len();
        }
    }
    let names = ["source", "period", "start"].into_iter().chain(NUMBERS).map(str::to_owned).collect();
    // The start first: it is the present one.
    let dispensable = vec![2, 5, 6, 7, 3, 4];
    (Columns { names, numbers: NUMBERS.to_vec(), narrowest: SOURCE_COLUMNS, dispensable, rows }, seen)
}

/// The closed buckets of a source, the newest first, as many as there is room for.
fn draw_closed(frame: &mut Frame, area: Rect, watched: &Watched, state: &State, look: &Look) {
    let [title, table, _] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    let heading = format!("{}: closed buckets of {}, newest first", watched.id, state.period);
    frame.render_widget(Line::from(heading).bold(), title);
    if watched.closed.is_empty() {
        frame.render_widget(Line::from("none yet"), table);
        return;
    }
    let row = |closed: &Closed| {
        let (mark, style) =
            if closed.corrected { ("corrected", Style::new().fg(Color::Cyan)) } else { ("", Style::new()) };
        Cells { cells: numbers(&closed.row, look).into_iter().chain([mark.to_owned()]).collect(), style }
    };
    let rows: Vec<Cells> = watched.closed.values().rev().take(table.height.into()).map(row).collect();
    let names = iter::once(format!("start ({})", look.zone)).chain(NUMBERS.map(str::to_owned)).chain([String::new()]);
    let (names, numbers, dispensable) = (names.collect(), NUMBERS.to_vec(), vec![3, 4, 5, 6, 1, 2]);
    let columns = Columns { names, numbers, narrowest: usize::MAX, dispensable, rows };
    frame.render_widget(Paragraph::new(columns.lines(area.width.into())), table);
}

/// Start and statistics of a row.
fn numbers(row: &Row, look: &Look) -> [String; 6] {
    let number = |number: &Option<Statistic>| number.as_ref().map(|x| x.text(rounded)).unwrap_or_default();
    [
        output::local_start(&row.start, &row.period, &look.zone),
        output::grouped(row.count),
        number(&row.mean),
        number(&row.stddev_samp),
        number(&row.min),
        number(&row.max),
    ]
}

/// The means of the closed buckets in the band of their extremes; nothing if there are none.
fn plot_lines(watched: &Watched, state: &State, look: &Look, width: u16, rows: u16) -> Vec<Line<'static>> {
    let point = |closed: &Closed| {
        let (start, end) = closed.row.span()?;
        // Vectors are not drawn.
        let double = |x: &Option<Statistic>| x.as_ref().and_then(Statistic::double);
        let (mean, low, high) = (double(&closed.row.mean)?, double(&closed.row.min)?, double(&closed.row.max)?);
        Some(Point { start, end, count: closed.row.count as f64, mean, low, high })
    };
    let points: Vec<Point> = watched.closed.values().filter_map(point).collect();
    let series = [Series { source: watched.id.clone(), points }];
    let (zone, width, rows) = (look.zone.clone(), width.into(), rows.into());
    let look = plot::Look { zone, width, rows, unicode: look.unicode, band: Band::Minmax };
    let text = plot::draw(&series, &state.period.to_string(), &look);
    text.lines().map(|line| Line::from(line.to_owned())).collect()
}

/// A number in at most [`DIGITS`] digits.
fn rounded(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let power = number.abs().log10().floor() as i32;
    if EXPONENTS.contains(&power) {
        let text = format!("{number:.*}", (DIGITS - 1 - power).max(0) as usize);
        return if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    }
    let text = format!("{number:.*e}", DIGITS as usize - 1);
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests;
