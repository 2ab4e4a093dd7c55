//! Prompts for a passphrase on the terminal without echo.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Largest number of characters of a passphrase.
const MAX_PASSPHRASE: usize = 1024;

/// The passphrase typed at the controlling terminal, or `None` if the user gave up. Fails without a
/// terminal. stdin and stdout are not used: they may be pipes.
pub(super) fn passphrase(question: &str) -> io::Result<Option<Vec<u8>>> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let no_echo = NoEcho::new(terminal.try_clone()?)?;
    terminal.write_all(question.as_bytes())?;
    let typed = read_line(&mut terminal);
    drop(no_echo);
    terminal.write_all(b"\n")?;
    typed
}

/// While alive, the terminal neither echoes nor turns keys into signals: Ctrl-C arrives as a byte,
/// so no signal can end the process with the echo still off.
struct NoEcho {
    terminal: File,
    before: Termios,
}

impl NoEcho {
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut modes = before.clone();
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // Nothing better can be done when a terminal goes away.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

fn read_line(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut byte = [0];

    loop {
        match input.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }

        match byte[0] {
            b'\n' | b'\r' => return Ok(Some(line)),
            0x03 | 0x04 | 0x1c => return Ok(None),
            0x08 | 0x7f => {
                // Remove a whole UTF-8 character.
                while line.pop().is_some_and(|b| b & 0xc0 == 0x80) {}
            }
            0x15 => line.clear(),
            b if line.len() < MAX_PASSPHRASE => line.push(b),
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited_as_on_a_terminal() {
        let typed = |keys: &[u8]| read_line(&mut &keys[..]).expect("reads");
        assert_eq!(typed(b"se\x7fecret\n").as_deref(), Some(&b"secret"[..]));
        assert_eq!(typed("aä\x7fb\r".as_bytes()).as_deref(), Some(&b"ab"[..]));
        assert_eq!(typed(b"wrong\x15right\n").as_deref(), Some(&b"right"[..]));
        assert_eq!(typed(b"half\x03\n"), None);
        assert_eq!(typed(b"half"), None);
    }
}
