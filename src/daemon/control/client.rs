//! A command's side of the control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::message::{ControlReply, ControlRequest, HoldRequest, REQUEST_TIMEOUT, json};
use crate::drive::adhoc::AdhocRequest;
use crate::drive::survey::HostAnswer;
use crate::id::TreeName;
use crate::outcome::{MemberInfo, Observer, Outcome, Survey};
use crate::{Error, Kind, Result};

/// Longest line of an answer that a command reads, for lists of differences.
const MAX_ANSWER: u64 = 512 << 20;

/// Sends a request to the daemon at `path`; `None` if no daemon listens there.
fn send_request(
    path: &Path,
    request: &ControlRequest,
    timeout: Option<Duration>,
) -> Option<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(timeout).ok()?;
    stream.write_all(&json(request)).ok()?;
    Some(BufReader::new(stream))
}

fn query<T: for<'de> Deserialize<'de>>(path: &Path, request: &ControlRequest) -> Option<T> {
    let mut line = String::new();
    send_request(path, request, Some(REQUEST_TIMEOUT))?
        .take(MAX_ANSWER)
        .read_line(&mut line)
        .ok()?;
    serde_json::from_str(&line).ok()
}

/// Returns whether a daemon listens at `path` for this user.
pub fn is_reachable(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// The hosts that answer the daemon at `path` within `wait`.
pub fn query_roster(path: &Path, wait: Duration) -> Result<Survey<Vec<MemberInfo>>> {
    let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    answer(path, &ControlRequest::Roster { wait: milliseconds }, wait)
}

/// The answers of all hosts to the daemon at `path` within `wait`.
pub fn query_survey(
    path: &Path,
    tree: Option<&TreeName>,
    wait: Duration,
) -> Result<Survey<Vec<HostAnswer>>> {
    let request = ControlRequest::Survey {
        tree: tree.cloned(),
        wait: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
    };
    answer(path, &request, wait)
}

/// Holds `tree`, or all trees of the host, by the daemon at `path`; without terms a hold ends.
/// Returns the trees.
pub fn request_hold(
    path: &Path,
    tree: Option<&TreeName>,
    terms: Option<HoldRequest>,
) -> Result<Vec<TreeName>> {
    let request = ControlRequest::Hold {
        tree: tree.cloned(),
        terms,
    };
    answer(path, &request, Duration::ZERO)
}

fn answer<T: for<'de> Deserialize<'de>>(
    path: &Path,
    request: &ControlRequest,
    wait: Duration,
) -> Result<T> {
    let failed = |e: std::io::Error| Error::io("cannot ask the daemon at", path, e);
    let timeout = wait.saturating_add(REQUEST_TIMEOUT);
    let mut line = String::new();
    send_request(path, request, Some(timeout))
        .ok_or_else(|| failed(std::io::ErrorKind::NotConnected.into()))?
        .take(MAX_ANSWER)
        .read_line(&mut line)
        .map_err(failed)?;

    serde_json::from_str(&line).map_err(|e| {
        // An error has another form.
        let refused = serde_json::from_str::<ControlReply>(&line).ok();
        match refused {
            Some(ControlReply::Error { message, hint, .. }) => {
                let error = Error::refused(format!("the daemon of this host refused: {message}"));
                hint.into_iter().fold(error, Error::hint)
            }
            _ => Error::new(Kind::Io, "cannot parse the daemon's answer").because(e),
        }
    })
}

/// Members known to the daemon at `path`; `None` if no daemon listens there.
pub fn query_members(path: &Path) -> Option<Vec<MemberInfo>> {
    query(path, &ControlRequest::Members)
}

/// Trees that the daemon at `path` sends from; `None` if no daemon listens there.
pub fn query_trees(path: &Path) -> Option<Vec<TreeName>> {
    query(path, &ControlRequest::Trees)
}

/// Passes the request to the daemon at `path` and its events to `observer`.
pub fn request_files(
    path: &Path,
    wish: &AdhocRequest,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
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

    drop(UnixStream::connect(path).map_err(unreachable)?);
    let request = ControlRequest::Files { wish: wish.clone() };
    let mut answer = send_request(path, &request, None)
        .ok_or_else(|| lost(std::io::ErrorKind::BrokenPipe.into()))?;

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
        let reply = serde_json::from_str(&line).map_err(|e| {
            Error::new(Kind::Io, "cannot parse the daemon's answer")
                .because(e)
                .hint("are command and daemon of the same version?")
        })?;
        match reply {
            ControlReply::Event(event) => observer.event(&event),
            ControlReply::Outcome(outcome) => return Ok(*outcome),
            ControlReply::Error {
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
