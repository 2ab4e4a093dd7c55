//! A store in memory with faults, and the keys and heads of its tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::TreeName;
use crate::keys::{AuthorizedKeys, FileSigner, Signer};
use crate::repository::head::{SignedHead, VerifiedHead, head_object};
use crate::repository::object::{
    Etag, FaultKind, Get, GetReply, ListedObject, ObjectPath, Put, PutCondition, PutReply,
    StoreFault,
};
use crate::units::WallTime;

/// Time of all tests.
pub(crate) const NOW: WallTime = WallTime(1_790_000_000);

pub(crate) fn www() -> TreeName {
    TreeName::new("www").expect("legal")
}

pub(crate) fn signer() -> FileSigner {
    FileSigner::from_seed([7; 32])
}

/// Keys that allow [`signer`] everything on the tree www.
pub(crate) fn keys() -> AuthorizedKeys {
    let line = format!("tree=\"www\",deploy {}\n", signer().public());
    AuthorizedKeys::parse(line.as_bytes(), "keys".as_ref()).expect("legal")
}

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    bytes: Arc<[u8]>,
    state: u64,
    stored: WallTime,
}

/// Requests and bytes since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) gets: u64,
    pub(crate) puts: u64,
    pub(crate) out: u64,
    pub(crate) into: u64,
    pub(crate) faults: u64,
}

impl Traffic {
    pub(crate) fn requests(&self) -> u64 {
        self.gets + self.puts
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.out + self.into
    }
}

/// Objects in memory.
#[derive(Debug, Clone)]
pub(crate) struct MemoryStore {
    pub(crate) objects: BTreeMap<ObjectPath, Stored>,
    pub(crate) states: u64,
    pub(crate) now: WallTime,
    pub(crate) has_conditions: bool,
    pub(crate) traffic: Traffic,
    /// Requests for heads in their order; true for a put that was carried out.
    pub(crate) head_requests: Vec<bool>,
    /// Earlier states of heads, with which one of three requests for a head is answered.
    pub(crate) old_heads: Option<Vec<Stored>>,
    /// Nothing below `trees/` is listed.
    pub(crate) hides_trees: bool,
    /// Heads are listed and answered as missing.
    pub(crate) hides_heads: bool,
    /// Packs cannot be read, for a reason.
    pub(crate) packs_fail: Option<FaultKind>,
    /// One of as many requests fails in some way; 0 is none.
    pub(crate) fault_every: u32,
    pub(crate) rng: fastrand::Rng,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            states: 0,
            now: NOW,
            has_conditions: true,
            traffic: Traffic::default(),
            head_requests: Vec::new(),
            old_heads: None,
            hides_trees: false,
            hides_heads: false,
            packs_fail: None,
            fault_every: 0,
            rng: fastrand::Rng::with_seed(1),
        }
    }
}

impl MemoryStore {
    /// Traffic since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    pub(crate) fn list(&self) -> Vec<ListedObject> {
        let listed = |(object, stored): (&ObjectPath, &Stored)| ListedObject {
            object: object.clone(),
            size: stored.bytes.len() as u64,
            stored: stored.stored,
        };
        let is_listed = |object: &ListedObject| {
            !self.hides_trees || !object.object.as_str().starts_with("trees/")
        };
        let all = self.objects.iter().map(listed);
        all.filter(is_listed).collect()
    }

    pub(crate) fn size(&self) -> u64 {
        self.list().iter().map(|object| object.size).sum()
    }

    pub(crate) fn bytes(&self, object: &ObjectPath) -> Option<Arc<[u8]>> {
        self.objects
            .get(object)
            .map(|stored| Arc::clone(&stored.bytes))
    }

    pub(crate) fn delete(&mut self, object: &ObjectPath) {
        self.objects.remove(object);
    }

    /// Replaces an object behind the back of everybody.
    pub(crate) fn overwrite(&mut self, object: &ObjectPath, bytes: Vec<u8>) {
        self.states += 1;
        let before = self.objects.get(object).filter(|_| !object.is_immutable());
        if let (Some(old), Some(before)) = (&mut self.old_heads, before) {
            old.push(before.clone());
        }
        let stored = Stored {
            bytes: bytes.into(),
            state: self.states,
            stored: self.now,
        };
        self.objects.insert(object.clone(), stored);
    }

    /// All replies to a request.
    pub(crate) fn get(&mut self, get: &Get) -> Vec<GetReply> {
        self.traffic.gets += 1;
        if !get.object.is_immutable() {
            self.head_requests.push(false);
        }
        if let Some(kind) = self.packs_fail.filter(|_| get.object.is_immutable()) {
            return vec![failed(kind)];
        }
        let old = self.old_heads.as_deref().unwrap_or_default();
        let old = old.get(self.rng.usize(..3 * old.len().max(1))).cloned();
        let old = old.filter(|_| !get.object.is_immutable());
        let present = self.objects.get(&get.object).cloned();
        let present = present.filter(|_| !self.hides_heads || get.object.is_immutable());
        let Some(stored) = old.or(present) else {
            return vec![self.faulty().unwrap_or(GetReply::Missing)];
        };

        let etag = Etag::new(&format!("\"{}\"", stored.state));
        if get.unless.is_some() && get.unless == etag {
            return vec![GetReply::NotModified];
        }

        let all = 0..stored.bytes.len() as u64;
        let range = get.range.clone().unwrap_or(all.clone());
        assert!(!range.is_empty() && get.max >= range.end - range.start || get.range.is_none());
        if range.end > all.end {
            return vec![failed(FaultKind::TooShort)];
        }

        let mut body = stored.bytes[range.start as usize..range.end as usize].to_vec();
        let mut last = GetReply::End { etag };
        match self.faulty() {
            Some(_) if self.rng.bool() && !body.is_empty() => {
                let at = self.rng.usize(..body.len());
                body[at] ^= 1 << self.rng.u32(..8);
            }
            Some(fault) => {
                body.truncate(self.rng.usize(..=body.len()));
                last = if self.rng.bool() { last } else { fault };
            }
            None => {}
        }

        self.traffic.out += body.len() as u64;
        let piece = 1 + self.rng.usize(..200_000);
        let pieces = body
            .chunks(piece)
            .map(|piece| GetReply::Bytes(piece.to_vec()));
        pieces.chain([last]).collect()
    }

    pub(crate) fn put(&mut self, put: &Put) -> PutReply {
        self.traffic.puts += 1;
        let before = self.objects.get(&put.object);
        let etag = before.and_then(|stored| Etag::new(&format!("\"{}\"", stored.state)));
        let holds = match &put.condition {
            PutCondition::Any => true,
            _ if !self.has_conditions => return PutReply::NoConditions,
            PutCondition::Absent => etag.is_none(),
            PutCondition::Unchanged(tag) => etag.as_ref() == Some(tag),
        };

        if !holds {
            return PutReply::Conflict;
        }
        if !put.object.is_immutable() {
            self.head_requests.push(true);
        }
        if let Some(GetReply::Failed(fault)) = self.faulty() {
            if self.rng.bool() {
                self.overwrite(&put.object, put.bytes.to_vec());
            }
            return PutReply::Failed(fault);
        }

        self.traffic.into += put.bytes.len() as u64;
        self.overwrite(&put.object, put.bytes.to_vec());
        PutReply::Done {
            etag: Etag::new(&format!("\"{}\"", self.states)),
        }
    }

    fn faulty(&mut self) -> Option<GetReply> {
        let hit = self.fault_every > 0 && self.rng.u32(..self.fault_every) == 0;
        self.traffic.faults += u64::from(hit);
        hit.then(|| failed(FaultKind::Temporary))
    }
}

fn failed(kind: FaultKind) -> GetReply {
    GetReply::Failed(StoreFault::new(kind, "a fault of the test"))
}

/// The head of www in the store.
pub(crate) fn stored_head(store: &MemoryStore) -> VerifiedHead {
    let bytes = store.bytes(&head_object(&www())).expect("a head");
    verified(&SignedHead::decode(&bytes).expect("a head"))
}

pub(crate) fn verified(signed: &SignedHead) -> VerifiedHead {
    signed.verify(&www(), &keys(), None, NOW).expect("signed")
}
