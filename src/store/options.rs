//! How a store is reached, beside its URL: certificates, limits and the environment. All of it is
//! data: this room reads no environment by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::units::Rate;

/// Looks up all addresses of a host name, with a port; an error is for people. It may block.
pub type LookUp = fn(&str, u16) -> Result<Vec<SocketAddr>, String>;

/// Settings of a connection to a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// A file with certificates (PEM) that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Largest rate of all requests together, in each direction.
    pub rate: Option<Rate>,
    /// Requests under way at the same time; further ones wait.
    pub parallel: usize,
    /// How often a request is made, if each time fails. Progress pays for failures. A caller that
    /// repeats requests itself asks by [`super::Store::once`].
    pub attempts: u32,
    /// Time without an answer, or with less than 1 KiB a second, after which a connection is
    /// given up. There is no limit on the total time of a body that moves.
    pub patience: Duration,
    /// Looks names up; `None` leaves that to the client.
    pub lookup: Option<LookUp>,
    /// Environment variables: credentials, regions, proxies, the home directory.
    pub environment: BTreeMap<String, String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            ca_file: None,
            rate: None,
            parallel: 8,
            attempts: 5,
            patience: Duration::from_secs(30),
            lookup: None,
            environment: BTreeMap::new(),
        }
    }
}

impl StoreOptions {
    /// The default settings with the environment of this process.
    pub fn from_environment() -> Self {
        // Variables that are not UTF-8 are none that this room knows.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            environment: std::env::vars_os().filter_map(text).collect(),
            ..Self::default()
        }
    }

    /// The value of a variable, unless it is empty.
    #[cfg(feature = "store")]
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let value = self.environment.get(name)?;
        (!value.is_empty()).then_some(value)
    }
}

impl fmt::Debug for StoreOptions {
    /// Leaves the environment out: it has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("ca_file", &self.ca_file)
            .field("rate", &self.rate)
            .field("parallel", &self.parallel)
            .field("attempts", &self.attempts)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
