//! Signals of a watch.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::coordinator::Coordinator;
use crate::Result;
use crate::error::IoResultExt;

/// Message of every failure here.
const SIGNALS_FAILED: &str = "cannot follow signals";

/// Handles signals from now on: SIGTERM and SIGINT end the watch, SIGHUP reloads the spec, SIGUSR1
/// requests a full rescan.
pub fn follow(coordinator: &Arc<Coordinator>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .io_context(SIGNALS_FAILED)?;
    let entered = runtime.enter();
    let listen = |kind| signal(kind).io_context(SIGNALS_FAILED);

    let signals = Signals {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
        hangup: listen(SignalKind::hangup())?,
        user: listen(SignalKind::user_defined1())?,
    };

    drop(entered);
    let coordinator = Arc::clone(coordinator);
    let thread = std::thread::Builder::new().name("signals".into());
    thread
        .spawn(move || runtime.block_on(signals.serve(&coordinator)))
        .io_context(SIGNALS_FAILED)?;

    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    async fn serve(mut self, coordinator: &Coordinator) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => coordinator.stop(),
                _ = self.interrupt.recv() => coordinator.stop(),
                _ = self.hangup.recv() => coordinator.reload(),
                _ = self.user.recv() => coordinator.rescan(),
            }
        }
    }
}
