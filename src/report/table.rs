//! Columns of text.
//!
//! Owns alignment only. Widths are counted before colour is added, so that colour never shifts a
//! column.

use super::paint::{Painter, Tint};

/// Gap between two columns.
const GAP: &str = "  ";

/// Alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// One cell: text and its tint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tint: Tint,
}

impl Cell {
    /// Creates a cell in a tint.
    pub fn new(text: impl Into<String>, tint: Tint) -> Self {
        Self {
            text: text.into(),
            tint,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(text, Tint::Plain)
    }
}

/// Rows of cells under aligned columns.
#[derive(Debug, Clone)]
pub struct TextTable {
    aligns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl TextTable {
    /// Creates a table without rows; columns beyond `aligns` are aligned left.
    pub fn new(aligns: &[Align]) -> Self {
        Self {
            aligns: aligns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. A row may be shorter than others.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Returns the lines of the table, without trailing blanks. Columns that are empty in every row
    /// vanish.
    pub fn lines(&self, painter: Painter) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|c| self.width_of(c)).collect();
        self.rows
            .iter()
            .map(|row| self.line(row, &widths, painter))
            .collect()
    }

    fn width_of(&self, column: usize) -> usize {
        self.rows
            .iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.text.chars().count())
            .max()
            .unwrap_or(0)
    }

    fn line(&self, row: &[Cell], widths: &[usize], painter: Painter) -> String {
        let shown = row
            .iter()
            .rposition(|c| !c.text.is_empty())
            .map_or(0, |last| last + 1);
        let mut line = String::new();

        for (column, cell) in row[..shown]
            .iter()
            .enumerate()
            .filter(|&(c, _)| widths[c] > 0)
        {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let blanks = " ".repeat(widths[column] - cell.text.chars().count());
            let right = self.aligns.get(column) == Some(&Align::Right);
            if right {
                line.push_str(&blanks);
            }
            line.push_str(&painter.paint(cell.tint, &cell.text));
            if !right && column + 1 < shown {
                line.push_str(&blanks);
            }
        }

        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new(&[Align::Left, Align::Right, Align::Left]);
        table.row(vec![
            "web1".into(),
            "7".into(),
            "".into(),
            Cell::new("ok", Tint::Good),
        ]);
        table.row(vec!["database1".into(), "1024".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_empty_ones_vanish() {
        assert_eq!(
            table().lines(Painter::PLAIN),
            ["web1          7  ok", "database1  1024"]
        );
    }

    #[test]
    fn colour_does_not_shift_columns() {
        assert_eq!(
            table().lines(Painter::COLOR)[0],
            "web1          7  \x1b[32mok\x1b[0m"
        );
    }
}
