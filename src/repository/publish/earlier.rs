//! The order of a comparison: which earlier release is next, and when the packs begin.

use std::collections::HashSet;

use super::Publish;
use super::compare::OldPiece;
use super::new_nodes::{all_hashes, all_nodes, missing};
use super::state::PublishStage;
use crate::manifest::read::{NodeSource, ReadError};
use crate::repository::slots::NodeAt;

/// New bytes below which a further release is not looked at.
const FEW_BYTES: u64 = 256 << 10;

impl Publish {
    /// Goes on with the next earlier release, or with the packs.
    pub(super) fn compare<S: NodeSource>(&mut self, source: &S) -> Result<(), ReadError> {
        let (Some(comparison), Some(new)) = (&mut self.comparison, &self.new) else {
            return Ok(());
        };

        let root = NodeAt::root(&new.release.header().root);
        if !comparison.is_begun {
            comparison.is_begun = true;
            comparison.new = all_hashes(&root, source)?;
        }

        comparison.nodes.clear();
        comparison.pages.clear();
        if comparison.survey.has_losses() {
            // They need not be read from a store that has lost some of them.
            comparison.nodes = all_nodes(&root, source)?;
        }

        let has_earlier = !comparison.earlier.is_empty() || comparison.newest.is_some();
        let is_first = !has_earlier && self.stock.nodes.is_empty();
        let (missing, bytes) = if !is_first {
            missing(&root, source, &self.stock)?
        } else {
            (HashSet::new(), 0)
        };

        if bytes > FEW_BYTES
            && let Some(newest) = comparison.newest.take()
        {
            comparison.open.push(newest);
            comparison.look(&mut self.stock, &mut self.packer.packs);
            return Ok(());
        }

        if bytes > FEW_BYTES && !self.stock.nodes.is_empty() && comparison.seeks_copies {
            let packs = &mut self.packer.packs;
            comparison.seek_copies(&root, source, &missing, &mut self.stock, packs)?;
            if !comparison.is_idle() {
                return Ok(());
            }
        }

        let next = comparison.earlier.pop_front();
        match next.filter(|_| bytes > FEW_BYTES) {
            Some(kept) => comparison
                .loader
                .ask(kept.top_window(), OldPiece::Top(kept)),
            None => {
                self.comparison = None;
                let all = new.release.header().root.bytes;
                self.layout.begin(root, if is_first { all } else { bytes });
                self.stage = PublishStage::Packing;
            }
        }

        Ok(())
    }
}
