//! A process beside the daemon that runs the commands of one tree: the daemon gives its own rights away, and what
//! reloads a web server needs some.
//!
//! It is this program, started again before the daemon confines itself. It is told the commands once, before anything
//! of the network is heard; from then on the daemon can only say which of them to run and on what occasion, one at a
//! time, or that it is to stop. It ends when the daemon does. It must not know what a command is for.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    Cause, Command, Failure, Health, Hooks, MAX_WORD, MAX_WORDS, Occasion, Phase, Ran, What, run,
};
use crate::helper::{self, Frames};
use crate::id::{HostName, Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::{Error, Kind};

/// The name under which the process runs, and by which it knows itself.
const NAME: &str = "makuo-hooks";
/// Three commands at most, or what a command printed last. A word to stop that came too late is passed over.
const FRAMES: Frames = Frames {
    max: 3 * MAX_WORDS * (MAX_WORD + 8) + (64 << 10),
    word: Some(STOP),
};
/// How often the daemon looks whether it is ending.
const LOOK: Duration = Duration::from_millis(20);
/// What tells the process to end the command that runs.
const STOP: [u8; 4] = [0; 4];

/// The way to the process.
#[derive(Clone)]
pub struct Outside(Arc<Mutex<UnixStream>>);

#[derive(Encode, Decode)]
struct WireCommand {
    #[n(0)]
    argv: Vec<ByteVec>,
    #[n(1)]
    timeout: Duration,
}

#[derive(Encode, Decode)]
struct WireHooks {
    #[n(0)]
    before: Option<WireCommand>,
    #[n(1)]
    after: Option<WireCommand>,
    #[n(2)]
    health: Option<(WireCommand, Duration, Duration)>,
}

#[derive(Encode, Decode)]
struct Request {
    #[n(0)]
    phase: Phase,
    #[n(1)]
    tree: TreeName,
    #[n(2)]
    serial: Serial,
    #[n(3)]
    previous: Option<Serial>,
    #[n(4)]
    release: ReleaseId,
    #[n(5)]
    path: ByteVec,
    #[n(6)]
    host: HostName,
    #[n(7)]
    sender: Option<HostName>,
    #[n(8)]
    cause: Cause,
}

#[derive(Encode, Decode)]
struct Reply {
    #[n(0)]
    what: Option<What>,
    #[n(1)]
    ran: Ran,
}

impl Outside {
    /// Starts the process for `hooks`. This program has to call [`served`] first of all.
    pub fn start(hooks: &Hooks) -> crate::Result<Self> {
        let failed = |e: io::Error| {
            Error::new(Kind::Io, "cannot start the process that runs hooks").because(e)
        };

        let stream = helper::start(NAME).map_err(failed)?;
        FRAMES
            .write(&stream, &WireHooks::from(hooks))
            .map_err(failed)?;
        Ok(Self(Arc::new(Mutex::new(stream))))
    }

    /// [`Hooks::run`], there.
    pub(super) fn run(
        &self,
        command: &Command,
        phase: Phase,
        occasion: &Occasion,
        stop: &AtomicBool,
    ) -> Result<Ran, Failure> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = ask(&stream, &Request::new(phase, occasion), stop).unwrap_or_else(|e| Reply {
            what: Some(What::NotStarted(format!(
                "the process that runs hooks does not answer: {e}"
            ))),
            ran: Ran {
                output: String::new(),
                took: Duration::ZERO,
                tries: 1,
            },
        });
        run::ended(command, phase, occasion, reply.what, reply.ran)
    }
}

impl PartialEq for Outside {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Outside {}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

fn ask(stream: &UnixStream, request: &Request, stop: &AtomicBool) -> io::Result<Reply> {
    FRAMES.write(stream, request)?;
    let mut told = false;
    loop {
        if !told && stop.load(Ordering::Acquire) {
            (&mut &*stream).write_all(&STOP)?;
            told = true;
        }
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                return FRAMES
                    .read(stream)?
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether this process was started to run commands; it has done so then.
pub fn served() -> bool {
    helper::served(NAME, serve)
}

fn serve(stream: &UnixStream) -> io::Result<()> {
    let Some(hooks) = FRAMES.read::<WireHooks>(stream)? else {
        return Ok(());
    };

    let hooks = hooks.parsed()?;
    while let Some(request) = FRAMES.read::<Request>(stream)? {
        let (phase, occasion) = request.parsed();
        let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                let answer = hooks.attempt(phase, &occasion, &stop);
                done.store(true, Ordering::Release);
                answer
            });
            // As the daemon has it: what it restarts after a commit is to run again.
            let until = listen(
                stream,
                &done,
                || stop.store(true, Ordering::Release),
                phase != Phase::After,
            );
            let (what, ran) = run.join().map_err(|_| io::Error::other("a defect"))?;
            until.and_then(|()| FRAMES.write(stream, &Reply { what, ran }))
        })?;
    }

    Ok(())
}

/// Listens for the word to stop, until `done`. An end of the daemon is such a word, where that ends the command.
fn listen(stream: &UnixStream, done: &AtomicBool, stop: impl Fn(), ends: bool) -> io::Result<()> {
    while !done.load(Ordering::Acquire) {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut word = [1; 4];
        match (&mut &*stream).read_exact(&mut word) {
            Ok(()) if word == STOP => stop(),
            Ok(()) => return Err(io::ErrorKind::InvalidData.into()),
            Err(e) => {
                if ends {
                    stop();
                }
                return Err(e);
            }
        }
    }

    Ok(())
}

impl From<&Command> for WireCommand {
    fn from(command: &Command) -> Self {
        let argv = command
            .argv()
            .iter()
            .map(|word| ByteVec::from(word.as_bytes().to_vec()))
            .collect();
        Self {
            argv,
            timeout: command.timeout(),
        }
    }
}

impl WireCommand {
    fn parsed(self) -> io::Result<Command> {
        let argv = self
            .argv
            .into_iter()
            .map(|word| OsString::from_vec(word.into()))
            .collect();
        Command::new(argv, self.timeout).map_err(io::Error::other)
    }
}

impl From<&Hooks> for WireHooks {
    fn from(hooks: &Hooks) -> Self {
        Self {
            before: hooks.before.as_ref().map(WireCommand::from),
            after: hooks.after.as_ref().map(WireCommand::from),
            health: hooks
                .health
                .as_ref()
                .map(|h| (WireCommand::from(&h.command), h.interval, h.deadline)),
        }
    }
}

impl WireHooks {
    fn parsed(self) -> io::Result<Hooks> {
        let health = self.health.map(|(command, interval, deadline)| {
            command.parsed().map(|command| Health {
                command,
                interval,
                deadline,
            })
        });

        let (before, after) = (
            self.before.map(WireCommand::parsed),
            self.after.map(WireCommand::parsed),
        );
        Ok(Hooks {
            before: before.transpose()?,
            after: after.transpose()?,
            health: health.transpose()?,
            outside: None,
        })
    }
}

impl Request {
    fn new(phase: Phase, occasion: &Occasion) -> Self {
        let Occasion {
            tree,
            serial,
            previous,
            release,
            path,
            host,
            sender,
            cause,
        } = occasion.clone();

        let path = path.into_os_string().into_vec().into();
        Self {
            phase,
            tree,
            serial,
            previous,
            release,
            path,
            host,
            sender,
            cause,
        }
    }

    fn parsed(self) -> (Phase, Occasion) {
        let Request {
            phase,
            tree,
            serial,
            previous,
            release,
            path,
            host,
            sender,
            cause,
        } = self;

        let path = PathBuf::from(OsString::from_vec(path.into()));
        (
            phase,
            Occasion {
                tree,
                serial,
                previous,
                release,
                path,
                host,
                sender,
                cause,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::occasion as an_occasion;
    use super::*;

    /// The process as a thread of this one.
    fn beside(hooks: &Hooks) -> (Outside, std::thread::JoinHandle<io::Result<()>>) {
        let (mine, its) = UnixStream::pair().expect("a pair");
        let thread = std::thread::spawn(move || serve(&its));
        FRAMES
            .write(&mine, &WireHooks::from(hooks))
            .expect("it listens");
        (Outside(Arc::new(Mutex::new(mine))), thread)
    }

    fn sh(script: &str) -> Command {
        let argv = ["/bin/sh", "-c", script].map(OsString::from).into();
        Command::new(argv, Duration::from_secs(20)).expect("legal")
    }

    #[test]
    fn what_runs_there_ends_as_here() {
        let mut hooks = Hooks {
            before: Some(sh("echo $MAKUO_TREE; exit 3")),
            after: Some(sh("true")),
            ..Hooks::default()
        };

        let (outside, thread) = beside(&hooks);
        hooks.outside = Some(outside);
        let (occasion, never) = (an_occasion(), AtomicBool::new(false));
        for _ in 0..2 {
            let failure = hooks
                .run(Phase::Before, &occasion, &never)
                .expect("there is one")
                .expect_err("exits with 3");
            assert_eq!(
                (failure.what, failure.output.trim()),
                (What::Exited(3), occasion.tree.as_str())
            );
            assert!(
                hooks
                    .run(Phase::After, &occasion, &never)
                    .expect("there is one")
                    .is_ok()
            );
        }

        assert!(hooks.run(Phase::Health, &occasion, &never).is_none());
        drop(hooks);
        thread.join().expect("no defect").expect("a good end");
    }

    #[test]
    fn the_end_of_the_daemon_ends_what_runs() {
        let mut hooks = Hooks {
            before: Some(sh("sleep 60")),
            ..Hooks::default()
        };

        let (outside, thread) = beside(&hooks);
        hooks.outside = Some(outside);
        let ending = AtomicBool::new(true);
        let failure = hooks
            .run(Phase::Before, &an_occasion(), &ending)
            .expect("there is one")
            .expect_err("stopped");

        assert_eq!(failure.what, What::Stopped);
        // It runs on, for the next.
        let failure = hooks
            .run(Phase::Before, &an_occasion(), &ending)
            .expect("there is one")
            .expect_err("stopped");

        assert_eq!(failure.what, What::Stopped);
        drop(hooks);
        thread.join().expect("no defect").expect("a good end");
    }

    #[test]
    fn a_process_that_is_gone_is_a_failure() {
        let mut hooks = Hooks {
            before: Some(sh("true")),
            ..Hooks::default()
        };

        let (mine, its) = UnixStream::pair().expect("a pair");
        drop(its);
        hooks.outside = Some(Outside(Arc::new(Mutex::new(mine))));
        let never = AtomicBool::new(false);
        let failure = hooks
            .run(Phase::Before, &an_occasion(), &never)
            .expect("there is one")
            .expect_err("gone");

        assert!(matches!(failure.what, What::NotStarted(_)), "{failure}");
    }
}
