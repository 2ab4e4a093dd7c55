//! The thread that makes the source ready, reads it and signs, beside the one that speaks on the network.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};

use super::{Options, Prepare};
use crate::drive::source::{Facts, Source};
use crate::id::Ordinal;
use crate::keys::{Namespace, Signer};
use crate::manifest::{Header, Release};
use crate::net::Waker;
use crate::proto::RangeSet;
use crate::proto::effort::Demand;
use crate::proto::sender::{Reply, Request};
use crate::tree::source::SourceError;
use crate::{Error, Result};

/// What the worker is asked: it reads the source and signs, so that neither holds up the network.
pub(super) enum Work {
    Sign(Box<Header>),
    Machine(Request),
}

/// What it answers.
pub(super) enum Answer {
    Prepared(Result<Box<Facts>>),
    Signed(Result<(Release, Vec<u8>)>),
    Machine(Reply),
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
        let worker = Worker { signer, gives_what_it_can, answers: outbox, waker };
        std::thread::Builder::new()
            .name("source".into())
            .spawn(move || worker.run(prepare, &inbox))
            .map_err(|e| Error::new(crate::error::Kind::Io, "cannot start a thread").because(e))?;
        Ok((work, answers))
    }

    fn run(&self, prepare: Prepare, inbox: &Inbox<Work>) {
        let prepared = guarded(prepare).map_err(defect).and_then(|prepared| prepared);
        let mut source = match prepared {
            Ok((source, facts)) => {
                self.answer(Answer::Prepared(Ok(Box::new(facts))));
                source
            }
            Err(e) => return self.answer(Answer::Prepared(Err(e))),
        };
        while let Ok(work) = inbox.recv() {
            self.answer(match work {
                Work::Sign(header) => {
                    Answer::Signed(guarded(|| self.sign(*header)).map_err(defect).and_then(|signed| signed))
                }
                Work::Machine(Request::Pack(_, ordinals, demand)) => {
                    let packed = guarded(|| self.pack(&mut source, ordinals, demand).map_err(|e| e.to_string()));
                    Answer::Machine(Reply::Packed(packed.and_then(|packed| packed)))
                }
                Work::Machine(Request::Sign(order)) => {
                    let signed = guarded(|| self.signer.sign(Namespace::ORDER, &order).map_err(|e| e.to_string()));
                    let signature = signed.and_then(|signed| signed);
                    Answer::Machine(Reply::Signed(signature.map(|s| (order, s.as_bytes().to_vec()))))
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
            let (e, Some(Ordinal(at))) = failed else { return Err(failed.0) };
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
