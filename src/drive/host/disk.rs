//! The disk side of a host: answers the receiver machine's requests from real trees, with one
//! thread for each tree.
//!
//! Owns the threads and their queues. `admission` decides which offers reach a tree; `session` and
//! `switch` do the work.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::admission::{Admission, PendingOffer};
use super::drift_check::check_drift;
use super::granted;
use super::offer::Opening;
use super::shared::LocalHost;
use super::tombstones::{self, TombstoneKeeper};
use super::tree_thread::{self, Replies, TreeJob, TreeWork};
use crate::error::{Error, Kind};
use crate::id::{SessionId, TreeName};
use crate::manifest::Release;
use crate::net::Waker;
use crate::proto::receiver::{Answer, Ask, DiskReply, DiskRequest, OfferedRelease};
use crate::wire::message::{Order, SignedOrder, TreeState};

/// Dispatches requests to the threads of their trees.
#[derive(Debug)]
pub struct Disk {
    host: Arc<LocalHost>,
    replies: Sender<DiskReply>,
    waker: Waker,
    sessions: HashMap<SessionId, SessionQueue>,
    admission: Option<Admission>,
    /// Queue of each tree's thread.
    trees: BTreeMap<TreeName, SyncSender<TreeJob>>,
    threads: Vec<JoinHandle<()>>,
    /// Trees with a pending drift check.
    pending_checks: HashMap<TreeName, Arc<AtomicBool>>,
    tombstones: TombstoneKeeper,
    /// Set when the daemon ends, to cut work short.
    ending: Arc<AtomicBool>,
}

/// Largest number of jobs queued for one tree.
const MAX_JOBS: usize = 64;

/// Queue of a session on its tree's thread.
#[derive(Debug)]
struct SessionQueue {
    work: Sender<Ask>,
    /// Set when the session is closed: only orders are still carried out.
    closed: Arc<AtomicBool>,
}

impl Disk {
    /// Sends replies into `replies` and wakes the loop by `waker`.
    pub fn new(
        host: Arc<LocalHost>,
        replies: Sender<DiskReply>,
        waker: Waker,
    ) -> crate::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let answer = Replies::new(replies.clone(), waker.clone());

        let tombstones = {
            let graves = Arc::clone(&host);
            let answer = answer.clone();
            TombstoneKeeper::start(Arc::clone(&host), move |order, holds| {
                answer.send(DiskReply::Buried(order, holds));
                answer.trees(&graves);
            })
        };

        let mut trees = BTreeMap::new();
        let mut threads = Vec::new();

        for tree in host.trees.names() {
            let (queue, jobs) = sync_channel(MAX_JOBS);
            let host = Arc::clone(&host);
            let answer = answer.clone();
            let name = tree.clone();
            let work = move || tree_thread::run(&host, &name, &jobs, &answer);
            let thread = std::thread::Builder::new()
                .name(format!("tree {tree}"))
                .spawn(work);
            threads.push(
                thread.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?,
            );
            trees.insert(tree.clone(), queue);
        }

        Ok(Self {
            admission: Some(Admission::start(Arc::clone(&host), trees.clone(), answer)?),
            tombstones,
            host,
            replies,
            waker,
            sessions: HashMap::new(),
            trees,
            threads,
            pending_checks: HashMap::new(),
            ending,
        })
    }

    /// Dispatches a request. Each gets a reply, except those of a closed session.
    pub fn request(&mut self, request: DiskRequest) {
        match request {
            DiskRequest::Open(session, offer) => self.open(session, offer),
            DiskRequest::Session(session, ask) => self.forward(session, ask),
            DiskRequest::Close(session) => drop(self.sessions.remove(&session)),
            DiskRequest::Bury(order) => self.tombstones.take(order),
            DiskRequest::KeepOrder(order) => self.keep_order(order),
            DiskRequest::Verify(release, signature) => {
                let id = release.id();
                let admission = self.admission.as_ref();
                if !admission.is_some_and(|admission| admission.verify(release, signature)) {
                    self.replies().send(DiskReply::Verified(id, false));
                }
            }
            DiskRequest::GoBack(tree) => self.go_back(&tree),
        }
    }

    /// Keeps an order of another host's session, behind the other work of its tree.
    fn keep_order(&self, order: SignedOrder) {
        let tree = Order::decode(&order.order).and_then(|decoded| decoded.tree);
        let kept = order.clone();
        let keep: TreeWork = Box::new(move |host, managed, replies| {
            let holds = granted::keep_order(host, managed, &kept);
            if let Err(e) = &holds {
                tracing::debug!("ignoring an order for all hosts: {e}");
            }
            replies.send(DiskReply::OrderKept(kept, holds.is_ok()));
        });

        if !tree.is_some_and(|tree| self.after_others(&tree, keep)) {
            self.replies().send(DiskReply::OrderKept(order, false));
        }
    }

    /// Reverts a release with a tombstone, behind the other work of its tree.
    fn go_back(&self, tree: &TreeName) {
        let go_back: TreeWork = Box::new(|host, managed, replies| {
            tombstones::go_back(host, managed);
            replies.trees(host);
        });

        if !self.after_others(tree, go_back) {
            tracing::error!(
                "tree {tree}: cannot go back from its reverted release: too much work is queued"
            );
        }
    }

    /// Sends work to the thread of its session.
    fn forward(&self, session: SessionId, ask: Ask) {
        let refused = match self.sessions.get(&session) {
            Some(queue) => queue.work.send(ask).err().map(|e| e.0),
            None => Some(ask),
        };

        let Some(ask) = refused else {
            return;
        };

        let answer = match ask {
            // An order that finds no session is no failed commit: the machine proceeds as if it had
            // not arrived.
            Ask::Order(_) => Answer::Ordered(None),
            ask => ask.failed("the session is over".into()),
        };

        self.replies().send(DiskReply::Session(session, answer));
    }

    /// Notes that this host sends a complete release of its own tree. Returns the current states.
    pub fn sent(&self, release: &Release) -> Vec<TreeState> {
        if let Some(managed) = self.host.trees.get(&release.header().tree)
            && let Err(e) = managed.tree.sends(release)
        {
            tracing::warn!(
                "tree {}: this host may take its own release from others: {e}",
                managed.tree.name()
            );
        }

        self.host.states()
    }

    /// Current states of the trees.
    pub fn states(&self) -> Vec<TreeState> {
        self.host.states()
    }

    /// Queues a drift check of a tree behind its other work.
    pub fn check_drift(&mut self, name: &TreeName) {
        if self.host.trees.get(name).is_none() {
            return;
        }

        let waiting = self.pending_checks.entry(name.clone()).or_default();
        if waiting.swap(true, Ordering::AcqRel) {
            return;
        }

        let done = Arc::clone(waiting);
        let waiting = Arc::clone(waiting);
        let look: TreeWork = Box::new(move |_, managed, answer| {
            waiting.store(false, Ordering::Release);
            if check_drift(managed) && managed.repair.is_some() {
                answer.send(DiskReply::Drifted(managed.tree.name().clone()));
            }
        });

        if !self.after_others(name, look) {
            done.store(false, Ordering::Release);
        }
    }

    /// Looks at every tree for a staged release that cannot be committed any more.
    pub fn sweep_staged(&self) {
        for tree in self.trees.keys() {
            // The thread looks after each of its jobs.
            self.after_others(tree, Box::new(|_, _, _| ()));
        }
    }

    /// Queues `work` behind the other work of a tree; returns false if the queue is full.
    pub(super) fn after_others(&self, name: &TreeName, work: TreeWork) -> bool {
        self.trees
            .get(name)
            .is_some_and(|queue| queue.try_send(TreeJob::Work(work)).is_ok())
    }

    fn replies(&self) -> Replies {
        Replies::new(self.replies.clone(), self.waker.clone())
    }

    fn open(&mut self, session: SessionId, offer: OfferedRelease) {
        let (work, asks) = channel();
        let closed = Arc::default();
        let opening = Opening {
            offer,
            ending: Arc::clone(&self.ending),
            closed: Arc::clone(&closed),
        };

        let offer = PendingOffer {
            session,
            opening,
            asks,
        };

        if self
            .admission
            .as_ref()
            .is_some_and(|admission| admission.take(offer))
        {
            self.sessions.insert(session, SessionQueue { work, closed });
        } else {
            let why = "this host has too many offers to look at; try again".to_string();
            self.replies()
                .send(DiskReply::Opened(session, Err(why.into())));
        }
    }
}

impl Drop for Disk {
    /// Waits for work in progress, so that a commit is not left to the journal without need.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Tell every thread to end before waiting for the first.
        self.sessions.clear();
        self.admission = None;
        self.trees.clear();

        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for SessionQueue {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}
