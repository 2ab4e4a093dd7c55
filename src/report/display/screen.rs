//! The screen below the output: draws rows in place of the last ones, on a terminal that may have
//! changed its width meanwhile.
//!
//! Rows are as short as their text, so that a change of the width seldom touches them. Most
//! terminals wrap a row that has become too long; the rows to erase follow from the lengths.

use std::io::{self, Write};
use std::sync::Mutex;

use indicatif::TermLike;

use super::super::terminal::{self, Size};
use super::frame;
use crate::sync::locked;

/// Erases the row of the cursor. Terminals may keep a screen that is erased as a whole.
const ERASE_ROW: &str = "\r\x1b[2K";
/// Moves the cursor to the row above.
const ROW_ABOVE: &str = "\x1b[1A";

/// Size of the terminal on standard error.
pub(super) fn size() -> Size {
    terminal::size(io::stderr())
}

/// Draws on standard error.
#[derive(Debug)]
pub(super) struct Screen {
    wraps_again: bool,
    drawing: Mutex<Drawing>,
}

impl Screen {
    /// A screen with nothing drawn.
    pub(super) fn stderr() -> Self {
        // These cut rows off instead.
        let is_set = |name| std::env::var_os(name).is_some();
        let is_term = |name| std::env::var_os("TERM").is_some_and(|term| term == name);
        Self {
            wraps_again: !is_set("XTERM_VERSION") && !is_term("linux"),
            drawing: Mutex::default(),
        }
    }

    /// Starts a frame, unless one is begun.
    fn begin(&self) {
        let columns = size().columns;
        locked(&self.drawing).begin(columns, self.wraps_again);
    }
}

/// What is on the screen, and the frame that will replace it.
#[derive(Debug, Default)]
struct Drawing {
    /// Columns of each row on the screen.
    drawn: Vec<usize>,
    /// Width that they were drawn for.
    width: usize,
    /// The frame under way.
    next: Option<NextFrame>,
}

/// A frame under way.
#[derive(Debug, Default)]
struct NextFrame {
    /// Text to write, with the commands before it.
    text: String,
    rows: Vec<usize>,
}

impl Drawing {
    fn begin(&mut self, width: usize, wraps_again: bool) {
        if self.next.is_some() {
            return;
        }

        let mut frame = NextFrame::default();
        for row in 0..self.rows(width, wraps_again) {
            frame.text.push_str(if row > 0 { ROW_ABOVE } else { "" });
            frame.text.push_str(ERASE_ROW);
        }
        self.next = Some(frame);
    }

    /// Rows that the last frame takes on a screen of `width` columns.
    fn rows(&self, width: usize, wraps_again: bool) -> usize {
        let width = if wraps_again { width } else { self.width };
        let rows = self.drawn.iter().map(|row| row.div_ceil(width.max(1)));
        rows.map(|rows| rows.max(1)).sum()
    }

    /// Adds a row; the blanks that fill it up are left out.
    fn write(&mut self, row: &str) {
        let Some(frame) = &mut self.next else { return };
        let is_filler = row.bytes().all(|b| b == b' ');
        if is_filler {
            return;
        }

        if !frame.rows.is_empty() {
            frame.text.push_str("\r\n");
        }
        frame.text.push_str(row);
        frame.rows.push(frame::width(row));
    }

    /// Ends the frame and returns what to write.
    fn end(&mut self, width: usize) -> Option<String> {
        let NextFrame { text, rows } = self.next.take()?;
        self.drawn = rows;
        self.width = width;
        Some(text)
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        u16::try_from(size().columns).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        u16::try_from(size().rows).unwrap_or(u16::MAX)
    }

    // A frame begins with moves over the rows of the last one. These are erased first, by their
    // present height.
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        self.begin();
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        self.begin();
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.begin();
        locked(&self.drawing).write(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.begin();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let Some(text) = locked(&self.drawing).end(size().columns) else {
            return Ok(());
        };
        let mut stderr = io::stderr().lock();
        stderr.write_all(text.as_bytes())?;
        stderr.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(drawing: &mut Drawing, rows: &[&str], width: usize) -> String {
        drawing.begin(width, true);
        for row in rows {
            drawing.write(row);
            drawing.write(&" ".repeat(width - row.len()));
        }
        drawing.end(width).expect("begun")
    }

    #[test]
    fn a_frame_erases_the_rows_of_the_last_one() {
        let mut drawing = Drawing::default();
        assert_eq!(draw(&mut drawing, &["one", "two"], 5), "one\r\ntwo");
        assert_eq!(
            draw(&mut drawing, &["new"], 5),
            "\r\x1b[2K\x1b[1A\r\x1b[2Knew"
        );
        assert_eq!(draw(&mut drawing, &[], 5), "\r\x1b[2K");
        assert_eq!(draw(&mut drawing, &["end"], 5), "end");
    }

    #[test]
    fn rows_follow_the_width_of_the_screen() {
        let mut drawing = Drawing::default();
        draw(&mut drawing, &["abcde", "fghijklmno", "k"], 10);
        let rows = |width, wraps_again| drawing.rows(width, wraps_again);
        assert_eq!(rows(10, true), 3);
        assert_eq!(rows(7, true), 4);
        assert_eq!(rows(4, true), 6);
        assert_eq!(rows(30, true), 3);
        assert_eq!(rows(4, false), 3);
    }
}
