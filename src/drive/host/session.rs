//! One session's work on one tree: from the signed release to the complete stage.
//!
//! Checks a peer's data before any effect, by the rules of `authorize`. `switch` follows the stage.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::authorize::{check_catch_up, check_newer};
use super::delivery::{keep_nodes, stage_blocks};
use super::gate::ClosedGate;
use super::offer::AdmittedOffer;
use super::own_scan::ScanTask;
use super::readback::Readback;
use super::shared::LocalHost;
use super::staging::Staging;
use super::switch::Switch;
use crate::block::BlockRef;
use crate::block::frame::Expander;
use crate::diff::ProtectedPaths;
use crate::drive::{clock, drift};
use crate::error::Kind;
use crate::id::{SessionId, TreeName};
use crate::manifest::missing_nodes::Explorer;
use crate::manifest::read::NodeSource;
use crate::manifest::{Intent, ReleaseId};
use crate::metrics::RefusalCauseWord;
use crate::proto::RangeSet;
use crate::proto::generation::Encoding;
use crate::proto::receiver::{Answer, Ask, Delivery, Ordered, ReasonText};
use crate::tree::Mark;
use crate::tree::scan::Scanned;
use crate::tree::stage::Stage;
use crate::units::ByteSize;
use crate::wire::message::DiffSummary;

/// One session's work on one tree.
pub(super) struct TreeSession<'a> {
    offer: AdmittedOffer<'a>,
    explorer: Explorer,
    /// Scan of the tree while nodes of the manifest are missing.
    scan: Option<ScanTask>,
    staging: Staging,
    readback: Readback,
    expander: Expander,
    switch: Switch,
}

impl<'a> TreeSession<'a> {
    /// Begins with an admitted offer.
    pub(super) fn begin(offer: AdmittedOffer<'a>) -> Self {
        Self {
            explorer: Explorer::new(offer.release.header().root),
            scan: None,
            staging: Staging::default(),
            readback: Readback::default(),
            expander: Expander::default(),
            switch: Switch::default(),
            offer,
        }
    }

    /// The host of the session.
    pub(super) fn host(&self) -> &'a LocalHost {
        self.offer.host
    }

    /// Reserves disk space for the stage.
    pub(super) fn reserve(&self) -> crate::Result<()> {
        self.staging.open().map_or(Ok(()), Stage::reserve)
    }

    /// Ends the session; an unreverted commit becomes final.
    pub(super) fn close(&mut self) {
        self.switch.close(&self.offer, &mut self.staging);
    }

    /// Stores the commit order of the release.
    pub(super) fn keep_order(&mut self) {
        self.switch.keep_order(&self.offer);
    }

    /// Records what `answer` says about the release. Returns the release with its pause if it could
    /// not be put in place, unless that was in the way of something else.
    pub(super) fn note_failure(&self, answer: &Answer) -> Option<(TreeName, ReleaseId, Duration)> {
        let offer = &self.offer;
        let (tree, failures) = (&offer.managed.tree, &offer.managed.failures);
        let mark = Mark::of(&offer.release);
        let is_cut = offer.closed.load(Ordering::Acquire);
        let has_failed = match answer {
            Answer::Ordered(Some(Ordered::Committed { .. })) => {
                failures.on_commit(tree.state(), mark);
                false
            }
            // A closed gate says nothing about the release.
            Answer::Ordered(Some(Ordered::Vetoed(_))) if self.closed_gate().is_some() => false,
            Answer::Ordered(Some(Ordered::Vetoed(_) | Ordered::Failed(_) | Ordered::Torn(_))) => {
                true
            }
            // The rest of a staged release can be had from others once they have committed it.
            Answer::Explored(Err(_)) | Answer::Diffed(Err(_)) if offer.staged => false,
            Answer::Diffed(Err(_)) if !is_cut => {
                let refused = &offer.host.figures.refused;
                refused.of(RefusalCauseWord::Comparison).add(1);
                true
            }
            Answer::Finished(Err(_)) => !is_cut,

            _ => false,
        };

        let counts = has_failed
            && offer.release.header().intent != Intent::Audit
            && !offer.ending.load(Ordering::Acquire);
        counts.then(|| {
            let pause = failures.on_failure(tree.state(), mark);
            (tree.name().clone(), mark.id, pause)
        })
    }

    /// Carries out work, and takes its payload or parts.
    pub(super) fn answer(&mut self, id: SessionId, ask: &mut Ask) -> Answer {
        match ask {
            Ask::Explore => Answer::Explored(self.explore()),
            Ask::Diff => Answer::Diffed(self.diff()),
            Ask::Deliver(delivery) => {
                let outcome = self.deliver(delivery);
                Answer::Delivered(std::mem::take(&mut delivery.payload), outcome)
            }
            Ask::ReadBack { generation, parts } => {
                let parts = std::mem::take(parts);
                let found = self.readback.read(&self.offer, self.staging.open(), parts);
                Answer::ReadBack(*generation, found)
            }
            Ask::Finish => Answer::Finished(self.finish()),
            Ask::Order(order) => {
                Answer::Ordered(self.switch.order(&self.offer, &mut self.staging, id, order))
            }
            Ask::Check => Answer::Checked(self.switch.check(&self.offer)),
        }
    }

    fn explore(&mut self) -> Result<RangeSet, ReasonText> {
        // The previous session may have committed since the opening.
        let tree = &self.offer.managed.tree;
        match &self.offer.grant {
            Some(_) => check_catch_up(tree, &self.offer.release)?,
            None => check_newer(tree, self.offer.release.header())?,
        }

        if self.offer.release.header().intent != Intent::Audit {
            self.offer
                .managed
                .tree
                .finish_undo()
                .map_err(|e| e.with_hint())?;
        }

        let nodes = self.offer.managed.tree.nodes();
        // Presence is proven by reading, even for nodes of the current release: the store may be
        // damaged. With `quick`, presence in the store is enough; a damaged node is found when it
        // is read.
        let quick = self.offer.how.quick;
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

        if self.offer.staged && !missing.is_empty() {
            return Err(self.not_whole("its list of entries is damaged"));
        }

        // A quick scan needs the complete manifest.
        if !missing.is_empty() && self.scan.is_none() && !self.offer.how.quick {
            self.scan = Some(
                ScanTask::begin(
                    self.offer.managed,
                    &self.offer.rules,
                    &self.offer.release,
                    self.offer.how,
                    Some(&self.offer.closed),
                )
                .map_err(|e| e.with_hint())?,
            );
        }

        Ok(missing
            .iter()
            .map(|(ordinal, _)| ordinal.0..ordinal.0 + 1)
            .collect())
    }

    /// Compares the tree with the release.
    ///
    /// A refusal may result from the index instead of the tree: then the next scan covers
    /// everything. A refusal after such a complete scan proves nothing about the index, nor does an
    /// interrupted one.
    fn diff(&mut self) -> Result<(DiffSummary, RangeSet, Arc<[u8]>), ReasonText> {
        let tree = &self.offer.managed.tree;
        let closed = Arc::clone(&self.offer.closed);
        let doubt = |is_of_index: bool| {
            if is_of_index && !closed.load(Ordering::Acquire) {
                tree.doubt_names();
            }
        };

        let scanned = self
            .scan_result()
            .inspect_err(|e| doubt(e.kind() == Kind::Io))
            .map_err(|e| e.with_hint())?;
        let walked = scanned.walked;

        self.compare(&scanned).inspect_err(|_| doubt(!walked))
    }

    fn compare(
        &mut self,
        scanned: &Scanned,
    ) -> Result<(DiffSummary, RangeSet, Arc<[u8]>), ReasonText> {
        // The manifest is complete; further data may be uncompressed.
        self.expander = Expander::default();
        let tree = &self.offer.managed.tree;
        let header = self.offer.release.header();
        let plan = self
            .offer
            .managed
            .compare(&self.offer.rules, scanned, header)
            .map_err(|e| e.with_hint())?;

        let lines = if header.intent == Intent::Audit {
            drift::MAX_LINES
        } else {
            drift::FEW_LINES
        };

        let protected = match header.intent {
            Intent::Audit => self.offer.managed.protected(&self.offer.rules, header),
            Intent::Deploy | Intent::Rollback => Ok(ProtectedPaths::default()),
        };
        let protected = protected.map_err(|e| e.with_hint())?;

        let (list, identity) = drift::encode(&plan, &protected, lines);
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

        let changes = summary.written + summary.touched + summary.deleted > 0;
        self.switch.set_changes(changes);
        // A closed gate refuses already when an older sender asks before the commit.
        let may_refuse = self.offer.rules.hooks.before.is_some() || self.closed_gate().is_some();
        summary.votes = Some(changes && may_refuse);
        let wants = if header.intent == Intent::Audit {
            // Report now any obstruction of a commit.
            tree.check_way(&plan).map_err(|e| e.with_hint())?;
            plan.wants.iter().cloned().collect()
        } else {
            tree.nodes().sync().map_err(|e| e.with_hint())?;
            tree.stage_for(&self.offer.release)
                .map_err(|e| e.with_hint())?;
            let stage = Stage::begin(tree, plan).map_err(|e| e.with_hint())?;
            summary.fetch = stage.plan().summary.fetch_bytes;
            if self.offer.staged && !stage.wants().is_empty() {
                let fetch = ByteSize(summary.fetch);
                return Err(self.not_whole(&format!(
                    "the tree was changed since, and {fetch} are not here"
                )));
            }

            let wants: RangeSet = stage.wants().iter().cloned().collect();
            self.staging = Staging::Open(stage);
            wants
        };

        Ok((summary, wants, list.into()))
    }

    /// Reason of a staged release that cannot be committed as it is.
    fn not_whole(&self, why: &str) -> ReasonText {
        let release = &self.offer.release;
        format!("{release} is not whole any more as it was staged here: {why}; deploy again")
    }

    /// Result of the scan during the fetch of nodes, or of a new one.
    fn scan_result(&mut self) -> crate::Result<Scanned> {
        match self.scan.take() {
            Some(look) => look.end(),
            None => ScanTask::begin(
                self.offer.managed,
                &self.offer.rules,
                &self.offer.release,
                self.offer.how,
                Some(&self.offer.closed),
            )?
            .end(),
        }
    }

    /// Expands a payload and keeps the blocks. If a frame does not match the map, every block is
    /// wrong.
    fn deliver(&mut self, delivery: &Delivery) -> Result<(RangeSet, u64), ReasonText> {
        let Delivery {
            payload,
            body,
            blocks,
        } = delivery;

        let encoded = payload.get(body.start..).unwrap_or_default();
        let content = match body.encoding {
            Encoding::Plain => Some(encoded),
            Encoding::Zstd => self.expander.expand(encoded, body.plain),
        };

        match (content, self.staging.open()) {
            (None, _) => Ok((
                blocks
                    .iter()
                    .map(|b| b.ordinal.0..b.ordinal.0 + 1)
                    .collect(),
                0,
            )),
            (Some(content), None) => keep_nodes(
                &self.explorer,
                self.offer.managed.tree.nodes(),
                content,
                blocks,
            ),
            (Some(content), Some(stage)) => stage_blocks(stage, content, blocks),
        }
    }

    /// Completes the stage. Returns the reason if nothing is committed now.
    fn finish(&mut self) -> Result<Option<ReasonText>, ReasonText> {
        self.readback = Readback::default();
        self.staging
            .finish()
            .inspect_err(|e| self.offer.managed.tree.drop_index(e))
            .map_err(|e| e.with_hint())?;
        Ok(self.closed_gate().map(|gate| gate.why))
    }

    fn closed_gate(&self) -> Option<ClosedGate> {
        ClosedGate::of(self.offer.managed, clock::wall_seconds())
    }
}
