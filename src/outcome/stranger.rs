//! A peer whose datagrams this process does not open.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::seal::OpenError;

/// A peer with another group key, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stranger {
    /// Source address of the datagrams, which may be spoofed.
    pub address: IpAddr,
    /// Kind of the datagrams: [`OpenError::Plain`], [`OpenError::Sealed`], [`OpenError::Wrong`] or
    /// [`OpenError::Version`].
    pub kind: OpenError,
}

impl Stranger {
    /// Describes a kind of peer for people, after its address.
    pub fn describe(kind: OpenError) -> &'static str {
        match kind {
            OpenError::Version => "speaks another wire format",
            OpenError::Plain => "speaks without a group key",
            OpenError::Sealed => "speaks with a group key, and there is none here",
            OpenError::Wrong => "speaks with another group key, or forges",
            OpenError::Replayed => "repeats datagrams",
            OpenError::Foreign => "is not makuo",
        }
    }
}
