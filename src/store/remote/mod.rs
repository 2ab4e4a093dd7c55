//! Objects behind HTTP: each request with its repetitions. [`super::reader`] reads bodies.

mod conditions;
mod list;
mod put;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use conditions::ProvenConditions;
use object_store::path::Path as StorePath;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload};

use super::answer::{AnswerContent, WantedBytes};
use super::attempts::RequestAttempts;
use super::backend::{Conditions, StoreBackend};
use super::explain::{AskedStore, StoreAction};
use super::limits::Limits;
use super::options::StoreOptions;
use super::refusal::{RefusalCause, StoreRefusal};
use super::stream::ByteStream;
use crate::repository::object::{
    Etag, FaultKind, ObjectPath, Put, PutCondition, PutReply, StoreFault,
};
use crate::units::printable;

/// Codes of stores for an object that does not exist.
const MISSING_CODES: &[&str] = &["NoSuchKey", "BlobNotFound", "NoSuchVersion"];

/// A store behind HTTP.
pub(super) struct Remote {
    backend: StoreBackend,
    asked: AskedStore,
    /// Limits of all requests to this store.
    pub limits: Arc<Limits>,
    /// Set once an object could not be stored without a directory for it.
    needs_directories: AtomicBool,
    proven: ProvenConditions,
}

/// A request that failed.
pub(super) struct RemoteFailure {
    /// The fault for the caller.
    pub fault: StoreFault,
    /// The cause, if the transport knows it.
    pub refusal: Option<Box<StoreRefusal>>,
}

/// Answer to a get before its body.
pub(super) enum OpenedObject {
    /// The body follows.
    Body(AnswerContent, ByteStream),
    /// The object has not changed.
    NotModified,
    /// There is no such object.
    Missing,
}

impl fmt::Debug for Remote {
    /// Leaves everything but the place out: clients know passwords of proxies, and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.asked.url.to_string();
        f.debug_tuple("Remote").field(&place).finish()
    }
}

impl RemoteFailure {
    fn status(&self) -> Option<u16> {
        self.refusal.as_ref()?.status()
    }

    /// Returns whether the store says that an object does not exist.
    fn is_missing(&self, strict: bool) -> bool {
        match self.refusal.as_ref().map(|refusal| &refusal.cause) {
            // A web server that is no store has no code for it.
            Some(RefusalCause::Status(answer)) if strict => {
                answer.status == 404 && answer.is(MISSING_CODES)
            }
            Some(RefusalCause::Status(answer)) => matches!(answer.status, 404 | 410),
            _ => false,
        }
    }

    /// The reply to a put that a condition stopped, or whose condition the store does not know.
    fn of_condition(&self, put: &Put) -> Option<PutReply> {
        let status = self.status()?;
        match (&put.condition, status) {
            (PutCondition::Any, _) => None,
            _ if self.fault.kind == FaultKind::Temporary => None,
            (_, 304 | 409 | 412) => Some(PutReply::Conflict),
            (PutCondition::Unchanged(_), 404) if self.is_missing(true) => Some(PutReply::Conflict),
            (_, 501) => Some(PutReply::NoConditions),
            _ => None,
        }
    }

    /// Waits before the next attempt, or returns the fault if this was the last one.
    pub async fn wait(self, attempts: &mut RequestAttempts) -> Result<(), StoreFault> {
        let again = match self.fault.kind.is_temporary() {
            true => attempts.next(self.fault.after, fastrand::f64()),
            false => None,
        };
        match again {
            Some(time) => {
                let failed = attempts.failed();
                let text = &self.fault.text;
                tracing::debug!(failed, ?time, "{text}; trying again");
                tokio::time::sleep(time).await;
                Ok(())
            }
            None => Err(self.fault),
        }
    }
}

impl Remote {
    /// A store behind `backend`.
    pub fn new(
        backend: StoreBackend,
        asked: AskedStore,
        limits: Arc<Limits>,
        options: &StoreOptions,
    ) -> Self {
        let proven = ProvenConditions::new(&asked.url, options);
        Self {
            backend,
            asked,
            limits,
            needs_directories: AtomicBool::new(false),
            proven,
        }
    }

    fn path(&self, object: &ObjectPath) -> StorePath {
        let below = StorePath::from(object.as_str());
        let parts = StorePath::from(self.backend.prefix.as_str());
        parts.parts().chain(below.parts()).collect()
    }

    /// Returns whether this is a web server, which knows no conditions for a put.
    pub fn is_web(&self) -> bool {
        self.backend.conditions == Conditions::None
    }

    /// The failure that `error` is.
    fn failure(
        &self,
        action: StoreAction,
        object: &str,
        error: &object_store::Error,
    ) -> RemoteFailure {
        let refusal = StoreRefusal::within(error).cloned().map(Box::new);
        let fault = match &refusal {
            Some(refusal) => self.asked.fault(action, object, refusal),
            None => {
                let why = printable(error.to_string().as_bytes());
                let kind = FaultKind::Permanent;
                self.asked.other(kind, action, object, &why)
            }
        };
        RemoteFailure { fault, refusal }
    }

    /// A failure while the body of `object` was read.
    pub fn body_failure(&self, object: &ObjectPath, error: &object_store::Error) -> RemoteFailure {
        self.failure(StoreAction::Get, object.as_str(), error)
    }

    /// A failure of a body that the reader found.
    pub fn broken(&self, object: &ObjectPath, cause: RefusalCause) -> RemoteFailure {
        let host = self.asked.url.to_string();
        let refusal = StoreRefusal { host, cause };
        RemoteFailure {
            fault: self
                .asked
                .fault(StoreAction::Get, object.as_str(), &refusal),
            refusal: Some(Box::new(refusal)),
        }
    }

    /// A fault that repetitions do not mend.
    pub fn changed(&self, object: &ObjectPath, why: &str) -> StoreFault {
        let kind = FaultKind::Temporary;
        self.asked
            .other(kind, StoreAction::Get, object.as_str(), why)
    }

    /// Asks once for bytes of an object.
    pub async fn open(
        &self,
        object: &ObjectPath,
        wanted: &WantedBytes,
        unless: Option<&Etag>,
    ) -> Result<OpenedObject, RemoteFailure> {
        let mut options = GetOptions {
            if_none_match: unless.map(|etag| self.split(etag).0),
            range: match wanted {
                WantedBytes::Whole { .. } => None,
                WantedBytes::Part(range) => Some(GetRange::Bounded(range.clone())),
            },
            ..GetOptions::default()
        };
        options.extensions.insert(wanted.clone());

        let path = self.path(object);
        let error = match self.backend.store.get_opts(&path, options).await {
            Ok(answer) => match opened(answer) {
                Some(opened) => return Ok(opened),
                None => return Err(self.unchecked(object)),
            },
            Err(error) => error,
        };

        let failure = self.failure(StoreAction::Get, object.as_str(), &error);
        match failure.status() {
            Some(304) if unless.is_some() => Ok(OpenedObject::NotModified),
            _ if failure.is_missing(!self.is_web()) => Ok(OpenedObject::Missing),
            _ => Err(failure),
        }
    }

    /// The failure of an answer that did not pass the transport's check.
    fn unchecked(&self, object: &ObjectPath) -> RemoteFailure {
        let why = "the answer was not checked";
        let kind = FaultKind::Permanent;
        RemoteFailure {
            fault: self
                .asked
                .other(kind, StoreAction::Get, object.as_str(), why),
            refusal: None,
        }
    }

    /// The tag of a state, as callers see it.
    pub fn etag(&self, etag: Option<&str>, generation: Option<&str>) -> Option<Etag> {
        let etag = etag?;
        match (self.backend.conditions, generation) {
            (Conditions::Generations, Some(number)) => Etag::new(&format!("{etag}@{number}")),
            _ => Etag::new(etag),
        }
    }

    /// The tag and the number of the generation in a tag that callers have seen.
    fn split(&self, etag: &Etag) -> (String, Option<String>) {
        let text = etag.as_str();
        match (self.backend.conditions, text.rsplit_once('@')) {
            (Conditions::Generations, Some((tag, number))) => {
                (tag.to_string(), Some(number.to_string()))
            }
            _ => (text.to_string(), None),
        }
    }
}

fn opened(answer: GetResult) -> Option<OpenedObject> {
    let delivery = answer.extensions.get::<AnswerContent>()?.clone();
    match answer.payload {
        GetResultPayload::Stream(stream) => Some(OpenedObject::Body(delivery, stream)),
        #[allow(unreachable_patterns, reason = "other features add variants")]
        _ => None,
    }
}
