//! A daemon before it listens: what it waits for is said in the log and to the service manager.

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::Result;

/// Runs `wait`, which says what it waits for, again and again until there is no more to wait for.
///
/// The service manager is told that the daemon is ready though it waits: an interface may come long after the start, or
/// never, and nothing else of the machine is to wait for it or to end the daemon.
pub fn starting<T>(wait: impl FnOnce(&mut dyn FnMut(&str)) -> Result<T>) -> Result<T> {
    let mut said = None;
    let started = wait(&mut |missing| {
        if said.is_none() {
            survive_reload();
            // Without a service manager there is nobody to tell.
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        if said.as_deref() != Some(missing) {
            tracing::warn!("{missing}: waiting for it");
            let _ = sd_notify::notify(&[NotifyState::Status(&format!("waiting: {missing}"))]);
            said = Some(missing.to_string());
        }
        if sd_notify::watchdog_enabled().is_some() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    });

    if said.is_some() {
        let _ = sd_notify::notify(&[NotifyState::Status("")]);
    }

    started
}

/// A reload while there is nothing to reload yet must not end the process: what it is for is read when there is.
fn survive_reload() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
    else {
        return;
    };

    let _entered = runtime.enter();
    // The handler stays when nobody listens any more.
    drop(signal(SignalKind::hangup()));
}
