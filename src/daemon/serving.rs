//! Main loop of a daemon: serves the sockets, handles signals, reloads keys and password, and
//! informs the service manager.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control::ControlSocket;
use super::metrics::WebService;
use super::reload::StartupConfig;
use crate::Result;
use crate::config::{DEFAULT_SENDER_KEY, HostConfig, TreeConfig};
use crate::drive::adhoc::AdhocService;
use crate::drive::host::{HostHandle, LocalHost, ManagedTree, TreeRules};
use crate::error::IoResultExt;
use crate::face::console::{Console, Listeners};
use crate::face::password::Password;
use crate::keys::{AuthorizedKeys, GroupKey, Signer, open_signer};
use crate::sync::locked;

/// Signals of a daemon. A signal before the loop starts is kept until then.
pub(super) struct DaemonSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl DaemonSignals {
    /// Installs the handlers; must be called within a runtime.
    pub(super) fn follow() -> Result<Self> {
        let listen = |kind| signal(kind).io_context("cannot follow signals");

        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// Running host with its services.
pub(super) struct Serving<'a> {
    pub(super) started: StartupConfig<'a>,
    /// Whether datagrams are sent unsealed.
    pub(super) is_plain: bool,
    /// Whether other processes run the hooks, with rights that this one no longer has.
    pub(super) confines: bool,
    pub(super) host: &'a LocalHost,
    pub(super) handle: &'a HostHandle,
    pub(super) desk: &'a Arc<AdhocService>,
    pub(super) console: &'a Arc<Console>,
}

impl Serving<'_> {
    /// Serves sockets and signals until one of them, or the network, ends the host.
    pub(super) async fn follow(
        &self,
        mut signals: DaemonSignals,
        listener: Option<ControlSocket>,
        consoles: Listeners,
        web: Option<WebService>,
        ended: &tokio::sync::Notify,
    ) -> Result<()> {
        if let Some(listener) = listener {
            tokio::spawn(listener.serve(Arc::clone(self.desk)));
        }

        if let Some(web) = web {
            tokio::spawn(web.serve());
        }

        let console = async {
            match consoles.is_empty() {
                true => std::future::pending().await,
                false => Arc::clone(self.console).serve(consoles).await,
            }
        };

        tokio::pin!(console);
        let mut watchdog = watchdog();

        // Fails harmlessly without a service manager.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                () = ended.notified() => return Ok(()),
                _ = signals.terminate.recv() => break tracing::info!("ending: SIGTERM"),
                _ = signals.interrupt.recv() => break tracing::info!("ending: SIGINT"),
                _ = signals.hangup.recv() => self.reload(),
                done = &mut console => return done,
                () = tick(&mut watchdog) => self.feed_watchdog().await,
            }
        }

        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        Ok(())
    }

    /// Pings the service manager's watchdog if the network thread responds.
    async fn feed_watchdog(&self) {
        let handle = self.handle.clone();
        if tokio::task::spawn_blocking(move || handle.is_alive())
            .await
            .unwrap_or(false)
        {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// Reloads keys, password and the rules of trees; on errors the old ones stay in force.
    fn reload(&self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
        let config = self.started.reload();
        for tree in &config.trees {
            if let Some(managed) = self.host.trees.get(&tree.name) {
                reload_rules(managed, tree, self.confines);
            }
        }

        match AuthorizedKeys::load(&config.authorized_keys) {
            Ok(keys) => {
                tracing::info!("{}: {} keys", keys.file().display(), keys.len());
                *locked(&self.host.keys) = Arc::new(keys);
            }
            Err(e) => tracing::error!("keeping the old authorized keys: {e}"),
        }

        match signer(&config) {
            Ok(Some(signer)) => self.desk.sign_with(Some(signer)),
            Ok(None) => {}
            Err(e) => {
                tracing::error!("keeping the old sender key: {e}")
            }
        }

        match password(&config) {
            Ok(password) => self.console.set_password(password),
            Err(e) => tracing::error!("keeping the old console password: {e}"),
        }

        let keys: Result<Vec<GroupKey>> = config
            .network
            .group_keys
            .iter()
            .map(|path| GroupKey::load(path))
            .collect();

        match keys {
            // Own sessions and the host itself must agree on sealing.
            Ok(keys) if keys.is_empty() != self.is_plain => {
                tracing::error!("the group key was added or removed: restart the daemon");
            }
            Ok(_) if self.is_plain => {}
            Ok(keys) => {
                self.desk.seal_with(keys.clone());
                self.handle.rekey(keys);
            }
            Err(e) => tracing::error!("keeping the old group keys: {e}"),
        }

        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}

/// Puts the rules of `now` in force. Hooks that another process runs are read again by that
/// process.
fn reload_rules(managed: &ManagedTree, now: &TreeConfig, confines: bool) {
    let old = managed.rules();
    let rules = TreeRules::from(now);
    let is_same_hooks =
        old.hooks.commands().eq(rules.hooks.commands()) && old.hooks.health == rules.hooks.health;
    let name = &now.name;

    match (&old.hooks.helper, is_same_hooks) {
        (_, true) => managed.set_rules(TreeRules {
            hooks: old.hooks.clone(),
            ..rules
        }),
        (None, false) if confines => {
            tracing::warn!(
                "tree {name}: its first hooks need a restart: another process will run them, with \
                 the rights of the start"
            );
            managed.set_rules(TreeRules {
                hooks: old.hooks.clone(),
                ..rules
            });
        }
        (None, false) => managed.set_rules(rules),
        (Some(helper), false) => match helper.reload() {
            Ok(hooks) => managed.set_rules(TreeRules { hooks, ..rules }),
            Err(e) => {
                tracing::error!("tree {name}: keeping the old hooks: {}", e.with_hint());
                managed.set_rules(TreeRules {
                    hooks: old.hooks.clone(),
                    ..rules
                });
            }
        },
    }
}

/// Half of the service manager's watchdog period; `None` without a watchdog.
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

/// Key for signing the releases of this host. The key at the default path is optional.
pub(super) fn signer(config: &HostConfig) -> Result<Option<Arc<dyn Signer>>> {
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

pub(super) fn password(config: &HostConfig) -> Result<Option<Password>> {
    config
        .console
        .password
        .as_deref()
        .map(Password::load)
        .transpose()
}
