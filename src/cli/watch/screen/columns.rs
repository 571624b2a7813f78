//! Text in columns for the screen, as many of them as there is room for.
//!
//! Called by `screen.rs`. Own, because a table that does not fit has its cells cut by the library, and a number
//! without its first digits is a wrong one: here columns go as a whole, and only ids are cut.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Between two columns.
const GAP: usize = 2;

/// One line. The last cell of one that has fewer than there are columns is a remark: it makes no column wider.
pub(super) struct Cells {
    pub cells: Vec<String>,
    pub style: Style,
}

pub(super) struct Columns {
    pub names: Vec<String>,
    /// Aligned to the right.
    pub numbers: Vec<&'static str>,
    /// How far the first column may be cut; a table without such a column has its full width here.
    pub narrowest: usize,
    /// The columns that are left out in a narrow table, from the first one to go on.
    pub dispensable: Vec<usize>,
    pub rows: Vec<Cells>,
}

impl Columns {
    /// The names and the rows in lines of this width.
    pub(super) fn lines(self, width: usize) -> Vec<Line<'static>> {
        let mut widths: Vec<usize> = (0..self.names.len()).map(|column| self.widest(column)).collect();
        let mut kept: Vec<usize> = (0..self.names.len()).collect();
        let total = |kept: &[usize], widths: &[usize]| {
            kept.iter().map(|column| widths[*column]).sum::<usize>() + GAP * kept.len().saturating_sub(1)
        };
        for gone in &self.dispensable {
            // What cutting the first column cannot save.
            let spare = widths[0].saturating_sub(self.narrowest);
            if total(&kept, &widths) - spare > width {
                kept.retain(|column| column != gone);
            }
        }
        let excess = total(&kept, &widths).saturating_sub(width);
        widths[0] = widths[0].saturating_sub(excess).max(self.narrowest.min(widths[0]));
        let line = |cells: &[String], style: Style| {
            let shown = kept.iter().filter_map(|&column| {
                let remark = cells.len() < self.names.len() && column + 1 == cells.len();
                let width = if remark { width } else { widths[column] };
                let number = self.numbers.contains(&self.names[column].as_str());
                Some(if remark { cells[column].clone() } else { padded(cells.get(column)?, width, number) })
            });
            let text = shown.collect::<Vec<_>>().join(&" ".repeat(GAP));
            Line::from(text.trim_end().to_owned()).style(style)
        };
        let names = line(&self.names, Style::new().bold());
        std::iter::once(names).chain(self.rows.iter().map(|row| line(&row.cells, row.style))).collect()
    }

    fn widest(&self, column: usize) -> usize {
        let whole = |row: &&Cells| row.cells.len() == self.names.len() || column + 1 < row.cells.len();
        let cells = self.rows.iter().filter(whole).filter_map(|row| row.cells.get(column));
        cells.chain([&self.names[column]]).map(|cell| columns_of(cell)).max().unwrap_or(0)
    }
}

/// Columns of the terminal that a text takes.
fn columns_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// A cell in exactly this many columns; a text that is longer loses its end.
fn padded(cell: &str, width: usize, number: bool) -> String {
    let mut shown = String::new();
    let mut used = 0;
    for c in cell.chars() {
        let wide = columns_of(c.encode_utf8(&mut [0; 4]));
        if used + wide > width {
            break;
        }
        used += wide;
        shown.push(c);
    }
    let blank = " ".repeat(width - used);
    if number { blank + &shown } else { shown + &blank }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(width: usize, expected: &str) {
        let cells =
            |cells: &[&str]| Cells { cells: cells.iter().map(|&cell| cell.to_owned()).collect(), style: Style::new() };
        let columns = Columns {
            names: ["source", "start", "count", "mean"].map(str::to_owned).to_vec(),
            numbers: vec!["count", "mean"],
            narrowest: 4,
            dispensable: vec![1, 2],
            rows: vec![cells(&["kitchen 厨房", "06:00", "7", "21.25"]), cells(&["cellar", "no readings yet"])],
        };
        let text: Vec<String> = columns.lines(width).iter().map(ToString::to_string).collect();
        assert_eq!(text.join("\n"), expected, "{width}");
        assert!(columns_of(&text[1]) <= width, "{width}");
    }

    #[test]
    fn numbers_are_whole_or_not_there() {
        let whole = "\
source        start  count   mean
kitchen 厨房  06:00      7  21.25
cellar        no readings yet";
        check(80, whole);
        check(33, whole);
        check(32, "source       start  count   mean\nkitchen 厨   06:00      7  21.25\ncellar       no readings yet");
        check(25, "sour  start  count   mean\nkitc  06:00      7  21.25\ncell  no readings yet");
        check(20, "source  count   mean\nkitche      7  21.25\ncellar");
        check(12, "sourc   mean\nkitch  21.25\ncella");
    }
}
