//! The screen below the output: draws rows in place of the last ones, on a terminal that may have
//! changed its width meanwhile.
//!
//! The rows fill their width and are one wrapped line to the terminal. Most terminals wrap such a
//! line anew when their width changes; the rows to erase follow from its length.

use std::io::{self, Write};
use std::sync::Mutex;

use indicatif::TermLike;

use super::super::terminal::{self, Size};
use crate::sync::locked;

/// Erases from the cursor to the end of the screen.
const ERASE_BELOW: &str = "\x1b[J";

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
        // These keep wrapped lines as they are.
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
    last: DrawnFrame,
    /// The frame under way.
    next: Option<NextFrame>,
}

/// The frame on the screen.
#[derive(Debug, Default)]
struct DrawnFrame {
    /// Columns of its text, over all rows.
    columns: usize,
    /// Width that it was drawn for.
    width: usize,
}

/// A frame under way.
#[derive(Debug, Default)]
struct NextFrame {
    /// Text to write, with the commands before it.
    text: String,
    columns: usize,
    /// Blanks at the end, which are drawn only before more text.
    blanks: usize,
}

impl DrawnFrame {
    /// Rows of the frame on a screen of `width` columns.
    fn rows(&self, width: usize, wraps_again: bool) -> usize {
        let width = if wraps_again { width } else { self.width };
        self.columns.div_ceil(width.max(1))
    }
}

impl Drawing {
    fn begin(&mut self, width: usize, wraps_again: bool) {
        if self.next.is_some() {
            return;
        }

        let mut frame = NextFrame::default();
        let rows = self.last.rows(width, wraps_again);
        if rows > 1 {
            frame.text.push_str(&format!("\x1b[{}A", rows - 1));
        }
        if rows > 0 {
            frame.text.push('\r');
            frame.text.push_str(ERASE_BELOW);
        }
        self.next = Some(frame);
    }

    fn write(&mut self, text: &str) {
        let Some(frame) = &mut self.next else { return };
        let columns = text.chars().count();
        if text.bytes().all(|b| b == b' ') {
            frame.blanks += columns;
            return;
        }

        frame.text.extend(std::iter::repeat_n(' ', frame.blanks));
        frame.columns += frame.blanks + columns;
        frame.blanks = 0;
        frame.text.push_str(text);
    }

    /// Ends the frame and returns what to write.
    fn end(&mut self, width: usize) -> Option<String> {
        let NextFrame { text, columns, .. } = self.next.take()?;
        self.last = DrawnFrame { columns, width };
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

    // A frame begins with moves over the rows of the last one, which are erased as they are now.
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
        assert_eq!(draw(&mut drawing, &["one", "two"], 5), "one  two");
        assert_eq!(draw(&mut drawing, &["new"], 5), "\x1b[1A\r\x1b[Jnew");
        assert_eq!(draw(&mut drawing, &[], 5), "\r\x1b[J");
        assert_eq!(draw(&mut drawing, &["end"], 5), "end");
    }

    #[test]
    fn rows_follow_the_width_of_the_screen() {
        let mut drawing = Drawing::default();
        draw(&mut drawing, &["abcde", "fghij", "k"], 10);
        let rows = |width, wraps_again| drawing.last.rows(width, wraps_again);
        assert_eq!(rows(10, true), 3);
        assert_eq!(rows(7, true), 3);
        assert_eq!(rows(5, true), 5);
        assert_eq!(rows(30, true), 1);
        assert_eq!(rows(5, false), 3);
    }
}
