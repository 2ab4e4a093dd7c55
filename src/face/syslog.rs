//! The system's log, for a daemon that has let go of its terminal: lines of the form `makuosan[PID]: text`.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing_subscriber::fmt::MakeWriter;

/// Where the system takes log lines.
const DEV_LOG: &str = "/dev/log";
/// The facility `daemon`, level `info`: 3 * 8 + 6.
const PRIORITY: u8 = 30;

/// Writes log lines with the program's name and process in front.
#[derive(Debug, Clone)]
pub struct Log {
    socket: Option<Arc<UnixDatagram>>,
    prefix: String,
}

impl Log {
    /// To the system's log when `detached` and there is one, else to standard error.
    pub fn open(name: &str, detached: bool) -> Self {
        let open = || {
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect(DEV_LOG).ok()?;
            Some(Arc::new(socket))
        };

        let socket = if detached { open() } else { None };
        Self {
            socket,
            prefix: format!("{name}[{}]: ", std::process::id()),
        }
    }

    /// Whether lines go to the system's log.
    pub fn is_system(&self) -> bool {
        self.socket.is_some()
    }
}

impl Write for Log {
    /// One call is one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.socket {
            Some(socket) => {
                let text = [
                    format!("<{PRIORITY}>{}", self.prefix).as_bytes(),
                    line.trim_ascii_end(),
                ]
                .concat();
                // A log that is full or gone must not stop the daemon.
                let _ = socket.send(&text);
            }
            None => io::stderr().write_all(&[self.prefix.as_bytes(), line].concat())?,
        }

        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}
