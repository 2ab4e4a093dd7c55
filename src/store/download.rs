//! The body of an answer on its way in: bounded in size and given up when it stops, with errors
//! that name the host.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind};
use tokio::time::{Instant, Sleep};

use super::answer::AnswerFault;
use super::refusal::{RefusalCause, StoreRefusal};
use super::speed::SpeedFloor;

/// Largest part of an answer of failure that is read.
const MAX_FAULT_BYTES: usize = 16 << 10;

/// A body with a limit on its bytes and a floor under its speed. All bodies are read through it:
/// those of objects, and those that object_store reads itself, such as lists and tokens.
pub(super) struct DownloadBody {
    inner: Pin<Box<reqwest::Body>>,
    host: String,
    limit: u64,
    read: u64,
    patience: Duration,
    floor: SpeedFloor,
    /// Since when somebody waits for the next bytes. The time between two reads does not count.
    waiting: Option<Instant>,
    /// End of the wait, while there is one.
    alarm: Pin<Box<Sleep>>,
}

impl DownloadBody {
    /// A body of `host` that is refused beyond `limit` bytes, and given up after `patience` with
    /// too few bytes.
    pub fn new(inner: reqwest::Body, host: String, limit: u64, patience: Duration) -> Self {
        Self {
            inner: Box::pin(inner),
            host,
            limit,
            read: 0,
            patience,
            floor: SpeedFloor::new(patience),
            waiting: None,
            alarm: Box::pin(tokio::time::sleep(patience)),
        }
    }

    fn refused(&self, kind: HttpErrorKind, cause: RefusalCause) -> HttpError {
        let host = self.host.clone();
        HttpError::new(kind, StoreRefusal { host, cause })
    }

    fn stuck(&self) -> HttpError {
        self.refused(
            HttpErrorKind::Interrupted,
            RefusalCause::Stuck(self.patience),
        )
    }

    /// Waits until the body counts as stuck.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<HttpError> {
        loop {
            let began = match self.waiting {
                Some(began) => began,
                None => {
                    let now = Instant::now();
                    self.alarm.as_mut().reset(now + self.floor.left());
                    *self.waiting.insert(now)
                }
            };

            ready!(self.alarm.as_mut().poll(cx));
            self.waiting = None;
            if !self.floor.waited(began.elapsed(), 0) {
                return Poll::Ready(self.stuck());
            }
        }
    }

    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, HttpError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.read = self.read.saturating_add(bytes);
        if self.read > self.limit {
            let fault = AnswerFault::TooLarge(self.read, self.limit);
            return Err(self.refused(HttpErrorKind::Decode, RefusalCause::Answer(fault)));
        }

        let time = self.waiting.take().map(|began| began.elapsed());
        match self.floor.waited(time.unwrap_or_default(), bytes) {
            true => Ok(frame),
            false => Err(self.stuck()),
        }
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let checked = match self.inner.as_mut().poll_frame(cx) {
            Poll::Pending => Err(ready!(self.poll_stuck(cx))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => self.check(frame),
            Poll::Ready(Some(Err(e))) => {
                let cause = StoreRefusal::of_client(&self.host, &e).cause;
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
