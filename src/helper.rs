//! Processes beside the daemon: this program, started again under another name before the daemon
//! drops its privileges.
//!
//! Owns their start, lifetime and communication, but not their work. They communicate over a
//! socket, in frames: the length in four bytes, then CBOR. Both ends are this program, yet a frame
//! is bounded: the daemon may have been compromised.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use minicbor::{Decode, Encode};
use tokio::signal::unix::{SignalKind, signal};

/// Starts this program under `name`; returns the socket to it. The program has to call [`served`]
/// first of all.
pub fn start(name: &str) -> io::Result<UnixStream> {
    let (mine, its) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");

    // A process group of its own: Ctrl-C is for the daemon, which ends the helper in time.
    command
        .arg0(name)
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        .process_group(0);
    command.spawn()?;

    Ok(mine)
}

/// Runs `work` with the socket to the daemon if this process was started under `name`. Returns
/// whether it was.
pub fn served(name: &str, work: impl FnOnce(&UnixStream) -> io::Result<()>) -> bool {
    let is_named = std::env::args_os().next().is_some_and(|own| own == name);
    let Some(stream) = is_named
        .then(|| io::stdin().as_fd().try_clone_to_owned().ok())
        .flatten()
    else {
        return false;
    };

    let _handled = outlive_signals();
    // No error report is needed: the daemon notices the end of the process.
    let _ = work(&UnixStream::from(stream));

    true
}

/// Keeps the process alive, until the result is dropped, when a signal ends all processes of a
/// service: the daemon ends it. Processes started from here have no handlers.
fn outlive_signals() -> impl Sized {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let handled = runtime.as_ref().ok().map(|runtime| {
        let _guard = runtime.enter();
        [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ]
        .map(signal)
    });
    (handled, runtime)
}

/// Framing between two processes.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    /// Largest frame in bytes.
    pub max: usize,
    /// Four bytes in place of a length that are no frame, and that a reader skips.
    pub word: Option<[u8; 4]>,
}

impl Frames {
    /// Sends a value.
    pub fn write<T: Encode<()>>(self, mut stream: &UnixStream, value: &T) -> io::Result<()> {
        let bytes = minicbor::to_vec(value).map_err(io::Error::other)?;
        let size = u32::try_from(bytes.len())
            .ok()
            .filter(|&size| size as usize <= self.max);
        let size = size
            .ok_or_else(|| io::Error::other(format!("a frame of more than {} bytes", self.max)))?;
        stream.write_all(&[&size.to_be_bytes()[..], &bytes].concat())
    }

    /// Receives the next value; `None` at the end.
    pub fn read<T: for<'b> Decode<'b, ()>>(self, mut stream: &UnixStream) -> io::Result<Option<T>> {
        let mut size = [0; 4];
        loop {
            match stream.read_exact(&mut size) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            if self.word != Some(size) {
                break;
            }
        }

        let size = u32::from_be_bytes(size) as usize;
        if size > self.max {
            return Err(io::ErrorKind::InvalidData.into());
        }

        let mut bytes = vec![0; size];
        stream.read_exact(&mut bytes)?;
        minicbor::decode(&bytes)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: [u8; 4] = [0; 4];

    #[test]
    fn values_come_as_they_were_and_a_word_between_them_is_passed_over() {
        let (mut one, other) = UnixStream::pair().expect("a pair");
        let frames = Frames {
            max: 100,
            word: Some(WORD),
        };

        frames.write(&one, &"first".to_string()).expect("written");
        one.write_all(&[WORD, WORD].concat()).expect("written");
        frames.write(&one, &"second".to_string()).expect("written");
        drop(one);
        let read = || frames.read::<String>(&other);
        assert_eq!(read().expect("whole").as_deref(), Some("first"));
        assert_eq!(read().expect("whole").as_deref(), Some("second"));

        assert_eq!(read().expect("the end"), None);
    }

    #[test]
    fn what_is_too_long_or_no_value_is_an_error() {
        let frames = Frames {
            max: 10,
            word: None,
        };

        let read = |bytes: &[u8]| {
            let (mut one, other) = UnixStream::pair().expect("a pair");
            one.write_all(bytes).expect("written");
            drop(one);
            frames.read::<String>(&other)
        };

        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(frames.write(&one, &"eleven bytes".to_string()).is_err());
        for bytes in [
            &[0, 0, 0, 11][..],
            &[0, 0, 0, 5, 0x64, b'a'],
            &[0, 0, 0, 1, 0xff],
            &WORD,
            &[u8::MAX; 4],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }

        assert_eq!(read(&[0, 0]).expect("the end"), None);
    }
}
