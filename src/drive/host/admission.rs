//! Admission of offers: one thread checks each offer, and each header of a missed release, before
//! it has any effect.
//!
//! Anyone can send an offer. One that may not be put here costs a signature check, and neither a
//! thread nor a place in a tree's queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::authorize::{
    AUDIT_SECONDS, check_allowed, check_catch_up, check_expiry, check_grant, check_key,
    check_newer, check_session, check_signatures, check_staged,
};
use super::gate::ClosedGate;
use super::managed::ManagedTree;
use super::offer::Opening;
use super::priority::lower_priority;
use super::shared::LocalHost;
use super::tombstones;
use super::tree_thread::{AdmittedSession, Replies, TreeJob, catch_panic};
use crate::drive::clock;
use crate::error::{Error, Kind, Result};
use crate::id::{SessionId, TreeName};
use crate::keys::{Namespace, PublicKey, verify};
use crate::manifest::rules::Layout;
use crate::manifest::{Header, Intent, Release, ReleaseId};
use crate::metrics::RefusalCauseWord::{
    self, Busy, Comparison, Held, Key, Order, Reverted, Serial, Signature, Time, Tree,
};
use crate::proto::receiver::{Ask, DiskReply, OfferRefusal, OfferedRelease, ReasonText};
use crate::units::WallTime;

/// Largest number of offers that wait for admission.
const MAX_WAITING_OFFERS: usize = 64;
/// Largest number of audits remembered, which is also the limit of audits in an hour.
const MAX_AUDITS: usize = 20_000;

/// An offer with the requests that follow it.
pub(super) struct PendingOffer {
    pub(super) session: SessionId,
    pub(super) opening: Opening,
    pub(super) asks: Receiver<Ask>,
}

/// Work of the admission thread.
enum Arrival {
    Offer(PendingOffer),
    /// Header and signature of a release.
    Header(Release, Arc<[u8]>),
}

/// The admission thread.
#[derive(Debug)]
pub(super) struct Admission {
    /// `None` once the thread has to end.
    arrivals: Option<SyncSender<Arrival>>,
    thread: Option<JoinHandle<()>>,
}

impl Admission {
    /// Starts the thread, which sends admitted offers to the queues in `trees`.
    pub(super) fn start(
        host: Arc<LocalHost>,
        trees: BTreeMap<TreeName, SyncSender<TreeJob>>,
        answer: Replies,
    ) -> Result<Self> {
        let (arrivals, inbox) = sync_channel::<Arrival>(MAX_WAITING_OFFERS);
        let work = move || {
            lower_priority();
            let mut audits = Audits::default();
            for arrival in inbox {
                let offer = match arrival {
                    Arrival::Offer(offer) => offer,
                    Arrival::Header(release, signature) => {
                        let may = catch_panic(|| check_missed(&host, &release, &signature));
                        answer.send(DiskReply::Verified(release.id(), matches!(may, Ok(Ok(())))));
                        continue;
                    }
                };
                let session = offer.session;
                let release = offer.opening.offer.release.clone();
                let admitted = catch_panic(|| admit(&host, &mut audits, &trees, &answer, offer));
                // An admitted offer has its answer already.
                let refusal = match admitted {
                    Ok(Ok(())) => continue,
                    Ok(Err(denial)) => {
                        if denial.cause == Held {
                            answer.send(rest(&host, &release));
                        }
                        host.figures.refused.of(denial.cause).add(1);
                        denial.refusal
                    }
                    Err(why) => why.into(),
                };
                answer.send(DiskReply::Opened(session, Err(refusal)));
            }
        };

        let thread = std::thread::Builder::new()
            .name("admission".into())
            .spawn(work);
        let thread =
            thread.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;

        Ok(Self {
            arrivals: Some(arrivals),
            thread: Some(thread),
        })
    }

    /// Queues an offer; returns false if too many wait.
    pub(super) fn take(&self, offer: PendingOffer) -> bool {
        self.arrivals
            .as_ref()
            .is_some_and(|arrivals| arrivals.try_send(Arrival::Offer(offer)).is_ok())
    }

    /// Queues a header for verification; returns false if too much waits.
    pub(super) fn verify(&self, release: Release, signature: Arc<[u8]>) -> bool {
        self.arrivals.as_ref().is_some_and(|arrivals| {
            arrivals
                .try_send(Arrival::Header(release, signature))
                .is_ok()
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.arrivals = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets a release rest that a closed gate keeps out.
fn rest(host: &LocalHost, release: &Release) -> DiskReply {
    let tree = release.header().tree.clone();
    let now = clock::wall_seconds();
    let gate = host.trees.get(&tree).and_then(|m| ClosedGate::of(m, now));
    let pause = gate.map(|gate| gate.pause(now)).unwrap_or_default();
    DiskReply::Rests(tree, release.id(), pause)
}

/// Refusal of an offer, with the rule that it broke.
#[derive(Debug)]
struct Denial {
    cause: RefusalCauseWord,
    refusal: OfferRefusal,
}

/// Makes the denial of a reason, for `map_err`.
fn by<R: Into<OfferRefusal>>(cause: RefusalCauseWord) -> impl FnOnce(R) -> Denial {
    move |reason| Denial {
        cause,
        refusal: reason.into(),
    }
}

fn admit(
    host: &LocalHost,
    audits: &mut Audits,
    trees: &BTreeMap<TreeName, SyncSender<TreeJob>>,
    answer: &Replies,
    offer: PendingOffer,
) -> Result<(), Denial> {
    let PendingOffer {
        session,
        opening,
        asks,
    } = offer;

    let key: PublicKey = check(host, session, &opening)?;
    let release = opening.offer.release.clone();
    audits
        .check(&release, clock::wall_seconds())
        .map_err(by(Busy))?;

    let tree = &release.header().tree;
    let queue = trees
        .get(tree)
        .ok_or_else(|| format!("there is no tree {tree} here"))
        .map_err(by(Tree))?;

    let task = AdmittedSession {
        id: session,
        opening,
        key,
        asks,
        replies: answer.clone(),
    };

    // The previous session gives way once this one is known to be legitimate, and not before.
    match queue.try_send(TreeJob::Session(Box::new(task))) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            let why =
                format!("too many sessions wait for the tree {tree}; try again when they are over");
            return Err(by(Busy)(OfferRefusal::proven(why)));
        }
        Err(TrySendError::Disconnected(_)) => {
            return Err(by(Busy)("this host is ending".to_string()));
        }
    }

    audits.admitted(&release);
    answer.send(DiskReply::Opened(session, Ok(())));
    Ok(())
}

/// Refuses an offer that may not be put here; otherwise returns the key that signed the release.
fn check(host: &LocalHost, session: SessionId, opening: &Opening) -> Result<PublicKey, Denial> {
    let OfferedRelease {
        release,
        signature,
        grant,
        staged,
        ..
    } = &opening.offer;

    let header = release.header();
    let key = verify(Namespace::RELEASE, release.bytes(), signature)
        .map_err(|e| format!("the release is not signed: {e}"))
        .map_err(by(Signature))?;
    check_key(host, &key, release, clock::wall_seconds()).map_err(by(Key))?;
    check_signatures(host, release, signature, clock::wall_seconds()).map_err(by(Key))?;
    check_expiry(header, clock::wall_seconds()).map_err(by(Time))?;
    check_session(header, session, grant.is_some() || *staged).map_err(by(Order))?;

    // Only authorized keys may cause the work of compiling excludes.
    header.rules.excluded().map_err(by(Comparison))?;
    let managed = host
        .trees
        .get(&header.tree)
        .ok_or_else(|| match host.trees.broken(&header.tree) {
            Some(why) => OfferRefusal::proven(why),
            None => format!("there is no tree {} here", header.tree).into(),
        })
        .map_err(by(Tree))?;

    if *staged {
        check_staged(&managed.tree, release).map_err(by(Serial))?;
    }

    match grant {
        Some(grant) => {
            check_grant(host, &key, release, grant).map_err(by(Order))?;
            check_catch_up(&managed.tree, release).map_err(by(Serial))?;
        }
        None => check_newer(&managed.tree, header).map_err(by(Serial))?,
    }

    tombstones::check(managed, release).map_err(by(Reverted))?;
    // With its order a release would be committed at once.
    if grant.is_some()
        && let Some(gate) = ClosedGate::of(managed, clock::wall_seconds())
    {
        return Err(by(Held)(OfferRefusal::proven(gate.why)));
    }

    can_take(managed, header)
        .map_err(OfferRefusal::proven)
        .map_err(by(Tree))?;
    Ok(key)
}

/// Checks by its header whether a release of other hosts may be put here.
fn check_missed(host: &LocalHost, release: &Release, signature: &[u8]) -> Result<(), OfferRefusal> {
    let key = verify(Namespace::RELEASE, release.bytes(), signature)
        .map_err(|e| format!("the release is not signed: {e}"))?;
    check_allowed(host, &key, release, clock::wall_seconds())?;
    check_signatures(host, release, signature, clock::wall_seconds())?;
    let tree = &release.header().tree;
    let managed = host
        .trees
        .get(tree)
        .ok_or_else(|| format!("there is no tree {tree} here"))?;
    check_catch_up(&managed.tree, release)?;

    Ok(tombstones::check(managed, release)?)
}

/// Checks that the tree is there and can be switched as the release demands.
fn can_take(managed: &ManagedTree, header: &Header) -> Result<(), ReasonText> {
    let tree_root = managed.tree.root();
    let root = tree_root.path();
    match managed.tree.still_there() {
        Ok(true) => {}
        Ok(false) => {
            return Err(format!(
                "{} is another directory than when the daemon started; restart the daemon",
                root.display()
            ));
        }
        Err(e) => return Err(Error::io("cannot look at", root, e).with_hint()),
    }

    // Without a readable state no commit works, and an audit would miss the problem.
    managed.tree.state().current().map_err(|e| e.with_hint())?;
    if header.rules.layout == Layout::Swap && header.intent != Intent::Audit {
        managed.tree.check_swap().map_err(|e| e.with_hint())?;
    }

    Ok(())
}

/// Audits of the last hour: each is answered once, so that a recorded question is worthless.
#[derive(Debug, Default)]
struct Audits {
    /// Time until which each audit is remembered and would be answered.
    made: BTreeMap<ReleaseId, WallTime>,
}

impl Audits {
    fn check(&mut self, release: &Release, now: WallTime) -> Result<(), OfferRefusal> {
        if release.header().intent != Intent::Audit {
            return Ok(());
        }

        if self.made.len() >= MAX_AUDITS {
            self.made.retain(|_, until| *until >= now);
        }

        if self.made.contains_key(&release.id()) {
            return Err("this comparison was made already: ask again"
                .to_string()
                .into());
        }

        if self.made.len() >= MAX_AUDITS {
            return Err(format!("{MAX_AUDITS} comparisons were made in this hour").into());
        }

        Ok(())
    }

    fn admitted(&mut self, release: &Release) {
        if release.header().intent == Intent::Audit {
            let until = WallTime(
                release
                    .header()
                    .created
                    .0
                    .saturating_add_unsigned(AUDIT_SECONDS),
            );
            self.made.insert(release.id(), until);
        }
    }
}

#[cfg(test)]
mod tests;
