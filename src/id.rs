//! Newtypes for all identifiers: trees, hosts, sessions, releases, positions in a manifest.
//!
//! A value of one of these types is legal by construction: input from peers and files is checked
//! once, at parsing or decoding.

mod labels;
mod pattern;

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::units::number;

pub use labels::{LabelError, Labels};
pub use pattern::{check_pattern, is_costly, matches_host};

/// Longest name of a tree or host, in bytes.
pub const MAX_NAME: usize = 64;

/// Reason why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} name {shown:?} is not legal: 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, \
     not starting with . or -"
)]
pub struct NameError {
    what: &'static str,
    shown: String,
}

fn check_name(what: &'static str, name: &str) -> Result<Arc<str>, NameError> {
    let legal = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));

    if legal {
        Ok(name.into())
    } else {
        Err(NameError {
            what,
            shown: crate::units::printable(name.as_bytes()),
        })
    }
}

/// Orders names with numbers as people do: `web2` before `web10`.
fn natural_order(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.as_bytes(), other.as_bytes());
    while let ([a, after_a @ ..], [b, after_b @ ..]) = (left, right) {
        if !(a.is_ascii_digit() && b.is_ascii_digit()) {
            match a.cmp(b) {
                Ordering::Equal => (left, right) = (after_a, after_b),
                differ => return differ,
            }
            continue;
        }

        let ((number, after), (other_number, other_after)) =
            (split_number(left), split_number(right));
        let order = number.len().cmp(&other_number.len());
        match order.then_with(|| number.cmp(other_number)) {
            Ordering::Equal => (left, right) = (after, other_after),
            differ => return differ,
        }
    }

    // Equal names only are equal: `web01` is not `web1`.
    left.len().cmp(&right.len()).then_with(|| one.cmp(other))
}

/// Splits a number, without leading zeros, from the bytes after it.
fn split_number(bytes: &[u8]) -> (&[u8], &[u8]) {
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let (digits, after) = bytes.split_at(bytes.iter().take_while(is_digit).count());
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    (&digits[zeros..], after)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks a name.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check_name($what, name).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                natural_order(&self.0, &other.0)
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                Self::new(&s)
            }
        }

        impl From<$type> for String {
            fn from(n: $type) -> String {
                n.0.to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<C> Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                Self::new(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
            }
        }
    };
}

name!(
    /// Name under which receivers manage a directory: `www`.
    TreeName,
    "tree"
);
name!(
    /// Word by which hosts say that they hear each other's multicast: `fra1`.
    SegmentName,
    "segment"
);
name!(
    /// Name of one host: kept unique in its group by the operator, shown everywhere.
    HostName,
    "host"
);

/// Host as displayed: its name, with its address if another host has the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedHost {
    /// The name.
    pub name: HostName,
    /// The address, if the name is ambiguous.
    pub address: Option<IpAddr>,
}

impl From<HostName> for NamedHost {
    fn from(name: HostName) -> Self {
        Self {
            name,
            address: None,
        }
    }
}

impl fmt::Display for NamedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => self.name.fmt(f),
            Some(address) => f.pad(&format!("{} ({address})", self.name)),
        }
    }
}

/// Defines a random number for one thing on the network, shown in hexadecimal.
macro_rules! drawn {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $type(#[n(0)] pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({:016x})"), self.0)
            }
        }
    };
}

drawn!(
    /// One running process on the network: a daemon or a sender, drawn at its start.
    InstanceId
);
drawn!(
    /// One session: a sender's attempt to deploy one release to its targets, drawn by the sender.
    SessionId
);
drawn!(
    /// Hosts that hear each other's multicast: from a configured word, else from one of them.
    SegmentId
);
drawn!(
    /// A number used once: drawn by a process to check whether another one is present now, which
    /// repeats it.
    Nonce
);

/// Bit of a segment that has a configured word.
const NAMED_SEGMENT: u64 = 1 << 63;

impl SegmentId {
    /// The segment of a configured word.
    pub fn named(name: &SegmentName) -> Self {
        let hash = Sha256::new()
            .chain_update(b"makuo segment v1")
            .chain_update(name.as_str())
            .finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Self(u64::from_be_bytes(first) | NAMED_SEGMENT)
    }

    /// The segment that is called after one of its processes.
    pub fn of(instance: InstanceId) -> Self {
        Self(instance.0 & !NAMED_SEGMENT)
    }

    /// Returns whether a configured word names the segment.
    pub fn is_named(self) -> bool {
        self.0 & NAMED_SEGMENT != 0
    }
}

number!(
    /// Number of a release within its tree; strictly rising.
    #[derive(Encode, Decode, Serialize, Deserialize)]
    #[cbor(transparent)]
    #[serde(transparent)]
    Serial(#[n(0)] u64)
);

impl Serial {
    /// Largest plausible step from one serial to another. Senders and hosts must use the same
    /// value.
    pub const MAX_STEP: u64 = 1 << 32;
    /// Highest serial that hosts accept: as many serials are above as below, so none is the last.
    pub const MAX_ACCEPTED: u64 = 1 << 63;

    /// The following serial; the last one stays itself (2^64 releases are not reached).
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number!(
    /// Position of a block in a release: manifest nodes first, in depth-first order from the root
    /// (0), then the blocks of files in the order of their entries. See [`crate::manifest`].
    #[derive(Encode, Decode)]
    #[cbor(transparent)]
    Ordinal(#[n(0)] u64)
);
number!(
    /// Number of a generation within one session: the unit of repair, see [`crate::proto`].
    #[derive(Encode, Decode)]
    #[cbor(transparent)]
    Generation(#[n(0)] u32)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_where_a_path_or_terminal_would_suffer() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-x",
            ".hidden",
            "a b",
            "a\n",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(TreeName::new(bad).is_err(), "{bad:?}");
        }

        for good in ["www", "web-1.example", "A_9", &"x".repeat(64)] {
            assert_eq!(
                TreeName::new(good).map(|n| n.to_string()),
                Ok(good.to_string())
            );
        }
    }

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let ordered = [
            "db",
            "web",
            "web-2",
            "web01",
            "web1",
            "web1a",
            "web2",
            "web02x",
            "web10",
            "web10.2",
            "web10.10",
            "web99999999999999999999998",
            "web99999999999999999999999",
            "webs",
        ];
        let names = ordered.map(|name| HostName::new(name).expect("legal"));

        for (at, one) in names.iter().enumerate() {
            for (other_at, other) in names.iter().enumerate() {
                assert_eq!(one.cmp(other), at.cmp(&other_at), "{one} and {other}");
            }
        }
    }
}
