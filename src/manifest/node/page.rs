//! The bytes of a page: each distinct owner once, and each path as the length shared with the
//! previous path plus the rest.

use std::collections::HashMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::{MAX_PAGE_ENTRIES, NodeError};
use crate::manifest::entry::{EntryKind, MAX_OWNER_NAME, Mode, Mtime, Owner, Xattr};
use crate::manifest::{Entry, TreePath};

/// An `Arc` encoded as its value.
pub(super) struct Arc0<T>(pub(super) Arc<T>);

impl<C, T: Encode<C>> Encode<C> for Arc0<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.encode(e, ctx)
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Arc0<T> {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        T::decode(d, ctx).map(|t| Arc0(Arc::new(t)))
    }
}

/// Encoding of an entry.
#[derive(Encode, Decode)]
pub(super) struct WireEntry {
    /// Bytes of the path shared with the previous entry.
    #[n(0)]
    pub(super) shared: u16,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) rest: Vec<u8>,
    #[n(2)]
    pub(super) kind: EntryKind,
    #[n(3)]
    pub(super) mode: Mode,
    #[n(4)]
    pub(super) owner: u16,
    #[n(5)]
    pub(super) secs: i64,
    #[n(6)]
    pub(super) nanos: u32,
    #[n(7)]
    pub(super) xattrs: Option<Vec<Xattr>>,
}

/// Returns the distinct owners of a page, and its entries.
pub(super) fn pack(entries: &[Entry]) -> (Vec<Arc0<Owner>>, Vec<WireEntry>) {
    let mut owners: Vec<Arc0<Owner>> = Vec::new();
    let mut known: HashMap<&Owner, u16> = HashMap::new();
    let mut previous: &[u8] = &[];
    let mut wire = Vec::with_capacity(entries.len());

    for entry in entries {
        let owner = *known.entry(&entry.owner).or_insert_with(|| {
            owners.push(Arc0(Arc::clone(&entry.owner)));
            (owners.len() - 1) as u16
        });
        let path = entry.path.as_bytes();
        let shared = previous
            .iter()
            .zip(path)
            .take_while(|(a, b)| a == b)
            .count();
        previous = path;
        wire.push(WireEntry {
            shared: shared as u16,
            rest: path[shared..].to_vec(),
            kind: entry.kind.clone(),
            mode: entry.mode,
            owner,
            secs: entry.mtime.secs,
            nanos: entry.mtime.nanos,
            xattrs: (!entry.xattrs.is_empty()).then(|| entry.xattrs.clone()),
        });
    }

    (owners, wire)
}

/// Returns the entries of a page, checked each and in order.
pub(super) fn unpack(
    owners: Vec<Arc0<Owner>>,
    wire: Vec<WireEntry>,
) -> Result<Vec<Entry>, NodeError> {
    let too_long = |name: &Option<Box<str>>| {
        name.as_ref()
            .is_some_and(|n| n.is_empty() || n.len() > MAX_OWNER_NAME)
    };

    if owners
        .iter()
        .any(|o| too_long(&o.0.user) || too_long(&o.0.group))
    {
        return Err(NodeError::Entry(
            "an owner's name is empty or too long".into(),
        ));
    }

    let mut entries: Vec<Entry> = Vec::with_capacity(wire.len().min(MAX_PAGE_ENTRIES));
    for w in wire {
        let previous = entries.last().map_or(&[][..], |e| e.path.as_bytes());
        let shared = previous
            .get(..usize::from(w.shared))
            .ok_or_else(|| NodeError::Entry("a path shares too much".into()))?;
        let path = TreePath::new([shared, &w.rest].concat())
            .map_err(|e| NodeError::Entry(e.to_string()))?;
        if entries.last().is_some_and(|e| e.path >= path) {
            return Err(NodeError::Entry(format!("{path}: out of order or twice")));
        }
        let owner = owners
            .get(usize::from(w.owner))
            .ok_or_else(|| NodeError::Entry(format!("{path}: no such owner")))?;
        let entry = Entry {
            path,
            kind: w.kind,
            mode: w.mode,
            owner: Arc::clone(&owner.0),
            mtime: Mtime {
                secs: w.secs,
                nanos: w.nanos,
            },
            xattrs: w.xattrs.unwrap_or_default(),
        };
        entry.check().map_err(NodeError::Entry)?;
        entries.push(entry);
    }

    Ok(entries)
}
