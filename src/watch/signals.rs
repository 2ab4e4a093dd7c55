//! What signals ask of a watch.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::shared::Shared;
use crate::{Error, Kind, Result};

/// Follows signals from now on: SIGTERM and SIGINT end, SIGHUP reads the spec again, SIGUSR1 looks at everything.
pub fn follow(shared: &Arc<Shared>) -> Result<()> {
    let failed = |e| Error::new(Kind::Io, "cannot follow signals").because(e);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let entered = runtime.enter();
    let listen = |kind| signal(kind).map_err(failed);

    let signals = Signals {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
        hangup: listen(SignalKind::hangup())?,
        user: listen(SignalKind::user_defined1())?,
    };

    drop(entered);
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("signals".into());
    thread
        .spawn(move || runtime.block_on(signals.serve(&shared)))
        .map_err(failed)?;

    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    async fn serve(mut self, shared: &Shared) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => shared.stop(),
                _ = self.interrupt.recv() => shared.stop(),
                _ = self.hangup.recv() => shared.reload(),
                _ = self.user.recv() => shared.rescan(),
            }
        }
    }
}
