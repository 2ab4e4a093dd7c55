//! From a configuration to a running host: trees opened and recovered, keys read, the group joined, signals followed.

mod control;
mod sandbox;

pub use control::{Listener, ask_members};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{HostConfig, Sandbox};
use crate::drive::disk::{Host, open_tree};
use crate::drive::endpoint::Door;
use crate::drive::host::{Handle, Running};
use crate::hook::outside::Outside;
use crate::id::HostName;
use crate::keys::{AuthorizedKeys, GroupKey};
use crate::net::Link;
use crate::{Error, Kind, Result};

/// A host that is to run.
#[derive(Debug)]
pub struct Setup {
    /// Its name.
    pub name: HostName,
    /// Its configuration, with what the command line overrides.
    pub config: HostConfig,
    /// The control socket; none for a host that needs no commands.
    pub socket: Option<PathBuf>,
    /// Whether the command line names the group keys, so that a reload does not ask the configuration.
    pub group_keys_fixed: bool,
    /// Run as this user; none: as whoever started it.
    pub user: Option<String>,
    /// Run as this group.
    pub run_group: Option<String>,
}

/// Runs a host until SIGTERM or SIGINT; SIGHUP reads the authorized keys and the group keys again. Rights are given away
/// in between: what needs them (the links, the processes for hooks) comes first, what anybody else can cause comes after.
pub fn run(mut setup: Setup, door: impl Into<Door>) -> Result<()> {
    let door = door.into();
    let links = &door.links;
    let confines = confines(&setup.config)?;
    step_down(&mut setup, confines)?;
    let host = Arc::new(open(&setup)?);
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
    match door.keys.len() {
        0 => tracing::info!("datagrams are not sealed: there is no group key"),
        n => tracing::info!("datagrams are sealed; group keys: {n}"),
    }
    if let Some(advice) = crate::drive::drops::advice(links.recv_buffer()) {
        tracing::warn!("the receive buffer is small, which slows transfers down: {advice}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Io, "cannot start the control loop").because(e))?;
    let listener = match &setup.socket {
        Some(path) => Some(runtime.block_on(async { Listener::bind(path) })?),
        None => None,
    };
    if confines {
        confine(&setup, &host)?;
    }
    let (running, handle) = Running::start(door, Arc::clone(&host))?;
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
    runtime.block_on(follow(&setup, &host, &handle, listener, &ended))?;
    handle.stop();
    network.join().unwrap_or_else(|_| Err(Error::new(Kind::Io, "the network thread failed")))
}

/// Whether this daemon is to confine itself, and can.
fn confines(config: &HostConfig) -> Result<bool> {
    match (config.sandbox, sandbox::is_possible()) {
        (Sandbox::Off, _) => Ok(false),
        (_, true) => Ok(true),
        (Sandbox::Auto, false) => {
            tracing::warn!("this kernel has no Landlock (Linux 5.19): the daemon is not confined to its trees");
            Ok(false)
        }
        (Sandbox::Require, false) => {
            Err(Error::usage("this kernel has no Landlock, and the configuration requires it")
                .hint("boot with Landlock (Linux 5.19 and later), or write sandbox = \"auto\""))
        }
    }
}

/// Starts what keeps the daemon's rights, and gives them away.
fn step_down(setup: &mut Setup, confines: bool) -> Result<()> {
    let run_as = sandbox::RunAs {
        user: setup.user.clone(),
        group: setup.run_group.clone(),
        devices: setup.config.trees.iter().any(|tree| tree.devices),
    };
    if confines || run_as.user.is_some() || run_as.group.is_some() {
        for tree in setup.config.trees.iter_mut().filter(|tree| !tree.hooks.is_empty()) {
            tree.hooks.outside = Some(Outside::start(&tree.hooks)?);
        }
    }
    sandbox::drop_to(&run_as)
}

/// Gives away the sight of all but the trees, their state and the daemon's own files.
fn confine(setup: &Setup, host: &Host) -> Result<()> {
    let config = &setup.config;
    let mut reach = sandbox::Reach::default();
    let beside = |path: &Path| path.parent().map(Path::to_path_buf);
    for tree in &config.trees {
        let Some(managed) = host.trees.get(&tree.name) else { continue };
        let real = std::fs::canonicalize(&tree.path).map_err(|e| Error::io("cannot resolve", &tree.path, e))?;
        match real.parent().filter(|above| tree.swap && above.parent().is_some()) {
            Some(above) => reach.write.push(above.to_path_buf()),
            None => reach.write.push(real),
        }
        reach.write.push(managed.tree.state().path().to_path_buf());
    }
    reach.sockets.extend(setup.socket.as_deref().and_then(beside));
    // Files that are read again are often replaced: their directories are what stays.
    reach.read.extend(beside(&config.path).into_iter().chain(beside(&config.authorized_keys)));
    match (sandbox::confine(&reach)?, config.sandbox) {
        (sandbox::Confined::Not, Sandbox::Require) => Err(Error::usage("this daemon cannot be confined")),
        (confined, _) => {
            tracing::debug!("confined: {confined:?} {reach:?}");
            Ok(())
        }
    }
}

/// Tells that the network thread has ended, whichever way.
struct Ended(Arc<tokio::sync::Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Answers the control socket and follows signals until one of them, or the network, ends the host.
async fn follow(
    setup: &Setup,
    host: &Host,
    handle: &Handle,
    listener: Option<Listener>,
    ended: &tokio::sync::Notify,
) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|e| Error::new(Kind::Io, "cannot follow signals").because(e));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let serve = async {
        match listener {
            Some(listener) => listener.serve(handle.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(serve);
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        tokio::select! {
            () = ended.notified() => return Ok(()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(setup, host, handle),
            () = &mut serve => {}
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

/// Reads the authorized keys and the group keys again; what cannot be read leaves the old ones in force.
fn reload(setup: &Setup, host: &Host, handle: &Handle) {
    match AuthorizedKeys::load(&setup.config.authorized_keys) {
        Ok(keys) => {
            tracing::info!("{}: {} keys", keys.file().display(), keys.len());
            *host.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(keys);
        }
        Err(e) => tracing::error!("the authorized keys stay as they were: {e}"),
    }
    match group_keys(setup) {
        Ok(keys) if keys.is_empty() && setup.config.network.group_keys.is_empty() => {}
        Ok(keys) => handle.rekey(keys),
        Err(e) => tracing::error!("the group keys stay as they were: {e}"),
    }
}

/// The group keys as files and configuration say now.
fn group_keys(setup: &Setup) -> Result<Vec<GroupKey>> {
    let config = &setup.config;
    let files = match setup.group_keys_fixed || !config.path.exists() {
        true => config.network.group_keys.clone(),
        false => HostConfig::load(&config.path)?.network.group_keys,
    };
    files.iter().map(|path| GroupKey::load(path)).collect()
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
    let trees = config.trees.iter().map(|tree| Ok((tree.name.clone(), open_tree(tree, state_dir)?)));
    Ok(Host { name: setup.name.clone(), trees: trees.collect::<Result<_>>()?, keys: Mutex::new(Arc::new(keys)) })
}
