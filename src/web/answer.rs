//! Answers with the headers that all of them have.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::Receiver;

/// Policy for pages: nothing from elsewhere, and no use within other pages.
const CONTENT_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// A whole text.
    Whole(Bytes),
    /// Parts as they come.
    Stream(Receiver<Bytes>),
}

/// Answer to a request.
pub(super) type HttpAnswer = Response<AnswerBody>;

/// An answer of `content_type`.
pub(super) fn of(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> HttpAnswer {
    with_body(status, content_type, AnswerBody::Whole(text.into()))
}

/// A stream of events.
pub(super) fn stream(events: Receiver<Bytes>) -> HttpAnswer {
    let body = AnswerBody::Stream(events);
    with_body(StatusCode::OK, "text/event-stream", body)
}

fn with_body(status: StatusCode, content_type: &'static str, body: AnswerBody) -> HttpAnswer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let fixed = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }

    answer
}

/// A short text for people.
pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> HttpAnswer {
    of(status, "text/plain; charset=utf-8", text)
}

impl AnswerBody {
    /// Returns whether the body is a stream.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, AnswerBody::Stream(_))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = match &mut *self {
            AnswerBody::Whole(text) if text.is_empty() => None,
            AnswerBody::Whole(text) => Some(std::mem::take(text)),
            AnswerBody::Stream(events) => ready!(events.poll_recv(cx)),
        };
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Whole(text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(text) => SizeHint::with_exact(text.len() as u64),
            AnswerBody::Stream(_) => SizeHint::default(),
        }
    }
}
