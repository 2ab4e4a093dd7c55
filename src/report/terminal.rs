//! Terminals: their size, and text that breaks between words at their edge.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

use super::wrap::wrapped;

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Columns.
    pub(super) columns: usize,
    /// Rows.
    pub(super) rows: usize,
}

/// Size of a terminal that does not tell it.
const DEFAULT_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// Size of the terminal `stream`.
pub(super) fn size(stream: impl AsFd) -> Size {
    let told = tcgetwinsize(stream).ok();
    let told = told.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    told.map_or(DEFAULT_SIZE, |size| Size {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

/// A stream whose text breaks between words if it is a terminal. Each write is of whole lines.
pub(super) struct TextStream<S> {
    stream: S,
    is_terminal: bool,
}

impl<S: Write + AsFd + IsTerminal> TextStream<S> {
    /// Writes to `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self {
            is_terminal: stream.is_terminal(),
            stream,
        }
    }
}

impl<S: Write + AsFd> Write for TextStream<S> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match str::from_utf8(text) {
            Ok(lines) if self.is_terminal => {
                let columns = size(&self.stream).columns;
                self.stream.write_all(wrapped(lines, columns).as_bytes())?;
                Ok(text.len())
            }
            _ => self.stream.write(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
