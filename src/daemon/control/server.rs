//! The daemon's side of the control socket: access, requests, and answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::message::{ControlReply, ControlRequest, HoldRequest, REQUEST_TIMEOUT, json};
use crate::drive::adhoc::{self, AdhocRequest, AdhocService};
use crate::drive::deploy::Interrupt;
use crate::drive::endpoint::GroupLinks;
use crate::drive::survey;
use crate::error::IoResultExt;
use crate::face::socket::{self, SocketFile};
use crate::id::TreeName;
use crate::outcome::{Event, MemberInfo, Observer};
use crate::tree::user_lookup;
use crate::wire::hold::HoldTerms;
use crate::{Error, Kind, Result};

/// Largest request in bytes: some thousand paths.
const MAX_REQUEST: u64 = 4 << 20;
/// Largest number of concurrent connections.
const MAX_CONTROL_CONNECTIONS: usize = 64;
/// Longest time of a survey for a command.
const MAX_SURVEY_TIME: Duration = Duration::from_secs(60);
/// Capacity of the event queue for a command that reads slowly.
const EVENT_QUEUE: usize = 1024;
/// Failed action when the socket cannot be opened.
const CONTROL_LISTEN_FAILED: &str = "cannot listen on the control socket";

/// Bound control socket; its file is removed on drop.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    gate: Gate,
    _file: SocketFile,
}

/// Access rule of the socket.
#[derive(Debug, Clone, Copy)]
struct Gate {
    group: Option<Gid>,
}

impl ControlSocket {
    /// Binds `path`, in place of a stale socket, for root, the daemon's user and the members of
    /// `group`. Must be called inside a runtime, before it has threads.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self> {
        let group = group.map(socket_group).transpose()?;
        let (listener, file) = socket::bind(path, if group.is_some() { 0o660 } else { 0o600 })?;
        if let Some(group) = group {
            nix::unistd::chown(path, None, Some(group)).context(CONTROL_LISTEN_FAILED, path)?;
        }

        let listener = UnixListener::from_std(listener).context(CONTROL_LISTEN_FAILED, path)?;
        Ok(Self {
            listener,
            gate: Gate { group },
            _file: file,
        })
    }

    /// Serves requests until dropped.
    pub async fn serve(self, desk: Arc<AdhocService>) {
        let slots = Arc::new(tokio::sync::Semaphore::new(MAX_CONTROL_CONNECTIONS));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(permit) = Arc::clone(&slots).try_acquire_owned() else {
                        continue;
                    };

                    let desk = Arc::clone(&desk);
                    let gate = self.gate;
                    tokio::spawn(async move {
                        if let Err(e) = serve_request(stream, gate, &desk).await {
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

/// Looks up the group with access to the socket.
pub(in crate::daemon) fn socket_group(name: &str) -> Result<Gid> {
    let shown = crate::units::printable(name.as_bytes());
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(Error::usage(format!(
            "socket_group: this host has no group {shown}"
        ))),
        Err(e) => Err(e).io_context(format!("the group {shown} cannot be looked up")),
    }
}

impl Gate {
    /// Returns whether the peer process has access. The mode of the socket file enforces the same
    /// rule; this check holds even if the mode was changed.
    fn allows(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else {
            return false;
        };

        let uid = Uid::from_raw(peer.uid());
        if is_owner(uid) {
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

/// Returns whether the user may also hold this host's trees.
fn is_owner(uid: Uid) -> bool {
    uid.is_root() || uid == Uid::effective()
}

async fn serve_request(
    stream: UnixStream,
    gate: Gate,
    desk: &Arc<AdhocService>,
) -> std::io::Result<()> {
    let allowed = gate.allows(&stream);
    let owns = stream
        .peer_cred()
        .is_ok_and(|peer| is_owner(Uid::from_raw(peer.uid())));
    let (read, mut write) = stream.into_split();
    let mut input = tokio::io::BufReader::new(read.take(MAX_REQUEST));
    let mut line = String::new();
    tokio::time::timeout(REQUEST_TIMEOUT, input.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        _ if !allowed => json(&refusal(
            "you may not use this daemon's control socket",
            "see socket_group",
        )),
        Ok(ControlRequest::Members) => json(&members(Arc::clone(desk)).await),
        Ok(ControlRequest::Trees) => json(
            &desk
                .trees()
                .iter()
                .map(|tree| tree.name.clone())
                .collect::<Vec<TreeName>>(),
        ),
        Ok(ControlRequest::Roster { wait }) => {
            let ask = move |links| survey::members(links, survey_time(wait));
            asked(Arc::clone(desk), ask).await
        }
        Ok(ControlRequest::Survey { tree, wait }) => {
            let ask = move |links| survey::ask(links, tree.as_ref(), None, survey_time(wait));
            asked(Arc::clone(desk), ask).await
        }
        Ok(ControlRequest::Hold { .. }) if !owns => json(&refusal(
            "only root and the daemon's user may hold this host by its control socket",
            "name the host: `makuo hold HOST` signs the order with a deploy key",
        )),
        Ok(ControlRequest::Hold { tree, terms }) => hold(Arc::clone(desk), tree, terms).await,
        Ok(ControlRequest::Files { wish }) => return stream_files(desk, wish, input, write).await,
        Err(e) => json(&refusal(
            &format!("not understood: {e}"),
            "are command and daemon of the same version?",
        )),
    };

    write.write_all(&reply).await
}

async fn members(desk: Arc<AdhocService>) -> Vec<MemberInfo> {
    tokio::task::spawn_blocking(move || desk.members())
        .await
        .unwrap_or_default()
}

/// Holds trees of this host, or ends a hold; encodes their names or the error.
async fn hold(
    desk: Arc<AdhocService>,
    tree: Option<TreeName>,
    terms: Option<HoldRequest>,
) -> Vec<u8> {
    let terms = terms.map(|terms| HoldTerms {
        seconds: terms.seconds,
        by: terms.by,
        why: terms.why,
    });
    let work = move || match desk.hold(tree.as_ref(), terms) {
        Ok(trees) => json(&trees),
        Err(e) => json(&refusal(&e.to_string(), e.hint_text().unwrap_or_default())),
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// Time of a survey, which a command cannot make endless.
fn survey_time(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).min(MAX_SURVEY_TIME)
}

/// Asks all hosts as this host, and encodes the answers or the error.
async fn asked<T: serde::Serialize + Send + 'static>(
    desk: Arc<AdhocService>,
    ask: impl FnOnce(GroupLinks) -> Result<T> + Send + 'static,
) -> Vec<u8> {
    let work = move || match desk.join().and_then(ask) {
        Ok(answers) => json(&answers),
        Err(e) => json(&refusal(&e.to_string(), e.hint_text().unwrap_or_default())),
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn refusal(message: &str, hint: &str) -> ControlReply {
    ControlReply::Error {
        message: message.into(),
        hint: Some(hint.into()),
        kind: Kind::Usage.exit_code(),
    }
}

/// Sends events while the service works. A disconnect cancels the request.
async fn stream_files(
    desk: &Arc<AdhocService>,
    wish: AdhocRequest,
    mut input: impl AsyncRead + Unpin,
    mut write: tokio::net::unix::OwnedWriteHalf,
) -> std::io::Result<()> {
    let (events, mut lines) = tokio::sync::mpsc::channel::<Vec<u8>>(EVENT_QUEUE);
    let interrupt = Interrupt::default();
    let work = tokio::task::spawn_blocking({
        let desk = Arc::clone(desk);
        let interrupt = interrupt.clone();
        move || {
            let last = match adhoc::run(&desk, &wish, &interrupt, &mut EventWriter(events.clone()))
            {
                Ok(outcome) => ControlReply::Outcome(Box::new(outcome)),
                Err(e) => {
                    let hint = e.hint_text().map(ToString::to_string);
                    ControlReply::Error {
                        message: e.to_string(),
                        hint,
                        kind: e.kind().exit_code(),
                    }
                }
            };
            // The command may have disconnected.
            let _ = events.blocking_send(json(&last));
        }
    });

    let mut byte = [0];
    let mut disconnected = false;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) if !disconnected => {
                    disconnected = write.write_all(&line).await.is_err();
                }
                Some(_) => {}
                None => break,
            },
            end = input.read(&mut byte), if !disconnected => disconnected = !matches!(end, Ok(1..)),
        }
        if disconnected {
            interrupt.interrupt();
        }
    }

    let _ = work.await;
    Ok(())
}

/// Queues events for the connection; a slow reader misses progress events only.
struct EventWriter(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Observer for EventWriter {
    fn event(&mut self, event: &Event) {
        let line = json(&ControlReply::Event(event.clone()));
        // A command that stopped reading must not hold up a commit: its events are dropped, its
        // outcome is not.
        let _ = self.0.try_send(line);
    }
}
