//! Reopens links when their interfaces change: another address, or another interface of the same
//! name. Opens further ones when an interface gets an address of another family.
//!
//! After each change, the interface number and address of each open link are compared with the
//! kernel's list. A link whose interface is down, or whose address returns, stays open.

use std::fmt;
use std::time::Duration;

use super::clock::Clock;
use crate::Result;
use crate::net::{self, Family, Interface, InterfaceChanges, Link, LinkSet, LinkUse};
use crate::units::{Moment, printable};

/// Delay after a change, since several come at once.
const SETTLE_DELAY: Duration = Duration::from_millis(100);
/// Interval of attempts to open a link without further changes.
const REOPEN_INTERVAL: Duration = Duration::from_secs(2);

/// Opens links by the configuration.
pub trait LinkSource: fmt::Debug + Send {
    /// Opens the link at index `place` of its [`LinkSet`] in place of `old`.
    fn reopen(&mut self, place: usize, old: &Link) -> Result<Link>;

    /// Opens a link that `links` should have by now, for their end; `None` if they have all.
    fn open_missing(&mut self, links: &LinkSet) -> Result<Option<Link>>;
}

/// Opens links when interfaces change.
#[derive(Debug)]
pub struct LinkOpener {
    changes: InterfaceChanges,
    source: Box<dyn LinkSource>,
}

impl LinkOpener {
    /// The links must have been opened after `changes` was first polled, so that no change is
    /// missed.
    pub fn new(changes: InterfaceChanges, source: impl LinkSource + 'static) -> Self {
        Self {
            changes,
            source: Box::new(source),
        }
    }
}

/// Follows the interfaces of links.
#[derive(Debug)]
pub(super) struct LinkFollower {
    reopen: LinkOpener,
    clock: Clock,
    /// Time of the next check.
    due: Option<Moment>,
    /// Last logged problem of each unusable link.
    lost: Vec<Option<String>>,
    /// Last logged problem of a link that is not open yet.
    missing: Option<String>,
}

impl LinkFollower {
    pub(super) fn begin(reopen: LinkOpener, links: &LinkSet) -> Self {
        Self {
            reopen,
            clock: Clock::start(),
            due: None,
            lost: vec![None; links.len()],
            missing: None,
        }
    }

    pub(super) fn changes(&self) -> &InterfaceChanges {
        &self.reopen.changes
    }

    /// Longest allowed wait.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.due.map(|due| due.since(self.clock.now()))
    }

    /// Records a change.
    pub(super) fn changed(&mut self) {
        if self.reopen.changes.take() {
            let soon = self.clock.now() + SETTLE_DELAY;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Checks the links when due; returns whether one was opened.
    pub(super) fn poll(&mut self, links: &mut LinkSet) -> bool {
        if self.due.is_none_or(|due| due > self.clock.now()) {
            return false;
        }

        self.due = None;
        let all = match net::list() {
            Ok(all) => all,
            Err(e) => {
                tracing::debug!("{e}");
                self.due = Some(self.clock.now() + REOPEN_INTERVAL);
                return false;
            }
        };

        let mut any = false;
        for place in 0..links.len() {
            any |= self.check(place, links, &all);
        }

        self.open_missing(links) || any
    }

    /// Opens the links that are possible now; returns whether there were any.
    fn open_missing(&mut self, links: &mut LinkSet) -> bool {
        let before = links.len();
        let missing = loop {
            match self.reopen.source.open_missing(links) {
                Ok(Some(new)) => {
                    let shown = printable(new.interface().name.as_bytes());
                    tracing::info!("{shown} has the address {} now: opened", new.local().ip());
                    links.add(new);
                    self.lost.push(None);
                }
                Ok(None) => break None,
                Err(e) => break Some(e.to_string()),
            }
        };

        if missing.is_some() {
            self.due = Some(self.clock.now() + REOPEN_INTERVAL);
        }
        if let Some(why) = missing.as_ref().filter(|_| missing != self.missing) {
            tracing::warn!("{why}: trying again");
        }
        self.missing = missing;
        links.len() > before
    }

    fn check(&mut self, place: usize, links: &mut LinkSet, all: &[Interface]) -> bool {
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

        match self.reopen.source.reopen(place, link) {
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
                self.due = Some(self.clock.now() + REOPEN_INTERVAL);
                false
            }
        }
    }
}

/// Returns whether a link can be used unchanged.
fn is_current(link: &Link, all: &[Interface]) -> bool {
    let known = link.interface();
    let now = all
        .iter()
        .find(|i| i.index == known.index && i.name == known.name);

    // Loopback is the last resort, unless configured by name.
    let family = Family::of(link.group().ip());
    let usage = LinkUse {
        family,
        multicast: link.is_multicast(),
    };
    let better = known.loopback && all.iter().any(|i| !i.loopback && i.serves(usage));

    !better && now.is_some_and(|now| now.up && now.addresses.contains(&link.local().ip()))
}

fn is_same(old: &Link, new: &Link) -> bool {
    (old.interface().index, old.local().ip()) == (new.interface().index, new.local().ip())
}

/// Describes how the interface of `new` differs from the one of `old`.
fn difference(old: &Link, new: &Link) -> String {
    let was = old.interface();
    let is = new.interface();
    let address = new.local().ip();
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
