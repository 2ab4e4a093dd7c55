//! Stores objects behind HTTP, under conditions where the store has them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::client::{HttpRequestBody, HttpService};
use object_store::{Attribute, Attributes, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::{OpenedObject, Remote, RemoteFailure};
use crate::repository::object::{Etag, FaultKind, ObjectPath, Put, PutCondition, PutReply};
use crate::store::answer::WantedBytes;
use crate::store::attempts::RequestAttempts;
use crate::store::explain::StoreAction;
use crate::store::refusal::{RefusalCause, StoreRefusal};
use crate::store::stream::next_of;

/// How long caches may keep an object that never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Caches ask each time for a head.
const MUTABLE: &str = "no-cache";
/// Bytes that are worth less than a request for a directory: they are sent again if it is missing.
const RESENT_BYTES: usize = 256 << 10;

/// The content of a put, shared by its attempts.
struct PutBody(Arc<Vec<u8>>);

impl AsRef<[u8]> for PutBody {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Remote {
    /// Stores an object in at most `most` attempts.
    pub async fn put(&self, put: &Put, most: u32) -> PutReply {
        let _place = self.limits.place().await;
        let mut attempts = RequestAttempts::new(most);
        loop {
            match self.keeps(&put.condition).await {
                Ok(true) => break,
                Ok(false) => return PutReply::NoConditions,
                Err(failure) => match failure.wait(&mut attempts).await {
                    Ok(()) => {}
                    Err(fault) => return PutReply::Failed(fault),
                },
            }
        }

        let mut perhaps_stored = false;
        let mut made_directories = false;
        if self.needs_directories.load(Ordering::Relaxed) && put.bytes.len() > RESENT_BYTES {
            made_directories = true;
            self.make_directories(&put.object).await;
        }
        loop {
            let failure = match self.put_once(put).await {
                Ok(etag) => return PutReply::Done { etag },
                Err(failure) => failure,
            };

            if self.is_web() && !made_directories && lacks_directory(&failure) {
                made_directories = true;
                self.make_directories(&put.object).await;
                self.needs_directories.store(true, Ordering::Relaxed);
                continue;
            }

            if let Some(reply) = failure.of_condition(put) {
                // The first attempt may have arrived although its answer did not.
                if perhaps_stored && reply == PutReply::Conflict {
                    return self.stored_or_conflict(put, &mut attempts).await;
                }
                return reply;
            }

            perhaps_stored |= failure.fault.kind == FaultKind::Temporary;
            if let Err(fault) = failure.wait(&mut attempts).await {
                return PutReply::Failed(fault);
            }
        }
    }

    pub(super) async fn put_once(&self, put: &Put) -> Result<Option<Etag>, RemoteFailure> {
        let mut attributes = Attributes::new();
        let control = match put.object.is_immutable() {
            true => IMMUTABLE,
            false => MUTABLE,
        };
        attributes.insert(Attribute::CacheControl, control.into());
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        let options = PutOptions {
            mode: self.mode(&put.condition),
            attributes,
            ..PutOptions::default()
        };

        let bytes = Bytes::from_owner(PutBody(Arc::clone(&put.bytes)));
        let payload = PutPayload::from_bytes(bytes);
        let path = self.path(&put.object);
        match self.backend.store.put_opts(&path, payload, options).await {
            Ok(done) => Ok(self.etag(done.e_tag.as_deref(), done.version.as_deref())),
            Err(e) => Err(self.failure(StoreAction::Put, put.object.as_str(), &e)),
        }
    }

    fn mode(&self, condition: &PutCondition) -> PutMode {
        match condition {
            PutCondition::Any => PutMode::Overwrite,
            PutCondition::Absent => PutMode::Create,
            PutCondition::Unchanged(etag) => {
                let (e_tag, version) = self.split(etag);
                PutMode::Update(UpdateVersion {
                    e_tag: Some(e_tag),
                    version,
                })
            }
        }
    }

    /// Makes the directories above an object on a web server, the deepest first: mostly it alone is
    /// missing. A server that needs none refuses; the next attempt to store the object tells.
    async fn make_directories(&self, object: &ObjectPath) {
        let path = object.as_str();
        let ends = path.match_indices('/').map(|(at, _)| at + 1);
        let below: Vec<&str> = ends.map(|end| &path[..end]).collect();

        let mut missing = vec![""];
        missing.extend(&below);
        let mut made = 0;
        for (at, directory) in missing.iter().enumerate().rev() {
            if self.make_directory(directory).await {
                made = at;
                break;
            }
        }
        for directory in &missing[made + 1..] {
            self.make_directory(directory).await;
        }
    }

    /// Makes a directory; returns whether it is there.
    async fn make_directory(&self, path: &str) -> bool {
        let url = format!("{}/{path}", self.asked.url);
        let request = http::Request::builder().method("MKCOL").uri(url);
        let Ok(request) = request.body(HttpRequestBody::empty()) else {
            return false;
        };

        match self.backend.transport.call(request).await {
            Ok(_) => true,
            // 405 is said of a directory that exists (RFC 4918, 9.3.1).
            Err(e) => {
                let refusal = StoreRefusal::within(&e);
                refusal.and_then(StoreRefusal::status) == Some(405)
            }
        }
    }

    /// The reply to a put whose condition fails in a later attempt: the object there tells.
    async fn stored_or_conflict(&self, put: &Put, attempts: &mut RequestAttempts) -> PutReply {
        loop {
            let failure = match self.same(put).await {
                Ok(Some(etag)) => return PutReply::Done { etag },
                Ok(None) => return PutReply::Conflict,
                Err(failure) => failure,
            };

            if let Err(fault) = failure.wait(attempts).await {
                return PutReply::Failed(fault);
            }
        }
    }

    /// Returns the tag of the object, if it has the content of `put`.
    async fn same(&self, put: &Put) -> Result<Option<Option<Etag>>, RemoteFailure> {
        let wanted = WantedBytes::Whole {
            at_most: put.bytes.len() as u64,
        };
        let (delivery, mut body) = match self.open(&put.object, &wanted, None).await {
            Ok(OpenedObject::Body(delivery, body)) => (delivery, body),
            Ok(OpenedObject::Missing | OpenedObject::NotModified) => return Ok(None),
            Err(failure) if failure.fault.kind == FaultKind::TooLarge => return Ok(None),
            Err(failure) => return Err(failure),
        };

        let mut left = &put.bytes[..];
        loop {
            let patience = self.limits.patience;
            let bytes = match tokio::time::timeout(patience, next_of(&mut body)).await {
                Err(_) => return Err(self.broken(&put.object, RefusalCause::Stuck(patience))),
                Ok(Some(Err(e))) => return Err(self.body_failure(&put.object, &e)),
                Ok(None) if !left.is_empty() => return Ok(None),
                Ok(None) => {
                    let etag = delivery.etag;
                    let generation = delivery.generation;
                    return Ok(Some(self.etag(etag.as_deref(), generation.as_deref())));
                }
                Ok(Some(Ok(bytes))) => bytes,
            };

            match left.strip_prefix(&bytes[..]) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
        }
    }
}

/// Returns whether the directory of an object may be missing; nginx says 500 to that.
fn lacks_directory(failure: &RemoteFailure) -> bool {
    matches!(failure.status(), Some(404 | 409 | 500))
}
