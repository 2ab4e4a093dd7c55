//! Helper process that runs the commands of one tree, because the daemon drops rights that
//! reloading a web server may need.
//!
//! It is this program, started again before the daemon confines itself. It receives the commands
//! once, before any network input; from then on the daemon can only select a command and its
//! context, one at a time, or stop it. It ends with the daemon. Does not know the purpose of a
//! command.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    Command, Failure, FailureCause, Health, HookContext, Hooks, MAX_WORD_BYTES, MAX_WORDS, Phase,
    RunRecord, run,
};
use crate::error::IoResultExt;
use crate::helper::{self, Frames};
use crate::sync::locked;

/// Name of the process, by which it recognizes itself.
const HOOK_HELPER_NAME: &str = "makuo-hooks";
/// Frame format: room for three commands, or for the output of one. A stop word that arrives too
/// late is skipped.
const HOOK_FRAMES: Frames = Frames {
    max: 3 * MAX_WORDS * (MAX_WORD_BYTES + 8) + (64 << 10),
    word: Some(STOP),
};
/// Interval between checks whether the daemon is ending.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Word that stops the running command.
const STOP: [u8; 4] = [0; 4];

/// Connection to the process.
#[derive(Clone)]
pub struct HelperProcess(Arc<Mutex<UnixStream>>);

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
struct HookRequest {
    #[n(0)]
    phase: Phase,
    #[n(1)]
    context: HookContext,
}

#[derive(Encode, Decode)]
struct HookReply {
    #[n(0)]
    what: Option<FailureCause>,
    #[n(1)]
    ran: RunRecord,
}

impl HelperProcess {
    /// Starts the process for `hooks`. The program must call [`served`] first of all.
    pub fn start(hooks: &Hooks) -> crate::Result<Self> {
        let start = || -> io::Result<UnixStream> {
            let stream = helper::start(HOOK_HELPER_NAME)?;
            HOOK_FRAMES.write(&stream, &WireHooks::from(hooks))?;
            Ok(stream)
        };

        let stream = start().io_context("cannot start the helper process for hooks")?;
        Ok(Self(Arc::new(Mutex::new(stream))))
    }

    /// Like [`Hooks::run`], in the process.
    pub(super) fn run(
        &self,
        command: &Command,
        phase: Phase,
        context: &HookContext,
        stop: &AtomicBool,
    ) -> Result<RunRecord, Failure> {
        let stream = locked(&self.0);
        let request = HookRequest {
            phase,
            context: context.clone(),
        };

        let reply = ask(&stream, &request, stop).unwrap_or_else(|e| HookReply {
            what: Some(FailureCause::NotStarted(format!(
                "the helper process for hooks does not respond: {e}"
            ))),
            ran: RunRecord {
                output: String::new(),
                took: Duration::ZERO,
                tries: 1,
            },
        });
        run::log_result(command, phase, context, reply.what, reply.ran)
    }
}

impl PartialEq for HelperProcess {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for HelperProcess {}

impl fmt::Debug for HelperProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HelperProcess")
    }
}

fn ask(stream: &UnixStream, request: &HookRequest, stop: &AtomicBool) -> io::Result<HookReply> {
    HOOK_FRAMES.write(stream, request)?;
    let mut sent = false;
    loop {
        if !sent && stop.load(Ordering::Acquire) {
            (&mut &*stream).write_all(&STOP)?;
            sent = true;
        }

        if wait_for_input(stream)? {
            return HOOK_FRAMES
                .read(stream)?
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Waits for input until the next check of `stop` is due; returns whether there is any.
fn wait_for_input(stream: &UnixStream) -> io::Result<bool> {
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: STOP_POLL_INTERVAL.subsec_nanos().into(),
    };

    match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Serves as helper process if started as one; returns whether it did.
pub fn served() -> bool {
    helper::served(HOOK_HELPER_NAME, serve)
}

fn serve(stream: &UnixStream) -> io::Result<()> {
    let Some(hooks) = HOOK_FRAMES.read::<WireHooks>(stream)? else {
        return Ok(());
    };

    let hooks = hooks.parsed()?;
    while let Some(HookRequest { phase, context }) = HOOK_FRAMES.read(stream)? {
        let stop = AtomicBool::new(false);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                let answer = hooks.attempt(phase, &context, &stop);
                done.store(true, Ordering::Release);
                answer
            });
            // Same rule as in the daemon: a command after the commit must run again after a
            // restart.
            let until = watch_for_stop(
                stream,
                &done,
                || stop.store(true, Ordering::Release),
                phase != Phase::After,
            );
            let (what, ran) = run.join().map_err(|_| io::Error::other("a defect"))?;
            until.and_then(|()| HOOK_FRAMES.write(stream, &HookReply { what, ran }))
        })?;
    }

    Ok(())
}

/// Watches for the stop word until `done`. The end of the daemon counts as one if `ends` is set.
fn watch_for_stop(
    stream: &UnixStream,
    done: &AtomicBool,
    stop: impl Fn(),
    ends: bool,
) -> io::Result<()> {
    while !done.load(Ordering::Acquire) {
        if !wait_for_input(stream)? {
            continue;
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

        let before = self.before.map(WireCommand::parsed);
        let after = self.after.map(WireCommand::parsed);
        Ok(Hooks {
            before: before.transpose()?,
            after: after.transpose()?,
            health: health.transpose()?,
            helper: None,
        })
    }
}

#[cfg(test)]
mod tests;
