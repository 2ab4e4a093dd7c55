//! Takes a release that was found in a repository: a session whose sender reads from there.
//!
//! All hosts of the network that lack the release take it from the same session.

use std::sync::Arc;
use std::time::Duration;

use super::find::FoundRelease;
use super::source::{BlockLoader, RepositorySource};
use crate::Result;
use crate::drive::catch_up::PublicKeyOnly;
use crate::drive::deploy::rollback::spec;
use crate::drive::deploy::source::{PreparedRelease, ReleaseSource};
use crate::drive::deploy::{self, DeployOptions, Granted, Interrupt, ReleaseKeys, ReleaseOrigin};
use crate::drive::endpoint::GroupLinks;
use crate::drive::host::LocalHost;
use crate::outcome::{ExitStatus, Observer, Outcome, Purpose};
use crate::spec::Compress;
use crate::tree::ReleaseNodes;
use crate::units::Rate;

/// Settings of the session.
#[derive(Debug, Clone)]
pub struct TakeOptions {
    /// Rate on the network; `None` has no limit.
    pub rate: Option<Rate>,
    /// Timeout for a silent host.
    pub timeout: Duration,
    /// Approximate number of hosts.
    pub fleet: u32,
    /// Number of hosts that end discovery once they have answered; 0 if unknown.
    pub known: usize,
    /// Compression on the network.
    pub compress: Compress,
    /// Bytes of a payload on the network.
    pub payload: usize,
}

/// Takes `found`, by a session over `network` in which `host` takes part.
pub fn pull(
    network: impl Into<GroupLinks>,
    found: FoundRelease,
    host: &Arc<LocalHost>,
    options: &TakeOptions,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let FoundRelease {
        record,
        permitted,
        tree,
        loading,
        ..
    } = found;

    let header = record.release.header().clone();
    let mut spec = spec(&record.release, &header.targets)?;
    spec.transfer.rate = options.rate;

    let records = (*tree.state()).clone();
    let loader = BlockLoader::start(loading, Arc::clone(host), tree)?;
    let shelf = loader.shelf();
    let TakeOptions {
        compress, payload, ..
    } = *options;
    let facts = PreparedRelease::of(&header, Vec::new());
    let root = header.root;
    let prepare = move || {
        let nodes = ReleaseNodes::open(&records, root)?;
        let source = RepositorySource::new(nodes, shelf);
        let source = ReleaseSource::of(Box::new(source), compress);
        Ok((source.in_payloads_of(payload), facts))
    };

    let keys = ReleaseKeys::of(Arc::new(PublicKeyOnly(permitted.key)));
    let name = host.name.clone();
    let session = DeployOptions {
        known: options.known,
        ..DeployOptions::new(spec, Purpose::Deploy, keys, name, options.timeout)
    };
    let granted = Granted {
        release: record.release,
        signature: record.signature,
        grant: permitted.order,
        fleet: options.fleet,
        follows: None,
        only: None,
        asking: Vec::new(),
    };

    let origin = ReleaseOrigin::Granted(granted, Box::new(prepare));
    let mut outcome = deploy::run(network, session, origin, interrupt, observer)?;
    if outcome.exit != ExitStatus::Success
        && let Some(why) = loader.failure()
    {
        outcome.error = Some(why);
    }
    Ok(outcome)
}
