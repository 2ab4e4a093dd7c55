//! Startup of a daemon before it listens: reports the missing interfaces to the log and the service
//! manager.

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::Result;

/// Runs `wait`, which calls its argument with the missing interface until there is none.
///
/// The service manager gets READY although the daemon still waits: an interface may appear long
/// after the start, or never, and no other unit should wait for it or end the daemon.
pub fn report_waiting<T>(wait: impl FnOnce(&mut dyn FnMut(&str)) -> Result<T>) -> Result<T> {
    let mut reported = None;
    let started = wait(&mut |missing| {
        if reported.is_none() {
            survive_reload();
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
fn survive_reload() {
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
