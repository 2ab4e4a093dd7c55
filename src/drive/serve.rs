//! A host offers the release that it has to those that lack it: the sender machine, with the release's own signatures
//! and the order by which it was committed, and the host's live tree as the source.
//!
//! One such session at a time in a process, at the rate that the configuration allows: whatever is pulled meanwhile
//! joins it, or comes after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver as Inbox;
use std::time::Duration;

use super::clock::Clock;
use super::deploy::{self, Granted, Interrupt, Options};
use super::desk::Desk;
use super::disk::Host;
use super::outcome::{Event, HostState, Observer, Purpose};
use super::quiet::{Quiet, left_out};
use super::rollback::spec;
use super::source::{Facts, Source};
use crate::id::Serial;
use crate::keys::{Namespace, PublicKey, Signature, Signer, verify};
use crate::spec::Compress;
use crate::tree::{Lacking, LiveTree, NextRelease, StoredRelease, StoredSource, Tree};
use crate::units::{Rate, one_line};
use crate::wire::message::{Order, Pull, SignedOrder};
use crate::{Error, Result};

/// Others that lack the same release have this long to find that out before it is offered.
const GATHER: Duration = Duration::from_millis(250);
/// The most hosts that one line names.
const NAMED: usize = 8;
/// How long a host may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves what is pulled until nobody pulls any more.
pub fn run(host: &Arc<Host>, desk: &Desk, rate: Rate, pulls: &Inbox<Pull>) {
    let mut log = Log::new();
    while let Ok(pull) = pulls.recv() {
        std::thread::sleep(GATHER);
        let mut open: VecDeque<Pull> = std::iter::once(pull).chain(pulls.try_iter()).collect();
        while let Some(pull) = open.pop_front() {
            if let Err(e) = serve(host, desk, rate, &pull, &mut log) {
                log.warn(&format!(
                    "tree {}: a release that others lack is not offered: {e}",
                    pull.tree
                ));
            }
            // Who asked for the same meanwhile has heard the offer, or asks again.
            open.extend(pulls.try_iter());
            open.retain(|other| other.tree != pull.tree);
        }
    }
}

fn serve(host: &Arc<Host>, desk: &Desk, rate: Rate, pull: &Pull, log: &mut Log) -> Result<()> {
    let Some(managed) = host.trees.get(&pull.tree) else {
        return Ok(());
    };

    let tree = &managed.tree;
    let Some(current) = tree
        .current()?
        .filter(|current| current.release.id() == pull.release)
    else {
        return Ok(());
    };

    if tree.state().tombstone(pull.release)?.is_some()
        || tree.state().unhealthy(pull.release).is_some()
    {
        return Ok(());
    }

    let Some(Offer {
        release: current,
        follows,
        alone,
    }) = next_for(tree, current, pull)?
    else {
        return Ok(());
    };

    let header = current.release.header().clone();
    // Not yet, or never: it was committed before a crash.
    let Some(grant) = tree.state().grant(header.serial)? else {
        return Ok(());
    };

    let grant: SignedOrder = minicbor::decode(&grant).map_err(|e| {
        Error::refused("the order that is kept with the release is damaged").because(e)
    })?;

    if Order::decode(&grant.order).is_none_or(|order| order.release != current.release.id()) {
        // Of another release of the same serial.
        return Ok(());
    }

    let by = verify(
        Namespace::RELEASE,
        current.release.bytes(),
        &current.signature,
    )
    .map_err(|e| {
        Error::refused("the signature that is kept with the release does not hold").because(e)
    })?;

    let mut spec = spec(&current.release, &current.release.header().targets)?;
    spec.transfer.rate = Some(rate);
    let records = (*tree.state()).clone();
    let live = LiveTree::Served(Arc::clone(tree));
    let facts = Facts::of(&header, Vec::new());
    let prepare = move || {
        let source = StoredSource::open(live, records, header.root)?;
        Ok((Source::of(Box::new(source), Compress::Auto), facts))
    };

    let options = Options {
        beside: Some(desk.handle()),
        ..Options::new(
            spec,
            Purpose::Deploy,
            Arc::new(Nobody(by)),
            host.name.clone(),
            PATIENCE,
        )
    };

    let fleet = u32::try_from(desk.members().len()).unwrap_or(u32::MAX);
    let release = current.release.clone();
    let only = pull.host.clone().filter(|_| alone);
    let granted = Granted {
        release: current.release,
        signature: current.signature,
        grant,
        fleet,
        follows,
        only,
    };

    let outcome = deploy::grant(
        desk.door()?,
        options,
        granted,
        Box::new(prepare),
        &Interrupt::default(),
        log,
    )?;

    let made = |h: &&super::outcome::HostResult| h.state.has_release();
    let names: Vec<&str> = outcome
        .hosts
        .iter()
        .filter(made)
        .map(|h| h.host.as_str())
        .collect();

    if let Some(why) = &outcome.error {
        log.warn(&format!(
            "{release}: not all of it could be given to those that lack it: {why}"
        ));
    }

    if let Some((named, more)) = names
        .split_at_checked(NAMED.min(names.len()))
        .filter(|(named, _)| !named.is_empty())
    {
        let more = if more.is_empty() {
            String::new()
        } else {
            format!(" and {} more", more.len())
        };
        log.info(&format!(
            "{release}: passed on to {}{more}; {} sent",
            named.join(", "),
            outcome.bytes_sent
        ));
    }

    Ok(())
}

/// A release to offer next, see [`NextRelease::Release`].
struct Offer {
    release: StoredRelease,
    follows: Option<Serial>,
    alone: bool,
}

/// What the host that asks is to be given next, so that it comes to `current`: the last release of the whole tree, then
/// those of parts of it that followed, one by one.
fn next_for(tree: &Tree, current: StoredRelease, pull: &Pull) -> Result<Option<Offer>> {
    let newest = current.release.header().serial;
    let have = pull.have;
    if have == newest {
        return Ok(Some(Offer {
            release: current,
            follows: None,
            alone: false,
        }));
    }

    let name = tree.name();
    let lacks = |why: String| Err(Error::refused(why).hint("deploy the whole tree"));
    match tree.next_for(Lacking {
        have,
        base: pull.base,
        host: pull.host.as_ref(),
    })? {
        NextRelease::Release {
            serial,
            follows,
            alone,
        } => Ok(tree.release(serial)?.map(|release| Offer {
            release,
            follows,
            alone,
        })),
        NextRelease::NoWhole => lacks(format!(
            "{name}@{newest} is of a part of the tree, and no release of the whole is kept"
        )),
        NextRelease::Unknown => lacks(format!(
            "{name}@{have} is not known here, and what is kept are parts of the tree"
        )),
        NextRelease::Nothing => Ok(None),
    }
}

/// The lines of all such sessions: anybody may cause them, so there are few, and each is one line.
struct Log {
    clock: Clock,
    warnings: Quiet,
    infos: Quiet,
}

impl Log {
    fn new() -> Self {
        let clock = Clock::start();
        let (warnings, infos) = (Quiet::new(clock.now()), Quiet::new(clock.now()));
        Self {
            clock,
            warnings,
            infos,
        }
    }

    fn warn(&mut self, text: &str) {
        if let Some(more) = self.warnings.may_say(self.clock.now()) {
            tracing::warn!("{}{}", one_line(text), left_out(more));
        }
    }

    fn info(&mut self, text: &str) {
        if let Some(more) = self.infos.may_say(self.clock.now()) {
            tracing::info!("{}{}", one_line(text), left_out(more));
        }
    }
}

impl Observer for Log {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Note(note) => self.info(note),
            Event::Host(change)
                if change.state.is_trouble() && change.state != HostState::Aborted =>
            {
                let why = change.error.as_deref().unwrap_or_default();
                self.warn(&format!(
                    "{} could not be given what it lacks: {}: {why}",
                    change.host,
                    change.state.word()
                ));
            }
            _ => {}
        }
    }
}

/// Stands for the key that signed the release: everything that has to be signed is.
#[derive(Debug)]
struct Nobody(PublicKey);

impl Signer for Nobody {
    fn sign(&self, _: Namespace, _: &[u8]) -> Result<Signature> {
        Err(Error::refused(
            "a release that is passed on is not signed again",
        ))
    }

    fn public(&self) -> &PublicKey {
        &self.0
    }
}
