//! A release of a repository as the source of a session: nodes from the tree's store, blocks from
//! the shelf that a thread of its own fills.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::failure::of_pull;
use super::find::{Loading, verified};
use super::requests::{StoreReply, StoreRequests};
use super::shelf::Shelf;
use crate::block::BlockRef;
use crate::drive::host::LocalHost;
use crate::error::{Error, IoResultExt, Result};
use crate::id::Ordinal;
use crate::proto::RangeSet;
use crate::repository::pull::{PullStep, RepositoryPull};
use crate::tree::{Blocks, ReleaseNodes, SourceError, Tree};

/// Blocks kept after a read: the last ones of a generation may turn out to be too much for it, and
/// are read again for the next.
const KEPT_BLOCKS: usize = 4;

/// Interval of the replies that are taken although the session has enough to read: a server would
/// take a connection without progress for dead.
const TRICKLE: Duration = Duration::from_secs(1);

/// Nodes and blocks of a release in a repository.
pub(super) struct RepositorySource {
    nodes: ReleaseNodes,
    shelf: Arc<Shelf>,
    /// The blocks read last, by ordinal.
    kept: VecDeque<(u64, Vec<u8>)>,
}

/// The thread that loads blocks; it ends with this value.
pub(super) struct BlockLoader {
    shelf: Arc<Shelf>,
    thread: Option<JoinHandle<()>>,
}

impl BlockLoader {
    /// Starts the thread.
    pub(super) fn start(loading: Loading, host: Arc<LocalHost>, tree: Arc<Tree>) -> Result<Self> {
        let shelf = Arc::new(Shelf::default());
        let mut work = LoaderWork {
            machine: loading.machine,
            requests: loading.requests,
            shelf: Arc::clone(&shelf),
            host,
            tree,
            wants_more: false,
        };

        let runtime = loading.runtime;
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || {
                if let Err(e) = runtime.block_on(work.run()) {
                    work.shelf.fail(e.with_hint());
                }
            })
            .io_context("cannot start a thread")?;

        let thread = Some(thread);
        Ok(Self { shelf, thread })
    }

    /// The blocks that the thread loads.
    pub(super) fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }

    /// Reason why loading ended early.
    pub(super) fn failure(&self) -> Option<String> {
        self.shelf.failure()
    }
}

impl Drop for BlockLoader {
    fn drop(&mut self) {
        self.shelf.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl RepositorySource {
    /// Source of the release with these `nodes`, and with blocks from `shelf`.
    pub(super) fn new(nodes: ReleaseNodes, shelf: Arc<Shelf>) -> Self {
        Self {
            nodes,
            shelf,
            kept: VecDeque::new(),
        }
    }
}

impl Blocks for RepositorySource {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.nodes.read_node(ordinal, out)? {
            return Ok(node);
        }

        let block = self.nodes.block(ordinal)?;
        if let Some((_, bytes)) = self.kept.iter().find(|(kept, _)| *kept == ordinal.0) {
            out.extend_from_slice(bytes);
            return Ok(block);
        }

        // The machine has verified it.
        let taken = self.shelf.take(ordinal.0);
        let bytes = taken.map_err(SourceError::Repository)?;
        out.extend_from_slice(&bytes);
        self.kept.truncate(KEPT_BLOCKS - 1);
        self.kept.push_front((ordinal.0, bytes));
        Ok(block)
    }

    fn expect(&mut self, ordinals: &RangeSet) {
        let mut blocks = ordinals.clone();
        blocks.remove(0..self.nodes.first_block());
        for (kept, _) in &self.kept {
            blocks.remove(*kept..kept.saturating_add(1));
        }
        self.shelf.expect(&blocks);
    }
}

/// Work of the thread.
struct LoaderWork {
    machine: RepositoryPull,
    requests: StoreRequests,
    shelf: Arc<Shelf>,
    host: Arc<LocalHost>,
    tree: Arc<Tree>,
    /// Set while the machine has not looked up what it was told last.
    wants_more: bool,
}

impl LoaderWork {
    async fn run(&mut self) -> Result<()> {
        while !self.shelf.is_closed() {
            let wants = self.shelf.new_wants();
            if !wants.is_empty() {
                self.machine.want(wants.iter());
                self.wants_more = true;
            }
            let is_full = self.shelf.is_full();
            let overdue = self.shelf.overdue();
            let is_coming = overdue.is_some_and(|ordinal| self.machine.is_coming(ordinal));
            self.machine.hold(is_full || is_coming);

            match self.machine.poll(self.requests.now()) {
                PullStep::Get(id, get) => self.requests.get(id, get),
                PullStep::Walk => {
                    self.wants_more = false;
                    self.walk()?;
                }
                PullStep::Block(ordinal, _, bytes) => self.shelf.put(ordinal.0, bytes),
                PullStep::Node(block, bytes) => drop(self.tree.nodes().put_node(block, &bytes)?),
                PullStep::Head(signed) => {
                    let name = self.tree.name();
                    if let Some(head) = verified(&self.host, name, &signed, &mut self.machine)? {
                        self.machine.follow(&head, None);
                    }
                }
                PullStep::Superseded => {
                    return Err(Error::refused(
                        "the repository does not keep the release any more",
                    ));
                }
                PullStep::Failed(error) => return Err(of_pull(&error)),
                PullStep::Done if !self.wants_more && self.shelf.lacks_any() => {
                    // The session would wait for it.
                    let what = "a defect of makuo: a block of the repository was forgotten";
                    return Err(Error::refused(what));
                }
                PullStep::Unchanged | PullStep::Record(_) | PullStep::Complete | PullStep::Done => {
                }
                // Replies that are not taken keep their connections waiting.
                PullStep::Wait(until) => tokio::select! {
                    reply = self.requests.next(until), if !is_full => self.take(reply),
                    () = self.shelf.changed() => {}
                    () = tokio::time::sleep(TRICKLE), if is_full => {
                        let reply = self.requests.next(Some(self.requests.now())).await;
                        self.take(reply);
                    }
                },
            }
        }

        Ok(())
    }

    fn take(&mut self, reply: Option<StoreReply>) {
        if let Some(StoreReply::Get(id, reply)) = reply {
            self.machine.reply(id, reply, self.requests.now());
        }
    }

    fn walk(&mut self) -> Result<()> {
        let nodes = self.tree.nodes();
        self.machine
            .walk(nodes, |block| nodes.has(&block.hash))
            .map_err(|e| Error::refused("the manifest cannot be read").because(e))
    }
}
