//! What a pull does with pieces, and with packs that vanish.

use super::blocks;
use super::state::{Asking, PullPurpose, WalkState};
use super::{MAX_MOVES, PullError, PullStep, RepositoryPull, head_request};
use crate::manifest::missing_nodes::Explorer;
use crate::repository::attempt::SmallGet;
use crate::repository::head::HeadRelease;
use crate::repository::loader::Loaded;
use crate::repository::pack::{Extent, PackName, unpack};
use crate::repository::record::{RecordError, ReleaseRecord};

impl RepositoryPull {
    pub(super) fn take(&mut self, loaded: Loaded<PullPurpose>) {
        match loaded {
            Loaded::Failed(fault) => self.fail(PullError::Store(fault)),
            Loaded::Missing(_, lost, true) => self.ask_again(&lost),
            Loaded::Missing(pack, mut lost, false) => {
                lost.extend(self.loader.clear());
                self.structure.clear();
                self.put_back(&lost);
                self.look_again(pack);
            }
            Loaded::Piece(extent, purpose, stored) => {
                if !self.take_piece(extent, purpose, stored) && !self.loader.reject(extent, purpose)
                {
                    self.fail(PullError::Damaged(extent));
                }
            }
        }
    }

    /// Uses a piece; returns false if its bytes are wrong.
    fn take_piece(&mut self, extent: Extent, purpose: PullPurpose, stored: Vec<u8>) -> bool {
        match purpose {
            PullPurpose::Window(kept) => return self.take_window(extent, kept, stored),
            PullPurpose::Places(reference) => match reference.open(&stored) {
                None => return false,
                Some(places) => {
                    self.pages.insert(reference, places);
                }
            },
            PullPurpose::Node(block) => match unpack(&mut self.expander, stored, &block) {
                None => return false,
                Some(plain) => self.steps.push_back(PullStep::Node(block, plain)),
            },
            PullPurpose::Block(ordinal, block) => {
                match unpack(&mut self.expander, stored, &block) {
                    None => return false,
                    Some(plain) => self.steps.push_back(PullStep::Block(ordinal, block, plain)),
                }
            }
        }

        self.structure.remove(&purpose);
        true
    }

    fn take_window(&mut self, extent: Extent, kept: HeadRelease, bytes: Vec<u8>) -> bool {
        let Some(followed) = self.followed.as_mut().filter(|f| f.kept == kept) else {
            return true;
        };

        let record = &bytes[(kept.lead as usize).min(bytes.len())..];
        let record = match ReleaseRecord::decode(record, kept.pack, &kept.hash) {
            Err(RecordError::Hash) => return false,
            Err(error) => {
                self.fail(error.into());
                return true;
            }
            Ok(record) => record,
        };
        if let Err(error) = record.check_tree(&self.tree) {
            self.fail(error.into());
            return true;
        }

        let id = record.release.id();
        let header = record.release.header();
        if followed.id.is_some_and(|known| known != id) || header.serial != kept.serial {
            self.fail(RecordError::Hash.into());
            return true;
        }

        let again = self.explorer.is_some();
        followed.id = Some(id);
        followed.record = Some(record.clone());
        self.pages.clear();
        self.loader.open_window(extent, bytes);

        self.walks = WalkState::Loading;
        if !again {
            self.explorer = Some(Explorer::new(header.root));
            self.steps.push_back(PullStep::Record(Box::new(record)));
        }
        true
    }

    /// Takes back the blocks that will not come; a later walk asks for them again.
    fn put_back(&mut self, lost: &[PullPurpose]) {
        let block = |purpose: &PullPurpose| match purpose {
            PullPurpose::Block(ordinal, _) => Some(ordinal.0),
            _ => None,
        };
        blocks::put_back(&mut self.remaining, lost.iter().filter_map(block).collect());
    }

    /// Asks again for what a late answer about an earlier head took away.
    fn ask_again(&mut self, lost: &[PullPurpose]) {
        self.put_back(lost);
        for purpose in lost {
            self.structure.remove(purpose);
            if let (PullPurpose::Window(kept), Some(followed)) = (purpose, &self.followed)
                && followed.kept == *kept
                && self.moved.is_none()
            {
                self.loader.ask(kept.window(), *purpose);
            }
        }
    }

    /// Reads the head again after `pack` vanished. What is under way in other packs still counts.
    fn look_again(&mut self, pack: PackName) {
        self.walks = WalkState::Idle;
        if self.moved.replace(pack).is_some() {
            return;
        }
        self.moves += 1;
        if self.moves > MAX_MOVES {
            return self.fail(PullError::Unsteady);
        }
        let head = head_request(&self.tree, None);
        self.asking = Some(Asking::Head(SmallGet::new(head)));
    }
}
