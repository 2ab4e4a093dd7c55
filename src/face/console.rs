//! The console: serves the old line protocol on TCP and on a unix socket.
//!
//! Each connection has one command at a time; several connections run beside each other. A client that hangs up in the
//! middle of a command takes it back as far as it can be: nothing is committed any more. A line that is no command ends
//! the connection, so that nothing in an HTTP request is ever run. Every local user reaches a TCP port: without a password
//! nothing is changed over TCP, except by root and the daemon's user under the name makuosan. The lines are those of
//! [`super::command`] and [`super::answer`].

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::answer::{self, Status};
use super::command::{self, Command, Files, MAX_EXCLUDES};
use super::password::{MAX_PASSWORD, Password};
use super::peer::Sockets;
use super::socket::{self, SocketFile};
use crate::config::{ConsoleConfig, ConsoleListen, DEFAULT_CONSOLE};
use crate::drive::adhoc::{self, AdhocAction, AdhocRequest, AdhocService};
use crate::drive::deploy::Interrupt;
use crate::id::TreeName;
use crate::outcome::{Event, Observer};
use crate::{Error, Result};

/// The longest line of a command, in bytes: a path, its quotes, and flags.
const MAX_LINE: usize = 16 << 10;
/// The most connections at one time.
const MAX_CONNECTIONS: usize = 64;
/// How often a command that is under way gives a sign of life.
const ALIVE: Duration = Duration::from_secs(5);
/// How long a wrong password is answered by nothing.
const WRONG: Duration = Duration::from_secs(2);
/// So many passwords are looked at at a time, the wait after a wrong one included: more connections try no faster.
const TRIES: usize = 2;
/// How long a client has to give the password.
const LOGIN: Duration = Duration::from_secs(60);
/// The answer to a client that may not change other hosts.
const NO_PASSWORD: &str = "error: over TCP this needs a password: set one (console.password, -K FILE), or use a unix \
                           socket (console.socket, -U PATH)";
/// After this long without a password the prompt is said as clients of another age know it.
const OTHER_PROMPT: Duration = Duration::from_millis(1500);

/// Sockets that a console listens at.
#[derive(Debug)]
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, SocketFile)>,
    /// By which root and the daemon's user are known over TCP, where they are trusted.
    owners: Option<Arc<Sockets>>,
}

/// Where a client comes from.
#[derive(Debug, Clone)]
enum Origin {
    /// The unix socket, which is for the daemon's user and group.
    Unix,
    /// The TCP port, from the second address to the first.
    Tcp(SocketAddr, SocketAddr, Option<Arc<Sockets>>),
}

impl Origin {
    /// Whether the client is root or the daemon's user, by what it connected to or by its socket.
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
    /// Binds the address that `config` says. The default one is left alone when somebody else has it; one that was named
    /// must be free.
    pub fn bind(config: &ConsoleConfig) -> Result<Self> {
        let tcp = match config.listen {
            ConsoleListen::Off => None,
            ConsoleListen::At(at) => {
                let failed = |e| {
                    Error::new(
                        crate::Kind::Io,
                        format!("the console cannot listen on {at}"),
                    )
                    .because(e)
                };
                Some(TcpListener::bind(at).map_err(failed)?)
            }
            ConsoleListen::Default => {
                let bound = TcpListener::bind(DEFAULT_CONSOLE);
                bound
                    .inspect_err(|e| tracing::warn!("no console on {DEFAULT_CONSOLE}: {e}"))
                    .ok()
            }
        };

        if let Some(tcp) = &tcp {
            let failed = |e| Error::new(crate::Kind::Io, "the console cannot listen").because(e);
            tcp.set_nonblocking(true).map_err(failed)?;
        }

        let owners = config.trusts_owner.then(|| Arc::new(Sockets::open()));
        Ok(Self {
            tcp,
            unix: None,
            owners,
        })
    }

    /// Binds the socket that `config` says, which is for the user and the group that the process has now.
    pub fn bind_socket(&mut self, config: &ConsoleConfig) -> Result<()> {
        self.unix = config
            .socket
            .as_deref()
            .map(|path| socket::bind(path, 0o660))
            .transpose()?;
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.unix.is_none()
    }
}

/// The console of a running host.
#[derive(Debug)]
pub struct Console {
    desk: Arc<AdhocService>,
    tree: Option<TreeName>,
    password: Mutex<Option<Password>>,
    tries: tokio::sync::Semaphore,
    /// The connections by number, with the command that each has under way.
    commands: Mutex<BTreeMap<usize, Option<String>>>,
}

impl Console {
    /// The console of `desk`, about `tree`.
    pub fn new(
        desk: Arc<AdhocService>,
        tree: Option<TreeName>,
        password: Option<Password>,
    ) -> Arc<Self> {
        let (password, tries) = (Mutex::new(password), tokio::sync::Semaphore::new(TRIES));
        Arc::new(Self {
            desk,
            tree,
            password,
            tries,
            commands: Mutex::default(),
        })
    }

    /// Asks for another password from now on.
    pub fn guard(&self, password: Option<Password>) {
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
    }

    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listeners: Listeners) -> Result<()> {
        let failed = |e| Error::new(crate::Kind::Io, "the console cannot listen").because(e);
        let tcp = listeners
            .tcp
            .map(tokio::net::TcpListener::from_std)
            .transpose()
            .map_err(failed)?;

        let (unix, _file) = match listeners.unix {
            Some((unix, file)) => (
                Some(tokio::net::UnixListener::from_std(unix).map_err(failed)?),
                Some(file),
            ),
            None => (None, None),
        };

        loop {
            let accepted = tokio::select! {
                stream = accept_tcp(tcp.as_ref()) => stream.and_then(|(stream, remote)| {
                    let origin = Origin::Tcp(stream.local_addr()?, remote, listeners.owners.clone());
                    self.begin(stream, origin);
                    Ok(())
                }),
                stream = accept_unix(unix.as_ref()) => stream.map(|stream| self.begin(stream, Origin::Unix)),
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
        origin: Origin,
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

/// One client.
struct Connection<'a, S> {
    console: &'a Arc<Console>,
    number: usize,
    origin: Origin,
    /// Whether it gave the password.
    is_known: bool,
    input: Input<ReadHalf<S>>,
    output: WriteHalf<S>,
    excludes: Vec<String>,
    level: u8,
    alive: bool,
}

impl<'a, S: AsyncRead + AsyncWrite> Connection<'a, S> {
    fn new(console: &'a Arc<Console>, number: usize, stream: S, origin: Origin) -> Self {
        let (read, output) = tokio::io::split(stream);
        let input = Input {
            read,
            bytes: Vec::new(),
            over: false,
        };

        let (is_known, excludes, level, alive) = (false, Vec::new(), 0, false);
        Self {
            console,
            number,
            origin,
            is_known,
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
            self.output.write_all(answer::PROMPT).await?;
            self.output.flush().await?;
            let Some(line) = self.input.line(MAX_LINE).await? else {
                return Ok(());
            };
            let command = command::parse(&line);
            if command == Command::Quit {
                return Ok(());
            }
            if let Command::Foreign(why) = command {
                tracing::debug!(
                    "console {}: a client that speaks something else was cut off",
                    self.number
                );
                return self.say(&[why]).await;
            }
            let shown = String::from_utf8_lossy(&line).trim().to_string();
            self.console.commands().insert(self.number, Some(shown));
            let done = self.answer(command).await;
            self.console.commands().insert(self.number, None);
            if !done? {
                return Ok(());
            }
        }
    }

    async fn say(&mut self, lines: &[String]) -> io::Result<()> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| answer::line(line)).collect();
        self.output.write_all(&bytes).await?;
        self.output.flush().await
    }

    /// Asks for the password, when there is one. After a wrong one it is over.
    async fn login(&mut self) -> io::Result<bool> {
        let Some(password) = self.console.password() else {
            return Ok(true);
        };

        self.output.write_all(answer::PASSWORD).await?;
        self.output.flush().await?;
        let given =
            match tokio::time::timeout(OTHER_PROMPT, self.input.line(MAX_PASSWORD + 2)).await {
                Ok(given) => given?,
                Err(_) => {
                    self.output.write_all(b"\r\n").await?;
                    self.output.write_all(answer::OLD_PASSWORD).await?;
                    match tokio::time::timeout(LOGIN, self.input.line(MAX_PASSWORD + 2)).await {
                        Ok(given) => given?,
                        Err(_) => None,
                    }
                }
            };

        let Some(given) = given else { return Ok(false) };
        let turn = self.console.tries.acquire().await;
        if password.is(&given) {
            self.is_known = true;
            return Ok(true);
        }

        tracing::warn!("console {}: a wrong password", self.number);
        tokio::time::sleep(WRONG).await;
        drop(turn);
        self.output.write_all(b"\r\n").await?;
        self.say(&["error: wrong password".into()]).await?;

        Ok(false)
    }

    /// Answers one command; false when nobody listens any more.
    async fn answer(&mut self, command: Command) -> io::Result<bool> {
        let lines = match command {
            Command::Nothing | Command::Quit | Command::Foreign(_) => Vec::new(),
            Command::Files(files) if files.changes() && !self.may_change().await => {
                vec![NO_PASSWORD.to_string()]
            }
            Command::Files(files) => match self.wish(&files).await {
                Ok(wish) => return self.fulfil(files, wish).await,
                Err(lines) => lines,
            },
            Command::ExcludeAdd(pattern) => self.exclude(pattern),
            Command::ExcludeDel(pattern) => {
                match self.excludes.iter().position(|e| *e == pattern) {
                    Some(at) => {
                        self.excludes.remove(at);
                        Vec::new()
                    }
                    None => vec![format!("error: pattern not found {pattern}")],
                }
            }
            Command::ExcludeList => self.excludes.clone(),
            Command::ExcludeClear => {
                self.excludes.clear();
                Vec::new()
            }
            Command::Members => answer::members(&self.members().await),
            Command::Status => self.status().await,
            Command::LogLevel(level) => {
                self.level = level;
                Vec::new()
            }
            Command::Alive(alive) => {
                self.alive = alive;
                Vec::new()
            }
            Command::Echo(text) => vec![text],
            Command::Help => command::HELP.iter().map(ToString::to_string).collect(),
            Command::Wrong(lines) => lines,
        };

        self.say(&lines).await.map(|()| true)
    }

    /// Whether the client may change other hosts.
    async fn may_change(&self) -> bool {
        let origin = self.origin.clone();
        self.is_known
            || tokio::task::spawn_blocking(move || origin.is_owner())
                .await
                .unwrap_or(false)
    }

    fn exclude(&mut self, pattern: String) -> Vec<String> {
        if self.excludes.len() >= MAX_EXCLUDES {
            return vec![format!("error: more than {MAX_EXCLUDES} patterns")];
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
            Ok(base) => answer::status(&Status {
                process: std::process::id(),
                base: &base.path,
                commands,
                sending,
                receiving,
            }),
            Err(e) => vec![answer::failure(&e)],
        }
    }

    /// What the desk is to do, or what to answer at once.
    async fn wish(&self, files: &Files) -> std::result::Result<AdhocRequest, Vec<String>> {
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
            lists: self.level >= answer::UPDATES,
            files: match files.deed {
                AdhocAction::Check => self.level >= answer::UPDATES,
                _ => self.level >= answer::SKIPS,
            },
            ..AdhocRequest::new(files.deed)
        })
    }

    /// Has the desk do it. A client that hangs up takes its command back.
    async fn fulfil(&mut self, files: Files, wish: AdhocRequest) -> io::Result<bool> {
        let (desk, interrupt) = (Arc::clone(&self.console.desk), Interrupt::default());
        let mut work = tokio::task::spawn_blocking({
            let interrupt = interrupt.clone();
            move || {
                let mut heard = Heard::default();
                (
                    adhoc::run(&desk, &wish, &interrupt, &mut heard),
                    heard.files,
                )
            }
        });

        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + ALIVE, ALIVE);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = self.input.end() => {
                    interrupt.interrupt();
                    let _ = (&mut work).await;
                    return Ok(false);
                }
                _ = beat.tick(), if self.alive => {
                    let told = self.output.write_all(format!("{}\n", answer::ALIVE).as_bytes()).await;
                    if let Err(e) = told {
                        interrupt.interrupt();
                        let _ = (&mut work).await;
                        return Err(e);
                    }
                }
            }
        };

        let lines = match done {
            Ok((Ok(outcome), all)) => answer::outcome(&files, &outcome, &all, self.level),
            Ok((Err(e), _)) => vec![answer::failure(&e)],
            Err(e) => vec![format!("error: a defect in makuo: {e}")],
        };

        self.say(&lines).await.map(|()| true)
    }
}

/// What of a session's events is needed for the answer.
#[derive(Default)]
struct Heard {
    files: Vec<Vec<u8>>,
}

impl Observer for Heard {
    fn event(&mut self, event: &Event) {
        if let Event::Files(files) = event {
            self.files.clone_from(files);
        }
    }
}

/// What comes from a client, line by line.
struct Input<R> {
    read: R,
    bytes: Vec<u8>,
    over: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// The next line without its end, `None` at the end of all; a last line without an end counts.
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

    /// Returns when the client has hung up with nothing more to say. Lines that it has said already are kept.
    async fn end(&mut self) {
        loop {
            if self.bytes.len() > MAX_LINE || (self.over && !self.bytes.is_empty()) {
                // It has more to say: whether it still listens will be seen then.
                return std::future::pending().await;
            }
            if self.over || self.more().await.is_err() {
                return;
            }
        }
    }
}
