//! The changes that turn a host's tree into the release, packed, since a first deploy may have
//! millions.
//!
//! The encoding is private to this process.

use std::ops::Deref;
use std::sync::Arc;

use minicbor::decode::Error as Malformed;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{Action, Change, Delta, LocalOwner, Shape};
use crate::id::Ordinal;
use crate::manifest::read::Located;
use crate::manifest::{Entry, EntryKind, TreePath};
use crate::packed::{CHUNK_LEN, Packed, Ref};

/// Changes in the order of paths.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    list: Packed<Change>,
    /// First change with blocks in each chunk, with the ordinal of its first block.
    ordinals: Vec<(Ordinal, usize)>,
}

impl Changes {
    /// Adds a change with a path after all others.
    pub(super) fn push(&mut self, change: Change) {
        let at = self.list.len();
        if let Some(want) = change
            .want
            .as_ref()
            .filter(|want| block_count(&want.entry.kind) > 0)
            && self
                .ordinals
                .last()
                .is_none_or(|(_, last)| last / CHUNK_LEN != at / CHUNK_LEN)
        {
            self.ordinals.push((want.first, at));
        }

        self.list.push(change);
    }

    /// Returns the index of the change of `path`.
    pub fn find(&self, path: &TreePath) -> Option<usize> {
        self.list.search(|change| change.path.cmp(path))
    }

    /// Returns the change with the block `ordinal` in its file, and the number of the block within
    /// the file.
    pub fn find_block(&self, ordinal: Ordinal) -> Option<(Ref<'_, Change>, usize)> {
        let near = self
            .ordinals
            .partition_point(|(first, _)| *first <= ordinal)
            .checked_sub(1)?;
        let number = |change: &Change| {
            let want = change.want.as_ref()?;
            let number = ordinal.0.checked_sub(want.first.0);
            number.filter(|n| *n < block_count(&want.entry.kind))
        };
        let from = self.ordinals[near].1;
        let change = self
            .list
            .find_in_chunk(from, |change| number(change).is_some())?;
        let number = number(&change)?;
        Some((change, number as usize))
    }

    /// Replaces the action of the change at index `at`.
    pub(super) fn set_action(&mut self, at: usize, action: Action) {
        self.list.update(at, |change| change.action = action);
    }

    /// Lets `decide` change the owner of each path; stops at the first error.
    pub fn try_update_owners<E>(
        &mut self,
        mut decide: impl FnMut(&Change, &mut LocalOwner) -> Result<(), E>,
    ) -> Result<(), E> {
        self.list.try_update_all(|change| {
            let mut owner = change.owner;
            decide(change, &mut owner)?;
            let changed = owner != change.owner;
            change.owner = owner;
            Ok(changed)
        })
    }

    /// Corrupts one change, for tests of invalid plans.
    #[cfg(test)]
    pub(crate) fn tamper(&mut self, at: usize, change: impl FnOnce(&mut Change)) {
        self.list.update(at, change);
    }
}

impl Deref for Changes {
    type Target = Packed<Change>;

    fn deref(&self) -> &Packed<Change> {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = Change;
    type IntoIter = crate::packed::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

fn block_count(kind: &EntryKind) -> u64 {
    match kind {
        EntryKind::File(content) => content.block_count(),
        _ => 0,
    }
}

const ACTIONS: [Action; 7] = [
    Action::Create,
    Action::Replace,
    Action::Update,
    Action::Meta,
    Action::Delete,
    Action::Extra,
    Action::Keep,
];
const SHAPES: [Shape; 6] = [
    Shape::Directory,
    Shape::File,
    Shape::Symlink,
    Shape::Hardlink,
    Shape::Fifo,
    Shape::Device,
];

impl Delta {
    fn bits(self) -> u8 {
        let all = [
            self.content,
            self.size,
            self.mtime,
            self.mode,
            self.user,
            self.group,
            self.acl,
            self.xattrs,
        ];
        all.into_iter()
            .rev()
            .fold(0, |bits, on| bits << 1 | u8::from(on))
    }

    fn of(bits: u8) -> Self {
        let on = |n: u8| bits >> n & 1 == 1;
        Self {
            content: on(0),
            size: on(1),
            mtime: on(2),
            mode: on(3),
            user: on(4),
            group: on(5),
            acl: on(6),
            xattrs: on(7),
        }
    }
}

impl<C> Encode<C> for Change {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let place = |found: Option<usize>| found.map_or(u8::MAX, |at| at as u8);
        e.encode(&self.path)?;
        e.u8(place(ACTIONS.iter().position(|a| *a == self.action)))?;
        e.u8(self.delta.bits())?;
        e.u8(place(
            self.was
                .and_then(|was| SHAPES.iter().position(|s| *s == was)),
        ))?;

        for owner in [self.owner, self.kept] {
            e.encode(owner.uid)?.encode(owner.gid)?;
        }

        let Some(Located { entry, first }) = &self.want else {
            return e.null()?.ok();
        };

        e.encode(first)?
            .encode(&entry.kind)?
            .encode(entry.mode)?
            .encode(&*entry.owner)?
            .encode(entry.mtime)?;

        e.encode(&entry.xattrs)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Change {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        let path: TreePath = d.decode()?;
        let action = *ACTIONS
            .get(usize::from(d.u8()?))
            .ok_or(Malformed::message("an action"))?;
        let delta = Delta::of(d.u8()?);
        let was = SHAPES.get(usize::from(d.u8()?)).copied();
        let owner = LocalOwner {
            uid: d.decode()?,
            gid: d.decode()?,
        };

        let kept = LocalOwner {
            uid: d.decode()?,
            gid: d.decode()?,
        };

        let mut want = None;
        if let Some(first) = d.decode()? {
            let kind = d.decode()?;
            let mode = d.decode()?;
            let owner = Arc::new(d.decode()?);
            let mtime = d.decode()?;
            let xattrs = d.decode()?;
            want = Some(Located {
                entry: Entry {
                    path: path.clone(),
                    kind,
                    mode,
                    owner,
                    mtime,
                    xattrs,
                },
                first,
            });
        }

        Ok(Self {
            path,
            action,
            delta,
            was,
            want,
            owner,
            kept,
        })
    }
}
