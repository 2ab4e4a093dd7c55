//! The thread that makes the source ready, reads it and signs, beside the one that speaks on the network.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};

use super::{Options, Prepare};
use crate::block::BlockRef;
use crate::drive::source::{Facts, Source};
use crate::id::Ordinal;
use crate::keys::{Namespace, Signer};
use crate::manifest::explore::Explorer;
use crate::manifest::node::to_vec;
use crate::manifest::{Header, Release};
use crate::net::Waker;
use crate::proto::RangeSet;
use crate::proto::compression::Demand;
use crate::proto::sender::{SenderReply, SenderRequest};
use crate::tree::{SourceError, Tree};
use crate::wire::message::SignedOrder;
use crate::{Error, Result};

/// What the worker is asked: it reads the source and signs, so that neither holds up the network.
pub(super) enum Work {
    Sign(Box<Header>),
    Machine(SenderRequest),
    /// Record the release in the tree that is its source.
    Keep(Box<Kept>),
}

/// A release that others committed, and the tree that it came from.
pub(super) struct Kept {
    pub(super) tree: Arc<Tree>,
    pub(super) release: Release,
    pub(super) signature: Vec<u8>,
    pub(super) order: SignedOrder,
}

/// What it answers.
pub(super) enum Answer {
    Prepared(Result<Box<Facts>>),
    Signed(Result<(Release, Vec<u8>)>),
    Machine(SenderReply),
    Kept(Result<()>),
}

/// The thread.
pub(super) struct Worker {
    signer: Arc<dyn Signer>,
    /// Whether a block that is not here is no reason to end.
    gives_what_it_can: bool,
    answers: Outbox<Answer>,
    waker: Waker,
}

impl Worker {
    /// Starts it with what makes the source ready; where it is asked, and where it answers.
    pub(super) fn start(
        options: &Options,
        prepare: Prepare,
        gives_what_it_can: bool,
        waker: Waker,
    ) -> Result<(Outbox<Work>, Inbox<Answer>)> {
        let (work, inbox) = channel();
        let (outbox, answers) = channel();
        let signer: Arc<dyn Signer> = Arc::clone(&options.signer);
        let worker = Worker {
            signer,
            gives_what_it_can,
            answers: outbox,
            waker,
        };

        std::thread::Builder::new()
            .name("source".into())
            .spawn(move || worker.run(prepare, &inbox))
            .map_err(|e| Error::new(crate::error::Kind::Io, "cannot start a thread").because(e))?;

        Ok((work, answers))
    }

    fn run(&self, prepare: Prepare, inbox: &Inbox<Work>) {
        let prepared = guarded(prepare)
            .map_err(defect)
            .and_then(|prepared| prepared);
        let mut source = match prepared {
            Ok((source, facts)) => {
                self.answer(Answer::Prepared(Ok(Box::new(facts))));
                source
            }
            Err(e) => return self.answer(Answer::Prepared(Err(e))),
        };

        while let Ok(work) = inbox.recv() {
            self.answer(match work {
                Work::Sign(header) => Answer::Signed(
                    guarded(|| self.sign(*header))
                        .map_err(defect)
                        .and_then(|signed| signed),
                ),
                Work::Keep(kept) => Answer::Kept(
                    guarded(|| keep(&mut source, &kept))
                        .map_err(defect)
                        .and_then(|kept| kept),
                ),
                Work::Machine(SenderRequest::Pack(_, ordinals, demand)) => {
                    let packed = guarded(|| {
                        self.pack(&mut source, ordinals, demand)
                            .map_err(|e| e.to_string())
                    });
                    Answer::Machine(SenderReply::Packed(packed.and_then(|packed| packed)))
                }
                Work::Machine(SenderRequest::Sign(order)) => {
                    let signed = guarded(|| {
                        self.signer
                            .sign(Namespace::ORDER, &order)
                            .map_err(|e| e.to_string())
                    });
                    let signature = signed.and_then(|signed| signed);
                    Answer::Machine(SenderReply::Signed(
                        signature.map(|s| (order, s.as_bytes().to_vec())),
                    ))
                }
            });
        }
    }

    /// Packs the first of `ordinals`; a host that passes a release on leaves out what it has not any more, for others
    /// to give.
    fn pack(
        &self,
        source: &mut Source,
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

    fn answer(&self, answer: Answer) {
        // Nobody waits any more when the session is over.
        let _ = self.answers.send(answer);
        self.waker.wake();
    }
}

/// Puts the manifest of a release into its tree's store, and records the release there.
fn keep(source: &mut Source, kept: &Kept) -> Result<()> {
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

/// A defect in what the worker does ends the session, and not in silence.
fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| "a defect in makuo: the thread that reads the source failed".into())
}

/// The thread has ended, and nobody knows why.
pub(super) fn worker_gone() -> Error {
    defect("the thread that reads the source has ended".into())
}

fn defect(why: String) -> Error {
    Error::new(crate::error::Kind::Io, why)
}
