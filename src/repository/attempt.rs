//! Requests that are repeated after temporary faults: numbers, delays, small objects.

use std::time::Duration;

use super::object::{Etag, FaultKind, Get, GetReply, StoreFault};
use crate::block::BlockHasher;
use crate::units::Moment;

/// Failures in a row, without any progress, after which a request is given up.
pub const MAX_FAILURES: u32 = 8;
/// Odd answers without any progress, after which a request is given up.
const MAX_ODD_ANSWERS: u32 = 5;
/// Delay after the first failure; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Longest delay that makuo chooses.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Longest delay that a store may ask for.
const MAX_ASKED_DELAY: Duration = Duration::from_secs(300);

/// Number of a request of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Numbers requests and draws the jitter of delays.
#[derive(Debug)]
pub(super) struct Dice {
    next: u64,
    rng: fastrand::Rng,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            next: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }
}

/// Failures of one request, and the time of its next attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts {
    failures: u32,
    /// Those by [`FaultKind::is_odd_answer`].
    odd: u32,
    not_before: Moment,
}

impl Attempts {
    /// Records a failure at `now`; returns whether another attempt may follow.
    pub(super) fn fail(&mut self, fault: &StoreFault, now: Moment, dice: &mut Dice) -> bool {
        let is_odd = fault.kind.is_odd_answer();
        self.failures += 1;
        self.odd += u32::from(is_odd);
        if !(is_odd || fault.kind.is_temporary())
            || self.failures >= MAX_FAILURES
            || self.odd >= MAX_ODD_ANSWERS
        {
            return false;
        }

        let delay = (FIRST_DELAY * (1 << (self.failures - 1))).min(MAX_DELAY);
        let jittered = delay.mul_f64(0.5 + dice.rng.f64() / 2.0);
        let asked = fault.after.unwrap_or_default().min(MAX_ASKED_DELAY);
        self.not_before = now + jittered.max(asked);
        true
    }

    /// Records progress: later failures count from none.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
        self.odd = 0;
    }

    /// Time of the next attempt.
    pub(super) fn not_before(&self) -> Moment {
        self.not_before
    }
}

/// Times that an object is read again because its state seems to be an old one.
const MAX_REREADS: u32 = 5;

/// Patience with a store, or a cache before it, that answers with an old state.
#[derive(Debug, Clone, Default)]
pub(super) struct Rereads(Attempts);

impl Rereads {
    /// Returns the next attempt to read the object; `None` after too many.
    pub(super) fn next(&mut self, get: Get, now: Moment, dice: &mut Dice) -> Option<SmallGet> {
        let old = StoreFault::new(FaultKind::Temporary, "the store answers with an old state");
        let again = self.0.failures < MAX_REREADS && self.0.fail(&old, now, dice);
        let not_before = self.0.not_before;
        again.then(|| SmallGet {
            attempts: Attempts {
                not_before,
                ..Attempts::default()
            },
            ..SmallGet::new(get)
        })
    }
}

/// Sink for the bytes of a get.
pub(super) trait GetBody: Default {
    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]);
}

impl GetBody for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl GetBody for BlockHasher {
    fn take(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

/// Reads one object whole by one request: a small one into memory, or a pack into its hash.
#[derive(Debug)]
pub(super) struct SmallGet<B = Vec<u8>> {
    get: Get,
    id: Option<RequestId>,
    body: B,
    /// Bytes in `body`.
    read: u64,
    attempts: Attempts,
}

/// Result of a [`SmallGet`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SmallGot<B = Vec<u8>> {
    Body(B, Option<Etag>),
    NotModified,
    Missing,
    Failed(StoreFault),
}

impl<B: GetBody> SmallGet<B> {
    pub(super) fn new(get: Get) -> Self {
        Self {
            get,
            id: None,
            body: B::default(),
            read: 0,
            attempts: Attempts::default(),
        }
    }

    /// Returns the request when it is time for it.
    pub(super) fn poll(&mut self, now: Moment, dice: &mut Dice) -> Option<(RequestId, Get)> {
        if self.id.is_some() || self.attempts.not_before() > now {
            return None;
        }

        let id = dice.id();
        self.id = Some(id);
        self.body = B::default();
        self.read = 0;
        Some((id, self.get.clone()))
    }

    /// Time of the next request; `None` while one is under way.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.id.is_none().then(|| self.attempts.not_before())
    }

    /// Takes a reply; returns the result if it is the last one.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        reply: &GetReply,
        now: Moment,
        dice: &mut Dice,
    ) -> Option<SmallGot<B>> {
        if self.id != Some(id) {
            return None;
        }

        let fault = match reply {
            GetReply::Bytes(bytes) if self.read + bytes.len() as u64 <= self.get.max => {
                self.read += bytes.len() as u64;
                self.body.take(bytes);
                return None;
            }
            GetReply::Bytes(_) => {
                let Get { object, max, .. } = &self.get;
                let text = format!("the store sends more than {max} bytes of {object}");
                StoreFault::new(FaultKind::TooLarge, &text)
            }
            GetReply::End { etag } => {
                let body = std::mem::take(&mut self.body);
                return Some(SmallGot::Body(body, etag.clone()));
            }
            GetReply::NotModified => return Some(SmallGot::NotModified),
            GetReply::Missing => return Some(SmallGot::Missing),
            GetReply::Failed(fault) => fault.clone(),
        };

        self.id = None;
        let again = self.attempts.fail(&fault, now, dice);
        (!again).then_some(SmallGot::Failed(fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::repository::object::ObjectPath;

    #[test]
    fn delays_grow_and_end() {
        let fault = StoreFault::new(FaultKind::Temporary, "cut");
        let mut dice = Dice::new(1);
        let mut attempts = Attempts::default();
        let mut last = Duration::ZERO;
        let mut delays = 0;
        while attempts.fail(&fault, Moment(0), &mut dice) {
            let delay = attempts.not_before().since(Moment(0));
            assert!(delay > last / 2 && delay <= MAX_DELAY, "{delay:?}");
            last = delay;
            delays += 1;
        }

        assert_eq!(delays, MAX_FAILURES - 1);
        attempts.progress();
        let asked = StoreFault {
            after: Some(Duration::from_secs(99_999)),
            ..fault
        };
        assert!(attempts.fail(&asked, Moment(0), &mut dice));
        assert_eq!(attempts.not_before().since(Moment(0)), MAX_ASKED_DELAY);

        let odd = StoreFault::new(FaultKind::TooLarge, "a page of a portal");
        let mut attempts = Attempts::default();
        let again = (1..).find(|_| !attempts.fail(&odd, Moment(0), &mut dice));
        assert_eq!(again, Some(MAX_ODD_ANSWERS));

        let denied = StoreFault::new(FaultKind::Denied, "403");
        assert!(!Attempts::default().fail(&denied, Moment(0), &mut dice));
    }

    #[test]
    fn a_pack_is_hashed_as_it_comes_and_from_its_beginning_after_a_fault() {
        let get = Get {
            object: ObjectPath::new("packs/ab/1.pack").expect("legal"),
            range: None,
            unless: None,
            max: 8,
        };
        let mut dice = Dice::new(1);
        let mut hashing: SmallGet<BlockHasher> = SmallGet::new(get);
        let cut = GetReply::Failed(StoreFault::new(FaultKind::Temporary, "cut"));
        let mut now = Moment(0);
        let mut ask = |pieces: &[&[u8]], last: GetReply| {
            now = now + MAX_DELAY;
            let (id, _) = hashing.poll(now, &mut dice).expect("it is time");
            let pieces = pieces.iter().map(|piece| GetReply::Bytes(piece.to_vec()));
            let mut ends = pieces.chain([last]).map(|reply| {
                let got = hashing.reply(id, &reply, now, &mut dice);
                got.map(|got| match got {
                    SmallGot::Body(hasher, _) => hasher.finish(),
                    other => panic!("no body: {other:?}"),
                })
            });
            ends.find_map(|end| end)
        };

        assert_eq!(ask(&[b"abcd", b"e"], cut), None);
        let end = GetReply::End { etag: None };
        assert_eq!(ask(&[b"more", b"than", b"8"], end.clone()), None);
        assert_eq!(ask(&[b"ab", b"cd"], end), Some(BlockHash::of(b"abcd")));
    }
}
