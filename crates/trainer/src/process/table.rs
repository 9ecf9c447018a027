//! Tables of text for the terminal.

use std::fmt;

use comfy_table::CellAlignment;

use crate::process::printable::printable;

/// A table without borders: two spaces between columns, the first column aligned left, the others right.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

/// Alignment of the cells of a column.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "no table has all of them")]
pub(crate) enum Align {
    Left,
    Right,
}

impl Table {
    /// Creates a table with one column per header.
    pub(crate) fn new(headers: impl IntoIterator<Item = impl ToString>) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(headers.into_iter().map(cell));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            column.set_cell_alignment(match index {
                0 => CellAlignment::Left,
                _ => CellAlignment::Right,
            });
        }
        Self(table)
    }

    /// Aligns a column, counted from 0.
    pub(crate) fn align(mut self, column: usize, align: Align) -> Self {
        if let Some(column) = self.0.column_mut(column) {
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        self.0.add_row(cells.into_iter().map(cell));
    }
}

/// Returns the text of a cell, which may be a name with any character.
fn cell(cell: impl ToString) -> String {
    printable(cell.to_string()).to_string()
}

impl fmt::Display for Table {
    /// Writes the lines without trailing spaces, and without a line break after the last one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns_by_their_widest_cell() {
        let mut table = Table::new(["run", "loss", "state"]).align(2, Align::Left);
        table.row(["a", "0.1234", "finished"]);
        table.row(["größer", "10.5", ""]);
        assert_eq!(
            table.to_string(),
            "run       loss  state\n\
             a       0.1234  finished\n\
             größer    10.5"
        );
    }

    #[test]
    fn cells_are_one_line_without_control_characters() {
        let mut table = Table::new(["class", "n"]);
        table.row(["a\n\x1b[2J", "1"]);
        assert_eq!(table.to_string(), "class         n\na\\n\\u{1b}[2J  1");
    }

    #[test]
    fn prints_headers_without_rows() {
        assert_eq!(Table::new(["run", "loss"]).to_string(), "run  loss");
    }
}
