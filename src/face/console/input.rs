//! Reads the lines of a client.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line of a command, in bytes: a path, its quotes, and flags.
pub(super) const MAX_COMMAND_LINE: usize = 16 << 10;

/// Lines from a client.
pub(super) struct ClientInput<R> {
    read: R,
    bytes: Vec<u8>,
    over: bool,
}

impl<R: AsyncRead + Unpin> ClientInput<R> {
    /// Input of `read`, before the first byte.
    pub(super) fn new(read: R) -> Self {
        Self {
            read,
            bytes: Vec::new(),
            over: false,
        }
    }

    /// Reads the next line without its ending; `None` at the end of input. A last line without an
    /// ending counts.
    pub(super) async fn line(&mut self, most: usize) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&b| b == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
                line.pop();
                line.pop_if(|b| *b == b'\r');
                return Ok(Some(line));
            }

            if self.bytes.len() > most {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line that is too long",
                ));
            }

            if self.over {
                let last = std::mem::take(&mut self.bytes);
                return Ok(Some(last).filter(|l| !l.is_empty()));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        let read = self.read.read_buf(&mut self.bytes).await?;
        self.over = read == 0;
        Ok(())
    }

    /// Returns when the client has hung up without further input. Lines received earlier are kept.
    pub(super) async fn end(&mut self) {
        loop {
            if self.bytes.len() > MAX_COMMAND_LINE || (self.over && !self.bytes.is_empty()) {
                // The client has sent more; a hang-up shows later.
                return std::future::pending().await;
            }
            if self.over || self.more().await.is_err() {
                return;
            }
        }
    }
}
