//! Reports of a start to the log and the service manager: missing interfaces, then the host. While
//! an interface is missing, a reload is ignored.

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::DaemonSetup;
use crate::Result;
use crate::drive::endpoint::GroupLinks;
use crate::drive::host::{LocalHost, ManagedTree};
use crate::id::TreeName;
use crate::net::Link;

/// Runs `wait`, which calls back with the error as long as an interface is missing.
///
/// READY is sent early: the interface may never appear, and the start of other units must not
/// depend on it.
pub fn report_waiting<T>(wait: impl FnOnce(&mut dyn FnMut(&str)) -> Result<T>) -> Result<T> {
    let mut reported = None;
    let started = wait(&mut |missing| {
        if reported.is_none() {
            ignore_reload();
            // Fails harmlessly without a service manager.
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        if reported.as_deref() != Some(missing) {
            tracing::warn!("{missing}: waiting for it");
            let _ = sd_notify::notify(&[NotifyState::Status(&format!("waiting: {missing}"))]);
            reported = Some(missing.to_string());
        }
        if sd_notify::watchdog_enabled().is_some() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    });

    if reported.is_some() {
        let _ = sd_notify::notify(&[NotifyState::Status("")]);
    }

    started
}

/// Ignores a reload before there is anything to reload; the default action would end the process.
fn ignore_reload() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
    else {
        return;
    };

    let _entered = runtime.enter();
    // The handler stays installed without a listener.
    drop(signal(SignalKind::hangup()));
}

/// Logs the host, the group and the protection of the datagrams.
pub(super) fn log_start(setup: &DaemonSetup, host: &LocalHost, network_links: &GroupLinks) {
    let links = &network_links.links;
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
        links.reach(),
        if trees.is_empty() {
            "without trees"
        } else {
            "ready"
        },
        trees.join(", ")
    );

    let wanted = setup.config.network.unicast_port;
    let other = links
        .iter()
        .find(|link| !link.interface().loopback && link.local().port() != wanted);
    if let Some(link) = other {
        tracing::warn!(
            "unicast arrives at port {}, since {wanted} is in use: a firewall's rule may not cover \
             it; network.unicast_port names another one",
            link.local().port()
        );
    }

    if let Some(remark) = setup.config.network.ttl_remark() {
        tracing::warn!("{remark}");
    }

    match network_links.keys.len() {
        0 => {
            tracing::warn!("{}", crate::config::PLAIN_WARNING);
            let is_withheld =
                |(_, m): &(&TreeName, &ManagedTree)| m.catch_up.takes() && !m.catch_up.gives(false);
            let withheld: Vec<&str> = host
                .trees
                .iter()
                .filter(is_withheld)
                .map(|(name, _)| name.as_str())
                .collect();
            if !withheld.is_empty() {
                tracing::warn!(
                    "trees given to no host that missed a release, since without a group key \
                     nobody can tell who asks (catch_up = \"anyone\" gives them to everybody): {}",
                    withheld.join(", ")
                );
            }
        }
        n => tracing::info!("datagrams are sealed; group keys: {n}"),
    }

    if let Some(advice) = crate::doctor::buffer::advice(links.recv_buffer()) {
        tracing::warn!("the receive buffer is small, which slows transfers down: {advice}");
    }
}
