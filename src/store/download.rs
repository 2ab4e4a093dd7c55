//! The body of an answer on its way in: bounded in size, with errors that name the host.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind};

use super::answer::AnswerFault;
use super::refusal::{Cause, Refusal};

/// Largest part of an answer of failure that is read.
const MAX_FAULT_BYTES: usize = 16 << 10;

/// A body with a limit on its bytes.
pub(super) struct DownloadBody {
    inner: Pin<Box<reqwest::Body>>,
    host: String,
    limit: u64,
    read: u64,
}

impl DownloadBody {
    /// A body of `host` that is refused beyond `limit` bytes.
    pub fn new(inner: reqwest::Body, host: String, limit: u64) -> Self {
        Self {
            inner: Box::pin(inner),
            host,
            limit,
            read: 0,
        }
    }

    fn refused(&self, kind: HttpErrorKind, cause: Cause) -> HttpError {
        let host = self.host.clone();
        HttpError::new(kind, Refusal { host, cause })
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = match self.inner.as_mut().poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(frame)) => frame,
        };

        let checked = match frame {
            Ok(frame) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.read = self.read.saturating_add(bytes);
                let fault = AnswerFault::TooLarge(self.read, self.limit);
                match self.read <= self.limit {
                    true => Ok(frame),
                    false => Err(self.refused(HttpErrorKind::Decode, Cause::Answer(fault))),
                }
            }
            Err(e) => {
                let cause = Refusal::of_client(&self.host, &e).cause;
                Err(self.refused(HttpErrorKind::Interrupted, cause))
            }
        };
        Poll::Ready(Some(checked))
    }

    fn size_hint(&self) -> SizeHint {
        // The length is a claim of the server, and object_store allocates it at once.
        SizeHint::default()
    }
}

/// Reads the beginning of a body, as far as it comes within `patience`.
pub(super) async fn read_some(body: reqwest::Body, patience: Duration) -> Vec<u8> {
    let mut text = Vec::new();
    let mut body = std::pin::pin!(body);
    let reading = async {
        while text.len() < MAX_FAULT_BYTES {
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            let Some(Ok(frame)) = frame else {
                break;
            };
            if let Some(data) = frame.data_ref() {
                text.extend_from_slice(data);
            }
        }
    };

    // Less of the text makes a shorter message.
    let _ = tokio::time::timeout(patience, reading).await;
    text.truncate(MAX_FAULT_BYTES);
    text
}
