//! The console: serves the old line protocol on TCP and on a unix socket.
//!
//! Each connection has one command at a time; several connections run in parallel. A client that
//! hangs up during a command cancels the command as far as possible: nothing more is committed. A
//! line that is no command ends the connection, so that nothing in an HTTP request is ever run.
//! Every local user reaches a TCP port: without a password nothing is changed over TCP, except by
//! root and the daemon's user under the name makuosan. The lines are those of [`super::command`]
//! and [`super::response`].

mod connection;
mod input;
mod listeners;
mod origin;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use self::connection::Connection;
pub use self::listeners::Listeners;
use self::listeners::{CONSOLE_LISTEN_FAILED, accept_tcp, accept_unix};
use self::origin::ClientOrigin;
use super::password::Password;
use crate::Result;
use crate::drive::adhoc::AdhocService;
use crate::error::IoResultExt;
use crate::id::TreeName;
use crate::sync::locked;

/// Largest number of simultaneous connections.
const MAX_CONNECTIONS: usize = 64;
/// Largest number of passwords checked at a time, the delay after a wrong one included: more
/// connections guess no faster.
const MAX_PASSWORD_CHECKS: usize = 2;
/// Console of a running host.
#[derive(Debug)]
pub struct Console {
    desk: Arc<AdhocService>,
    tree: Option<TreeName>,
    password: Mutex<Option<Password>>,
    password_checks: tokio::sync::Semaphore,
    /// Connections by number, with the running command of each.
    commands: Mutex<BTreeMap<usize, Option<String>>>,
}

impl Console {
    /// Creates the console of `desk` for `tree`.
    pub fn new(
        desk: Arc<AdhocService>,
        tree: Option<TreeName>,
        password: Option<Password>,
    ) -> Arc<Self> {
        let password = Mutex::new(password);
        let password_checks = tokio::sync::Semaphore::new(MAX_PASSWORD_CHECKS);
        Arc::new(Self {
            desk,
            tree,
            password,
            password_checks,
            commands: Mutex::default(),
        })
    }

    /// Sets another password for new logins.
    pub fn set_password(&self, password: Option<Password>) {
        *locked(&self.password) = password;
    }

    /// Serves until dropped.
    pub async fn serve(self: Arc<Self>, listeners: Listeners) -> Result<()> {
        let tcp = listeners
            .tcp
            .map(tokio::net::TcpListener::from_std)
            .transpose()
            .io_context(CONSOLE_LISTEN_FAILED)?;

        let (unix, _file) = match listeners.unix {
            Some((unix, file)) => (
                Some(tokio::net::UnixListener::from_std(unix).io_context(CONSOLE_LISTEN_FAILED)?),
                Some(file),
            ),
            None => (None, None),
        };

        loop {
            let accepted = tokio::select! {
                stream = accept_tcp(tcp.as_ref()) => stream.and_then(|(stream, remote)| {
                    let owners = listeners.owners.clone();
                    let origin = ClientOrigin::Tcp(stream.local_addr()?, remote, owners);
                    self.begin(stream, origin);
                    Ok(())
                }),
                stream = accept_unix(unix.as_ref()) => {
                    stream.map(|stream| self.begin(stream, ClientOrigin::Unix))
                }
            };
            if let Err(e) = accepted {
                tracing::warn!("console: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    fn begin<S: AsyncRead + AsyncWrite + Send + Sync + 'static>(
        self: &Arc<Self>,
        stream: S,
        origin: ClientOrigin,
    ) {
        let Some(number) = self.number() else {
            tracing::warn!("console: more than {MAX_CONNECTIONS} connections");
            return;
        };

        let console = Arc::clone(self);
        tokio::spawn(async move {
            let mut connection = Connection::new(&console, number, stream, origin);
            if let Err(e) = connection.run().await {
                tracing::debug!("console {number}: {e}");
            }
            console.commands().remove(&number);
        });
    }

    fn number(&self) -> Option<usize> {
        let mut commands = self.commands();
        let number = (0..MAX_CONNECTIONS).find(|n| !commands.contains_key(n))?;
        commands.insert(number, None);
        Some(number)
    }

    fn commands(&self) -> MutexGuard<'_, BTreeMap<usize, Option<String>>> {
        locked(&self.commands)
    }

    fn password(&self) -> Option<Password> {
        locked(&self.password).clone()
    }
}
