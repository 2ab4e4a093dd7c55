//! Parts shared by status, members and log: the error if nobody answers, and looks that follow each
//! other.

use std::path::Path;
use std::time::Duration;

use super::interrupt::handle_ctrl_c;
use super::network;
use crate::config::NetworkConfig;
use crate::daemon::{is_reachable, query_survey};
use crate::drive;
use crate::drive::deploy::Interrupt;
use crate::drive::endpoint::GroupLinks;
use crate::id::TreeName;
use crate::outcome::{ReleaseLog, Silence, Survey};
use crate::report::{Looked, Report};
use crate::units::printable_path;
use crate::{Error, Result};

/// Interval between the end of a look and the next one.
const LOOK_AGAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between two checks for Ctrl-C.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// Asks through the network, or through the daemon of this machine if this user may not read the
/// group key.
pub(super) fn ask<T>(
    network: &NetworkConfig,
    config: Option<&Path>,
    directly: impl FnOnce(GroupLinks) -> Result<T>,
    by_daemon: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let unreadable = match network::open(network) {
        Ok(links) => return directly(links),
        Err(e) if e.is_os(std::io::ErrorKind::PermissionDenied) => e,
        Err(e) => return Err(e),
    };

    let socket = network::host_config(config)?.socket;
    if is_reachable(&socket) {
        return by_daemon(&socket);
    }

    let shown = printable_path(&socket);
    Err(unreadable.hint(format!(
        "root may read it, and who has a copy as ~/.config/makuo/group.key; members, status and \
         log work as well for members of the socket_group, by {shown} of a running daemon"
    )))
}

/// The survey, or an error if no host answered; then the peers that are not heard are named.
pub(super) fn answered<T>(survey: Survey<T>, report: &mut Report) -> Result<Survey<T>> {
    let Some(Silence { error, hint }) = &survey.silence else {
        return Ok(survey);
    };

    report.strangers(&survey.strangers);
    Err(Error::refused(error).hint(hint))
}

/// Looks and reports again and again until Ctrl-C, and returns the last look.
pub(super) fn follow<T: Looked>(
    look: impl Fn() -> Result<Survey<Vec<T>>>,
    report: &mut Report,
) -> Result<Survey<Vec<T>>> {
    let interrupt = Interrupt::default();
    handle_ctrl_c(interrupt.clone());
    let mut before: Option<Survey<Vec<T>>> = None;
    loop {
        let now = look()?;
        report.look(before.as_ref(), &now);

        let mut waited = Duration::ZERO;
        while waited < LOOK_AGAIN_INTERVAL && !interrupt.is_asked() {
            std::thread::sleep(INTERRUPT_INTERVAL);
            waited += INTERRUPT_INTERVAL;
        }
        if interrupt.is_asked() {
            return Ok(now);
        }
        before = Some(now);
    }
}

/// Asks for the releases of `tree`, as [`ask`] does.
pub(super) fn releases(
    network: &NetworkConfig,
    config: Option<&Path>,
    tree: &TreeName,
    wait: Duration,
) -> Result<Survey<ReleaseLog>> {
    ask(
        network,
        config,
        |links| drive::survey::log(links, tree, wait),
        |socket| {
            let answers = query_survey(socket, Some(tree), wait)?;
            Ok(answers.map(|hosts| drive::survey::log_of(tree, &hosts)))
        },
    )
}
