//! The body of a request on its way out: in small pieces, so that its progress is seen and the
//! rate limit holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequestBody};
use tokio::time::{Instant, Sleep};

use super::limits::Limits;

/// A body that counts its bytes as the connection takes them.
pub(super) struct UploadBody {
    inner: HttpRequestBody,
    left: Bytes,
    taken: Arc<AtomicU64>,
    limits: Arc<Limits>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl UploadBody {
    /// Wraps the body of a request; `taken` counts its bytes.
    pub fn new(inner: HttpRequestBody, taken: Arc<AtomicU64>, limits: Arc<Limits>) -> Self {
        Self {
            inner,
            left: Bytes::new(),
            taken,
            limits,
            pause: None,
        }
    }

    fn piece(&mut self) -> Bytes {
        let piece = self.left.split_to(self.left.len().min(self.limits.piece()));
        let bytes = piece.len() as u64;
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        let wait = self.limits.send(bytes);
        if wait > Duration::ZERO {
            self.pause = Some(Box::pin(tokio::time::sleep_until(Instant::now() + wait)));
        }

        piece
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }

        while self.left.is_empty() {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.left = frame.into_data().unwrap_or_default(),
                other => return other,
            }
        }

        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let exact = self.inner.size_hint().exact();
        exact.map_or_else(SizeHint::new, |inner| {
            SizeHint::with_exact(inner.saturating_add(self.left.len() as u64))
        })
    }
}
