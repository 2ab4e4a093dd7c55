//! Delays a part until hosts that have just started have caught up.
//!
//! A host that took this part first would never get the parts before it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::drive::host::HostHandle;
use crate::id::{InstanceId, Serial, TreeName};
use crate::proto::sender::Sender;
use crate::tree::{Arriving, Lacking};
use crate::units::Moment;

/// Longest wait for new hosts to catch up, without progress.
const MAX_ARRIVAL_WAIT: Duration = Duration::from_secs(5);
/// Interval of checks for new hosts.
const ARRIVAL_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The wait of one session for new hosts.
#[derive(Debug, Default)]
pub(super) struct ArrivalWait {
    /// Oldest release of the hosts that catch up first, and the deadline.
    waits: Option<(Serial, Moment)>,
}

impl ArrivalWait {
    /// Repeats the discovery of `machine` while new hosts catch up with the `tree` of `host`;
    /// returns whether to wait. The first wait calls `note`.
    pub(super) fn goes_on(
        &mut self,
        host: &HostHandle,
        tree: &TreeName,
        machine: &mut Sender,
        now: Moment,
        note: impl FnOnce(&str),
    ) -> bool {
        let Some(arriving) = arriving(host, tree, machine) else {
            return false;
        };

        let Some(oldest) = arriving.oldest else {
            // An older host will not catch up any more.
            let present = machine
                .target_states()
                .map(|(.., state)| state.running.unwrap_or_default())
                .min();
            machine.requires(arriving.needed.min(present.unwrap_or_default()));
            return false;
        };

        let (known, until) = self.waits.unwrap_or_else(|| {
            note("waiting for new hosts to catch up");
            (oldest, now + MAX_ARRIVAL_WAIT)
        });

        // Wait on while the hosts make progress.
        let until = if known == oldest {
            until
        } else {
            now + MAX_ARRIVAL_WAIT
        };

        self.waits = Some((oldest, until));
        if now < until {
            machine.discover_again(now + ARRIVAL_POLL_INTERVAL);
        }

        now < until
    }
}

/// The targets of `machine` that are new to `host`; `None` if `host` does not have `tree`.
fn arriving(host: &HostHandle, tree: &TreeName, machine: &Sender) -> Option<Arriving> {
    let tree = host.tree(tree)?;
    let targets = machine.target_states().map(|(id, ..)| id).collect();
    let new: BTreeSet<InstanceId> = host.new_ones(targets).into_iter().collect();
    let lacking = machine
        .target_states()
        .filter(|(id, ..)| new.contains(id))
        .map(|(_, hello, state)| Lacking {
            have: state.running.unwrap_or_default(),
            base: state.base,
            host: Some(&hello.name),
            labels: Some(hello.labels()),
        });

    Some(tree.arriving(lacking).unwrap_or_else(|e| {
        tracing::warn!(
            "tree {}: it is not known which hosts are to catch up first: {e}",
            tree.name()
        );
        Arriving::default()
    }))
}
