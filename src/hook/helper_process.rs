//! Helper process that runs the commands of one tree, because the daemon drops rights that
//! reloading a web server may need.
//!
//! It is this program, started again before the daemon confines itself. It receives the commands
//! once, before any network input; from then on the daemon can only select a command and its
//! context, one at a time, or stop it, or make it read the same file again: only users whom the
//! start trusted can write there. It ends with the daemon. Does not know the purpose of a command.

mod wire;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::wire::WireHooks;
use super::{
    Command, Failure, FailureCause, HookContext, Hooks, MAX_WORD_BYTES, MAX_WORDS, Phase,
    RunRecord, run,
};
use crate::error::{Error, IoResultExt};
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

/// Where the commands of a tree stand, for a reload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HookSource {
    #[n(0)]
    config: ByteVec,
    #[n(1)]
    tree: String,
}

impl HookSource {
    /// The tree `tree` in the file `config`, an absolute path.
    pub fn new(config: &Path, tree: &str) -> Self {
        Self {
            config: config.as_os_str().as_bytes().to_vec().into(),
            tree: tree.to_string(),
        }
    }

    /// The file, and the name of the tree.
    pub fn parts(&self) -> (&Path, &str) {
        (Path::new(OsStr::from_bytes(&self.config)), &self.tree)
    }
}

/// What the process gets first of all.
#[derive(Encode, Decode)]
struct Begin {
    #[n(0)]
    hooks: WireHooks,
    #[n(1)]
    source: HookSource,
}

#[derive(Encode, Decode)]
enum HookRequest {
    /// Runs the command of a phase; answered by a [`HookReply`].
    #[n(0)]
    Run(#[n(0)] Phase, #[n(1)] HookContext),
    /// Reads the commands again; answered by a [`ReloadReply`].
    #[n(1)]
    Reload,
}

/// The commands now in force, or the reason why they are the old ones.
#[derive(Encode, Decode)]
struct ReloadReply {
    #[n(0)]
    hooks: Option<WireHooks>,
    #[n(1)]
    error: Option<String>,
}

#[derive(Encode, Decode)]
struct HookReply {
    #[n(0)]
    what: Option<FailureCause>,
    #[n(1)]
    ran: RunRecord,
}

impl HelperProcess {
    /// Starts the process for `hooks` from `source`. The program must call [`served`] first of all.
    pub fn start(hooks: &Hooks, source: HookSource) -> crate::Result<Self> {
        let start = || -> io::Result<UnixStream> {
            let stream = helper::start(HOOK_HELPER_NAME)?;
            let hooks = WireHooks::from(hooks);
            HOOK_FRAMES.write(&stream, &Begin { hooks, source })?;
            Ok(stream)
        };

        let stream = start().io_context("cannot start the helper process for hooks")?;
        Ok(Self(Arc::new(Mutex::new(stream))))
    }

    /// Makes the process read its commands again, with its own rights. Returns the commands now in
    /// force; an error while a command runs.
    pub fn reload(&self) -> crate::Result<Hooks> {
        let what = "the helper process for hooks cannot read them again";
        let Ok(stream) = self.0.try_lock() else {
            let busy = Error::refused("a command is running");
            return Err(busy.hint("send SIGHUP again when it has ended"));
        };
        let ask = || -> io::Result<ReloadReply> {
            HOOK_FRAMES.write(&stream, &HookRequest::Reload)?;
            let reply = HOOK_FRAMES.read(&stream)?;
            reply.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };

        match ask().io_context(what)? {
            ReloadReply { error: Some(e), .. } => Err(Error::usage(format!("{what}: {e}"))),
            ReloadReply { hooks, .. } => {
                let hooks = hooks.map(WireHooks::parsed).transpose().io_context(what)?;
                Ok(Hooks {
                    helper: Some(self.clone()),
                    ..hooks.unwrap_or_default()
                })
            }
        }
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
        let request = HookRequest::Run(phase, context.clone());

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

/// Reads the commands of a source again.
pub type ReadHooks = fn(&HookSource) -> crate::Result<Hooks>;

/// Serves as helper process if started as one, and reads commands again by `read`; returns whether
/// it did.
pub fn served(read: ReadHooks) -> bool {
    helper::served(HOOK_HELPER_NAME, |stream| serve(stream, read))
}

fn serve(stream: &UnixStream, read: ReadHooks) -> io::Result<()> {
    let Some(Begin { hooks, source }) = HOOK_FRAMES.read::<Begin>(stream)? else {
        return Ok(());
    };

    let mut hooks = hooks.parsed()?;
    while let Some(request) = HOOK_FRAMES.read(stream)? {
        let HookRequest::Run(phase, context) = request else {
            let reply = match read(&source) {
                Ok(now) => {
                    hooks = now;
                    ReloadReply {
                        hooks: Some(WireHooks::from(&hooks)),
                        error: None,
                    }
                }
                Err(e) => ReloadReply {
                    hooks: None,
                    error: Some(e.with_hint()),
                },
            };
            HOOK_FRAMES.write(stream, &reply)?;
            continue;
        };

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

#[cfg(test)]
mod tests;
