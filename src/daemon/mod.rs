//! Runs a host from its configuration: opens and recovers trees, reads keys, joins the group and
//! handles signals.

mod confinement;
mod control;
mod metrics;
mod opening;
mod preflight;
mod reload;
mod reopening;
mod repositories;
mod sandbox;
mod send_only_trees;
mod serving;
mod starting;

pub use control::{
    ControlSocket, HoldRequest, is_reachable, query_members, query_roster, query_survey,
    query_trees, request_files, request_hold,
};
pub use preflight::Preflight;
pub use sandbox::RunAs;
pub use starting::report_waiting;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::metrics::WebService;
use self::opening::{open, send_only};
use self::reload::StartupConfig;
use self::send_only_trees::{SendOnlyTree, SendOnlyTrees};
use self::serving::{DaemonSignals, Serving};
use self::starting::log_start;
use crate::config::{HostConfig, TreeConfig};
use crate::drive::adhoc::{AdhocService, Dial, SENT, SendSettings, SendTree};
use crate::drive::catch_up;
use crate::drive::endpoint::GroupLinks;
use crate::drive::host::{HostHandle, HostLoop, LocalHost};
use crate::error::IoResultExt;
use crate::face::console::{Console, Listeners};
use crate::id::{HostName, TreeName};
use crate::keys::Signer;
use crate::net::Link;
use crate::spec::DEFAULT_TREE;
use crate::units::Rate;
use crate::web::WebListener;
use crate::{Error, Kind, Result};

/// Longest silence of a host that this one sends to.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for work under way when the daemon ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Host to run.
pub struct DaemonSetup {
    /// Name of the host.
    pub name: HostName,
    /// Configuration with the overrides of the command line.
    pub config: HostConfig,
    /// Control socket; `None` for a host without commands.
    pub socket: Option<PathBuf>,
    /// Whether the command line names the group keys, so that a reload keeps them.
    pub group_keys_fixed: bool,
    /// User and groups to run as.
    pub run_as: RunAs,
    /// Limits on receiving and sending.
    pub mode: HostMode,
    /// Joins the group for a session of its own.
    pub dial: Dial,
}

/// Limits on receiving and sending.
#[derive(Debug, Clone)]
pub struct HostMode {
    /// Accepts releases of others.
    pub receives: bool,
    /// Sends releases.
    pub sends: bool,
    /// Sends only files owned by its own user.
    pub owned: bool,
    /// Rate limit for sending.
    pub rate: Option<Rate>,
}

impl Default for HostMode {
    fn default() -> Self {
        Self {
            receives: true,
            sends: true,
            owned: false,
            rate: None,
        }
    }
}

/// Runs a host until SIGTERM or SIGINT; SIGHUP reloads keys and password. Rights are dropped on the
/// way: steps that need them (links, secrets, console sockets, helper processes for hooks) come
/// before, steps that peers can influence after.
pub fn run(mut setup: DaemonSetup, network_links: impl Into<GroupLinks>) -> Result<()> {
    let network_links = network_links.into();
    let signer = serving::signer(&setup.config)?;
    let password = serving::password(&setup.config)?;
    let mut consoles = Listeners::bind(&setup.config.console)?;
    let web_listener = WebListener::bind(&setup.config.metrics)?;

    let repositories = match setup.mode.receives {
        true => repositories::open(&setup.config)?,
        false => Vec::new(),
    };

    let confines = confinement::confines(&setup.config)?;
    let separates = confines || setup.run_as.is_another();
    confinement::step_down(&mut setup, confines)?;
    consoles.bind_socket(&setup.config.console)?;

    let host = Arc::new(open(&setup, confines)?);
    let send_only = send_only(&setup, &host)?;
    log_start(&setup, &host, &network_links);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .io_context("cannot start the control loop")?;

    // Handlers must exist before anyone can see the daemon.
    let signals = runtime.block_on(async { DaemonSignals::follow() })?;
    let listener = match &setup.socket {
        Some(path) => {
            let group = setup.config.socket_group.as_deref();
            Some(runtime.block_on(async { ControlSocket::bind(path, group) })?)
        }
        None => None,
    };

    if confines {
        confinement::confine(&setup, &host, &send_only)?;
    }

    let group_keys = network_links.keys.clone();
    let own = network_links.links.iter().map(Link::local).collect();
    let (mut running, handle) = HostLoop::start(network_links, Arc::clone(&host))?;
    let pulls = running.pulls();
    let ended = Arc::new(tokio::sync::Notify::new());
    let on_end = Ended(Arc::clone(&ended));
    let network = spawn("network", move || {
        // Signals the end of the thread, even after a panic.
        let _on_end = on_end;
        running.run()
    })?;

    let config = setup.config.clone();
    let is_plain = group_keys.is_empty();
    let started = StartupConfig::new(&config, setup.group_keys_fixed);
    let state_dir = config.state_dir.clone();
    let reached = config
        .trees
        .iter()
        .filter(|tree| !confines || confinement::anchor(tree).is_some());

    reopening::start(Arc::clone(&host), handle.clone(), reached, state_dir)?;

    let desk = Arc::new(desk(setup, &host, &send_only, handle.clone(), signer, own));
    desk.seal_with(group_keys);

    let catch_up_host = Arc::clone(&host);
    let catch_up_desk = Arc::clone(&desk);
    let rate = config.network.catch_up_rate;
    spawn("serve", move || {
        catch_up::run(&catch_up_host, &catch_up_desk, rate, &pulls)
    })?;
    let web = WebService::new(web_listener, &config, &handle, &desk, &repositories);
    repositories::start(repositories, &host, &desk)?;

    let console = Console::new(
        Arc::clone(&desk),
        console_tree(&config, desk.trees()),
        password,
    );

    if host.trees.all_broken().next().is_some() {
        reopening::notify(&host);
    }

    let serving = Serving {
        started,
        is_plain,
        confines: separates,
        host: &host,
        handle: &handle,
        desk: &desk,
        console: &console,
    };

    runtime.block_on(serving.follow(signals, listener, consoles, web, &ended))?;

    desk.stop();
    handle.stop();
    tracing::info!("ended");
    let done = network
        .join()
        .unwrap_or_else(|_| Err(Error::new(Kind::Io, "the network thread failed")));

    // Sessions under way get time to revert.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    done
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .io_context("cannot start a thread")
}

fn desk(
    setup: DaemonSetup,
    host: &LocalHost,
    send_only: &SendOnlyTrees,
    handle: HostHandle,
    signer: Option<Arc<dyn Signer>>,
    own: Vec<SocketAddr>,
) -> AdhocService {
    let managed = |name: &TreeName| {
        host.trees
            .get(name)
            .map(|m| m.tree.state().here().to_path_buf())
    };

    let alone = |name: &TreeName| send_only.get(name).map(SendOnlyTree::path);
    let cache = |name: &TreeName| {
        managed(name)
            .or_else(|| alone(name))
            .map(|dir| dir.join(SENT))
    };

    let root = |name: &TreeName| send_only.get(name).map(|tree| Arc::clone(&tree.root));
    let tree = |t: &TreeConfig| SendTree {
        name: t.name.clone(),
        path: t.path.clone(),
        alone: root(&t.name),
        cache: cache(&t.name),
    };

    let sending = SendSettings {
        trees: setup.config.trees.iter().map(tree).collect(),
        allowed: setup.mode.sends,
        rate: setup.mode.rate,
        owner: setup.mode.owned.then(|| nix::unistd::geteuid().as_raw()),
        timeout: TIMEOUT,
        strict: setup.config.network.strict_host_keys,
        dial: setup.dial,
        own,
    };

    AdhocService::new(setup.name, handle, sending, signer)
}

/// Tree of the console.
fn console_tree(config: &HostConfig, trees: &[SendTree]) -> Option<TreeName> {
    let default = trees.iter().find(|t| t.name.as_str() == DEFAULT_TREE);
    config
        .console
        .tree
        .clone()
        .or(default.or(trees.first()).map(|t| t.name.clone()))
}

/// Signals the end of the network thread on drop.
struct Ended(Arc<tokio::sync::Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
