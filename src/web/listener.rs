//! The listening socket, bound while the daemon has all of its rights.

use std::net::{SocketAddr, TcpListener};

use crate::config::MetricsConfig;
use crate::error::IoResultExt;
use crate::{Error, Result};

/// Bound socket.
#[derive(Debug)]
pub struct WebListener {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
}

impl WebListener {
    /// Binds the configured address; `None` without one.
    pub fn bind(config: &MetricsConfig) -> Result<Option<Self>> {
        let Some(address) = config.listen else {
            return Ok(None);
        };

        let socket = TcpListener::bind(address).map_err(|e| {
            let taken = e.kind() == std::io::ErrorKind::AddrInUse;
            let failed = Error::new(
                crate::Kind::Io,
                format!("cannot listen on {address} for metrics"),
            );
            let hint = match taken {
                true => "another process listens there: set another address as [metrics] listen",
                false => "set an address of this host as [metrics] listen",
            };
            failed.because(e).hint(hint)
        })?;
        let failed = "cannot use the socket for metrics";
        socket.set_nonblocking(true).io_context(failed)?;
        let address = socket.local_addr().io_context(failed)?;

        Ok(Some(Self { socket, address }))
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
