//! The thread of one tree: sessions and other work, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use super::managed::ManagedTree;
use super::offer::{AdmittedOffer, Opening};
use super::priority::lower_priority;
use super::session::TreeSession;
use super::shared::LocalHost;
use crate::drive::clock;
use crate::id::{SessionId, TreeName};
use crate::keys::PublicKey;
use crate::net::Waker;
use crate::proto::receiver::{Answer, Ask, DiskReply, ReasonText};

/// A job of a tree's thread.
pub(super) enum TreeJob {
    /// A session, from its first request to its last.
    Session(Box<AdmittedSession>),
    /// A drift check or a revert.
    Work(TreeWork),
}

/// Work on a tree outside of sessions.
pub(super) type TreeWork = Box<dyn FnOnce(&LocalHost, &ManagedTree, &Replies) + Send>;

/// Channel for replies to the machine.
#[derive(Clone)]
pub(super) struct Replies {
    replies: Sender<DiskReply>,
    waker: Waker,
}

impl Replies {
    /// Sends into `replies` and wakes the loop by `waker`.
    pub(super) fn new(replies: Sender<DiskReply>, waker: Waker) -> Self {
        Self { replies, waker }
    }

    /// Sends the current states of the trees.
    pub(super) fn trees(&self, host: &LocalHost) {
        self.send(DiskReply::Shown(host.shown()));
        self.send(DiskReply::Headers(host.headers()));
        self.send(DiskReply::Trees(host.states()));
    }

    pub(super) fn send(&self, reply: DiskReply) {
        // An ending daemon reads no more replies.
        let _ = self.replies.send(reply);
        self.waker.wake();
    }
}

/// Runs the jobs of a tree.
pub(super) fn run(host: &LocalHost, tree: &TreeName, jobs: &Receiver<TreeJob>, answer: &Replies) {
    lower_priority();
    for job in jobs {
        // Only jobs for served trees are admitted.
        let Some(managed) = host.trees.get(tree) else {
            continue;
        };
        match job {
            TreeJob::Session(task) => task.run(host, managed),
            // A panic is logged already.
            TreeJob::Work(work) => drop(catch_panic(|| work(host, managed, answer))),
        }
        if sweep_staged(managed) {
            answer.trees(host);
        }
    }
}

/// Forgets a staged release that cannot be committed any more; returns whether there was one.
fn sweep_staged(managed: &ManagedTree) -> bool {
    let tree = &managed.tree;
    match tree.sweep_staged(clock::wall_seconds()) {
        Ok(None) => false,
        Ok(Some((serial, why))) => {
            tracing::info!("{}@{serial}: not staged any more: {why}", tree.name());
            true
        }
        Err(e) => {
            tracing::warn!(
                "tree {}: cannot tidy up its staged release: {e}",
                tree.name()
            );
            false
        }
    }
}

/// An admitted session. Earlier sessions have ended, including their last order and cleanup.
pub(super) struct AdmittedSession {
    pub(super) id: SessionId,
    pub(super) opening: Opening,
    /// Signing key of the release.
    pub(super) key: PublicKey,
    pub(super) asks: Receiver<Ask>,
    pub(super) replies: Replies,
}

impl AdmittedSession {
    fn run(self, host: &LocalHost, managed: &ManagedTree) {
        let closed = Arc::clone(&self.opening.closed);
        let offer = AdmittedOffer::new(host, managed, self.opening, self.key);
        let mut session = TreeSession::begin(offer);
        let id = self.id;
        let asks = self.asks;
        let replies = self.replies;
        while let Ok(ask) = asks.recv() {
            // Orders and checks run even after the session is closed.
            let matters = matches!(ask, Ask::Order(_) | Ask::Check);
            if closed.load(Ordering::Acquire) && !matters {
                continue;
            }
            if !work(id, &replies, &mut session, ask) {
                break;
            }
        }

        // A panic is logged already.
        let _ = catch_panic(|| session.close());
        // After a failure, queued orders get a reply, to end the sender's wait.
        for _ in asks.iter().filter(|ask| matches!(ask, Ask::Order(_))) {
            replies.send(DiskReply::Session(id, Answer::Ordered(None)));
        }
    }
}

/// Carries out one piece of work; returns false if the session cannot go on.
fn work(id: SessionId, replies: &Replies, session: &mut TreeSession<'_>, mut ask: Ask) -> bool {
    let answer = match catch_panic(|| session.answer(id, &mut ask)) {
        Ok(answer) => answer,
        Err(why) => {
            replies.send(DiskReply::Session(id, ask.failed(why)));
            return false;
        }
    };

    // A failed commit has used up its serial as well.
    if let Answer::Ordered(Some(_)) | Answer::Checked(_) = answer {
        replies.trees(session.host());
    }

    if let Some((tree, release, pause)) = session.note_failure(&answer) {
        replies.send(DiskReply::Rests(tree, release, pause));
    }

    let compared = matches!(answer, Answer::Diffed(Ok(_)));
    replies.send(DiskReply::Session(id, answer));
    session.keep_order();

    if compared && let Err(e) = session.reserve() {
        let failed = Answer::Finished(Err(e.with_hint()));
        if let Some((tree, release, pause)) = session.note_failure(&failed) {
            replies.send(DiskReply::Rests(tree, release, pause));
        }
        replies.send(DiskReply::Session(id, failed));
        return false;
    }

    true
}

/// Runs `work`; a panic ends the session and not the host.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, ReasonText> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied());
        let why = format!(
            "a defect in makuo on this host: {}",
            text.unwrap_or("no text")
        );
        tracing::error!("{why}");
        why
    })
}
