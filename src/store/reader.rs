//! Reads the body of an object from a store behind HTTP. A body that breaks goes on at its next
//! byte; a connection that is stuck is given up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::answer::{AnswerContent, AnswerFault, WantedBytes};
use super::attempts::RequestAttempts;
use super::refusal::RefusalCause;
use super::remote::{OpenedObject, Remote, RemoteFailure};
use super::stream::{ByteStream, next_of};
use crate::repository::object::{Get, GetReply};

/// One get under way.
pub(super) struct RemoteReader {
    remote: Arc<Remote>,
    get: Get,
    wanted: WantedBytes,
    attempts: RequestAttempts,
    done: u64,
    first: Option<AnswerContent>,
    state: ReaderState,
    /// End of a pause for the rate limit.
    pause: Option<Instant>,
    place: Option<OwnedSemaphorePermit>,
}

enum ReaderState {
    /// Ask for the bytes that are missing.
    Ask,
    /// Read them; `skip` bytes before them are not wanted, and the answer ends before the byte
    /// `end` of the wanted ones, if it says so.
    Read {
        body: ByteStream,
        skip: u64,
        end: Option<u64>,
    },
    /// Everything was said.
    Over,
}

impl RemoteReader {
    /// A reader that has not asked yet, and asks at most `attempts` times without progress.
    pub fn new(remote: Arc<Remote>, get: Get, attempts: u32) -> Self {
        let wanted = match &get.range {
            Some(range) => WantedBytes::Part(range.clone()),
            None => WantedBytes::Whole { at_most: get.max },
        };

        Self {
            attempts: RequestAttempts::new(attempts),
            remote,
            get,
            wanted,
            done: 0,
            first: None,
            state: ReaderState::Ask,
            pause: None,
            place: None,
        }
    }

    /// The next reply; `None` after the last one. A call that is dropped loses no byte.
    pub async fn next(&mut self) -> Option<GetReply> {
        loop {
            let step = match &self.state {
                ReaderState::Over => return None,
                ReaderState::Ask => self.ask().await,
                ReaderState::Read { .. } => self.read().await,
            };

            let reply = match step {
                Ok(None) => continue,
                Ok(Some(reply)) => reply,
                Err(failure) => {
                    self.state = ReaderState::Ask;
                    match failure.wait(&mut self.attempts).await {
                        Ok(()) => continue,
                        Err(fault) => GetReply::Failed(fault),
                    }
                }
            };

            if !matches!(reply, GetReply::Bytes(_)) {
                self.state = ReaderState::Over;
                self.place = None;
            }
            return Some(reply);
        }
    }

    /// Number of wanted bytes, if it is known.
    fn length(&self) -> Option<u64> {
        match &self.wanted {
            WantedBytes::Part(range) => Some(range.end.saturating_sub(range.start)),
            WantedBytes::Whole { .. } => self.first.as_ref()?.length,
        }
    }

    async fn ask(&mut self) -> Result<Option<GetReply>, RemoteFailure> {
        if let Some(reply) = self.impossible() {
            return Ok(Some(reply));
        }
        if self.place.is_none() {
            self.place = self.remote.limits.place().await;
        }

        let object = &self.get.object;
        let wanted = match (self.done, self.length()) {
            (0, _) => self.wanted.clone(),
            (done, Some(length)) => self.wanted.rest(done, length),
            (_, None) => {
                let why = "the connection broke, and the server does not say how long the body is";
                return Ok(Some(GetReply::Failed(self.remote.changed(object, why))));
            }
        };

        let unless = self.get.unless.as_ref().filter(|_| self.done == 0);
        match self.remote.open(object, &wanted, unless).await? {
            OpenedObject::NotModified => Ok(Some(GetReply::NotModified)),
            OpenedObject::Missing if self.done > 0 => {
                let why = "it was deleted while it was read";
                Ok(Some(GetReply::Failed(self.remote.changed(object, why))))
            }
            OpenedObject::Missing => Ok(Some(GetReply::Missing)),
            OpenedObject::Body(delivery, body) => Ok(self.began(delivery, body)),
        }
    }

    /// The reply to a get that no store can answer.
    fn impossible(&self) -> Option<GetReply> {
        let WantedBytes::Part(range) = &self.wanted else {
            return None;
        };

        let length = range.end.saturating_sub(range.start);
        let cause = match length {
            0 => AnswerFault::Status(416),
            length if length > self.get.max => AnswerFault::TooLarge(length, self.get.max),
            _ => return None,
        };
        let failure = self
            .remote
            .broken(&self.get.object, RefusalCause::Answer(cause));
        Some(GetReply::Failed(failure.fault))
    }

    /// Begins to read a body, if it is of the same object as the bytes before.
    fn began(&mut self, delivery: AnswerContent, body: ByteStream) -> Option<GetReply> {
        if let Some(first) = self.first.as_ref().filter(|_| self.done > 0)
            && !is_same(first, &delivery)
        {
            let why = "it changed while it was read";
            let fault = self.remote.changed(&self.get.object, why);
            return Some(GetReply::Failed(fault));
        }

        let skip = delivery.skip;
        let end = delivery
            .length
            .map(|length| self.done.saturating_add(length));
        if self.done == 0 {
            self.first = Some(delivery);
        }
        self.state = ReaderState::Read { body, skip, end };
        None
    }

    async fn read(&mut self) -> Result<Option<GetReply>, RemoteFailure> {
        if self.length() == Some(self.done) {
            return Ok(Some(self.end()));
        }
        if let Some(until) = self.pause {
            tokio::time::sleep_until(until).await;
            self.pause = None;
        }

        let ReaderState::Read { body, skip, end } = &mut self.state else {
            return Ok(None);
        };
        if *end == Some(self.done) && self.done > 0 {
            // A server may answer with the first part of a range.
            self.state = ReaderState::Ask;
            return Ok(None);
        }
        let next = next_of(body).await;
        let object = &self.get.object;
        let bytes = match next {
            Some(Ok(bytes)) => bytes,
            Some(Err(e)) => return Err(self.remote.body_failure(object, &e)),
            None if self.length().is_none() => return Ok(Some(self.end())),
            None => {
                let why = "the body ends early".to_string();
                return Err(self.remote.broken(object, RefusalCause::Cut(why)));
            }
        };

        let many = bytes.len() as u64;
        let wait = self.remote.limits.receive(many);
        self.pause = (wait > Duration::ZERO).then(|| Instant::now() + wait);
        let passed = (*skip).min(many);
        *skip -= passed;
        let bytes = bytes.slice(usize::try_from(passed).unwrap_or(bytes.len())..);
        Ok(self.taken(bytes))
    }

    /// Takes wanted bytes over, and no more than those.
    fn taken(&mut self, mut bytes: Bytes) -> Option<GetReply> {
        let end = match &self.state {
            ReaderState::Read { end, .. } => *end,
            _ => None,
        };
        let left = self.length().into_iter().chain(end).min();
        let left = left.map(|end| end.saturating_sub(self.done));
        if let Some(left) = left.and_then(|left| usize::try_from(left).ok()) {
            bytes.truncate(left);
        }
        if bytes.is_empty() {
            return None;
        }

        self.done += bytes.len() as u64;
        self.attempts.progressed(bytes.len() as u64);
        Some(GetReply::Bytes(Vec::from(bytes)))
    }

    fn end(&self) -> GetReply {
        let is_web = self.remote.is_web();
        // The tag of a young file may soon be that of another state.
        let first = self
            .first
            .as_ref()
            .filter(|first| !(is_web && first.is_young));
        let etag = first.and_then(|first| first.etag.as_deref());
        let generation = first.and_then(|first| first.generation.as_deref());
        GetReply::End {
            etag: self.remote.etag(etag, generation),
        }
    }
}

/// Returns whether two answers are of the same state of an object, as far as they say it.
fn is_same(one: &AnswerContent, other: &AnswerContent) -> bool {
    let strong = |etag: &str| etag.trim_start_matches("W/").to_string();
    let etags = one.etag.as_deref().zip(other.etag.as_deref());
    let sizes = one.size.zip(other.size);
    etags.is_none_or(|(one, other)| strong(one) == strong(other))
        && sizes.is_none_or(|(one, other)| one == other)
}
