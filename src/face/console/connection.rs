//! The connection of one client: login, commands one at a time, and their responses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::Console;
use super::input::{ClientInput, MAX_COMMAND_LINE};
use super::origin::ClientOrigin;
use crate::drive::adhoc::{self, AdhocAction, AdhocRequest};
use crate::drive::deploy::Interrupt;
use crate::face::command::{self, ConsoleCommand, Files, MAX_CONNECTION_EXCLUDES};
use crate::face::differences::{SKIPS, UPDATES};
use crate::face::password::MAX_PASSWORD;
use crate::face::response::{self, ConsoleStatus};
use crate::outcome::{Event, Observer};

/// Interval of heartbeats during a command.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Delay after a wrong password.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(2);
/// Timeout for the password.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Response to a client that may not change other hosts.
const NO_PASSWORD: &str = "error: over TCP this needs a password: \
                           set one (console.password, -K FILE), or use a unix socket \
                           (console.socket, -U PATH)";
/// Delay without a password before the prompt is repeated in the form of older clients.
const OLD_PROMPT_DELAY: Duration = Duration::from_millis(1500);

/// Connection of one client.
pub(super) struct Connection<'a, S> {
    console: &'a Arc<Console>,
    number: usize,
    origin: ClientOrigin,
    /// True after the right password.
    is_authenticated: bool,
    input: ClientInput<ReadHalf<S>>,
    output: WriteHalf<S>,
    excludes: Vec<String>,
    level: u8,
    alive: bool,
}

impl<'a, S: AsyncRead + AsyncWrite> Connection<'a, S> {
    /// A connection before the login.
    pub(super) fn new(
        console: &'a Arc<Console>,
        number: usize,
        stream: S,
        origin: ClientOrigin,
    ) -> Self {
        let (read, output) = tokio::io::split(stream);
        Self {
            console,
            number,
            origin,
            is_authenticated: false,
            input: ClientInput::new(read),
            output,
            excludes: Vec::new(),
            level: 0,
            alive: false,
        }
    }

    /// Serves the client until the end of the connection.
    pub(super) async fn run(&mut self) -> io::Result<()> {
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
            lists: self.level >= UPDATES,
            files: match files.deed {
                AdhocAction::Check => self.level >= UPDATES,
                _ => self.level >= SKIPS,
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
