//! New places for what moved: places pages and records, children before parents.

use super::moved::Rewritten;
use super::{Gc, GcError};
use crate::repository::packer::SignedRelease;
use crate::repository::places::PackedNode;
use crate::repository::record::ReleaseRecord;

impl Gc {
    /// Stores places and records of all trees again where something moved.
    pub(super) fn rewrite_trees(&mut self) {
        for tree in &mut self.heads.trees {
            for kept in &tree.kept {
                let Some(record) = self.marks.records.get(kept) else {
                    continue;
                };
                let root =
                    self.rewrite
                        .moved
                        .node(&record.root, &self.marks.pages, &mut self.packer, 0);
                let Some(root) = root else {
                    return self.fail(GcError::Damaged(record.root.places.extent));
                };

                let same = !self.rewrite.moved.is_weak(&kept.pack)
                    && root == PackedNode::of(&record.root, &mut self.packer.packs);
                tree.rewritten.push(if same {
                    Rewritten::Same(*kept)
                } else {
                    let again = self.packer.append_record(&signed(record), root);
                    Rewritten::Again(*kept, again)
                });
            }
        }

        self.packer.close();
    }
}

fn signed(record: &ReleaseRecord) -> SignedRelease {
    SignedRelease {
        release: record.release.clone(),
        signature: record.signature.clone(),
        orders: record.orders.clone(),
    }
}
