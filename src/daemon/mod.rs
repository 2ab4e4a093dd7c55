//! From a configuration to a running host: trees opened and recovered, keys read, the group joined, signals followed.

mod control;

pub use control::{Listener, ask_files, ask_members, ask_trees};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{DEFAULT_SENDER_KEY, HostConfig, TreeConfig};
use crate::drive::desk::{Base, Desk, Dial, Sending};
use crate::drive::disk::{Host, open_tree};
use crate::drive::host::{Handle, Running};
use crate::face::console::{Console, Listeners};
use crate::face::password::Password;
use crate::id::{HostName, TreeName};
use crate::keys::{AuthorizedKeys, Signer, open_signer};
use crate::net::{Link, Links};
use crate::spec::DEFAULT_TREE;
use crate::units::Rate;
use crate::{Error, Kind, Result};

/// How long a host may be silent to what this one sends.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long an ending daemon waits for what it has under way itself.
const GRACE: Duration = Duration::from_secs(3);

/// A host that is to run.
pub struct Setup {
    /// Its name.
    pub name: HostName,
    /// Its configuration, with what the command line overrides.
    pub config: HostConfig,
    /// The control socket; none for a host that needs no commands.
    pub socket: Option<PathBuf>,
    /// What it does and does not do.
    pub manner: Manner,
    /// Joins the group for a session of its own.
    pub dial: Dial,
}

/// What a host does and does not do.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Whether it takes releases of others.
    pub receives: bool,
    /// Whether it sends.
    pub sends: bool,
    /// Whether it sends only files that its own user owns.
    pub owned: bool,
    /// The ceiling of what it sends.
    pub rate: Option<Rate>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { receives: true, sends: true, owned: false, rate: None }
    }
}

/// Runs a host until SIGTERM or SIGINT; SIGHUP reads keys and password again.
pub fn run(setup: Setup, links: Links) -> Result<()> {
    // Secrets and sockets first: rights may be given away later.
    let (signer, password) = (signer(&setup.config)?, password(&setup.config)?);
    let consoles = Listeners::bind(&setup.config.console)?;
    let host = Arc::new(open(&setup)?);
    tell(&setup, &host, &links);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Io, "cannot start the control loop").because(e))?;
    let listener = match &setup.socket {
        Some(path) => {
            let group = setup.config.socket_group.as_deref();
            Some(runtime.block_on(async { Listener::bind(path, group) })?)
        }
        None => None,
    };
    let (running, handle) = Running::start(links, Arc::clone(&host))?;
    let ended = Arc::new(tokio::sync::Notify::new());
    let network = {
        let ended = Ended(Arc::clone(&ended));
        std::thread::Builder::new().name("network".into()).spawn(move || {
            // Tells when it goes, even by a panic.
            let _ended = ended;
            running.run()
        })
    };
    let network = network.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;
    let config = setup.config.clone();
    let desk = Arc::new(desk(setup, &host, handle.clone(), signer));
    let console = Console::new(Arc::clone(&desk), console_tree(&config, desk.bases()), password);
    let serving = Serving { config: &config, host: &host, handle: &handle, desk: &desk, console: &console };
    runtime.block_on(serving.follow(listener, consoles, &ended))?;
    desk.stop();
    handle.stop();
    let done = network.join().unwrap_or_else(|_| Err(Error::new(Kind::Io, "the network thread failed")));
    // What was sent is given the time to be taken back.
    runtime.shutdown_timeout(GRACE);
    done
}

fn tell(setup: &Setup, host: &Host, links: &Links) {
    let trees: Vec<String> = host.trees.keys().map(ToString::to_string).collect();
    tracing::info!(
        "{} on {} at {} for {} {}: trees {}",
        setup.name,
        links.names(),
        links.iter().map(Link::local).map(|a| a.to_string()).collect::<Vec<_>>().join(", "),
        links.group(),
        if host.trees.is_empty() { "without trees" } else { "ready" },
        trees.join(", ")
    );
    if let Some(advice) = crate::drive::drops::advice(links.recv_buffer()) {
        tracing::warn!("the receive buffer is small, which slows transfers down: {advice}");
    }
}

fn desk(setup: Setup, host: &Host, handle: Handle, signer: Option<Arc<dyn Signer>>) -> Desk {
    let cache = |name: &TreeName| host.trees.get(name).map(|m| m.tree.state().path().join("sent"));
    let base = |t: &TreeConfig| Base { tree: t.name.clone(), path: t.path.clone(), cache: cache(&t.name) };
    let sending = Sending {
        bases: setup.config.trees.iter().map(base).collect(),
        allowed: setup.manner.sends,
        rate: setup.manner.rate,
        owner: setup.manner.owned.then(|| nix::unistd::geteuid().as_raw()),
        timeout: TIMEOUT,
        dial: setup.dial,
    };
    Desk::new(setup.name, handle, sending, signer)
}

/// The tree that the console is about.
fn console_tree(config: &HostConfig, bases: &[Base]) -> Option<TreeName> {
    let default = bases.iter().find(|b| b.tree.as_str() == DEFAULT_TREE);
    config.console.tree.clone().or(default.or(bases.first()).map(|b| b.tree.clone()))
}

/// The key that signs what this host sends. The one at the default place need not be there.
fn signer(config: &HostConfig) -> Result<Option<Arc<dyn Signer>>> {
    let default = Path::new(DEFAULT_SENDER_KEY);
    match &config.sender_key {
        Some(path) => open_signer(path).map(|signer| Some(Arc::from(signer))),
        None if std::fs::File::open(default).is_ok() => match open_signer(default) {
            Ok(signer) => Ok(Some(Arc::from(signer))),
            Err(e) => {
                tracing::warn!("this host cannot send: {e}");
                Ok(None)
            }
        },
        None => Ok(None),
    }
}

fn password(config: &HostConfig) -> Result<Option<Password>> {
    config.console.password.as_deref().map(Password::load).transpose()
}

/// Tells that the network thread has ended, whichever way.
struct Ended(Arc<tokio::sync::Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A host that runs, with what is asked of it.
struct Serving<'a> {
    config: &'a HostConfig,
    host: &'a Host,
    handle: &'a Handle,
    desk: &'a Arc<Desk>,
    console: &'a Arc<Console>,
}

impl Serving<'_> {
    /// Answers at the sockets and follows signals until one of them, or the network, ends the host.
    async fn follow(&self, listener: Option<Listener>, consoles: Listeners, ended: &tokio::sync::Notify) -> Result<()> {
        let listen = |kind| signal(kind).map_err(|e| Error::new(Kind::Io, "cannot follow signals").because(e));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        if let Some(listener) = listener {
            tokio::spawn(listener.serve(Arc::clone(self.desk)));
        }
        let console = async {
            match consoles.is_empty() {
                true => std::future::pending().await,
                false => Arc::clone(self.console).serve(consoles).await,
            }
        };
        tokio::pin!(console);
        let mut watchdog = watchdog();
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                () = ended.notified() => return Ok(()),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => self.reload(),
                done = &mut console => return done,
                () = tick(&mut watchdog) => self.bark().await,
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        Ok(())
    }

    /// Tells the service manager that all is well, when it is: the network thread answers.
    async fn bark(&self) {
        let handle = self.handle.clone();
        if tokio::task::spawn_blocking(move || handle.is_alive()).await.unwrap_or(false) {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// Reads keys and password again; what cannot be read leaves the old ones in force.
    fn reload(&self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
        match AuthorizedKeys::load(&self.config.authorized_keys) {
            Ok(keys) => {
                tracing::info!("{}: {} keys", keys.file().display(), keys.len());
                *self.host.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(keys);
            }
            Err(e) => tracing::error!("the authorized keys stay as they were: {e}"),
        }
        match signer(self.config) {
            Ok(Some(signer)) => self.desk.sign_with(Some(signer)),
            Ok(None) => {}
            Err(e) => tracing::error!("the key that signs what this host sends stays as it was: {e}"),
        }
        match password(self.config) {
            Ok(password) => self.console.guard(password),
            Err(e) => tracing::error!("the console's password stays as it was: {e}"),
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}

/// Half of the time after which the service manager takes silence for the end; none when it does not watch.
fn watchdog() -> Option<tokio::time::Interval> {
    let period = sd_notify::watchdog_enabled().filter(|p| !p.is_zero())? / 2;
    Some(tokio::time::interval(period))
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Opens every tree (ending first what a crash left) and reads the authorized keys. Without a file of keys the host
/// runs and refuses every release, saying how to add one.
fn open(setup: &Setup) -> Result<Host> {
    let config = &setup.config;
    let keys = match AuthorizedKeys::load(&config.authorized_keys) {
        Ok(keys) => keys,
        Err(e) if e.is_os(std::io::ErrorKind::NotFound) => {
            tracing::warn!("{e}: every release will be refused");
            AuthorizedKeys::none(&config.authorized_keys)
        }
        Err(e) => return Err(e),
    };
    if keys.is_empty() {
        tracing::warn!("no key is listed in {}: every release will be refused", keys.file().display());
    }
    let state_dir = config.state_dir.as_deref();
    let received = config.trees.iter().filter(|_| setup.manner.receives);
    let trees = received.map(|tree| Ok((tree.name.clone(), open_tree(tree, state_dir)?)));
    Ok(Host { name: setup.name.clone(), trees: trees.collect::<Result<_>>()?, keys: Mutex::new(Arc::new(keys)) })
}
