//! A driver of a publication on the store in memory.

use std::collections::VecDeque;

use super::site::Site;
use super::store::{MemoryStore, NOW, keys, signer, www};
use crate::id::Serial;
use crate::keys::{Namespace, Signer};
use crate::repository::attempt::RequestId;
use crate::repository::head::VerifiedHead;
use crate::repository::object::{GetReply, PutReply};
use crate::repository::publish::{
    Publish, PublishError, PublishNote, PublishSetup, PublishStep, Published,
};
use crate::repository::record::ReleaseRecord;
use crate::units::Moment;

/// Replies of the store that have not come.
enum Replies {
    Get(std::vec::IntoIter<GetReply>),
    Put(PutReply),
}

/// A publisher between two steps.
pub(crate) struct Publisher {
    pub(crate) machine: Publish,
    pub(crate) site: Site,
    pub(crate) serial: Serial,
    pub(crate) now: Moment,
    pub(crate) steps: u64,
    /// Replies that come later, one at a time.
    waiting: VecDeque<(RequestId, Replies)>,
    pub(crate) way: PublishWay,
    /// The head of the last look.
    head: Option<VerifiedHead>,
    /// Looks that found the content of the site.
    pub(crate) found: u32,
    pub(crate) notes: Vec<PublishNote>,
}

/// What a publisher does with the head that is there.
#[derive(Clone)]
pub(crate) enum PublishWay {
    /// Publishes its site.
    Begin,
    /// The same, unless the newest release has this content.
    Look,
    /// Only signs the head again.
    Renew,
    /// Publishes an earlier release again, whose content is that of its site.
    Restore(Box<ReleaseRecord>),
}

impl Publisher {
    pub(crate) fn new(site: &Site, setup: PublishSetup) -> Self {
        Self {
            machine: Publish::new(setup),
            site: site.clone(),
            serial: Serial(0),
            now: Moment(0),
            steps: 0,
            waiting: VecDeque::new(),
            way: PublishWay::Begin,
            head: None,
            found: 0,
            notes: Vec::new(),
        }
    }

    /// Takes one step; returns the result at the end.
    pub(crate) fn step(
        &mut self,
        store: &mut MemoryStore,
    ) -> Option<Result<Published, PublishError>> {
        self.steps += 1;
        match self.machine.poll(self.now) {
            PublishStep::Get(id, get) => {
                let replies = Replies::Get(store.get(&get).into_iter());
                self.waiting.push_back((id, replies));
            }
            PublishStep::Put(id, put) => {
                let reply = Replies::Put(store.put(&put));
                self.waiting.push_back((id, reply));
            }
            PublishStep::Head(head) => {
                let head = head.map(|signed| signed.verify(&www(), &keys(), None, NOW));
                match head.transpose() {
                    Ok(head) => self.head = head,
                    Err(error) => {
                        self.machine.refuse(error, self.now);
                        return None;
                    }
                }
                match (&self.head, &self.way) {
                    (Some(head), _) if self.machine.is_followed(head) => {}
                    (Some(head), PublishWay::Renew) => self.machine.renew(head),
                    (Some(head), PublishWay::Look) => self.machine.look(head),
                    _ => self.begin(),
                }
            }
            PublishStep::Newest(record) => {
                let newest = record.map(|record| record.release.header().root);
                match &self.head {
                    Some(head) if newest == Some(self.site.root()) => {
                        self.found += 1;
                        self.machine.renew(head);
                    }
                    _ => self.begin(),
                }
            }
            PublishStep::Note(note) => self.notes.push(note),
            PublishStep::Walk => self
                .machine
                .walk(&self.site.nodes())
                .expect("a whole manifest"),
            PublishStep::Read(ordinal, block) => {
                let content = self.site.block(&block.hash);
                self.machine.block(ordinal, content);
            }
            PublishStep::Seal => {
                let upload = self.machine.upload().expect("laid out");
                assert_eq!(upload.done(u64::MAX), upload.total);
                let bytes = self.machine.head_to_sign(store.now);
                let signature = signer().sign(Namespace::HEAD, &bytes).expect("signs");
                self.machine.signed(signature.as_bytes());
            }
            PublishStep::Done(published) => return Some(Ok(published)),
            PublishStep::Failed(error) => return Some(Err(error)),
            PublishStep::Wait(at) => self.wait(at),
        }
        None
    }

    fn begin(&mut self) {
        let head = self.head.as_ref();
        let last = head.map_or(Serial(0), |head| head.head().serial());
        self.serial = last.next();
        let new = self.site.release(self.serial);
        match (head, &self.way) {
            (Some(head), PublishWay::Restore(earlier)) => {
                self.machine.restore(head, &earlier.root, new);
            }
            _ => self.machine.begin(head, new),
        }
    }

    /// Delivers the next reply of a request, or lets time pass.
    fn wait(&mut self, at: Option<Moment>) {
        let Some((id, mut replies)) = self.waiting.pop_front() else {
            self.now = at.expect("nothing is under way").max(self.now);
            return;
        };

        let reply = match &mut replies {
            Replies::Put(reply) => return self.machine.stored(id, reply.clone(), self.now),
            Replies::Get(replies) => replies.next().expect("the last one ends it"),
        };
        if matches!(&replies, Replies::Get(left) if left.len() > 0) {
            self.waiting.push_back((id, replies));
        }
        self.machine.reply(id, reply, self.now);
    }

    pub(crate) fn run(mut self, store: &mut MemoryStore) -> Result<Published, PublishError> {
        loop {
            if let Some(result) = self.step(store) {
                return result;
            }
            assert!(self.steps < 1_000_000, "no end");
        }
    }
}
