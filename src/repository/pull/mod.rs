//! The machine that pulls a release from a repository, without I/O.
//!
//! Contract: call [`RepositoryPull::poll`] until it returns [`PullStep::Wait`], then wait for a
//! reply or for the time in the step. A step may ask the caller to do something; the machine goes
//! on after that.
//!
//! | step | the caller |
//! |---|---|
//! | `Get` | carries out the request and passes every [`GetReply`] to [`RepositoryPull::reply`] |
//! | `Unchanged` | is done: the head is in the known state |
//! | `Head` | calls [`RepositoryPull::follow`] or `refuse`; ends if it has the release |
//! | `Record` | checks header, signature and orders; drops the pull if it refuses them |
//! | `Node` | stores the node, which is verified |
//! | `Walk` | calls [`RepositoryPull::walk`]; blocks of earlier walks may be under way |
//! | `Complete` | has the whole manifest; compares, and calls [`RepositoryPull::want`] |
//! | `Block` | stages the block, which is verified |
//! | `Done` | has all that was wanted |
//! | `Superseded` | may begin again: the repository does not keep the release any more |
//! | `Failed` | gives up; nothing further comes |
//!
//! A pack can vanish during a pull, when gc rewrites it or when a publisher no longer keeps the
//! release. The machine then reads the head again and goes on with the new places; it keeps all
//! that was verified.

mod blocks;
mod pieces;
mod state;
mod step;
mod walk;

pub use step::{PullError, PullStep};

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use self::state::{Asking, FollowedRelease, PullPurpose, WalkState};
use super::attempt::{Dice, RequestId, Rereads, SmallGet, SmallGot};
use super::head::{HeadError, MAX_HEAD_BYTES, SignedHead, VerifiedHead, head_object};
use super::loader::Loader;
use super::marker::{marker_format, marker_request};
use super::object::{Etag, Get, GetReply};
use super::pack::PackName;
use super::places::{Places, PlacesRef};
use crate::block::frame::Expander;
use crate::id::{Serial, TreeName};
use crate::manifest::missing_nodes::Explorer;
use crate::units::Moment;

/// Missing bytes of blocks up to which further ones are looked up, so that the store is never idle.
const MIN_MISSING_BYTES: u64 = 24 << 20;
/// Times that a pull goes on with a new head after a pack vanished.
const MAX_MOVES: u32 = 8;

/// Pulls one release.
#[derive(Debug)]
pub struct RepositoryPull {
    tree: TreeName,
    dice: Dice,
    expander: Expander,
    asking: Option<Asking>,
    loader: Loader<PullPurpose>,
    followed: Option<FollowedRelease>,
    explorer: Option<Explorer>,
    /// Places pages by reference: equal bytes in two packs are different places.
    pages: HashMap<PlacesRef, Places>,
    /// Nodes and places pages under way.
    structure: HashSet<PullPurpose>,
    /// Wanted blocks whose places have not been looked up yet.
    remaining: Vec<Range<u64>>,
    /// Set once the caller has said which blocks it wants.
    wanted: bool,
    walks: WalkState,
    /// State of the head that came last.
    etag: Option<Etag>,
    /// The pack that vanished, and how often one did.
    moved: Option<PackName>,
    moves: u32,
    rereads: Rereads,
    now: Moment,
    steps: VecDeque<PullStep>,
    ended: bool,
}

impl RepositoryPull {
    /// Begins to pull `tree`. `known` is the state of the head that the caller has verified
    /// before: if it still holds, the pull ends with [`PullStep::Unchanged`].
    pub fn new(tree: TreeName, known: Option<Etag>, seed: u64) -> Self {
        let head = head_request(&tree, known);

        Self {
            tree,
            dice: Dice::new(seed),
            expander: Expander::default(),
            asking: Some(Asking::Head(SmallGet::new(head))),
            loader: Loader::new(),
            followed: None,
            explorer: None,
            pages: HashMap::new(),
            structure: HashSet::new(),
            remaining: Vec::new(),
            wanted: false,
            walks: WalkState::Idle,
            etag: None,
            moved: None,
            moves: 0,
            rereads: Rereads::default(),
            now: Moment(0),
            steps: VecDeque::new(),
            ended: false,
        }
    }

    /// State of the head that came last, to be remembered once it is verified.
    pub fn etag(&self) -> Option<&Etag> {
        self.etag.as_ref()
    }

    /// Returns the next step.
    pub fn poll(&mut self, now: Moment) -> PullStep {
        self.now = now;

        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            if self.ended {
                return PullStep::Wait(None);
            }
            if let Some((id, get)) = self.next_request(now) {
                return PullStep::Get(id, get);
            }
            if let Some(loaded) = self.loader.next() {
                self.take(loaded);
                continue;
            }
            if self.is_walk_due() {
                self.walks = WalkState::Asked;
                return PullStep::Walk;
            }
            return PullStep::Wait(self.timeout());
        }
    }

    /// Bytes of nodes and blocks that came and were not handed out.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let of_step = |step: &PullStep| match step {
            PullStep::Node(_, bytes) | PullStep::Block(_, _, bytes) => bytes.capacity(),
            _ => 0,
        };
        self.loader.held() + self.steps.iter().map(of_step).sum::<usize>()
    }

    /// Begins no further request for blocks while `held`: the caller has enough to do.
    pub fn hold(&mut self, held: bool) {
        self.loader.hold(held);
    }

    /// Returns whether the block `ordinal` is under way, or came and was not handed out.
    pub fn is_coming(&self, ordinal: u64) -> bool {
        let is_it =
            |purpose: &PullPurpose| matches!(purpose, PullPurpose::Block(at, _) if at.0 == ordinal);
        self.loader.is_coming(is_it)
    }

    /// Blocks are looked up ahead; the manifest and the end need everything that came before.
    fn is_walk_due(&self) -> bool {
        let goes_ahead = !self.remaining.is_empty()
            && self.structure.is_empty()
            && self.loader.missing_bytes() <= MIN_MISSING_BYTES;
        self.walks == WalkState::Loading
            && self.asking.is_none()
            && (goes_ahead || self.loader.is_idle())
    }

    /// Takes a reply.
    pub fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment) {
        let dice = &mut self.dice;
        let (got, is_head) = match &mut self.asking {
            Some(Asking::Head(get)) => (get.reply(id, &reply, now, dice), true),
            Some(Asking::Marker(get)) => (get.reply(id, &reply, now, dice), false),
            None => (None, false),
        };

        if let Some(got) = got {
            self.asking = None;
            return if is_head {
                self.take_head(got)
            } else {
                self.take_marker(got)
            };
        }
        self.loader.reply(id, reply, now, dice);
    }

    /// Pulls the release `serial` of the head, or the newest one. After a pack vanished the
    /// release stays the same.
    pub fn follow(&mut self, head: &VerifiedHead, serial: Option<Serial>) {
        let head = head.head();
        let before = self.followed.as_ref();
        let serial = before.map_or(serial, |followed| Some(followed.kept.serial));
        let Some(kept) = serial.map_or(head.kept.first(), |serial| head.kept(serial)) else {
            return self.end(PullStep::Superseded);
        };

        let same = before.is_some_and(|followed| followed.kept == *kept);
        if let Some(pack) = self.moved.filter(|_| same) {
            return self.reread(PullError::Missing(pack));
        }
        self.moved = None;

        let newest = head.kept.first().map(|newest| newest.serial);
        let known = before.and_then(|followed| followed.id);
        let stated = (newest == Some(kept.serial)).then_some(head.release);
        if known.is_some() && stated.is_some() && known != stated {
            return self.end(PullStep::Superseded);
        }

        self.followed = Some(FollowedRelease {
            kept: *kept,
            id: known.or(stated),
            record: None,
        });
        self.loader.ask(kept.window(), PullPurpose::Window(*kept));
    }

    /// Takes back a head that did not pass the caller's checks. Something on the way may have
    /// changed it, so it is read again a few times.
    pub fn refuse(&mut self, error: HeadError) {
        self.reread(error.into());
    }

    /// Reads the head again after a while; fails with `error` if that was done often enough.
    fn reread(&mut self, error: PullError) {
        let head = head_request(&self.tree, None);
        match self.rereads.next(head, self.now, &mut self.dice) {
            Some(get) => self.asking = Some(Asking::Head(get)),
            None => self.fail(error),
        }
    }

    fn next_request(&mut self, now: Moment) -> Option<(RequestId, Get)> {
        let dice = &mut self.dice;
        match &mut self.asking {
            Some(Asking::Head(get) | Asking::Marker(get)) => get.poll(now, dice),
            None => self.loader.poll(now, dice),
        }
    }

    fn timeout(&self) -> Option<Moment> {
        match &self.asking {
            Some(Asking::Head(get) | Asking::Marker(get)) => get.timeout(),
            None => self.loader.timeout(),
        }
    }

    fn take_head(&mut self, got: SmallGot) {
        match got {
            SmallGot::Failed(fault) => self.fail(PullError::Store(fault)),
            SmallGot::NotModified => self.end(PullStep::Unchanged),
            SmallGot::Missing => {
                self.asking = Some(Asking::Marker(SmallGet::new(marker_request())));
            }
            SmallGot::Body(bytes, etag) => match SignedHead::decode(&bytes) {
                Err(error) => self.refuse(error),
                Ok(signed) => {
                    self.etag = etag;
                    self.steps.push_back(PullStep::Head(signed));
                }
            },
        }
    }

    /// Explains a missing head.
    fn take_marker(&mut self, got: SmallGot) {
        let error = match got {
            SmallGot::Failed(fault) => PullError::Store(fault),
            SmallGot::Body(bytes, _) => match marker_format(&bytes) {
                None => PullError::NoRepository,
                Some(super::head::REPOSITORY_FORMAT) => PullError::NoTree(self.tree.clone()),
                Some(other) => HeadError::Format(other).into(),
            },
            SmallGot::Missing | SmallGot::NotModified => PullError::NoRepository,
        };
        self.fail(error);
    }

    fn fail(&mut self, error: PullError) {
        self.end(PullStep::Failed(error));
    }

    fn end(&mut self, step: PullStep) {
        self.steps.push_back(step);
        self.ended = true;
        self.loader.clear();
        self.asking = None;
    }
}

/// Request for the head of `tree`, unless it is in the state `known`.
pub(super) fn head_request(tree: &TreeName, known: Option<Etag>) -> Get {
    Get {
        object: head_object(tree),
        range: None,
        unless: known,
        max: MAX_HEAD_BYTES as u64,
    }
}
