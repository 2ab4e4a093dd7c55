//! The thread that prepares the source, reads it and signs, beside the network loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, TryRecvError, channel};

use super::options::DeployOptions;
use super::origin::Prepare;
use super::publisher::{CommittedRelease, Publisher};
use super::source::{PreparedRelease, ReleaseSource};
use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::keys::{Namespace, Signer};
use crate::manifest::missing_nodes::Explorer;
use crate::manifest::node::to_vec;
use crate::manifest::{Header, Release};
use crate::net::Waker;
use crate::outcome::{Event, Observer};
use crate::proto::RangeSet;
use crate::proto::compression::Demand;
use crate::proto::sender::{OrderSignature, PackedPayload, SenderReply, SenderRequest};
use crate::tree::{SourceError, Tree};
use crate::wire::message::SignedOrder;
use crate::{Error, Result};

/// Work for the worker, which must not delay the network.
pub(super) enum WorkerTask {
    Sign(Box<Header>),
    Machine(SenderRequest),
    /// Stores the release in the tree that is its source.
    Keep(Box<OwnRelease>),
    /// Hands a committed release on.
    Publish(Publisher, Box<CommittedRelease>),
}

/// A release that hosts committed, and its source tree.
pub(super) struct OwnRelease {
    pub(super) tree: Arc<Tree>,
    pub(super) release: Release,
    pub(super) signature: Vec<u8>,
    pub(super) order: SignedOrder,
}

/// Answer of the worker.
pub(super) enum WorkerAnswer {
    Prepared(Result<Box<PreparedRelease>>),
    Signed(Result<(Release, Vec<u8>)>),
    Machine(SenderReply),
    OwnRelease(Result<()>),
    /// Progress of the publication.
    Publishing(Event),
    /// A committed release was handed on, or that failed.
    Published(Result<()>),
}

/// The session's end of the worker's channels.
pub(super) struct WorkerHandle {
    tasks: Outbox<WorkerTask>,
    answers: Inbox<WorkerAnswer>,
    /// An answer that was waited for and not taken yet.
    early: Option<WorkerAnswer>,
}

impl WorkerHandle {
    /// Waits for an answer, which stays the next one.
    pub(super) fn wait(&mut self) -> Result<&WorkerAnswer> {
        let answer = self.answers.recv().map_err(|_| worker_gone())?;
        Ok(self.early.insert(answer))
    }

    /// Returns the next answer if there is one.
    pub(super) fn try_next(&mut self) -> Result<Option<WorkerAnswer>> {
        if let Some(answer) = self.early.take() {
            return Ok(Some(answer));
        }

        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(worker_gone()),
        }
    }

    /// Sends a task.
    pub(super) fn send(&self, task: WorkerTask) -> Result<()> {
        // An error that ended the worker is among its answers, and explains more than a closed
        // channel.
        self.tasks.send(task).map_err(|_| self.error())
    }

    /// Stores a release in its tree and waits for the result; `None` if the worker has ended.
    pub(super) fn keep(&self, kept: OwnRelease) -> Option<Result<()>> {
        self.tasks.send(WorkerTask::Keep(Box::new(kept))).ok()?;
        self.answers.iter().find_map(|answer| match answer {
            WorkerAnswer::OwnRelease(done) => Some(done),
            _ => None,
        })
    }

    /// Hands a committed release with the source to `publisher`, and waits for the end. Events go
    /// to `tell`.
    pub(super) fn publish(
        &self,
        publisher: Publisher,
        committed: CommittedRelease,
        mut tell: impl FnMut(&Event),
    ) -> Result<()> {
        self.send(WorkerTask::Publish(publisher, Box::new(committed)))?;
        for answer in &self.answers {
            match answer {
                WorkerAnswer::Publishing(event) => tell(&event),
                WorkerAnswer::Published(done) => return done,
                _ => {}
            }
        }
        Err(worker_gone())
    }

    fn error(&self) -> Error {
        let failed = |answer| match answer {
            WorkerAnswer::Prepared(Err(e)) => Some(e),
            _ => None,
        };

        self.answers
            .try_iter()
            .find_map(failed)
            .unwrap_or_else(worker_gone)
    }
}

/// The worker's thread.
pub(super) struct SourceWorker {
    signer: Arc<dyn Signer>,
    /// Skip missing blocks instead of failing.
    gives_what_it_can: bool,
    answers: Outbox<WorkerAnswer>,
    waker: Waker,
}

impl SourceWorker {
    /// Starts the thread with `prepare`, and returns its channels.
    pub(super) fn start(
        options: &DeployOptions,
        prepare: Prepare,
        gives_what_it_can: bool,
        waker: Waker,
    ) -> Result<WorkerHandle> {
        let (tasks, inbox) = channel();
        let (outbox, answers) = channel();
        let signer: Arc<dyn Signer> = Arc::clone(&options.keys.signer);
        let worker = SourceWorker {
            signer,
            gives_what_it_can,
            answers: outbox,
            waker,
        };

        std::thread::Builder::new()
            .name("source".into())
            .spawn(move || worker.run(prepare, &inbox))
            .map_err(|e| Error::new(crate::error::Kind::Io, "cannot start a thread").because(e))?;

        Ok(WorkerHandle {
            tasks,
            answers,
            early: None,
        })
    }

    fn run(&self, prepare: Prepare, inbox: &Inbox<WorkerTask>) {
        let prepared = guarded(prepare)
            .map_err(defect)
            .and_then(|prepared| prepared);
        let mut source = match prepared {
            Ok((source, facts)) => {
                self.answer(WorkerAnswer::Prepared(Ok(Box::new(facts))));
                source
            }
            Err(e) => return self.answer(WorkerAnswer::Prepared(Err(e))),
        };

        while let Ok(work) = inbox.recv() {
            self.answer(match work {
                WorkerTask::Sign(header) => WorkerAnswer::Signed(
                    guarded(|| self.sign(*header))
                        .map_err(defect)
                        .and_then(|signed| signed),
                ),
                WorkerTask::Keep(kept) => WorkerAnswer::OwnRelease(
                    guarded(|| keep(&mut source, &kept))
                        .map_err(defect)
                        .and_then(|kept| kept),
                ),
                WorkerTask::Publish(publisher, committed) => {
                    let events = &mut WorkerEvents(self);
                    WorkerAnswer::Published(
                        guarded(|| publisher.publish(&mut source, *committed, events))
                            .map_err(defect)
                            .and_then(|published| published),
                    )
                }
                WorkerTask::Machine(SenderRequest::Pack(_, ordinals, demand)) => {
                    let packed = guarded(|| {
                        self.pack(&mut source, ordinals, demand)
                            .map_err(|e| e.to_string())
                    });
                    let packed = packed.and_then(|packed| packed);
                    WorkerAnswer::Machine(SenderReply::Packed(
                        packed.map(|(ordinals, payload)| PackedPayload { ordinals, payload }),
                    ))
                }
                WorkerTask::Machine(SenderRequest::Sign(order)) => {
                    let signed = guarded(|| {
                        self.signer
                            .sign(Namespace::ORDER, &order)
                            .map_err(|e| e.to_string())
                    });
                    let signature = signed.and_then(|signed| signed);
                    WorkerAnswer::Machine(SenderReply::Signed(signature.map(|s| OrderSignature {
                        order,
                        signature: s.as_bytes().to_vec(),
                    })))
                }
            });
        }
    }

    /// Packs the first of `ordinals`. A host that serves a release to others skips blocks that it
    /// has lost, which other hosts can serve.
    fn pack(
        &self,
        source: &mut ReleaseSource,
        mut ordinals: RangeSet,
        demand: Demand,
    ) -> std::result::Result<(RangeSet, Arc<Vec<u8>>), SourceError> {
        loop {
            let failed = match source.pack(&ordinals, demand) {
                Err(e) if self.gives_what_it_can => (e, source.failed_at()),
                packed => return packed,
            };
            let (e, Some(Ordinal(at))) = failed else {
                return Err(failed.0);
            };
            ordinals.remove(at..at + 1);
            if ordinals.is_empty() {
                return Err(e);
            }
        }
    }

    fn sign(&self, header: Header) -> Result<(Release, Vec<u8>)> {
        let release = Release::new(header).map_err(|e| Error::usage(e.to_string()))?;
        let signature = self.signer.sign(Namespace::RELEASE, release.bytes())?;
        Ok((release, signature.as_bytes().to_vec()))
    }

    fn answer(&self, answer: WorkerAnswer) {
        // The session is over if no one reads the answer.
        let _ = self.answers.send(answer);
        self.waker.wake();
    }
}

/// Sends the events of a publication to the session.
struct WorkerEvents<'a>(&'a SourceWorker);

impl Observer for WorkerEvents<'_> {
    fn event(&mut self, event: &Event) {
        self.0.answer(WorkerAnswer::Publishing(event.clone()));
    }
}

/// Stores the manifest of a release, and then the release, in its tree.
fn keep(source: &mut ReleaseSource, kept: &OwnRelease) -> Result<()> {
    let root = kept.release.header().root;
    let order = to_vec(&kept.order);

    kept.tree
        .adopt(&kept.release, &kept.signature, &order, |nodes| {
            let unreadable = |e: &dyn std::fmt::Display| {
                Error::refused(format!("its manifest cannot be kept: {e}"))
            };
            let mut explorer = Explorer::new(root);

            loop {
                let is_here = |node: &BlockRef| nodes.has(&node.hash);
                let missing = explorer
                    .advance(nodes, is_here)
                    .map_err(|e| unreadable(&e))?
                    .to_vec();
                if missing.is_empty() {
                    return Ok(());
                }

                for (ordinal, child) in missing {
                    let mut node = Vec::new();
                    source
                        .read(ordinal, &mut node)
                        .map_err(|e| unreadable(&e))?;
                    if !nodes.put_node(child.block(), &node)? {
                        return Err(unreadable(&"it is not what was sent"));
                    }
                }
            }
        })
}

/// Runs `work`; a panic becomes an error that ends the session.
fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| "a defect in makuo: the thread that reads the source failed".into())
}

/// Error for a worker that ended without a known reason.
fn worker_gone() -> Error {
    defect("the thread that reads the source has ended".into())
}

fn defect(why: String) -> Error {
    Error::new(crate::error::Kind::Io, why)
}
