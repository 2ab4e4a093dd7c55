//! `makuo rollback`: back to an earlier release, on every host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::RollbackArgs;
use super::{deploy, network, sign};
use crate::Result;
use crate::config::{HostConfig, NetworkConfig};
use crate::drive::deploy::{self as engine, Interrupt};
use crate::drive::outcome::Purpose;
use crate::drive::rollback::{Earlier, check_key, choose, fetch, spec};
use crate::drive::{clock, log};
use crate::id::Serial;
use crate::keys::{self, AuthorizedKeys};
use crate::report::Report;
use crate::report::words;
use crate::spec::Expect;
use crate::tree::StoredRelease;
use crate::tree::records::Records;

/// The longest that hosts are given to say what they keep.
const ASK: Duration = Duration::from_secs(2);

pub(super) fn run(args: &RollbackArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    deploy::check_targets(&args.targets)?;
    let config = network::host_config(config)?;
    let network = network::over(&args.network, config.network.clone())?;
    let signer = keys::open_signer(&sign::key_file(args.key.as_deref(), None)?)?;
    let authorized = authorized(args, &config)?;
    report.start(&format!("{}: asking what hosts keep", args.tree));
    let local = local(args, &config)?;
    let (to, earlier) = find(args, local.as_ref(), &network)?;
    check_key(&earlier, signer.public(), &authorized, clock::wall_seconds())?;
    let mut spec = spec(&earlier.release)?;
    spec.transfer.rate = args.rate;
    spec.targets.expect = args.expect.map(Expect::Count);
    report.start(&format!("{}: back to {}", args.tree, words::release(&args.tree, Some(to))));
    let interrupt = Interrupt::default();
    deploy::follow_interrupts(interrupt.clone());
    let purpose = if args.dry_run { Purpose::DryRun } else { Purpose::Deploy };
    let options = engine::Options {
        only: args.targets.clone(),
        checksum: args.checksum,
        ..engine::Options::new(spec, purpose, Arc::from(signer), network::host_name()?, args.timeout)
    };
    let earlier = Earlier { release: earlier.release, from: local };
    let outcome = engine::rollback(network::open(&network)?, options, earlier, &interrupt, report)?;
    report.outcome(&outcome);
    Ok(outcome.exit.code())
}

/// The tree of this machine and its state, when it serves the tree.
fn local(args: &RollbackArgs, config: &HostConfig) -> Result<Option<(PathBuf, Records)>> {
    let Some(tree) = config.trees.iter().find(|t| t.name == args.tree) else { return Ok(None) };
    let records = match Records::find(&tree.name, &tree.path, config.state_dir.as_deref()) {
        Err(e) if e.is_os(std::io::ErrorKind::PermissionDenied) => {
            tracing::warn!("hosts that did not keep the release cannot be served from here: {e}");
            return Ok(None);
        }
        found => found?,
    };
    Ok(records.map(|records| (tree.path.clone(), records)))
}

/// The release to go back to: from this machine's own state, else from the fleet.
fn find(
    args: &RollbackArgs,
    local: Option<&(PathBuf, Records)>,
    network: &NetworkConfig,
) -> Result<(Serial, StoredRelease)> {
    let longest = ASK.min(args.timeout);
    let log = log::log(network::open(network)?, &args.tree, longest)?;
    let kept = match local {
        Some((_, records)) => records.kept()?,
        None => Vec::new(),
    };
    let to = choose(&log, &kept, args.to)?;
    if let Some((_, records)) = local
        && let Some(stored) = records.stored(to)?
    {
        return Ok((to, stored));
    }
    Ok((to, fetch(network::open(network)?, &args.tree, to, longest)?))
}

/// Whose releases may be signed again, beside those of the key that signs.
fn authorized(args: &RollbackArgs, config: &HostConfig) -> Result<AuthorizedKeys> {
    match &args.authorized_keys {
        Some(path) => AuthorizedKeys::load(path),
        None => match AuthorizedKeys::load(&config.authorized_keys) {
            // A machine that is no host, or a user who may not read the host's file, has none.
            Err(e) if e.is_os(std::io::ErrorKind::NotFound) || e.is_os(std::io::ErrorKind::PermissionDenied) => {
                Ok(AuthorizedKeys::none(&config.authorized_keys))
            }
            found => found,
        },
    }
}
