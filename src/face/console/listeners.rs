//! The listening sockets of a console.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::Result;
use crate::config::{ConsoleConfig, ConsoleListen, DEFAULT_CONSOLE};
use crate::error::IoResultExt;
use crate::face::peer::Sockets;
use crate::face::socket::{self, SocketFile};

/// Message when a bound socket cannot be used.
pub(super) const CONSOLE_LISTEN_FAILED: &str = "the console cannot listen";

/// Listening sockets of a console.
#[derive(Debug)]
pub struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    pub(super) unix: Option<(UnixListener, SocketFile)>,
    /// Socket tables that identify root and the daemon's user over TCP, if trusted.
    pub(super) owners: Option<Arc<Sockets>>,
}

impl Listeners {
    /// Binds the configured address. The default address may be taken by another process; an
    /// explicit one must be free.
    pub fn bind(config: &ConsoleConfig) -> Result<Self> {
        let tcp = match config.listen {
            ConsoleListen::Off => None,
            ConsoleListen::At(at) => {
                let bound = TcpListener::bind(at);
                Some(bound.io_context(format!("the console cannot listen on {at}"))?)
            }
            ConsoleListen::Default => {
                let bound = TcpListener::bind(DEFAULT_CONSOLE);
                bound
                    .inspect_err(|e| tracing::warn!("no console on {DEFAULT_CONSOLE}: {e}"))
                    .ok()
            }
        };

        if let Some(tcp) = &tcp {
            tcp.set_nonblocking(true)
                .io_context(CONSOLE_LISTEN_FAILED)?;
        }

        let owners = config.trusts_owner.then(|| Arc::new(Sockets::open()));
        Ok(Self {
            tcp,
            unix: None,
            owners,
        })
    }

    /// Binds the configured socket, for the present user and group of the process.
    pub fn bind_socket(&mut self, config: &ConsoleConfig) -> Result<()> {
        self.unix = config
            .socket
            .as_deref()
            .map(|path| socket::bind(path, 0o660))
            .transpose()?;
        Ok(())
    }

    /// Returns true without listeners.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.unix.is_none()
    }
}

/// Waits for a client; forever without a listener.
pub(super) async fn accept_tcp(
    listener: Option<&tokio::net::TcpListener>,
) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Waits for a client; forever without a listener.
pub(super) async fn accept_unix(
    listener: Option<&tokio::net::UnixListener>,
) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}
