//! The disk of a simulated host, in memory: the answers to the requests of its state machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blocks::BlockMap;
use super::offer::{SimOffer, signature, tree};
use super::open_session::OpenSession;
use crate::id::{SessionId, TreeName};
use crate::manifest::read::Manifest;
use crate::manifest::{EntryKind, Intent, Release, ReleaseId};
use crate::proto::RangeSet;
use crate::proto::generation::Encoding;
use crate::proto::receiver::{
    Answer, Ask, BlockPart, Delivery, DiskReply, DiskRequest, OfferRefusal, OfferedRelease, Ordered,
};
use crate::wire::message::{
    MAX_BEACON_TOMBSTONES, Order, OrderKind, SignedOrder, Tombstone, TreeState,
};
use crate::wire::query::ReleaseBytes;

/// State of a simulated host that survives a crash.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    blocks: BlockMap,
    /// Blocks of the sender: equal content is kept once for all hosts.
    shared: Arc<BlockMap>,
    /// The release in place.
    pub committed: Option<Release>,
    /// The previous release, while a revert is possible.
    before: Option<Option<Release>>,
    /// The release that stays staged.
    pub staged: Option<Release>,
    /// Behaviour of the disk and its hooks.
    pub script: DiskScript,
    /// Actions so far.
    pub counts: DiskCounts,
    /// The order that committed the release, or a later one for all hosts.
    pub grant: Option<SignedOrder>,
    /// Orders to abort or revert a release.
    pub tombstones: Vec<SignedOrder>,
    open: BTreeMap<SessionId, OpenSession>,
}

/// Behaviour of a simulated disk and its hooks.
#[derive(Debug, Clone, Default)]
pub struct DiskScript {
    /// Result of the hook before a commit; `Err` is a veto.
    pub vote: Option<Result<(), String>>,
    /// Result of the check after a commit.
    pub health: Option<Result<(), String>>,
    /// Reason for refusing every release.
    pub refuse: Option<String>,
    /// Number of delivered payloads to corrupt.
    pub corrupt: u32,
    /// Reason why the host commits nothing now.
    pub held: Option<String>,
    /// Read back none of the blocks.
    forgetful: bool,
}

/// Actions of a simulated disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskCounts {
    /// Number of commits.
    pub commits: u32,
    /// Number of reverts.
    pub reverts: u32,
    /// Number of runs of the hook before a commit.
    pub votes: u32,
    /// Number of compressed payloads delivered.
    pub frames: u32,
}

impl SimDisk {
    /// Creates an empty disk that shares the blocks of `offer` with all others. Without `recall`
    /// the disk reads no block back.
    pub fn sharing(offer: &SimOffer, recall: bool) -> Self {
        let script = DiskScript {
            forgetful: !recall,
            ..DiskScript::default()
        };

        Self {
            shared: Arc::clone(&offer.blocks),
            script,
            ..Self::default()
        }
    }

    /// Stores blocks of the files of `offer` before the transfer: those with a position for which
    /// `has` returns true.
    pub fn preload(&mut self, offer: &SimOffer, has: impl FnMut(usize) -> bool) {
        for (hash, bytes) in offer.chosen(has) {
            self.blocks.insert(hash, bytes);
        }
    }

    /// Returns the state of the tree as the host reports it.
    pub fn state(&self) -> TreeState {
        let release = self.committed.as_ref();
        TreeState {
            tree: tree(),
            serial: release.map(|r| r.header().serial).unwrap_or_default(),
            release: release.map(Release::id),
            running: release.map(|r| r.header().serial),
            created: release.map(|r| r.header().created),
            tombstones: Some(self.stones()),
            unhealthy: None,
            base: None,
        }
    }

    /// Returns the signed part of the release in place.
    pub fn headers(&self) -> BTreeMap<TreeName, ReleaseBytes> {
        let told = |release: &Release| {
            let header = release.bytes().to_vec();
            ReleaseBytes {
                signature: signature(&header),
                header,
            }
        };

        self.committed
            .iter()
            .map(|release| (tree(), told(release)))
            .collect()
    }

    fn stones(&self) -> Vec<Tombstone> {
        let stone = |signed: &SignedOrder| Some(Order::decode(&signed.order)?.tombstone()?.1);
        self.tombstones
            .iter()
            .rev()
            .filter_map(stone)
            .take(MAX_BEACON_TOMBSTONES)
            .collect()
    }

    /// Crashes the host: everything in memory is lost.
    pub fn crash(&mut self) {
        self.open.clear();
    }

    /// Returns true if every block of the release in place is present.
    pub fn is_whole(&self) -> bool {
        let Some(release) = &self.committed else {
            return true;
        };

        let manifest = Manifest::of(release.header(), &self.blocks);
        manifest.entries().all(|located| {
            let Ok(located) = located else { return false };
            let EntryKind::File(content) = &located.entry.kind else {
                return true;
            };
            manifest
                .blocks(content)
                .is_ok_and(|blocks| blocks.iter().all(|block| self.blocks.has_sound(block)))
        })
    }

    /// Answers a request; `Close` has no answer.
    pub fn answer(&mut self, request: DiskRequest) -> Option<DiskReply> {
        Some(match request {
            DiskRequest::Open(session, offer) => {
                DiskReply::Opened(session, self.open(session, offer))
            }
            DiskRequest::Session(session, ask) => {
                DiskReply::Session(session, self.carry_out(session, ask))
            }
            DiskRequest::Verify(release, signed) => {
                let sound = self.is_newer(&release) && *signed == signature(release.bytes());
                DiskReply::Verified(release.id(), sound)
            }
            DiskRequest::Bury(order) => {
                let holds = order.signature == signature(&order.order);
                if holds {
                    self.tombstones.push(order.clone());
                    self.drop_staged();
                }
                DiskReply::Buried(order, holds)
            }
            DiskRequest::KeepOrder(order) => {
                let decoded = Order::decode(&order.order);
                let holds = order.signature == signature(&order.order)
                    && decoded.is_some_and(|decoded| self.runs(decoded.release));
                if holds {
                    self.grant = Some(order.clone());
                }
                DiskReply::OrderKept(order, holds)
            }
            DiskRequest::GoBack(_) => {
                let mut stones = self.stones().into_iter();
                let is_reverted = stones.any(|stone| stone.revert && self.runs(stone.release));
                if is_reverted && let Some(before) = self.before.take() {
                    self.counts.reverts += 1;
                    self.committed = before;
                }
                DiskReply::Trees(vec![self.state()])
            }
            DiskRequest::Close(session) => {
                if self.open.remove(&session).is_some() {
                    self.before = None;
                }
                return None;
            }
        })
    }

    fn runs(&self, release: ReleaseId) -> bool {
        let committed = self.committed.as_ref();
        committed.is_some_and(|committed| committed.id() == release)
    }

    /// Forgets a staged release that cannot be committed any more.
    fn drop_staged(&mut self) {
        let stones = self.stones();
        let newest = self
            .committed
            .as_ref()
            .map(|release| release.header().serial);
        self.staged.take_if(|staged| {
            let is_aborted = stones.iter().any(|stone| stone.release == staged.id());
            is_aborted || newest >= Some(staged.header().serial)
        });
    }

    /// Returns whether a release is newer than the one in place.
    fn is_newer(&self, release: &Release) -> bool {
        self.committed
            .as_ref()
            .is_none_or(|c| c.header().serial < release.header().serial)
    }

    fn open(&mut self, session: SessionId, offer: OfferedRelease) -> Result<(), OfferRefusal> {
        let release = offer.release;
        if *offer.signature != signature(release.bytes()) {
            return Err("not signed".to_string().into());
        }

        let is_staged = self
            .staged
            .as_ref()
            .is_some_and(|staged| staged.id() == release.id());
        let mut stones = self.stones().into_iter();
        let refused = if offer.staged && !is_staged {
            Some("it is not staged here".to_string())
        } else if let Some(why) = &self.script.refuse {
            Some(why.clone())
        } else if stones.any(|stone| stone.release == release.id()) {
            Some("it was taken back".to_string())
        } else if release.header().intent == Intent::Deploy && !self.is_newer(&release) {
            Some("an old serial".to_string())
        } else {
            None
        };

        self.open.insert(
            session,
            OpenSession::new(release, offer.grant.is_some(), offer.staged),
        );
        refused.map_or(Ok(()), |why| Err(why.into()))
    }

    fn carry_out(&mut self, session: SessionId, ask: Ask) -> Answer {
        match ask {
            Ask::Explore => Answer::Explored(self.with_open(session, OpenSession::explore)),
            Ask::Diff => {
                let votes = self.script.vote.is_some();
                Answer::Diffed(self.with_open(session, |open, blocks| open.diff(blocks, votes)))
            }
            Ask::Deliver(mut delivery) => {
                self.corrupt(&mut delivery);
                let outcome = self.deliver(session, &delivery);
                Answer::Delivered(delivery.payload, outcome)
            }
            Ask::ReadBack { generation, parts } => {
                Answer::ReadBack(generation, self.read_back(session, parts))
            }
            Ask::Finish => {
                let held = self.script.held.clone();
                let finished = self.with_open(session, |open, _| open.finish());
                Answer::Finished(finished.map(|()| held))
            }
            Ask::Order(order) => Answer::Ordered(self.order(session, &order)),
            Ask::Check => Answer::Checked(self.script.health.clone().unwrap_or(Ok(()))),
        }
    }

    /// Calls `work` on an open session and the blocks of the disk.
    fn with_open<T>(
        &mut self,
        session: SessionId,
        work: impl FnOnce(&mut OpenSession, &BlockMap) -> Result<T, String>,
    ) -> Result<T, String> {
        let open = self.open.get_mut(&session).ok_or("not open")?;
        work(open, &self.blocks)
    }

    /// Flips a bit of a payload, as often as the script says.
    fn corrupt(&mut self, delivery: &mut Delivery) {
        if self.script.corrupt == 0 {
            return;
        }

        self.script.corrupt -= 1;
        let body = delivery.body;
        let at = match body.encoding {
            Encoding::Plain => body.start + delivery.blocks[0].bytes.start,
            Encoding::Zstd => usize::midpoint(body.start, delivery.payload.len()),
        };
        delivery.payload[at] ^= 1;
    }

    fn deliver(
        &mut self,
        session: SessionId,
        delivery: &Delivery,
    ) -> Result<(RangeSet, u64), String> {
        let open = self.open.get_mut(&session).ok_or("not open")?;
        if delivery.body.encoding == Encoding::Zstd {
            self.counts.frames += 1;
        }

        let delivered = open.deliver(delivery);
        for (hash, content) in delivered.sound {
            // Equal content is kept once for all hosts.
            let shared = self.shared.get(&hash).cloned();
            self.blocks.insert(hash, shared.unwrap_or(content));
        }

        Ok((delivered.wrong, delivered.bytes))
    }

    fn read_back(&self, session: SessionId, parts: Vec<BlockPart>) -> Vec<(BlockPart, Vec<u8>)> {
        match self.open.get(&session) {
            Some(open) if !self.script.forgetful => open.read_back(&self.blocks, parts),
            _ => Vec::new(),
        }
    }

    fn order(&mut self, session: SessionId, signed: &SignedOrder) -> Option<Ordered> {
        let order = Order::decode(&signed.order)
            .filter(|_| signed.signature == signature(&signed.order))?;
        let open = self.open.get(&session).filter(|o| {
            o.release.id() == order.release && (order.session == session || o.granted)
        })?;

        Some(match order.kind {
            OrderKind::Revert if self.before.is_some() && self.runs(order.release) => {
                self.counts.reverts += 1;
                self.committed = self.before.take().flatten();
                Ordered::Reverted("went back".into())
            }
            OrderKind::Abort | OrderKind::Revert => {
                let is_it = |staged: &mut Release| staged.id() == order.release;
                self.staged.take_if(is_it);
                Ordered::Aborted
            }
            OrderKind::Stage => {
                let replaced = self.staged.replace(open.release.clone());
                Ordered::Staged(replaced.map(|old| format!("in place of {old}")))
            }
            OrderKind::Prepare => {
                self.counts.votes += u32::from(self.script.vote.is_some());
                match self.script.vote.clone().unwrap_or(Ok(())) {
                    Ok(()) => Ordered::Prepared,
                    Err(why) => Ordered::Vetoed(why),
                }
            }
            OrderKind::Commit if self.script.held.is_some() => Ordered::Vetoed("held".to_string()),
            OrderKind::Commit => {
                self.counts.commits += 1;
                let serial = open.release.header().serial;
                self.before = Some(self.committed.replace(open.release.clone()));
                self.grant = Some(signed.clone());
                self.drop_staged();
                Ordered::Committed {
                    serial,
                    checks: self.script.health.is_some(),
                }
            }
        })
    }
}
