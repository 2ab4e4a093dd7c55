//! The pieces of a gc: marks all bytes that releases refer to, and copies those of weak packs.

use super::rewrite::Moved;
use super::{Gc, GcError, Mark, Stage, TreeHead};
use crate::block::BlockHash;
use crate::repository::head::KeptRelease;
use crate::repository::loader::Loaded;
use crate::repository::pack::{Extent, MAX_PACK_BYTES, PackName};
use crate::repository::places::PlacesRef;
use crate::repository::record::{RecordError, ReleaseRecord};

impl Gc {
    pub(super) fn begin_marking(&mut self) {
        self.stage = Stage::Marking;
        for kept in self.trees.iter().flat_map(|tree| &tree.kept) {
            self.live.add(kept.record());
            self.loader.ask(kept.record(), Mark::Record(*kept));
        }
    }

    /// Looks up the packs of dropped releases.
    pub(super) fn spare(&mut self) {
        for kept in self.trees.iter().flat_map(|tree| &tree.dropped) {
            self.deletion.spare(kept.pack);
            self.loader.ask(kept.record(), Mark::Record(*kept));
        }
    }

    pub(super) fn begin_rewrite(&mut self) {
        let weak = self.live.weak(&self.sizes);
        self.moved = Moved::new(&weak);
        self.report.rewritten = weak.len() as u64;
        self.weak = weak.into();
        self.stage = Stage::Copying;
    }

    pub(super) fn ask_for_whole(&mut self, pack: PackName) {
        let size = self.sizes.get(&pack).copied().unwrap_or_default();
        let len = u32::try_from(size).unwrap_or(u32::MAX).min(MAX_PACK_BYTES);
        let whole = Extent {
            pack,
            offset: 0,
            len,
        };
        self.loader.ask(whole, Mark::Whole(pack));
    }

    pub(super) fn take(&mut self, loaded: Loaded<Mark>) {
        // A dropped release that is damaged is dropped nevertheless.
        let sparing = self.stage == Stage::Sparing;
        match loaded {
            Loaded::Failed(fault) => self.fail(GcError::Store(fault)),
            Loaded::Missing(..) if sparing => {}
            Loaded::Missing(pack, ..) => self.fail(GcError::Missing(pack)),
            Loaded::Piece(extent, mark, bytes) => {
                let taken = self.take_piece(mark, &bytes);
                if !taken && !self.loader.reject(extent, mark) && !sparing {
                    self.fail(GcError::Damaged(extent));
                }
            }
        }
    }

    /// Uses a piece; returns false if its bytes are wrong.
    fn take_piece(&mut self, mark: Mark, bytes: &[u8]) -> bool {
        match mark {
            Mark::Record(kept) => match ReleaseRecord::decode(bytes, kept.pack, &kept.hash) {
                Err(RecordError::Hash) => return false,
                Err(_) if self.stage == Stage::Sparing => {}
                Err(error) => self.fail(GcError::Record(error)),
                Ok(record) => self.take_record(kept, record),
            },
            Mark::Places(reference) => {
                let Some(places) = reference.open(bytes) else {
                    return false;
                };
                places.blocks().for_each(|extent| self.refer_to(extent));
                for child in places.children() {
                    self.refer_to(child.node);
                    self.mark(child.places);
                }
                self.pages.insert(reference, places);
            }
            Mark::Whole(pack) => {
                if PackName(BlockHash::of(bytes)) != pack {
                    return false;
                }
                let extents = self.live.extents(&pack);
                if let Err(extent) = self.moved.copy(&extents, bytes, &mut self.packer) {
                    self.fail(GcError::Damaged(extent));
                }
            }
        }

        true
    }

    fn take_record(&mut self, kept: KeptRelease, record: ReleaseRecord) {
        let is_its = |tree: &&TreeHead| tree.kept.contains(&kept);
        let other = &record.release.header().tree;
        if let Some(tree) = self.trees.iter().filter(is_its).find(|t| t.tree != *other) {
            let error = GcError::OtherTree(tree.tree.clone(), other.clone());
            return self.fail(error);
        }

        self.refer_to(record.root.node);
        self.mark(record.root.places);
        self.records.insert(kept, record);
    }

    fn mark(&mut self, page: PlacesRef) {
        if !self.pages.contains_key(&page) {
            self.refer_to(page.extent);
            self.loader.ask(page.extent, Mark::Places(page));
        }
    }

    /// Notes that a release refers to these bytes.
    fn refer_to(&mut self, extent: Extent) {
        match self.stage {
            Stage::Sparing => self.deletion.spare(extent.pack),
            _ => self.live.add(extent),
        }
    }
}
