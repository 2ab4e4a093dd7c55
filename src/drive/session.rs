//! One session's work on one tree: from a release's signature to the complete stage.
//!
//! Here is where a peer's word is checked before it has an effect, by what `rights` says. What follows the stage is in
//! `switch`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::{Host, ManagedTree, reason};
use super::look::Look;
use super::rights::{check_allowed, check_grant, check_session, is_newer, may_be_made_up};
use super::switch::Switch;
use super::{clock, drift, tombstones};
use crate::block::BlockRef;
use crate::block::frame::Expander;
use crate::diff::Plan;
use crate::error::{Error, Kind};
use crate::id::{HostName, Ordinal, SessionId};
use crate::keys::{Namespace, PublicKey, verify};
use crate::manifest::explore::Explorer;
use crate::manifest::read::NodeSource;
use crate::manifest::rules::Layout;
use crate::manifest::{Header, Intent, Release};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, Encoding, PlacedBlock};
use crate::proto::receiver::{DiskReply, DiskRequest, OfferRefusal, ReasonText, ScanMode};
use crate::tree::scan::Scanned;
use crate::tree::stage::{BlockReader, Stage};
use crate::tree::{NodeStore, Unhealthy};
use crate::wire::message::{DiffSummary, SignedOrder};

/// What a session was opened with.
pub(super) struct Opening {
    pub(super) release: Release,
    pub(super) signature: Arc<[u8]>,
    pub(super) look: ScanMode,
    /// Who sends it, by its own word.
    pub(super) sender: HostName,
    /// The order to commit that came with the release.
    pub(super) grant: Option<SignedOrder>,
    /// Set when the daemon ends.
    pub(super) ending: Arc<AtomicBool>,
    /// Set when nobody wants to know any more.
    pub(super) closed: Arc<AtomicBool>,
}

/// One session's work on one tree.
pub(super) struct Session<'a> {
    pub(super) host: &'a Host,
    pub(super) managed: &'a ManagedTree,
    pub(super) release: Release,
    pub(super) signature: Arc<[u8]>,
    pub(super) key: PublicKey,
    pub(super) sender: HostName,
    pub(super) ending: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    pub(super) how: ScanMode,
    explorer: Explorer,
    /// The look at the tree that is taken while nodes of the manifest are missing.
    look: Option<Look>,
    pub(super) stage: Option<Stage>,
    /// What reads back blocks that are here already, once that was asked for.
    pub(super) recall: Option<BlockReader>,
    expander: Expander,
    /// Whether the release changes anything here.
    pub(super) changes: bool,
    /// How far the switch to the release is.
    pub(super) switch: Switch,
    /// What was committed.
    pub(super) done: Option<Plan>,
    /// What the release that was here failed its checks with.
    pub(super) unhealthy: Option<Unhealthy>,
    /// The order to commit that came with the release, when it is one that was missed.
    pub(super) grant: Option<SignedOrder>,
    /// The order by which it was committed: whoever misses it may commit by it.
    pub(super) order: Option<SignedOrder>,
}

impl<'a> Session<'a> {
    /// Begins with what [`check`] found rightful.
    pub(super) fn begin(
        host: &'a Host,
        managed: &'a ManagedTree,
        opening: Opening,
        key: PublicKey,
    ) -> Self {
        let Opening {
            release,
            signature,
            look: how,
            sender,
            grant,
            ending,
            closed,
        } = opening;

        Self {
            host,
            managed,
            key,
            sender,
            ending,
            closed,
            how,
            explorer: Explorer::new(release.header().root),
            look: None,
            stage: None,
            recall: None,
            expander: Expander::default(),
            changes: false,
            switch: Switch::Before,
            done: None,
            unhealthy: None,
            grant,
            order: None,
            release,
            signature,
        }
    }

    /// `None` to what is no work of a session.
    pub(super) fn answer(&mut self, id: SessionId, request: DiskRequest) -> Option<DiskReply> {
        Some(match request {
            // The session before this one may have committed since this one was opened.
            DiskRequest::Explore(_) => {
                let newer = match &self.grant {
                    Some(_) => may_be_made_up(&self.managed.tree, &self.release),
                    None => is_newer(&self.managed.tree, self.release.header()),
                };
                DiskReply::Explored(id, newer.and_then(|()| self.explore()))
            }
            DiskRequest::Diff(_) => DiskReply::Diffed(id, self.diff()),
            DiskRequest::Deliver {
                payload,
                body,
                blocks,
                ..
            } => {
                let outcome = self.deliver(&payload, body, &blocks);
                DiskReply::Delivered(id, payload, outcome)
            }
            DiskRequest::ReadBack {
                generation, parts, ..
            } => DiskReply::ReadBack(id, generation, self.recall(parts)),
            DiskRequest::Finish(_) => DiskReply::Finished(id, self.finish()),
            DiskRequest::Order { order, .. } => DiskReply::Ordered(id, self.order(id, &order)),
            DiskRequest::Check(_) => DiskReply::Checked(id, self.check()),
            DiskRequest::Open { .. } | DiskRequest::Close(_) => return None,
            DiskRequest::Bury(_) | DiskRequest::GoBack(_) | DiskRequest::Verify(..) => return None,
        })
    }

    fn explore(&mut self) -> Result<RangeSet, ReasonText> {
        if self.release.header().intent != Intent::Audit {
            self.managed.tree.mend().map_err(|e| reason(&e))?;
        }

        let nodes = self.managed.tree.nodes();
        // Nothing is taken to be here without its being read, not even of the present release: the store may be damaged.
        // Who looks quickly does so at nodes, too, and is told when one of them turns out not to be whole.
        let quick = self.how.quick;
        let is_here = |node: &BlockRef| {
            if quick {
                nodes.has(&node.hash)
            } else {
                nodes.node(&node.hash).is_ok()
            }
        };

        let missing = self
            .explorer
            .advance(nodes, is_here)
            .map_err(|e| e.to_string())?;

        // Where to look quickly is known when the manifest is.
        if !missing.is_empty() && self.look.is_none() && !self.how.quick {
            self.look = Some(
                Look::begin(self.managed, &self.release, self.how, Some(&self.closed))
                    .map_err(|e| reason(&e))?,
            );
        }

        Ok(missing
            .iter()
            .map(|(ordinal, _)| ordinal.0..ordinal.0 + 1)
            .collect())
    }

    /// A refusal may come from what is remembered of the tree: then the next look is at all of it. One that follows such a
    /// look does not, and one that was cut short tells nothing.
    fn diff(&mut self) -> Result<(DiffSummary, RangeSet, Arc<[u8]>), ReasonText> {
        let (tree, closed) = (&self.managed.tree, Arc::clone(&self.closed));
        let doubt = |is_of_index: bool| {
            if is_of_index && !closed.load(Ordering::Acquire) {
                tree.doubt_names();
            }
        };

        let scanned = self
            .scan()
            .inspect_err(|e| doubt(e.kind() == Kind::Io))
            .map_err(|e| reason(&e))?;
        let walked = scanned.walked;

        self.compare(&scanned).inspect_err(|_| doubt(!walked))
    }

    fn compare(
        &mut self,
        scanned: &Scanned,
    ) -> Result<(DiffSummary, RangeSet, Arc<[u8]>), ReasonText> {
        // The manifest is here; what comes now may not be compressed.
        self.expander = Expander::default();
        let tree = &self.managed.tree;
        let header = self.release.header();
        let plan = self
            .managed
            .compare(scanned, header)
            .map_err(|e| reason(&e))?;

        let lines = if header.intent == Intent::Audit {
            drift::MAX_LINES
        } else {
            drift::FEW_LINES
        };

        let (list, identity) = drift::encode(&plan, lines);
        let mut summary = DiffSummary {
            written: plan.summary.created + plan.summary.updated,
            touched: plan.summary.metadata,
            deleted: plan.summary.deleted,
            extra: plan.summary.extra,
            fetch: plan.summary.fetch_bytes,
            drift: identity,
            drift_bytes: list.len() as u64,
            votes: None,
        };

        self.changes = summary.written + summary.touched + summary.deleted > 0;
        summary.votes = Some(self.changes && self.managed.hooks.before.is_some());
        let wants = if header.intent == Intent::Audit {
            // A commit would be refused for this: who asks beforehand is told.
            tree.check_way(&plan).map_err(|e| reason(&e))?;
            plan.wants.iter().cloned().collect()
        } else {
            tree.nodes().sync().map_err(|e| reason(&e))?;
            let stage = Stage::begin(tree, plan).map_err(|e| reason(&e))?;
            summary.fetch = stage.plan().summary.fetch_bytes;
            let wants: RangeSet = stage.wants().iter().cloned().collect();
            self.stage = Some(stage);
            wants
        };

        Ok((summary, wants, list.into()))
    }

    /// What is in the tree: what the look found that was begun while nodes were fetched, or a look taken now.
    fn scan(&mut self) -> crate::Result<Scanned> {
        match self.look.take() {
            Some(look) => look.end(),
            None => Look::begin(self.managed, &self.release, self.how, Some(&self.closed))?.end(),
        }
    }

    /// Makes the content plain, and keeps the blocks. Of a frame that is not what its map says every block is wrong.
    fn deliver(
        &mut self,
        payload: &[u8],
        at: Body,
        blocks: &[PlacedBlock],
    ) -> Result<(RangeSet, u64), ReasonText> {
        let encoded = payload.get(at.start..).unwrap_or_default();
        let content = match at.encoding {
            Encoding::Plain => Some(encoded),
            Encoding::Zstd => self.expander.expand(encoded, at.plain),
        };

        match (content, &self.stage) {
            (None, _) => Ok((
                blocks
                    .iter()
                    .map(|b| b.ordinal.0..b.ordinal.0 + 1)
                    .collect(),
                0,
            )),
            (Some(content), None) => {
                keep_nodes(&self.explorer, self.managed.tree.nodes(), content, blocks)
            }
            (Some(content), Some(stage)) => stage_blocks(stage, content, blocks),
        }
    }

    fn finish(&mut self) -> Result<(), ReasonText> {
        self.recall = None;
        let stage = self.stage.as_mut().ok_or("nothing is staged")?;
        stage
            .finish()
            .inspect_err(|e| self.managed.tree.drop_index(e))
            .map_err(|e| reason(&e))
    }
}

/// Refuses what may not be put here; whose release it is else.
pub(super) fn check(
    host: &Host,
    session: SessionId,
    opening: &Opening,
) -> Result<PublicKey, OfferRefusal> {
    let Opening {
        release,
        signature,
        grant,
        ..
    } = opening;

    let header = release.header();
    let key = verify(Namespace::RELEASE, release.bytes(), signature)
        .map_err(|e| format!("the release is not signed: {e}"))?;
    check_allowed(host, &key, release, clock::wall_seconds())?;
    check_session(header, session, grant.is_some())?;

    // Only now: it is work that nobody may cause who may not put anything here.
    header.rules.excluded()?;
    let managed =
        host.trees
            .get(&header.tree)
            .ok_or_else(|| match host.trees.broken(&header.tree) {
                Some(why) => OfferRefusal { why, proven: true },
                None => format!("there is no tree {} here", header.tree).into(),
            })?;

    match grant {
        Some(grant) => {
            check_grant(host, &key, release, grant)?;
            may_be_made_up(&managed.tree, release)?;
        }
        None => is_newer(&managed.tree, header)?,
    }

    tombstones::check(managed, release)?;
    can_take(managed, header).map_err(|why| OfferRefusal { why, proven: true })?;
    Ok(key)
}

/// Whether a release that others have may be put here, as far as its header tells.
pub(super) fn may_be_taken(
    host: &Host,
    release: &Release,
    signature: &[u8],
) -> Result<(), OfferRefusal> {
    let key = verify(Namespace::RELEASE, release.bytes(), signature)
        .map_err(|e| format!("the release is not signed: {e}"))?;
    check_allowed(host, &key, release, clock::wall_seconds())?;
    let tree = &release.header().tree;
    let managed = host
        .trees
        .get(tree)
        .ok_or_else(|| format!("there is no tree {tree} here"))?;
    may_be_made_up(&managed.tree, release)?;

    Ok(tombstones::check(managed, release)?)
}

/// Whether the tree is there, and can be switched as the release says.
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
        Err(e) => return Err(reason(&Error::io("cannot look at", root, e))),
    }

    // Without it nothing can be committed, and an audit would not see what is wrong.
    managed.tree.state().current().map_err(|e| reason(&e))?;
    if header.rules.layout == Layout::Swap && header.intent != Intent::Audit {
        managed.tree.check_swap().map_err(|e| reason(&e))?;
    }

    Ok(())
}

/// Verifies and keeps nodes of the manifest.
fn keep_nodes(
    explorer: &Explorer,
    nodes: &NodeStore,
    content: &[u8],
    blocks: &[PlacedBlock],
) -> Result<(RangeSet, u64), ReasonText> {
    let (mut wrong, mut bytes) = (RangeSet::default(), 0);
    for placed in blocks {
        let node = content.get(placed.bytes.clone()).unwrap_or_default();
        let Some(block) = explorer.missing(placed.ordinal) else {
            continue;
        };
        match nodes.put_node(block, node).map_err(|e| reason(&e))? {
            true => bytes += node.len() as u64,
            false => wrong.insert(placed.ordinal.0..placed.ordinal.0 + 1),
        }
    }

    Ok((wrong, bytes))
}

/// Verifies and writes on as many threads as there are cores; the content is shared out by bytes.
fn stage_blocks(
    stage: &Stage,
    content: &[u8],
    blocks: &[PlacedBlock],
) -> Result<(RangeSet, u64), ReasonText> {
    let put = |blocks: &[PlacedBlock]| -> Result<(RangeSet, u64), ReasonText> {
        let (mut wrong, mut bytes) = (RangeSet::default(), 0);
        for placed in blocks {
            let block = content.get(placed.bytes.clone()).unwrap_or_default();
            let Ordinal(ordinal) = placed.ordinal;
            match stage.put(placed.ordinal, block).map_err(|e| reason(&e))? {
                true => bytes += block.len() as u64,
                false => wrong.insert(ordinal..ordinal + 1),
            }
        }
        Ok((wrong, bytes))
    };

    let middle = blocks
        .iter()
        .position(|b| b.bytes.start >= content.len() / 2)
        .unwrap_or(0);
    if content.len() < PARALLEL_BYTES || middle == 0 {
        return put(blocks);
    }

    let (first, second) = blocks.split_at(middle);
    let (a, b) = std::thread::scope(|scope| {
        match std::thread::Builder::new().spawn_scoped(scope, || put(second)) {
            Ok(other) => (
                put(first),
                other
                    .join()
                    .unwrap_or_else(|_| Err("a staging thread failed".into())),
            ),
            // Slower, and as right.
            Err(_) => (put(first), put(second)),
        }
    });

    let ((mut wrong, bytes), (more_wrong, more_bytes)) = (a?, b?);
    wrong.extend(&more_wrong);
    Ok((wrong, bytes + more_bytes))
}

/// Contents below this are not worth a second thread.
const PARALLEL_BYTES: usize = 512 << 10;
