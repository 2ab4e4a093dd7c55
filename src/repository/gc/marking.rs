//! The pieces of a gc: marks all bytes that releases refer to, and copies those of weak packs.

use super::marks::GcMark;
use super::moved::Moved;
use super::tree_heads::TreeHead;
use super::{Gc, GcError, GcStage};
use crate::block::BlockHash;
use crate::repository::head::HeadRelease;
use crate::repository::loader::Loaded;
use crate::repository::pack::{Extent, MAX_PACK_BYTES, PackName};
use crate::repository::places::PlacesRef;
use crate::repository::record::{RecordError, ReleaseRecord};

impl Gc {
    pub(super) fn begin_marking(&mut self) {
        self.stage = GcStage::Marking;
        for kept in self.heads.trees.iter().flat_map(|tree| &tree.kept) {
            self.marks.live.add(kept.record());
            self.marks.loader.ask(kept.record(), GcMark::Record(*kept));
        }
    }

    /// Looks up the packs of dropped releases.
    pub(super) fn spare(&mut self) {
        for kept in self.heads.trees.iter().flat_map(|tree| &tree.dropped) {
            self.deletion.spare(kept.pack);
            self.marks.loader.ask(kept.record(), GcMark::Record(*kept));
        }
    }

    pub(super) fn begin_rewrite(&mut self) {
        let weak = self.marks.live.weak(&self.rewrite.sizes);
        self.rewrite.moved = Moved::new(&weak);
        self.report.rewritten = weak.len() as u64;
        self.rewrite.weak = weak.into();
        self.stage = GcStage::Copying;
    }

    pub(super) fn ask_for_whole(&mut self, pack: PackName) {
        let size = self.rewrite.sizes.get(&pack).copied().unwrap_or_default();
        let len = u32::try_from(size).unwrap_or(u32::MAX).min(MAX_PACK_BYTES);
        let whole = Extent {
            pack,
            offset: 0,
            len,
        };
        self.marks.loader.ask(whole, GcMark::Whole(pack));
    }

    pub(super) fn take(&mut self, loaded: Loaded<GcMark>) {
        // A dropped release that is damaged is dropped nevertheless.
        let sparing = self.stage == GcStage::Sparing;
        match loaded {
            Loaded::Failed(fault) => self.fail(GcError::Store(fault)),
            Loaded::Missing(..) if sparing => {}
            Loaded::Missing(pack, ..) => self.fail(GcError::Missing(pack)),
            Loaded::Piece(extent, mark, bytes) => {
                let taken = self.take_piece(mark, &bytes);
                if !taken && !self.marks.loader.reject(extent, mark) && !sparing {
                    self.fail(GcError::Damaged(extent));
                }
            }
        }
    }

    /// Uses a piece; returns false if its bytes are wrong.
    fn take_piece(&mut self, mark: GcMark, bytes: &[u8]) -> bool {
        match mark {
            GcMark::Record(kept) => match ReleaseRecord::decode(bytes, kept.pack, &kept.hash) {
                Err(RecordError::Hash) => return false,
                Err(_) if self.stage == GcStage::Sparing => {}
                Err(error) => self.fail(GcError::Record(error)),
                Ok(record) => self.take_record(kept, record),
            },
            GcMark::Places(reference) => {
                let Some(places) = reference.open(bytes) else {
                    return false;
                };
                places.blocks().for_each(|extent| self.refer_to(extent));
                for child in places.children() {
                    self.refer_to(child.node);
                    self.mark(child.places);
                }
                self.marks.pages.insert(reference, places);
            }
            GcMark::Whole(pack) => {
                if PackName(BlockHash::of(bytes)) != pack {
                    return false;
                }
                let extents = self.marks.live.extents(&pack);
                if let Err(extent) = self.rewrite.moved.copy(&extents, bytes, &mut self.packer) {
                    self.fail(GcError::Damaged(extent));
                }
            }
        }

        true
    }

    fn take_record(&mut self, kept: HeadRelease, record: ReleaseRecord) {
        let is_its = |tree: &&TreeHead| tree.kept.contains(&kept);
        let other = &record.release.header().tree;
        if let Some(tree) = self
            .heads
            .trees
            .iter()
            .filter(is_its)
            .find(|t| t.tree != *other)
        {
            let error = GcError::OtherTree(tree.tree.clone(), other.clone());
            return self.fail(error);
        }

        self.refer_to(record.root.node);
        self.mark(record.root.places);
        self.marks.records.insert(kept, record);
    }

    fn mark(&mut self, page: PlacesRef) {
        if !self.marks.pages.contains_key(&page) {
            self.refer_to(page.extent);
            self.marks.loader.ask(page.extent, GcMark::Places(page));
        }
    }

    /// Notes that a release refers to these bytes.
    fn refer_to(&mut self, extent: Extent) {
        match self.stage {
            GcStage::Sparing => self.deletion.spare(extent.pack),
            _ => self.marks.live.add(extent),
        }
    }
}
