//! The origin of a client, which decides about trust without a password.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::face::peer::Sockets;

/// Origin of a client.
#[derive(Debug, Clone)]
pub(super) enum ClientOrigin {
    /// The unix socket, which is for the daemon's user and group.
    Unix,
    /// The TCP port: local address, then the client's.
    Tcp(SocketAddr, SocketAddr, Option<Arc<Sockets>>),
}

impl ClientOrigin {
    /// Returns true if the client is root or the daemon's user, by the connection or by its socket.
    pub(super) fn is_owner(&self) -> bool {
        match self {
            Self::Unix => true,
            Self::Tcp(local, remote, owners) => {
                let user = owners
                    .as_ref()
                    .and_then(|sockets| sockets.user_of_client(*local, *remote));
                user.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
            }
        }
    }
}
