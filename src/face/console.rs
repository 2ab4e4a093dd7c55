//! The console: serves the old line protocol on TCP and on a unix socket.
//!
//! Each connection has one command at a time; several connections run in parallel. A client that
//! hangs up during a command cancels the command as far as possible: nothing more is committed. A
//! line that is no command ends the connection, so that nothing in an HTTP request is ever run.
//! Every local user reaches a TCP port: without a password nothing is changed over TCP, except by
//! root and the daemon's user under the name makuosan. The lines are those of [`super::command`]
//! and [`super::response`].

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::command::{self, ConsoleCommand, Files, MAX_CONNECTION_EXCLUDES};
use super::password::{MAX_PASSWORD, Password};
use super::peer::Sockets;
use super::response::{self, ConsoleStatus};
use super::socket::{self, SocketFile};
use crate::Result;
use crate::config::{ConsoleConfig, ConsoleListen, DEFAULT_CONSOLE};
use crate::drive::adhoc::{self, AdhocAction, AdhocRequest, AdhocService};
use crate::drive::deploy::Interrupt;
use crate::error::IoResultExt;
use crate::id::TreeName;
use crate::outcome::{Event, Observer};

/// Longest line of a command, in bytes: a path, its quotes, and flags.
const MAX_COMMAND_LINE: usize = 16 << 10;
/// Largest number of simultaneous connections.
const MAX_CONNECTIONS: usize = 64;
/// Interval of heartbeats during a command.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Delay after a wrong password.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(2);
/// Largest number of passwords checked at a time, the delay after a wrong one included: more
/// connections guess no faster.
const MAX_PASSWORD_CHECKS: usize = 2;
/// Timeout for the password.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Response to a client that may not change other hosts.
const NO_PASSWORD: &str = "error: over TCP this needs a password: \
                           set one (console.password, -K FILE), or use a unix socket \
                           (console.socket, -U PATH)";
/// Delay without a password before the prompt is repeated in the form of older clients.
const OLD_PROMPT_DELAY: Duration = Duration::from_millis(1500);

/// Message when a bound socket cannot be used.
const CONSOLE_LISTEN_FAILED: &str = "the console cannot listen";

/// Listening sockets of a console.
#[derive(Debug)]
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, SocketFile)>,
    /// Socket tables that identify root and the daemon's user over TCP, if trusted.
    owners: Option<Arc<Sockets>>,
}

/// Origin of a client.
#[derive(Debug, Clone)]
enum ClientOrigin {
    /// The unix socket, which is for the daemon's user and group.
    Unix,
    /// The TCP port: local address, then the client's.
    Tcp(SocketAddr, SocketAddr, Option<Arc<Sockets>>),
}

impl ClientOrigin {
    /// Returns true if the client is root or the daemon's user, by the connection or by its socket.
    fn is_owner(&self) -> bool {
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
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
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
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn password(&self) -> Option<Password> {
        self.password
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn accept_tcp(
    listener: Option<&tokio::net::TcpListener>,
) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn accept_unix(
    listener: Option<&tokio::net::UnixListener>,
) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Connection of one client.
struct Connection<'a, S> {
    console: &'a Arc<Console>,
    number: usize,
    origin: ClientOrigin,
    /// True after the right password.
    is_authenticated: bool,
    input: Input<ReadHalf<S>>,
    output: WriteHalf<S>,
    excludes: Vec<String>,
    level: u8,
    alive: bool,
}

impl<'a, S: AsyncRead + AsyncWrite> Connection<'a, S> {
    fn new(console: &'a Arc<Console>, number: usize, stream: S, origin: ClientOrigin) -> Self {
        let (read, output) = tokio::io::split(stream);
        let input = Input {
            read,
            bytes: Vec::new(),
            over: false,
        };

        let is_authenticated = false;
        let excludes = Vec::new();
        let level = 0;
        let alive = false;
        Self {
            console,
            number,
            origin,
            is_authenticated,
            input,
            output,
            excludes,
            level,
            alive,
        }
    }

    async fn run(&mut self) -> io::Result<()> {
        if !self.login().await? {
            return Ok(());
        }

        loop {
            self.output.write_all(response::PROMPT).await?;
            self.output.flush().await?;
            let Some(line) = self.input.line(MAX_COMMAND_LINE).await? else {
                return Ok(());
            };
            let command = command::parse(&line);
            if command == ConsoleCommand::Quit {
                return Ok(());
            }
            if let ConsoleCommand::Foreign(why) = command {
                tracing::debug!(
                    "console {}: disconnected a client of another protocol",
                    self.number
                );
                return self.send(&[why]).await;
            }
            let shown = String::from_utf8_lossy(&line).trim().to_string();
            self.console.commands().insert(self.number, Some(shown));
            let done = self.respond(command).await;
            self.console.commands().insert(self.number, None);
            if !done? {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, lines: &[String]) -> io::Result<()> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| response::line(line)).collect();
        self.output.write_all(&bytes).await?;
        self.output.flush().await
    }

    /// Requests the password, if one is set. A wrong one ends the connection.
    async fn login(&mut self) -> io::Result<bool> {
        let Some(password) = self.console.password() else {
            return Ok(true);
        };

        self.output.write_all(response::PASSWORD).await?;
        self.output.flush().await?;
        let given = match tokio::time::timeout(OLD_PROMPT_DELAY, self.input.line(MAX_PASSWORD + 2))
            .await
        {
            Ok(given) => given?,
            Err(_) => {
                self.output.write_all(b"\r\n").await?;
                self.output.write_all(response::OLD_PASSWORD).await?;
                match tokio::time::timeout(LOGIN_TIMEOUT, self.input.line(MAX_PASSWORD + 2)).await {
                    Ok(given) => given?,
                    Err(_) => None,
                }
            }
        };

        let Some(given) = given else { return Ok(false) };
        let permit = self.console.password_checks.acquire().await;
        if password.is(&given) {
            self.is_authenticated = true;
            return Ok(true);
        }

        tracing::warn!("console {}: a wrong password", self.number);
        tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
        drop(permit);
        self.output.write_all(b"\r\n").await?;
        self.send(&["error: wrong password".into()]).await?;

        Ok(false)
    }

    /// Runs one command; returns false after the client has gone.
    async fn respond(&mut self, command: ConsoleCommand) -> io::Result<bool> {
        let lines = match command {
            ConsoleCommand::Nothing | ConsoleCommand::Quit | ConsoleCommand::Foreign(_) => {
                Vec::new()
            }
            ConsoleCommand::Files(files) if files.changes() && !self.may_change().await => {
                vec![NO_PASSWORD.to_string()]
            }
            ConsoleCommand::Files(files) => match self.request(&files).await {
                Ok(request) => return self.run_request(files, request).await,
                Err(lines) => lines,
            },
            ConsoleCommand::ExcludeAdd(pattern) => self.exclude(pattern),
            ConsoleCommand::ExcludeDel(pattern) => {
                match self.excludes.iter().position(|e| *e == pattern) {
                    Some(at) => {
                        self.excludes.remove(at);
                        Vec::new()
                    }
                    None => vec![format!("error: pattern not found {pattern}")],
                }
            }
            ConsoleCommand::ExcludeList => self.excludes.clone(),
            ConsoleCommand::ExcludeClear => {
                self.excludes.clear();
                Vec::new()
            }
            ConsoleCommand::Members => response::members(&self.members().await),
            ConsoleCommand::Status => self.status().await,
            ConsoleCommand::LogLevel(level) => {
                self.level = level;
                Vec::new()
            }
            ConsoleCommand::Alive(alive) => {
                self.alive = alive;
                Vec::new()
            }
            ConsoleCommand::Echo(text) => vec![text],
            ConsoleCommand::Help => command::HELP.iter().map(ToString::to_string).collect(),
            ConsoleCommand::Wrong(lines) => lines,
        };

        self.send(&lines).await.map(|()| true)
    }

    /// Returns true if the client may change other hosts.
    async fn may_change(&self) -> bool {
        let origin = self.origin.clone();
        self.is_authenticated
            || tokio::task::spawn_blocking(move || origin.is_owner())
                .await
                .unwrap_or(false)
    }

    fn exclude(&mut self, pattern: String) -> Vec<String> {
        if self.excludes.len() >= MAX_CONNECTION_EXCLUDES {
            return vec![format!(
                "error: more than {MAX_CONNECTION_EXCLUDES} patterns"
            )];
        }
        if !self.excludes.contains(&pattern) {
            self.excludes.push(pattern);
        }
        Vec::new()
    }

    async fn members(&self) -> Vec<crate::outcome::MemberInfo> {
        let desk = Arc::clone(&self.console.desk);
        tokio::task::spawn_blocking(move || desk.members())
            .await
            .unwrap_or_default()
    }

    async fn status(&self) -> Vec<String> {
        let desk = Arc::clone(&self.console.desk);
        let (sending, receiving) = tokio::task::spawn_blocking(move || desk.sessions())
            .await
            .unwrap_or_default();
        let others = |(n, c): (&usize, &Option<String>)| {
            c.clone().filter(|_| *n != self.number).map(|c| (*n, c))
        };

        let commands = self.console.commands().iter().filter_map(others).collect();
        match self.console.desk.tree(self.console.tree.as_ref(), &[]) {
            Ok(base) => response::status(&ConsoleStatus {
                process: std::process::id(),
                base: &base.path,
                commands,
                sending,
                receiving,
            }),
            Err(e) => vec![response::failure(&e)],
        }
    }

    /// Builds the desk's request, or an immediate response.
    async fn request(&self, files: &Files) -> std::result::Result<AdhocRequest, Vec<String>> {
        if let Some(target) = &files.target
            && !self
                .members()
                .await
                .iter()
                .any(|m| m.host.as_str() == target)
        {
            return Err(vec![format!("{target} is not contained in members")]);
        }

        Ok(AdhocRequest {
            tree: self.console.tree.clone(),
            paths: files.paths.clone(),
            recurse: files.recurse,
            dry_run: files.dry_run,
            targets: files.target.iter().cloned().collect(),
            excludes: self.excludes.clone(),
            group: files.group.clone(),
            lists: self.level >= response::UPDATES,
            files: match files.deed {
                AdhocAction::Check => self.level >= response::UPDATES,
                _ => self.level >= response::SKIPS,
            },
            ..AdhocRequest::new(files.deed)
        })
    }

    /// Runs a request at the desk. A client that hangs up cancels the command.
    async fn run_request(&mut self, files: Files, request: AdhocRequest) -> io::Result<bool> {
        let desk = Arc::clone(&self.console.desk);
        let interrupt = Interrupt::default();
        let mut work = tokio::task::spawn_blocking({
            let interrupt = interrupt.clone();
            move || {
                let mut events = SessionEvents::default();
                (
                    adhoc::run(&desk, &request, &interrupt, &mut events),
                    events.files,
                )
            }
        });

        let mut beat = tokio::time::interval_at(
            tokio::time::Instant::now() + HEARTBEAT_INTERVAL,
            HEARTBEAT_INTERVAL,
        );
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = self.input.end() => {
                    interrupt.interrupt();
                    let _ = (&mut work).await;
                    return Ok(false);
                }
                _ = beat.tick(), if self.alive => {
                    let line = format!("{}\n", response::HEARTBEAT);
                    let sent = self.output.write_all(line.as_bytes()).await;
                    if let Err(e) = sent {
                        interrupt.interrupt();
                        let _ = (&mut work).await;
                        return Err(e);
                    }
                }
            }
        };

        let lines = match done {
            Ok((Ok(outcome), all)) => response::outcome(&files, &outcome, &all, self.level),
            Ok((Err(e), _)) => vec![response::failure(&e)],
            Err(e) => vec![format!("error: a defect in makuo: {e}")],
        };

        self.send(&lines).await.map(|()| true)
    }
}

/// Events of a session that the response needs.
#[derive(Default)]
struct SessionEvents {
    files: Vec<Vec<u8>>,
}

impl Observer for SessionEvents {
    fn event(&mut self, event: &Event) {
        if let Event::Files(files) = event {
            self.files.clone_from(files);
        }
    }
}

/// Lines from a client.
struct Input<R> {
    read: R,
    bytes: Vec<u8>,
    over: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Reads the next line without its ending; `None` at the end of input. A last line without an
    /// ending counts.
    async fn line(&mut self, most: usize) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&b| b == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
                line.pop();
                line.pop_if(|b| *b == b'\r');
                return Ok(Some(line));
            }

            if self.bytes.len() > most {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line that is too long",
                ));
            }

            if self.over {
                let last = std::mem::take(&mut self.bytes);
                return Ok(Some(last).filter(|l| !l.is_empty()));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        let read = self.read.read_buf(&mut self.bytes).await?;
        self.over = read == 0;
        Ok(())
    }

    /// Returns when the client has hung up without further input. Lines received earlier are kept.
    async fn end(&mut self) {
        loop {
            if self.bytes.len() > MAX_COMMAND_LINE || (self.over && !self.bytes.is_empty()) {
                // The client has sent more; a hang-up shows later.
                return std::future::pending().await;
            }
            if self.over || self.more().await.is_err() {
                return;
            }
        }
    }
}
