//! Checks the head of an answer to a get before its body is read: status, range, length and
//! encoding. Pure. A server is not trusted, and caches in between give whole files for ranges.

use std::ops::Range;

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName,
    LAST_MODIFIED,
};
use thiserror::Error;

use crate::repository::object::Etag;

/// The most bytes of a whole file that are read to cut a range from it.
pub(super) const MAX_CUT_BYTES: u64 = 32 << 20;
/// The fewest bytes of a range that are taken instead of all: each answer costs a request.
const MIN_PREFIX_BYTES: u64 = 64 << 10;

/// Bytes of an object that a get asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedBytes {
    /// The whole object, if it has at most this many bytes.
    Whole {
        /// Largest size in bytes.
        at_most: u64,
    },
    /// Exactly these bytes, counted from 0.
    Part(Range<u64>),
}

/// Position of the wanted bytes in the body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerContent {
    /// Bytes of the body before the wanted ones.
    pub skip: u64,
    /// Number of wanted bytes in it, the first ones; `None` if the server does not say it.
    pub length: Option<u64>,
    /// Size of the object, if the server says it.
    pub size: Option<u64>,
    /// Entity tag of the object, with its quotes.
    pub etag: Option<String>,
    /// Whether the object changed in the second of the answer. It may change once more in this
    /// second, and nginx makes its tags of seconds.
    pub is_young: bool,
    /// Number of the object's state, of Google's interface only.
    pub generation: Option<String>,
}

/// An answer that does not fit the request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum AnswerFault {
    /// The whole object, where it is too large to cut a range from it.
    #[error("the server sends whole files where a range was asked for")]
    NoRanges,
    /// Another range than the wanted one.
    #[error("the server sends {0:?} where bytes {1}-{2} were asked for")]
    OtherRange(String, u64, u64),
    /// A range that ends behind the object's end.
    #[error("the object has {0} bytes and is too short")]
    TooShort(u64),
    /// An object over the limit.
    #[error("the object has {0} bytes, more than the {1} that are allowed here")]
    TooLarge(u64, u64),
    /// A compressed body: offsets would count compressed bytes.
    #[error("the server encodes the body as {0:?} although identity was asked for")]
    Encoded(String),
    /// A header that contradicts the others or itself.
    #[error("the server sends an invalid header {0}")]
    Header(&'static str),
    /// Something else where a list was asked for.
    #[error("the server sends something else than a list")]
    NoList,
    /// A page of a list that does not say how to ask for the next one.
    #[error("the server's list ends in the middle")]
    UnfinishedList,
    /// Pages of a list without objects, one after the other.
    #[error("the server's list has no end")]
    Endless,
    /// A status that means neither the body nor its absence.
    #[error("the server answers a get with status {0}")]
    Status(u16),
}

impl WantedBytes {
    /// The wanted bytes from the `done`th on; `length` is the number of all wanted ones.
    pub fn rest(&self, done: u64, length: u64) -> WantedBytes {
        match self {
            WantedBytes::Part(range) => {
                WantedBytes::Part(range.start.saturating_add(done)..range.end)
            }
            WantedBytes::Whole { .. } => WantedBytes::Part(done..length),
        }
    }
}

/// Checks status and headers of an answer that has the body of a get.
pub(super) fn check(
    wanted: &WantedBytes,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<AnswerContent, AnswerFault> {
    check_encoding(headers)?;
    let length = length(headers)?;
    let delivery = |skip, length, size| AnswerContent {
        skip,
        length,
        size,
        etag: etag(headers),
        is_young: is_young(headers),
        generation: generation(headers),
    };

    match (wanted, status) {
        (WantedBytes::Whole { at_most }, StatusCode::OK) => match length {
            Some(size) if size > *at_most => Err(AnswerFault::TooLarge(size, *at_most)),
            size => Ok(delivery(0, size, size)),
        },
        (WantedBytes::Part(range), StatusCode::PARTIAL_CONTENT) => {
            let (sent, size) = partial(range, length, headers)?;
            Ok(delivery(0, Some(sent), size))
        }
        (WantedBytes::Part(range), StatusCode::OK) => match length {
            Some(size) if size < range.end => Err(AnswerFault::TooShort(size)),
            Some(size) if size <= MAX_CUT_BYTES => Ok(delivery(
                range.start,
                Some(range.end - range.start),
                Some(size),
            )),
            _ => Err(AnswerFault::NoRanges),
        },
        (WantedBytes::Part(range), StatusCode::RANGE_NOT_SATISFIABLE) => {
            let size = text(headers, &CONTENT_RANGE, "Content-Range")?
                .and_then(|value| number(value.strip_prefix("bytes */")?))
                .filter(|size| *size < range.end);
            Err(size.map_or(AnswerFault::Status(416), AnswerFault::TooShort))
        }
        (_, status) => Err(AnswerFault::Status(status.as_u16())),
    }
}

/// Checks the headers of a part; returns the number of its bytes and the size of its object. The
/// part may be the first one of the wanted range (RFC 9110, 15.3.7).
fn partial(
    wanted: &Range<u64>,
    length: Option<u64>,
    headers: &HeaderMap,
) -> Result<(u64, Option<u64>), AnswerFault> {
    let value = text(headers, &CONTENT_RANGE, "Content-Range")?
        .ok_or(AnswerFault::Header("Content-Range"))?;
    let (sent, size) = content_range(value).ok_or(AnswerFault::Header("Content-Range"))?;
    if sent.start == wanted.start && sent.end < wanted.end && size == Some(sent.end) {
        return Err(AnswerFault::TooShort(sent.end));
    }

    let bytes = sent.end - sent.start;
    let is_first = sent.end < wanted.end && bytes >= MIN_PREFIX_BYTES;
    if sent.start != wanted.start || sent.end != wanted.end && !is_first {
        let last = wanted.end.saturating_sub(1);
        let shown = value.chars().take(80).collect();
        return Err(AnswerFault::OtherRange(shown, wanted.start, last));
    }

    match length {
        Some(length) if length != bytes => Err(AnswerFault::Header("Content-Length")),
        _ => Ok((bytes, size)),
    }
}

/// Parses `bytes 0-9/100`; the size may be `*`.
fn content_range(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let sent = number(first)?..number(last)?.checked_add(1)?;
    let size = match size {
        "*" => None,
        size => Some(number(size)?),
    };

    let valid = sent.start < sent.end && size.is_none_or(|size| sent.end <= size);
    valid.then_some((sent, size))
}

/// Parses digits only: `+1` and ` 1` are no numbers of a header.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, AnswerFault> {
    let value = text(headers, &CONTENT_LENGTH, "Content-Length")?;
    value
        .map(|value| number(value.trim()).ok_or(AnswerFault::Header("Content-Length")))
        .transpose()
}

/// Returns the entity tag, if it can be sent back as it is.
fn etag(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(ETAG)?.to_str().ok()?.trim();
    Etag::new(value).map(|etag| etag.as_str().to_string())
}

fn is_young(headers: &HeaderMap) -> bool {
    let stored = headers.get(LAST_MODIFIED);
    stored.is_some() && stored == headers.get(DATE)
}

fn generation(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-goog-generation")?.to_str().ok()?;
    number(value).map(|number| number.to_string())
}

fn check_encoding(headers: &HeaderMap) -> Result<(), AnswerFault> {
    let value = text(headers, &CONTENT_ENCODING, "Content-Encoding")?.unwrap_or_default();
    // Some stores repeat the framing of an upload, which the stored object does not have.
    let plain = |one: &str| matches!(one.trim(), "" | "identity" | "aws-chunked");
    match value.split(',').all(plain) {
        true => Ok(()),
        false => Err(AnswerFault::Encoded(value.chars().take(40).collect())),
    }
}

fn text<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, AnswerFault> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(AnswerFault::Header(shown));
    }

    first
        .map(|value| value.to_str().map_err(|_| AnswerFault::Header(shown)))
        .transpose()
}

#[cfg(test)]
mod tests;
