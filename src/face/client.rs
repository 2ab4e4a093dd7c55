//! Client side of the console protocol: sends msync's commands and parses the responses.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::password::Password;
use super::peer::Sockets;
use super::response::{HEARTBEAT, OLD_PASSWORD, PASSWORD, PROMPT};
use crate::units::printable;
use crate::{Error, Kind, Result};

/// Timeout for the first prompt.
const FIRST_PROMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence of a running command, heartbeats included.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line of a response, in bytes.
const MAX_RESPONSE_LINE: usize = 64 << 10;

/// Address of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleAddress {
    /// A host and its port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for ConsoleAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => {
                write!(f, "unix:{}", printable(path.as_os_str().as_encoded_bytes()))
            }
        }
    }
}

impl std::str::FromStr for ConsoleAddress {
    type Err = String;

    /// Parses `tcp:HOST:PORT`, `unix:PATH`, or a bare path.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some(("tcp", rest)) => {
                let (host, port) = rest.rsplit_once(':').ok_or("write tcp:HOST:PORT")?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port = port
                    .parse()
                    .map_err(|_| format!("{port:?} is no port: write tcp:HOST:PORT"))?;
                Ok(Self::Tcp(host.to_string(), port))
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ if text.is_empty() => Err("write tcp:HOST:PORT or unix:PATH".into()),
            _ => Ok(Self::Unix(text.into())),
        }
    }
}

enum ConsoleStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ConsoleStream {
    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(timeout),
            Self::Unix(s) => s.set_read_timeout(timeout),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(bytes),
            Self::Unix(s) => s.read(bytes),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.write_all(bytes),
            Self::Unix(s) => s.write_all(bytes),
        }
    }
}

/// A connection to a console that waits for a command.
pub struct Client {
    stream: ConsoleStream,
    target: ConsoleAddress,
    /// Bytes received and not yet parsed.
    bytes: Vec<u8>,
}

/// First piece of the received bytes.
enum ResponsePiece {
    Line(String),
    Prompt,
    Password,
}

impl Client {
    /// Connects, sends the password on request, and waits for the first prompt.
    pub fn connect(target: &ConsoleAddress, password: Option<&Password>) -> Result<Self> {
        let failed = |e: io::Error| {
            let hint = "is the daemon running on this host, with a console? \
                        -c or $MSYNC_TARGET says where it listens";
            Error::new(Kind::Io, format!("can't connect {target}"))
                .because(e)
                .hint(hint)
        };

        let stream = match target {
            ConsoleAddress::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).map_err(failed)?;
                check_listener(target, stream.peer_addr().map_err(failed)?)?;
                ConsoleStream::Tcp(stream)
            }
            ConsoleAddress::Unix(path) => {
                ConsoleStream::Unix(UnixStream::connect(path).map_err(failed)?)
            }
        };

        let mut client = Self {
            stream,
            target: target.clone(),
            bytes: Vec::new(),
        };

        client
            .stream
            .set_timeout(Some(FIRST_PROMPT_TIMEOUT))
            .map_err(failed)?;
        let mut given = false;
        loop {
            match client.piece()? {
                ResponsePiece::Prompt => break,
                ResponsePiece::Password if given => return Err(Error::refused("wrong password")),
                ResponsePiece::Password => {
                    let password = password.ok_or_else(|| {
                        Error::usage("the console asks for a password")
                            .hint("name its file with -K")
                    })?;
                    client.send(password.bytes())?;
                    given = true;
                }
                ResponsePiece::Line(line) => {
                    if let Some(error) = line.strip_prefix("error: ") {
                        return Err(Error::refused(error.to_string()));
                    }
                }
            }
        }

        client.command(b"alive on", |_| ())?;
        client
            .stream
            .set_timeout(Some(SILENCE_TIMEOUT))
            .map_err(failed)?;
        Ok(client)
    }

    /// Sends a command and passes on the lines of the response.
    pub fn command(&mut self, command: &[u8], mut each: impl FnMut(&str)) -> Result<()> {
        self.send(command)?;
        loop {
            match self.piece()? {
                ResponsePiece::Prompt => return Ok(()),
                ResponsePiece::Line(line) if line == HEARTBEAT => {}
                ResponsePiece::Line(line) => each(&line),
                ResponsePiece::Password => {
                    return Err(Error::refused("the console asks for its password again"));
                }
            }
        }
    }

    /// Ends the session.
    pub fn quit(mut self) {
        // The session ends either way.
        let _ = self.send(b"quit");
    }

    fn send(&mut self, line: &[u8]) -> Result<()> {
        let line = [line, b"\r\n"].concat();
        self.stream.write_all(&line).map_err(|e| self.lost(e))
    }

    fn lost(&self, e: io::Error) -> Error {
        let what = match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("{} is silent", self.target)
            }
            io::ErrorKind::UnexpectedEof => format!("{} closed the connection", self.target),
            _ => {
                return Error::new(
                    Kind::Io,
                    format!("the connection to {} failed", self.target),
                )
                .because(e);
            }
        };

        Error::new(Kind::Io, what)
    }

    fn piece(&mut self) -> Result<ResponsePiece> {
        loop {
            if let Some(piece) = self.front() {
                return Ok(piece);
            }
            let mut buffer = [0; 4096];
            let read = match self.stream.read(&mut buffer) {
                // A read with a timeout does not restart after a stop by the terminal.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|e| self.lost(e))?,
            };

            if read == 0 {
                return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
            }
            self.bytes.extend_from_slice(&buffer[..read]);
        }
    }

    /// Takes a complete piece: a line, or a prompt, which has no line ending.
    fn front(&mut self) -> Option<ResponsePiece> {
        loop {
            for (start, piece) in [
                (PROMPT, ResponsePiece::Prompt),
                (PASSWORD, ResponsePiece::Password),
                (OLD_PASSWORD, ResponsePiece::Password),
            ] {
                if self.bytes.starts_with(start) {
                    self.bytes.drain(..start.len());
                    return Some(piece);
                }
            }

            let end = self
                .bytes
                .iter()
                .position(|&b| b == b'\n')
                .or((self.bytes.len() > MAX_RESPONSE_LINE).then_some(MAX_RESPONSE_LINE));
            let line: Vec<u8> = self.bytes.drain(..=end?).collect();
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches(['\r', '\n'])
                .to_string();

            if !line.is_empty() {
                return Some(ResponsePiece::Line(line));
            }
        }
    }
}

/// Refuses to talk, and to send a password, to a local listener that belongs neither to root nor to
/// the present user: any user may take a free port before the daemon does.
fn check_listener(target: &ConsoleAddress, address: SocketAddr) -> Result<()> {
    if !address.ip().to_canonical().is_loopback() {
        return Ok(());
    }

    let me = rustix::process::geteuid().as_raw();
    let users = Sockets::open().users_of_listeners(address);
    let Some(stranger) = users.into_iter().find(|uid| *uid != 0 && *uid != me) else {
        return Ok(());
    };

    let text = format!(
        "user {stranger} listens at {target}, who is neither root nor you: nothing was sent"
    );
    Err(Error::refused(text).hint(
        "use the daemon's unix socket: -c unix:PATH, \
         which the daemon has with -U PATH or console.socket",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_the_old_tool_did() {
        let target = |text: &str| text.parse::<ConsoleAddress>();
        assert_eq!(
            target("tcp:127.0.0.1:5000"),
            Ok(ConsoleAddress::Tcp("127.0.0.1".into(), 5000))
        );
        assert_eq!(
            target("tcp:[::1]:5000"),
            Ok(ConsoleAddress::Tcp("::1".into(), 5000))
        );
        assert_eq!(
            target("unix:/run/x"),
            Ok(ConsoleAddress::Unix("/run/x".into()))
        );
        assert_eq!(
            target("makuosan.sock"),
            Ok(ConsoleAddress::Unix("makuosan.sock".into()))
        );

        assert!(target("tcp:host").is_err() && target("").is_err() && target("tcp:h:x").is_err());
    }
}
