//! The control socket: one JSON request a line, answered by lines; for this host's own commands.
//!
//! Whoever may connect may have this host release parts of its trees with its own key: root, the daemon's user, and the
//! members of the configured group. `members` is answered by one line; `files` by events as they happen and the outcome
//! or an error as the last line.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::drive::deploy::Interrupt;
use crate::drive::desk::{Desk, Wish};
use crate::drive::outcome::{Event, Member, Observer, Outcome};
use crate::face::socket::{self, SocketFile};
use crate::id::TreeName;
use crate::tree::user_lookup;
use crate::{Error, Kind, Result};

/// The longest request, in bytes: some thousand paths.
const MAX_REQUEST: u64 = 4 << 20;
/// How long a request may take to come, and a short answer to go.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line of an answer that a command reads: a list of what differs.
const MAX_ANSWER: u64 = 512 << 20;
/// The most answers under way.
const MAX_CONNECTIONS: usize = 64;
/// Events that wait to be written, for a command that reads slowly.
const EVENTS: usize = 1024;

/// What a command asks of the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// The other hosts.
    Members,
    /// The trees that it sends from.
    Trees,
    /// Put or compare files.
    Files { wish: Wish },
}

/// The lines of an answer to [`Request::Files`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Event(Event),
    Outcome(Box<Outcome>),
    Error {
        message: String,
        hint: Option<String>,
        kind: u8,
    },
}

/// A bound control socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    gate: Gate,
    _file: SocketFile,
}

/// Who may ask.
#[derive(Debug, Clone, Copy)]
struct Gate {
    group: Option<Gid>,
}

impl Listener {
    /// Binds `path`, in place of a socket that nobody listens to any more, for root, the daemon's own user and the
    /// members of `group`. Called inside a runtime, and before it has threads.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self> {
        let failed = |e| Error::io("cannot listen on the control socket", path, e);
        let group = group.map(group_of).transpose()?;
        let (listener, file) = socket::bind(path, if group.is_some() { 0o660 } else { 0o600 })?;
        if let Some(group) = group {
            nix::unistd::chown(path, None, Some(group)).map_err(|e| failed(e.into()))?;
        }

        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self {
            listener,
            gate: Gate { group },
            _file: file,
        })
    }

    /// Answers until it is dropped.
    pub async fn serve(self, desk: Arc<Desk>) {
        let room = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        continue;
                    };
                    let (desk, gate) = (Arc::clone(&desk), self.gate);
                    tokio::spawn(async move {
                        if let Err(e) = answer(stream, gate, &desk).await {
                            tracing::debug!("control socket: {e}");
                        }
                        drop(permit);
                    });
                }
                Err(e) => {
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn group_of(name: &str) -> Result<Gid> {
    let shown = crate::units::printable(name.as_bytes());
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(Error::usage(format!(
            "socket_group: this host has no group {shown}"
        ))),
        Err(e) => Err(
            Error::new(Kind::Io, format!("the group {shown} cannot be looked up"))
                .because(std::io::Error::from(e)),
        ),
    }
}

impl Gate {
    /// Whether the process at the other end may ask. The file's mode says the same; this holds if somebody changed it.
    fn lets_in(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else {
            return false;
        };

        let uid = Uid::from_raw(peer.uid());
        if uid.is_root() || uid == Uid::effective() {
            return true;
        }

        let Some(group) = self.group else {
            return false;
        };

        if Gid::from_raw(peer.gid()) == group {
            return true;
        }

        user_lookup::groups_of(uid.as_raw()).is_ok_and(|groups| groups.contains(&group.as_raw()))
    }
}

async fn answer(stream: UnixStream, gate: Gate, desk: &Arc<Desk>) -> std::io::Result<()> {
    let allowed = gate.lets_in(&stream);
    let (read, mut write) = stream.into_split();
    let mut input = tokio::io::BufReader::new(read.take(MAX_REQUEST));
    let mut line = String::new();
    tokio::time::timeout(PATIENCE, input.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        _ if !allowed => json(&refusal(
            "you may not use this daemon's control socket",
            "see socket_group",
        )),
        Ok(Request::Members) => json(&members(Arc::clone(desk)).await),
        Ok(Request::Trees) => json(
            &desk
                .bases()
                .iter()
                .map(|b| b.tree.clone())
                .collect::<Vec<TreeName>>(),
        ),
        Ok(Request::Files { wish }) => return files(desk, wish, input, write).await,
        Err(e) => json(&refusal(
            &format!("not understood: {e}"),
            "are command and daemon of the same version?",
        )),
    };

    write.write_all(&reply).await
}

async fn members(desk: Arc<Desk>) -> Vec<Member> {
    tokio::task::spawn_blocking(move || desk.members())
        .await
        .unwrap_or_default()
}

fn refusal(message: &str, hint: &str) -> Told {
    Told::Error {
        message: message.into(),
        hint: Some(hint.into()),
        kind: Kind::Usage.exit_code(),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Nothing that is told has keys that are no text.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Tells what happens while the desk works. A command that is gone takes its wish back.
async fn files(
    desk: &Arc<Desk>,
    wish: Wish,
    mut input: impl AsyncRead + Unpin,
    mut write: tokio::net::unix::OwnedWriteHalf,
) -> std::io::Result<()> {
    let (told, mut lines) = tokio::sync::mpsc::channel::<Vec<u8>>(EVENTS);
    let interrupt = Interrupt::default();
    let work = tokio::task::spawn_blocking({
        let (desk, interrupt) = (Arc::clone(desk), interrupt.clone());
        move || {
            let last = match desk.fulfil(&wish, &interrupt, &mut Teller(told.clone())) {
                Ok(outcome) => Told::Outcome(Box::new(outcome)),
                Err(e) => {
                    let hint = e.hint_text().map(ToString::to_string);
                    Told::Error {
                        message: e.to_string(),
                        hint,
                        kind: e.kind().exit_code(),
                    }
                }
            };
            // Whoever asked may be gone.
            let _ = told.blocking_send(json(&last));
        }
    });

    let mut byte = [0];
    let mut gone = false;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => gone |= !gone && write.write_all(&line).await.is_err(),
                None => break,
            },
            end = input.read(&mut byte), if !gone => gone = !matches!(end, Ok(1..)),
        }
        if gone {
            interrupt.interrupt();
        }
    }

    let _ = work.await;
    Ok(())
}

/// Hands events to the connection; one that reads too slowly misses progress and nothing else.
struct Teller(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Observer for Teller {
    fn event(&mut self, event: &Event) {
        let line = json(&Told::Event(event.clone()));
        // A command that stopped reading must not hold up a commit: its events are lost, its outcome is not.
        let _ = self.0.try_send(line);
    }
}

/// What a daemon is asked from this process; `None` when none listens at `path`.
fn ask(
    path: &Path,
    request: &Request,
    patience: Option<Duration>,
) -> Option<BufReader<BlockingStream>> {
    let mut stream = BlockingStream::connect(path).ok()?;
    stream.set_read_timeout(patience).ok()?;
    stream.write_all(&json(request)).ok()?;
    Some(BufReader::new(stream))
}

fn ask_once<T: for<'de> Deserialize<'de>>(path: &Path, request: &Request) -> Option<T> {
    let mut line = String::new();
    ask(path, request, Some(PATIENCE))?
        .take(MAX_ANSWER)
        .read_line(&mut line)
        .ok()?;
    serde_json::from_str(&line).ok()
}

/// The members that the daemon behind the socket `path` knows; `None` when none listens there.
pub fn ask_members(path: &Path) -> Option<Vec<Member>> {
    ask_once(path, &Request::Members)
}

/// The trees that the daemon behind the socket `path` sends from; `None` when none listens there.
pub fn ask_trees(path: &Path) -> Option<Vec<TreeName>> {
    ask_once(path, &Request::Trees)
}

/// Has the daemon behind the socket `path` do what `wish` says, and tells `observer` as it goes.
pub fn ask_files(path: &Path, wish: &Wish, observer: &mut dyn Observer) -> Result<Outcome> {
    let lost = |e: std::io::Error| {
        Error::io(
            "the daemon ended in the middle: its control socket is",
            path,
            e,
        )
    };

    let unreachable = |e: std::io::Error| {
        let hint = match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "run it as root, or as a member of the daemon's socket_group"
            }
            _ => "is the daemon running on this host? --socket names its control socket",
        };
        Error::io("cannot reach the daemon at", path, e).hint(hint)
    };

    drop(BlockingStream::connect(path).map_err(unreachable)?);
    let request = Request::Files { wish: wish.clone() };
    let mut answer =
        ask(path, &request, None).ok_or_else(|| lost(std::io::ErrorKind::BrokenPipe.into()))?;

    loop {
        let mut line = String::new();
        if answer
            .by_ref()
            .take(MAX_ANSWER)
            .read_line(&mut line)
            .map_err(lost)?
            == 0
        {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let told = serde_json::from_str(&line).map_err(|e| {
            Error::new(Kind::Io, "the daemon's answer is not understood")
                .because(e)
                .hint("are command and daemon of the same version?")
        })?;
        match told {
            Told::Event(event) => observer.event(&event),
            Told::Outcome(outcome) => return Ok(*outcome),
            Told::Error {
                message,
                hint,
                kind,
            } => {
                let kind = [Kind::Usage, Kind::Refused, Kind::Mixed]
                    .into_iter()
                    .find(|k| k.exit_code() == kind);
                let error = Error::new(kind.unwrap_or(Kind::Refused), message);
                return Err(hint.into_iter().fold(error, Error::hint));
            }
        }
    }
}
