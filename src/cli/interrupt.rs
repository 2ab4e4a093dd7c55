//! Ctrl-C: the first one asks the session to end, a second one ends the process.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};

use crate::drive::deploy::Interrupt;
use crate::report::end_display;

/// Exit code after an interrupt: 128 plus SIGINT.
const INTERRUPTED: i32 = 130;

/// Says what a second Ctrl-C leaves behind.
const LEFT: &str = "left at once: hosts that were ordered to commit go on by themselves, the \
                    others stay as they are; `makuo status` shows both";

/// Starts a thread that passes Ctrl-C on to `interrupt`; a second one ends the process. From now on
/// a signal no longer ends the process at once.
pub(super) fn handle_ctrl_c(interrupt: Interrupt) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    // Without the thread Ctrl-C ends the process at once, which leaves every host as it is.
    let Ok(runtime) = runtime else { return };
    let signals = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())
    };
    let Ok(mut signals) = signals else { return };

    let _ = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while runtime.block_on(signals.recv()).is_some() {
                if interrupt.interrupt() {
                    end_display();
                    let _ = writeln!(std::io::stderr(), "{LEFT}");
                    std::process::exit(INTERRUPTED);
                }
            }
        });
}
