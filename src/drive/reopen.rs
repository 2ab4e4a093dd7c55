//! Opens links again when the interfaces beneath them change: another address, or another interface of the same name.
//!
//! What a link was opened with (the interface's number and its address) is compared with what the kernel lists now,
//! after each change that it tells of. A link whose interface is down, or whose address comes back, stays as it is.

use std::fmt;
use std::time::Duration;

use super::clock::Clock;
use crate::Result;
use crate::net::{self, Family, Interface, InterfaceChanges, Link, LinkSet};
use crate::units::{Moment, printable};

/// How long changes are gathered before the links are looked at: several come at once.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a link that cannot be opened is tried again when nothing is told of it.
const RETRY: Duration = Duration::from_secs(2);

/// Opens the link at a place of [`LinkSet`] again.
pub struct Reopen {
    changes: InterfaceChanges,
    open: Box<dyn FnMut(usize) -> Result<Link> + Send>,
}

impl Reopen {
    /// `open` opens the link at the place that it is given. The links were opened after `changes` were first followed, so
    /// that no change is missed.
    pub fn new(
        changes: InterfaceChanges,
        open: impl FnMut(usize) -> Result<Link> + Send + 'static,
    ) -> Self {
        Self {
            changes,
            open: Box::new(open),
        }
    }
}

impl fmt::Debug for Reopen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reopen")
    }
}

/// Follows what becomes of the interfaces beneath links.
#[derive(Debug)]
pub(super) struct Follow {
    reopen: Reopen,
    clock: Clock,
    /// When the links are looked at next.
    due: Option<Moment>,
    /// What was last said of each link that cannot be used now.
    lost: Vec<Option<String>>,
}

impl Follow {
    pub(super) fn begin(reopen: Reopen, links: &LinkSet) -> Self {
        Self {
            reopen,
            clock: Clock::start(),
            due: None,
            lost: vec![None; links.len()],
        }
    }

    pub(super) fn changes(&self) -> &InterfaceChanges {
        &self.reopen.changes
    }

    /// How long a wait may take at most.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.due.map(|due| due.since(self.clock.now()))
    }

    /// Takes note that something has changed.
    pub(super) fn changed(&mut self) {
        if self.reopen.changes.take() {
            let soon = self.clock.now() + SETTLE;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Looks at the links when it is time; whether one was opened again.
    pub(super) fn look(&mut self, links: &mut LinkSet) -> bool {
        if self.due.is_none_or(|due| due > self.clock.now()) {
            return false;
        }

        self.due = None;
        let all = match net::list() {
            Ok(all) => all,
            Err(e) => {
                tracing::debug!("{e}");
                self.due = Some(self.clock.now() + RETRY);
                return false;
            }
        };

        let mut any = false;
        for place in 0..links.len() {
            any |= self.look_at(place, links, &all);
        }

        any
    }

    fn look_at(&mut self, place: usize, links: &mut LinkSet, all: &[Interface]) -> bool {
        let (Some(link), Some(lost)) = (links.get(place), self.lost.get_mut(place)) else {
            return false;
        };

        let shown = printable(link.interface().name.as_bytes());
        if is_current(link, all) {
            if lost.take().is_some() {
                tracing::info!("{shown} is back with the address {}", link.local().ip());
            }
            return false;
        }

        match (self.reopen.open)(place) {
            Ok(new) if is_same(link, &new) => false,
            Ok(new) => {
                tracing::info!("{}: reopened", difference(link, &new));
                *lost = None;
                links.replace(place, new);
                true
            }
            Err(e) => {
                let why = e.to_string();
                if lost.as_ref() != Some(&why) {
                    tracing::warn!("{why}: waiting for {shown}");
                    *lost = Some(why);
                }
                self.due = Some(self.clock.now() + RETRY);
                false
            }
        }
    }
}

/// Whether a link can be used as it was opened.
fn is_current(link: &Link, all: &[Interface]) -> bool {
    let known = link.interface();
    let now = all
        .iter()
        .find(|i| i.index == known.index && i.name == known.name);

    // Loopback is what is left when there is nothing better, unless somebody named it.
    let family = Family::of(link.group().ip());
    let better = known.loopback && all.iter().any(|i| !i.loopback && i.can_multicast(family));

    !better && now.is_some_and(|now| now.up && now.addresses.contains(&link.local().ip()))
}

fn is_same(old: &Link, new: &Link) -> bool {
    (old.interface().index, old.local().ip()) == (new.interface().index, new.local().ip())
}

/// How the interface of `new` differs from that of `old`, as a clause.
fn difference(old: &Link, new: &Link) -> String {
    let (was, is, address) = (old.interface(), new.interface(), new.local().ip());
    let name = printable(is.name.as_bytes());
    if was.name != is.name {
        return format!(
            "{name} takes the place of {}, with the address {address}",
            printable(was.name.as_bytes())
        );
    }

    if was.index != is.index {
        return format!("{name} is another interface now, with the address {address}");
    }

    format!("{name} has a new address {address}")
}
