//! Looks into a repository for a release that this host lacks, and loads its manifest.
//!
//! What the release may do here is checked before its content is loaded, and once more by the
//! session that takes it.

use std::sync::Arc;

use super::failure::{of_head, of_pull};
use super::known_head::KnownHead;
use super::requests::{StoreReply, StoreRequests, runtime, seed};
use crate::drive::clock;
use crate::drive::host::{LocalHost, Permitted};
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::repository::head::{SignedHead, VerifiedHead};
use crate::repository::pull::{PullStep, RepositoryPull};
use crate::repository::record::ReleaseRecord;
use crate::store::Store;
use crate::tree::Tree;

/// Times that a look begins again because the repository dropped the release that it loads.
const MAX_RESTARTS: u32 = 8;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct LookOptions<'a> {
    /// The head of the last look.
    pub known: &'a KnownHead,
    /// Take a release although the head is stale.
    pub allow_stale: bool,
}

/// Result of a look into a repository.
#[derive(Debug)]
pub enum Lookup {
    /// The head is as it was.
    Unchanged,
    /// The tree has the newest release of the repository.
    UpToDate(Serial),
    /// The newest release of the repository is older than that of the tree, which is the second.
    Older(Serial, Serial),
    /// The tree lacks this release, but the head is stale.
    Stale(Serial),
    /// The newest release is not for this host, for a reason.
    Refused(Serial, String),
    /// There is another one, but the caller has something else to do.
    Yielded,
    /// A release that this host lacks.
    Found(Box<FoundRelease>),
}

/// A release that this host lacks, with its manifest in the tree's store of nodes.
#[derive(Debug)]
pub struct FoundRelease {
    /// Header, signature and orders.
    pub record: ReleaseRecord,
    /// The order by which this host commits it.
    pub permitted: Permitted,
    pub(super) tree: Arc<Tree>,
    pub(super) loading: Loading,
}

/// A pull under way, with the loop of its requests.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) requests: StoreRequests,
    pub(super) machine: RepositoryPull,
}

/// Looks for a release of `tree` that `host` lacks, and returns the head as well.
///
/// `goes_on` is asked for the release before anything but the head is loaded.
pub fn find(
    store: Store,
    host: &LocalHost,
    tree: &TreeName,
    look: LookOptions<'_>,
    goes_on: &mut dyn FnMut(ReleaseId) -> bool,
) -> Result<(KnownHead, Lookup)> {
    let managed = host
        .trees
        .get(tree)
        .ok_or_else(|| Error::refused(format!("there is no tree {tree} here")))?;
    let runtime = runtime()?;
    let mut looker = Looker {
        host,
        tree: &managed.tree,
        requests: StoreRequests::new(store),
        machine: RepositoryPull::new(tree.clone(), look.known.etag.clone(), seed()),
        head: look.known.clone(),
        allow_stale: look.allow_stale,
        permitted: None,
    };

    let end = runtime.block_on(looker.run(goes_on))?;
    let head = looker.head.clone();
    let lookup = match end {
        LookEnd::Unchanged => Lookup::Unchanged,
        LookEnd::Yielded => Lookup::Yielded,
        LookEnd::UpToDate(serial) => Lookup::UpToDate(serial),
        LookEnd::Older(serial, here) => Lookup::Older(serial, here),
        LookEnd::Stale(serial) => Lookup::Stale(serial),
        LookEnd::Refused(serial, why) => Lookup::Refused(serial, why),
        LookEnd::Complete(record, permitted) => Lookup::Found(Box::new(FoundRelease {
            record: *record,
            permitted,
            tree: Arc::clone(&managed.tree),
            loading: Loading {
                runtime,
                requests: looker.requests,
                machine: looker.machine,
            },
        })),
    };
    Ok((head, lookup))
}

/// A look under way.
struct Looker<'a> {
    host: &'a LocalHost,
    tree: &'a Arc<Tree>,
    requests: StoreRequests,
    machine: RepositoryPull,
    head: KnownHead,
    allow_stale: bool,
    permitted: Option<(Box<ReleaseRecord>, Permitted)>,
}

/// End of a look.
enum LookEnd {
    Unchanged,
    Yielded,
    UpToDate(Serial),
    Older(Serial, Serial),
    Stale(Serial),
    Refused(Serial, String),
    Complete(Box<ReleaseRecord>, Permitted),
}

impl Looker<'_> {
    async fn run(&mut self, goes_on: &mut dyn FnMut(ReleaseId) -> bool) -> Result<LookEnd> {
        let nodes = self.tree.nodes();
        let mut restarts = 0;

        loop {
            match self.machine.poll(self.requests.now()) {
                PullStep::Get(id, get) => self.requests.get(id, get),
                PullStep::Unchanged => match self.look_again(goes_on)? {
                    Some(end) => return Ok(end),
                    None => {
                        self.head = KnownHead::default();
                        self.machine = RepositoryPull::new(self.tree.name().clone(), None, seed());
                    }
                },
                PullStep::Head(signed) => {
                    if let Some(end) = self.take_head(&signed, goes_on)? {
                        return Ok(end);
                    }
                }
                PullStep::Record(record) => {
                    if let Some(end) = self.take_record(record) {
                        return Ok(end);
                    }
                }
                PullStep::Node(block, bytes) => drop(nodes.put_node(block, &bytes)?),
                PullStep::Walk => {
                    let walked = self.machine.walk(nodes, |block| nodes.has(&block.hash));
                    walked.map_err(|e| Error::refused("the manifest is not legal").because(e))?;
                }
                PullStep::Complete => {
                    nodes.sync()?;
                    let gone = || Error::refused("the repository changed while it was read");
                    let (record, permitted) = self.permitted.take().ok_or_else(gone)?;
                    return Ok(LookEnd::Complete(record, permitted));
                }
                // It has another newest release by now, and does not keep this one.
                PullStep::Superseded if restarts < MAX_RESTARTS => {
                    restarts += 1;
                    self.machine = RepositoryPull::new(self.tree.name().clone(), None, seed());
                }
                PullStep::Superseded => {
                    return Err(Error::refused("the repository changed while it was read"));
                }
                PullStep::Failed(error) => return Err(of_pull(&error)),
                // Nothing was wanted yet.
                PullStep::Block(..) | PullStep::Done => {}
                PullStep::Wait(until) => {
                    if let Some(StoreReply::Get(id, reply)) = self.requests.next(until).await {
                        self.machine.reply(id, reply, self.requests.now());
                    }
                }
            }
        }
    }

    fn take_head(
        &mut self,
        signed: &SignedHead,
        goes_on: &mut dyn FnMut(ReleaseId) -> bool,
    ) -> Result<Option<LookEnd>> {
        let name = self.tree.name();
        let Some(verified) = verified(self.host, name, signed, &mut self.machine)? else {
            return Ok(None);
        };
        let head = verified.head();
        self.head = KnownHead {
            etag: self.machine.etag().cloned(),
            newest: Some((head.serial(), head.release)),
            times: Some(head.times()),
            refused: None,
        };

        let serial = head.serial();
        let release = head.release;
        if let Some(end) = self.compare(serial, release)? {
            return Ok(Some(end));
        }
        if !self.allow_stale && verified.is_stale(clock::wall_seconds()) {
            return Ok(Some(LookEnd::Stale(serial)));
        }

        self.machine.follow(&verified, None);
        Ok((!goes_on(release)).then_some(LookEnd::Yielded))
    }

    fn take_record(&mut self, record: Box<ReleaseRecord>) -> Option<LookEnd> {
        let permitted = self
            .host
            .permits(&record.release, &record.signature, &record.orders);
        match permitted {
            Ok(permitted) => {
                self.permitted = Some((record, permitted));
                None
            }
            Err(why) => {
                let serial = record.release.header().serial;
                self.head.refused = Some(Arc::from(record));
                Some(LookEnd::Refused(serial, why))
            }
        }
    }

    /// The end of a look if the tree does not lack the release.
    fn compare(&self, serial: Serial, release: ReleaseId) -> Result<Option<LookEnd>> {
        let Some(mark) = self.tree.state().current()? else {
            return Ok(None);
        };
        if mark.id == release {
            return Ok(Some(LookEnd::UpToDate(serial)));
        }
        let is_older = mark.serial > serial;
        Ok(is_older.then_some(LookEnd::Older(serial, mark.serial)))
    }

    /// The end of a look at a head that has not changed. The tree may have; `None` if it lacks the
    /// release, and may take it.
    fn look_again(&self, goes_on: &mut dyn FnMut(ReleaseId) -> bool) -> Result<Option<LookEnd>> {
        // Without a tag the head was not in a known state.
        let known = self.head.newest.filter(|_| self.head.etag.is_some());
        let Some((serial, release)) = known else {
            return Ok(Some(LookEnd::Unchanged));
        };
        if let Some(end) = self.compare(serial, release)? {
            return Ok(Some(match end {
                LookEnd::UpToDate(_) => LookEnd::Unchanged,
                end => end,
            }));
        }

        let permits = |record: &Arc<ReleaseRecord>| {
            self.host
                .permits(&record.release, &record.signature, &record.orders)
        };
        let refused = self.head.refused.as_ref().map(permits);
        if let Some(why) = refused.and_then(|permitted| permitted.err()) {
            return Ok(Some(LookEnd::Refused(serial, why)));
        }
        Ok((!goes_on(release)).then_some(LookEnd::Yielded))
    }
}

/// Verifies the head of `tree` by the keys of `host`. Returns `None` if it may have been damaged on
/// the way: `machine` then reads it again.
pub(super) fn verified(
    host: &LocalHost,
    tree: &TreeName,
    signed: &SignedHead,
    machine: &mut RepositoryPull,
) -> Result<Option<VerifiedHead>> {
    let keys = host.authorized();
    match signed.verify(tree, &keys, None, clock::wall_seconds()) {
        Ok(verified) => Ok(Some(verified)),
        Err(e) if e.is_signed() => Err(of_head(&e)),
        Err(e) => {
            machine.refuse(e);
            Ok(None)
        }
    }
}
