//! From a configuration to a running host: trees opened and recovered, keys read, the group joined, signals followed.

mod confinement;
mod control;
mod reload;
mod reopening;
mod sandbox;
mod serving;
mod starting;
mod unmanaged;

pub use control::{Listener, ask_files, ask_members, ask_trees};
pub use starting::starting;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::reload::Started;
use self::serving::{Serving, Signals};
use self::unmanaged::{Place, Places};
use crate::config::{HostConfig, TreeConfig};
use crate::drive::desk::{Base, Desk, Dial, SENT, Sending};
use crate::drive::disk::{Host, ManagedTree, open_tree};
use crate::drive::endpoint::Door;
use crate::drive::host::{Handle, Running};
use crate::drive::own_key::OwnKey;
use crate::drive::serve;
use crate::drive::trees::Trees;
use crate::face::console::{Console, Listeners};
use crate::id::{HostName, TreeName};
use crate::keys::{AuthorizedKeys, Signer};
use crate::net::Link;
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
    /// Whether the command line names the group keys, so that a reload does not ask the configuration.
    pub group_keys_fixed: bool,
    /// Run as this user; none: as whoever started it.
    pub user: Option<String>,
    /// Run as this group.
    pub run_group: Option<String>,
    /// Run with these further groups; none: the user's own.
    pub groups: Vec<String>,
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
        Self {
            receives: true,
            sends: true,
            owned: false,
            rate: None,
        }
    }
}

/// Runs a host until SIGTERM or SIGINT; SIGHUP reads keys and password again. Rights are given away in between: what
/// needs them (links, secrets, the console's sockets, the processes for hooks) comes first, what anybody else can cause
/// comes after.
pub fn run(mut setup: Setup, door: impl Into<Door>) -> Result<()> {
    let door = door.into();
    let (signer, password) = (
        serving::signer(&setup.config)?,
        serving::password(&setup.config)?,
    );
    let mut consoles = Listeners::bind(&setup.config.console)?;
    let confines = confinement::confines(&setup.config)?;

    confinement::step_down(&mut setup, confines)?;
    consoles.bind_socket(&setup.config.console)?;
    let host = Arc::new(open(&setup, confines)?);
    let places = places(&setup, &host)?;
    tell(&setup, &host, &door);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Io, "cannot start the control loop").because(e))?;

    // Before anybody can see that the daemon is there.
    let signals = runtime.block_on(async { Signals::follow() })?;
    let listener = match &setup.socket {
        Some(path) => {
            let group = setup.config.socket_group.as_deref();
            Some(runtime.block_on(async { Listener::bind(path, group) })?)
        }
        None => None,
    };

    if confines {
        confinement::confine(&setup, &host, &places)?;
    }

    let group_keys = door.keys.clone();
    let (mut running, handle) = Running::start(door, Arc::clone(&host))?;
    let pulls = running.pulls();
    let ended = Arc::new(tokio::sync::Notify::new());
    let network = {
        let ended = Ended(Arc::clone(&ended));
        std::thread::Builder::new()
            .name("network".into())
            .spawn(move || {
                // Tells when it goes, even by a panic.
                let _ended = ended;
                running.run()
            })
    };

    let network = network.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;
    let (config, is_plain) = (setup.config.clone(), group_keys.is_empty());
    let started = Started::new(&config, setup.group_keys_fixed);
    let state_dir = config.state_dir.clone();
    let reached = config
        .trees
        .iter()
        .filter(|tree| !confines || confinement::anchor(tree).is_some());

    reopening::start(Arc::clone(&host), handle.clone(), reached, state_dir)?;
    let desk = Arc::new(desk(setup, &host, &places, handle.clone(), signer));
    desk.seal_with(group_keys);
    let (giver, given) = (Arc::clone(&host), Arc::clone(&desk));
    let rate = config.network.catch_up_rate;
    std::thread::Builder::new()
        .name("serve".into())
        .spawn(move || serve::run(&giver, &given, rate, &pulls))
        .map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;

    let console = Console::new(
        Arc::clone(&desk),
        console_tree(&config, desk.bases()),
        password,
    );

    if host.trees.all_broken().next().is_some() {
        reopening::notify(&host);
    }

    let serving = Serving {
        started,
        is_plain,
        host: &host,
        handle: &handle,
        desk: &desk,
        console: &console,
    };

    runtime.block_on(serving.follow(signals, listener, consoles, &ended))?;
    desk.stop();
    handle.stop();
    let done = network
        .join()
        .unwrap_or_else(|_| Err(Error::new(Kind::Io, "the network thread failed")));

    // What was sent is given the time to be taken back.
    runtime.shutdown_timeout(GRACE);
    done
}

fn tell(setup: &Setup, host: &Host, door: &Door) {
    let links = &door.links;
    let trees: Vec<String> = host
        .trees
        .iter()
        .map(|(name, _)| name.to_string())
        .collect();

    tracing::info!(
        "{} on {} at {} for {} {}: trees {}",
        setup.name,
        links.names(),
        links
            .iter()
            .map(Link::local)
            .map(|a| a.to_string())
            .collect::<Vec<_>>()
            .join(", "),
        links.group(),
        if trees.is_empty() {
            "without trees"
        } else {
            "ready"
        },
        trees.join(", ")
    );

    match door.keys.len() {
        0 => {
            tracing::warn!("{}", crate::config::PLAIN);
            let kept =
                |(_, m): &(&TreeName, &ManagedTree)| m.catch_up.takes() && !m.catch_up.gives(false);
            let kept: Vec<&str> = host
                .trees
                .iter()
                .filter(kept)
                .map(|(name, _)| name.as_str())
                .collect();
            if !kept.is_empty() {
                tracing::warn!(
                    "trees that are given to no host that missed a release, since without a group key nobody can tell \
                     who asks (catch_up = \"anyone\" gives them to everybody): {}",
                    kept.join(", ")
                );
            }
        }
        n => tracing::info!("datagrams are sealed; group keys: {n}"),
    }

    if let Some(advice) = crate::drive::drops::advice(links.recv_buffer()) {
        tracing::warn!("the receive buffer is small, which slows transfers down: {advice}");
    }
}

/// Places for the trees that take nothing of others.
fn places(setup: &Setup, host: &Host) -> Result<Places> {
    let alone = setup
        .config
        .trees
        .iter()
        .filter(|tree| !host.trees.names().any(|n| *n == tree.name));
    let state_dir = setup.config.state_dir.as_deref();
    alone
        .map(|tree| Ok((tree.name.clone(), Place::of(tree, state_dir)?)))
        .collect()
}

fn desk(
    setup: Setup,
    host: &Host,
    places: &Places,
    handle: Handle,
    signer: Option<Arc<dyn Signer>>,
) -> Desk {
    let managed = |name: &TreeName| {
        host.trees
            .get(name)
            .map(|m| m.tree.state().here().to_path_buf())
    };

    let alone = |name: &TreeName| places.get(name).map(Place::path);
    let cache = |name: &TreeName| {
        managed(name)
            .or_else(|| alone(name))
            .map(|dir| dir.join(SENT))
    };

    let root = |name: &TreeName| places.get(name).map(|place| Arc::clone(&place.root));
    let base = |t: &TreeConfig| Base {
        tree: t.name.clone(),
        path: t.path.clone(),
        alone: root(&t.name),
        cache: cache(&t.name),
    };

    let sending = Sending {
        bases: setup.config.trees.iter().map(base).collect(),
        allowed: setup.manner.sends,
        rate: setup.manner.rate,
        owner: setup.manner.owned.then(|| nix::unistd::geteuid().as_raw()),
        timeout: TIMEOUT,
        strict: setup.config.network.strict_host_keys,
        dial: setup.dial,
    };

    Desk::new(setup.name, handle, sending, signer)
}

/// The tree that the console is about.
fn console_tree(config: &HostConfig, bases: &[Base]) -> Option<TreeName> {
    let default = bases.iter().find(|b| b.tree.as_str() == DEFAULT_TREE);
    config
        .console
        .tree
        .clone()
        .or(default.or(bases.first()).map(|b| b.tree.clone()))
}

/// Tells that the network thread has ended, whichever way.
struct Ended(Arc<tokio::sync::Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Opens every tree (ending first what a crash left) and reads the authorized keys. Without a file of keys the host
/// runs and refuses every release, saying how to add one.
fn open(setup: &Setup, confines: bool) -> Result<Host> {
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
        tracing::warn!(
            "no key is listed in {}: every release will be refused",
            keys.file().display()
        );
    }

    let state_dir = config.state_dir.as_deref();
    let received = config.trees.iter().filter(|_| setup.manner.receives);
    let mut trees = Vec::new();
    let mut broken = Vec::new();

    for tree in received {
        match open_tree(tree, state_dir) {
            Ok(managed) => trees.push((tree.name.clone(), managed)),
            Err(e) => {
                let is_reachable = !confines || confinement::anchor(tree).is_some();
                let why = reopening::unserved(tree, &e, is_reachable);
                tracing::error!("{why}");
                broken.push((tree.name.clone(), why, e));
            }
        }
    }

    // What is wrong with the configuration, or is another daemon's, does not mend itself.
    let is_final = trees.is_empty() && broken.iter().all(|(_, _, e)| e.kind() != Kind::Io);

    if is_final && let Some((_, _, first)) = broken.pop() {
        return Err(first);
    }

    let mut trees: Trees = trees.into_iter().collect();
    for (name, why, _) in broken {
        trees.add_broken(name, why);
    }

    Ok(Host {
        name: setup.name.clone(),
        trees,
        keys: Mutex::new(Arc::new(keys)),
        own_key: OwnKey::default(),
    })
}
