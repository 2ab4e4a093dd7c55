//! The control socket: one JSON request a line, answered by lines; for this host's own commands.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::drive::host::Handle;
use crate::drive::outcome::{Member, MemberTree};
use crate::id::{HostName, Serial, TreeName};
use crate::{Error, Result};

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 4096;
/// How long a command waits for its daemon.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Members,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireMember {
    host: HostName,
    address: std::net::SocketAddr,
    version: String,
    trees: Vec<(TreeName, Option<Serial>)>,
}

/// A bound control socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`, in place of a socket that nobody listens to any more. Only root and the daemon's own user may
    /// connect.
    pub fn bind(path: &Path) -> Result<Self> {
        let failed = |e| Error::io("cannot listen on the control socket", path, e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        if BlockingStream::connect(path).is_ok() {
            return Err(Error::usage(format!("a daemon is running already: it listens on {}", path.display()))
                .hint("give another --socket to run a second one"));
        }
        remove_old(path)?;
        // Made with its mode, not given it afterwards. The mask is the whole process's: this is before its threads.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = listener.map_err(failed)?;
        Ok(Self { listener, path: path.to_path_buf() })
    }

    /// Answers until the process ends.
    pub async fn serve(self, handle: Handle) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(e) = tokio::time::timeout(PATIENCE, answer(stream, &handle)).await {
                        tracing::debug!("control socket: {e}");
                    }
                }
                Err(e) => {
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Removes the socket that a daemon left, and nothing else.
fn remove_old(path: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot replace the old control socket", path, e);
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed),
        Ok(_) => Err(Error::usage(format!("{} is there and is no socket: it stays", path.display()))
            .hint("give a --socket path that is free")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A file that is left is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, handle: &Handle) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(Request::Members) => {
            let handle = handle.clone();
            let members = tokio::task::spawn_blocking(move || handle.members()).await.unwrap_or_default();
            serde_json::to_string(&members.into_iter().map(to_wire).collect::<Vec<_>>())
        }
        Err(e) => serde_json::to_string(&serde_json::json!({ "error": e.to_string() })),
    };
    write.write_all(reply.unwrap_or_default().as_bytes()).await?;
    write.write_all(b"\n").await
}

/// The members that the daemon behind the socket `path` knows; `None` when none listens there.
pub fn ask_members(path: &Path) -> Option<Vec<Member>> {
    let mut stream = BlockingStream::connect(path).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = serde_json::to_string(&Request::Members).ok()?;
    stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(b"\n")).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let members: Vec<WireMember> = serde_json::from_str(&line).ok()?;
    Some(members.into_iter().map(from_wire).collect())
}

fn to_wire(member: Member) -> WireMember {
    let trees = member.trees.into_iter().map(|t| (t.tree, t.serial)).collect();
    WireMember { host: member.host, address: member.address, version: member.version, trees }
}

fn from_wire(member: WireMember) -> Member {
    let trees = member.trees.into_iter().map(|(tree, serial)| MemberTree { tree, serial }).collect();
    Member { host: member.host, address: member.address, version: member.version, trees }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn only_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }
}
