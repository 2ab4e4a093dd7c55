//! Requests to a store and its replies, as plain values.
//!
//! The machines of this room make the requests. The room `store` carries them out and turns each
//! into exactly one final reply: a request that stops moving is given up.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::units::{WallTime, printable};

/// Longest path of an object in bytes; makuo's own are about half as long.
pub const MAX_OBJECT_PATH: usize = 200;
/// Longest entity tag in bytes.
pub const MAX_ETAG_BYTES: usize = 256;

/// Between the name of an object and the number that makes a temporary name.
const TEMPORARY: &str = ".tmp-";

/// Path of an object below the root of a repository: `trees/www/head`.
///
/// One to four names with `/` between. A name has letters, digits, `.`, `_` and `-`, and does not
/// begin with a dot or a dash, so that a path is the same on a file system, in an URL and in an
/// object store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(Arc<str>);

impl ObjectPath {
    /// Checks a path.
    pub fn new(path: &str) -> Option<Self> {
        let names = path.split('/').count();
        let legal = (1..=4).contains(&names)
            && path.len() <= MAX_OBJECT_PATH
            && path.split('/').all(is_legal_name);
        legal.then(|| Self(path.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the path is that of an object that is being written, or was when its
    /// publisher was killed.
    pub fn is_temporary(&self) -> bool {
        let number = self.0.rsplit_once(TEMPORARY).map(|(_, number)| number);
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        number.is_some_and(|n| n.len() == 16 && n.bytes().all(is_digit))
    }

    /// Returns whether the object under this path never changes. Only heads do.
    pub fn is_immutable(&self) -> bool {
        !self.0.ends_with("/head")
    }
}

/// Name under which a directory has the object `name` until it is whole.
pub fn temporary_name(name: &str, number: u64) -> String {
    format!("{name}{TEMPORARY}{number:016x}")
}

fn is_legal_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && !name.starts_with(['.', '-']) && name.bytes().all(legal)
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Entity tag of one state of an object (RFC 9110, 8.8.3), as the store gave it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Etag(Arc<str>);

impl Etag {
    /// Checks a tag: printable ASCII, at most [`MAX_ETAG_BYTES`].
    pub fn new(tag: &str) -> Option<Self> {
        let legal = !tag.is_empty()
            && tag.len() <= MAX_ETAG_BYTES
            && tag.bytes().all(|b| (0x21..=0x7e).contains(&b));
        legal.then(|| Self(tag.into()))
    }

    /// The tag as text, with its quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Request for bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// The object.
    pub object: ObjectPath,
    /// Bytes to read, not empty; `None` reads the whole object. A reply with other bytes than
    /// these is a fault of kind [`FaultKind::NotARange`].
    pub range: Option<Range<u64>>,
    /// Asks for [`GetReply::NotModified`] if the object is still in this state.
    pub unless: Option<Etag>,
    /// Largest body in bytes. More is a fault of kind [`FaultKind::TooLarge`], and none of it
    /// needs to be read.
    pub max: u64,
}

/// One event in answer to a [`Get`]: any number of [`GetReply::Bytes`], then exactly one other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetReply {
    /// The next bytes of the body, in order.
    Bytes(Vec<u8>),
    /// The body is complete.
    End {
        /// State of the object, if the store gave a tag.
        etag: Option<Etag>,
    },
    /// The object is in the state of [`Get::unless`].
    NotModified,
    /// There is no such object.
    Missing,
    /// The request failed, perhaps in the middle of the body. Bytes that came before stay valid.
    Failed(StoreFault),
}

/// Request to store an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The object.
    pub object: ObjectPath,
    /// Its content.
    pub bytes: Arc<Vec<u8>>,
    /// State that the object must have before.
    pub condition: PutCondition,
}

/// State that an object must have for a [`Put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutCondition {
    /// Any: the name of the object is the hash of its content.
    Any,
    /// The object does not exist.
    Absent,
    /// The object has this tag.
    Unchanged(Etag),
}

/// Answer to a [`Put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutReply {
    /// The object is stored, durably as far as the store promises it.
    Done {
        /// Its new state, if the store gave a tag.
        etag: Option<Etag>,
    },
    /// The condition does not hold: somebody else stored the object meanwhile.
    Conflict,
    /// The store cannot check conditions; nothing was stored. The publisher reads the object again
    /// and then stores it with [`PutCondition::Any`].
    NoConditions,
    /// The request failed; the object may be stored nevertheless.
    Failed(StoreFault),
}

/// Failure of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFault {
    /// Kind of the failure; decides whether the request is repeated.
    pub kind: FaultKind,
    /// Earliest time to ask again, if the store gave one (`Retry-After`).
    pub after: Option<Duration>,
    /// A sentence for people, from its beginning: nothing is put before it.
    pub text: String,
}

impl StoreFault {
    /// A fault of `kind`; `text` is made printable.
    pub fn new(kind: FaultKind, text: &str) -> Self {
        Self {
            kind,
            after: None,
            text: printable(text.as_bytes()),
        }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Kind of a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// No answer, a cut connection, too low a speed, a status of 5xx or 429.
    Temporary,
    /// The store refuses the credentials, or has none: 401, 403.
    Denied,
    /// Other bytes than those that were asked for: 200 instead of a range, another `Content-Range`,
    /// a compressed body.
    NotARange,
    /// A body beyond [`Get::max`].
    TooLarge,
    /// The object ends before the range that was asked for.
    TooShort,
    /// Any other answer: a repetition would get the same.
    Permanent,
}

impl FaultKind {
    /// Returns whether a repetition of the request may succeed.
    pub fn is_temporary(self) -> bool {
        // A proxy on the way may have ignored a range once.
        matches!(self, FaultKind::Temporary | FaultKind::NotARange)
    }

    /// Returns whether something on the way answers wrongly: perhaps one proxy of several. People
    /// want to hear soon of a server that always does.
    pub(super) fn is_odd_answer(self) -> bool {
        matches!(self, FaultKind::NotARange | FaultKind::TooLarge)
    }
}

/// An object in a list of objects. Only gc and check list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The object.
    pub object: ObjectPath,
    /// Size in bytes.
    pub size: u64,
    /// Time at which it was stored, by the store's clock.
    pub stored: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_refused_where_a_store_would_read_them_otherwise() {
        let long = format!("packs/{}", "x".repeat(MAX_OBJECT_PATH));
        for bad in [
            "",
            "/",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/..",
            "a/.b",
            "a/-b",
            "a b",
            "a%2fb",
            "a\n",
            "a/b/c/d/e",
            "ä",
            &long,
        ] {
            assert!(ObjectPath::new(bad).is_none(), "{bad:?}");
        }

        let head = ObjectPath::new("trees/www/head").expect("legal");
        let pack = ObjectPath::new("packs/ab/abcd.pack").expect("legal");
        assert!(!head.is_immutable() && pack.is_immutable());

        for object in [head, pack] {
            let temporary = ObjectPath::new(&temporary_name(object.as_str(), 7)).expect("legal");
            assert!(temporary.is_temporary() && !object.is_temporary());
        }
        let other = ObjectPath::new("packs/ab/abcd.tmp-12.pack").expect("legal");
        assert!(!other.is_temporary());
    }

    #[test]
    fn tags_with_line_breaks_are_refused() {
        for bad in [
            "",
            "\"a\r\nHost: x\"",
            "a b",
            &"x".repeat(MAX_ETAG_BYTES + 1),
        ] {
            assert!(Etag::new(bad).is_none(), "{bad:?}");
        }
        assert!(Etag::new("W/\"abc\"").is_some());
    }
}
