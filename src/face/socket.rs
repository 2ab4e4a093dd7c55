//! Listening unix sockets: created with their mode, in place of a stale one, and removed at the
//! end.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::IoResultExt;
use crate::{Error, Result};

/// Failed action when a socket cannot be opened.
const SOCKET_LISTEN_FAILED: &str = "cannot listen on the socket";
/// Failed action when a stale socket cannot be removed.
const SOCKET_REPLACE_FAILED: &str = "cannot replace the old socket";

/// File of a bound socket, removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A leftover file is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds `path` with the permission bits `mode`, in place of a stale socket. Must run before the
/// process has threads: the umask is global to the process.
pub fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile)> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).context(SOCKET_LISTEN_FAILED, path)?;
    }

    if UnixStream::connect(path).is_ok() {
        return Err(Error::usage(format!(
            "a daemon is running already: it listens on {}",
            path.display()
        ))
        .hint("give another --socket to run a second one"));
    }

    remove_old(path)?;
    // Created with its mode, so that no moment is unprotected.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(!mode & 0o777));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = listener.context(SOCKET_LISTEN_FAILED, path)?;
    listener
        .set_nonblocking(true)
        .context(SOCKET_LISTEN_FAILED, path)?;

    Ok((listener, SocketFile(path.to_path_buf())))
}

/// Removes the socket of an earlier daemon, and nothing else.
fn remove_old(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).context(SOCKET_REPLACE_FAILED, path)
        }
        Ok(_) => Err(Error::usage(format!(
            "{} is there and is no socket: it stays",
            path.display()
        ))
        .hint("give a path that is free")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).context(SOCKET_REPLACE_FAILED, path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(
            bind(&path, 0o600)
                .unwrap_err()
                .to_string()
                .contains("no socket")
        );

        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let bound = bind(&path, 0o660).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );

        assert!(
            bind(&path, 0o600)
                .unwrap_err()
                .to_string()
                .contains("running already")
        );

        drop(bound);
        assert!(!path.exists());
    }
}
