//! Looks into a repository for a release that this host lacks, and loads its manifest.
//!
//! What the release may do here is checked before its content is loaded, and once more by the
//! session that takes it.

use std::sync::Arc;
use std::time::Duration;

use super::publish::of_head;
use super::requests::{StoreReply, StoreRequests, runtime, seed};
use crate::drive::clock;
use crate::drive::host::{LocalHost, Permitted};
use crate::error::{Error, Kind, Result};
use crate::id::{Serial, TreeName};
use crate::repository::head::{SignedHead, VerifiedHead};
use crate::repository::object::Etag;
use crate::repository::pull::{Pull, PullError, PullStep};
use crate::repository::record::ReleaseRecord;
use crate::store::Store;
use crate::tree::Tree;
use crate::units::WallTime;

/// A head that was seen: its state, and how long it holds.
#[derive(Debug, Clone, Default)]
pub struct KnownHead {
    etag: Option<Etag>,
    made: Option<WallTime>,
    valid_until: Option<WallTime>,
}

impl KnownHead {
    /// Warning about a head of `tree` that is stale, or older than `max_age`.
    pub fn warning(&self, tree: &TreeName, max_age: Option<Duration>) -> Option<String> {
        let now = clock::wall_seconds();
        let age = self.made.map_or(0, |made| now.0.saturating_sub(made.0));
        let old = max_age.is_some_and(|max| i64::try_from(max.as_secs()).is_ok_and(|m| age > m));
        let is_stale = old || self.valid_until.is_some_and(|until| until <= now);
        is_stale.then(|| {
            format!(
                "the repository's head of {tree} is stale: nobody publishes there any more, or \
                 somebody withholds newer releases"
            )
        })
    }
}

/// Result of a look into a repository.
#[derive(Debug)]
pub enum Lookup {
    /// The head is as it was.
    Unchanged,
    /// The tree has the newest release of the repository.
    UpToDate(Serial),
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
    pub(super) machine: Pull,
}

/// Looks for a release of `tree` that `host` lacks, and returns the head as well. `known` is the
/// head of the last look. `goes_on` is asked before anything but the head is loaded.
pub fn find(
    store: Store,
    host: &LocalHost,
    tree: &TreeName,
    known: &KnownHead,
    goes_on: &mut dyn FnMut() -> bool,
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
        machine: Pull::new(tree.clone(), known.etag.clone(), seed()),
        head: known.clone(),
        permitted: None,
    };

    let end = runtime.block_on(looker.run(goes_on))?;
    let head = looker.head.clone();
    let lookup = match end {
        LookEnd::Unchanged => Lookup::Unchanged,
        LookEnd::Yielded => Lookup::Yielded,
        LookEnd::UpToDate(serial) => Lookup::UpToDate(serial),
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
    machine: Pull,
    head: KnownHead,
    permitted: Option<(Box<ReleaseRecord>, Permitted)>,
}

/// End of a look.
enum LookEnd {
    Unchanged,
    Yielded,
    UpToDate(Serial),
    Refused(Serial, String),
    Complete(Box<ReleaseRecord>, Permitted),
}

impl Looker<'_> {
    async fn run(&mut self, goes_on: &mut dyn FnMut() -> bool) -> Result<LookEnd> {
        let nodes = self.tree.nodes();

        loop {
            match self.machine.poll(self.requests.now()) {
                PullStep::Get(id, get) => self.requests.get(id, get),
                PullStep::Unchanged => return Ok(LookEnd::Unchanged),
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
                PullStep::Superseded => {
                    return Err(Error::refused("the repository changed while it was read"));
                }
                PullStep::Failed(error) => return Err(of_pull(error)),
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
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<LookEnd>> {
        let name = self.tree.name();
        let Some(verified) = verified(self.host, name, signed, &mut self.machine)? else {
            return Ok(None);
        };
        let head = verified.head();
        self.head = KnownHead {
            etag: self.machine.etag().cloned(),
            made: Some(head.made),
            valid_until: head.valid_until,
        };

        let current = self.tree.state().current()?;
        if current.is_some_and(|mark| mark.id == head.release) {
            return Ok(Some(LookEnd::UpToDate(head.serial())));
        }

        self.machine.follow(&verified, None);
        Ok((!goes_on()).then_some(LookEnd::Yielded))
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
                Some(LookEnd::Refused(serial, why))
            }
        }
    }
}

/// Verifies the head of `tree` by the keys of `host`. Returns `None` if it may have been damaged on
/// the way: `machine` then reads it again.
pub(super) fn verified(
    host: &LocalHost,
    tree: &TreeName,
    signed: &SignedHead,
    machine: &mut Pull,
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

/// Error for a pull that cannot go on.
pub(super) fn of_pull(error: PullError) -> Error {
    match &error {
        PullError::Head(head) => of_head(head),
        PullError::Store(_) => Error::new(Kind::Io, error.to_string()),
        PullError::NoTree(_) | PullError::NoRepository => Error::refused(error.to_string())
            .hint("`makuo publish SPEC --to URL` makes it: is the URL the same?"),
        _ => Error::refused(error.to_string()),
    }
}
