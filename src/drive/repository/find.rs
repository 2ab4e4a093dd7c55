//! Looks into a repository for a release that this host lacks, and loads its manifest.
//!
//! What the release may do here is checked before its content is loaded, and once more by the
//! session that takes it.

use std::sync::Arc;

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

/// State of a head in which there was nothing to take.
#[derive(Debug, Clone, Default)]
pub struct KnownHead(Option<Etag>);

/// Result of a look into a repository.
#[derive(Debug)]
pub enum Lookup {
    /// The head is as it was.
    Unchanged,
    /// The tree has the newest release of the repository.
    UpToDate(KnownHead, Serial),
    /// The newest release is not for this host, for a reason.
    Refused(KnownHead, Serial, String),
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
    /// Warning that the head is stale.
    pub warning: Option<String>,
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

/// Looks for a release of `tree` that `host` lacks. `known` is the head's state at the last look.
/// `goes_on` is asked before anything but the head is loaded.
pub fn find(
    store: Store,
    host: &LocalHost,
    tree: &TreeName,
    known: &KnownHead,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Lookup> {
    let managed = host
        .trees
        .get(tree)
        .ok_or_else(|| Error::refused(format!("there is no tree {tree} here")))?;
    let runtime = runtime()?;
    let mut looker = Looker {
        host,
        tree: &managed.tree,
        max_age: managed.max_age.map(|age| age.as_secs()),
        requests: StoreRequests::new(store),
        machine: Pull::new(tree.clone(), known.0.clone(), seed()),
        permitted: None,
        warning: None,
    };

    let end = runtime.block_on(looker.run(goes_on))?;
    let known = KnownHead(looker.machine.etag().cloned());
    Ok(match end {
        LookEnd::Unchanged => Lookup::Unchanged,
        LookEnd::Yielded => Lookup::Yielded,
        LookEnd::UpToDate(serial) => Lookup::UpToDate(known, serial),
        LookEnd::Refused(serial, why) => Lookup::Refused(known, serial, why),
        LookEnd::Complete(record, permitted) => Lookup::Found(Box::new(FoundRelease {
            record: *record,
            permitted,
            warning: looker.warning,
            tree: Arc::clone(&managed.tree),
            loading: Loading {
                runtime,
                requests: looker.requests,
                machine: looker.machine,
            },
        })),
    })
}

/// A look under way.
struct Looker<'a> {
    host: &'a LocalHost,
    tree: &'a Arc<Tree>,
    max_age: Option<u64>,
    requests: StoreRequests,
    machine: Pull,
    permitted: Option<(Box<ReleaseRecord>, Permitted)>,
    warning: Option<String>,
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
                    if let Some(end) = self.take_head(&signed)? {
                        return Ok(end);
                    }
                    if !goes_on() {
                        return Ok(LookEnd::Yielded);
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

    fn take_head(&mut self, signed: &SignedHead) -> Result<Option<LookEnd>> {
        let name = self.tree.name();
        let verified = verified(self.host, name, signed)?;
        let now = clock::wall_seconds();
        if verified.is_stale(now, self.max_age) {
            self.warning = Some(format!(
                "the repository's head of {name} is stale: nobody publishes there any more, or \
                 somebody withholds newer releases"
            ));
        }

        let head = verified.head();
        let current = self.tree.state().current()?;
        if current.is_some_and(|mark| mark.id == head.release) {
            return Ok(Some(LookEnd::UpToDate(head.serial())));
        }

        self.machine.follow(&verified, None);
        Ok(None)
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

/// Verifies the head of `tree` by the keys of `host`.
pub(super) fn verified(
    host: &LocalHost,
    tree: &TreeName,
    signed: &SignedHead,
) -> Result<VerifiedHead> {
    let keys = host.authorized();
    let verified = signed.verify(tree, &keys, None, clock::wall_seconds());
    verified.map_err(|e| of_head(&e))
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
