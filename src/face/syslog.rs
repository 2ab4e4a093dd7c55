//! The system log, for a daemon without a terminal: lines of the form `makuosan[PID]: text`.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing_subscriber::fmt::MakeWriter;

/// Socket of the system log.
const DEV_LOG: &str = "/dev/log";
/// The facility `daemon`, level `info`: 3 * 8 + 6.
const PRIORITY: u8 = 30;

/// Writes log lines prefixed with the program's name and process.
#[derive(Debug, Clone)]
pub struct SystemLog {
    socket: Option<Arc<UnixDatagram>>,
    prefix: String,
}

impl SystemLog {
    /// Opens the system log if `detached` and available, else standard error.
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

    /// Returns true if lines go to the system log.
    pub fn is_system(&self) -> bool {
        self.socket.is_some()
    }
}

impl Write for SystemLog {
    /// Writes one line for each call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.socket {
            Some(socket) => {
                let text = [
                    format!("<{PRIORITY}>{}", self.prefix).as_bytes(),
                    line.trim_ascii_end(),
                ]
                .concat();
                // A full or missing log must not stop the daemon.
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

impl<'a> MakeWriter<'a> for SystemLog {
    type Writer = SystemLog;

    fn make_writer(&'a self) -> SystemLog {
        self.clone()
    }
}
