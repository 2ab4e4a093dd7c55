//! `makuo deploy`, and what it shares with `makuo diff`: a spec and flags become the options of one session.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{DeployArgs, SessionArgs};
use super::{network, sign};
use crate::config::NetworkConfig;
use crate::drive::outcome::{Observer, Outcome, Purpose};
use crate::report::Report;
use crate::spec::{Expect, Spec};
use crate::units::printable;
use crate::{Error, Result};

/// Everything that a session needs to know. The spec has the flags laid over it already.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// What the session is for.
    pub purpose: Purpose,
    /// The spec, with --rate, --delete, --no-delete and --expect in it.
    pub spec: Spec,
    /// The key to sign with; the file exists.
    pub key: PathBuf,
    /// Globs of --target, each of them legal; empty: whom the spec says. A host has to match these and the spec's.
    pub only: Vec<String>,
    /// How long a host may be silent.
    pub timeout: Duration,
    /// Whether hosts re-read every file.
    pub checksum: bool,
    /// The network.
    pub network: NetworkConfig,
}

pub(super) fn run(args: &DeployArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let purpose = if args.dry_run { Purpose::DryRun } else { Purpose::Deploy };
    session(&resolve(&args.session, purpose, config)?, report)
}

/// Runs a session and reports it; the exit code is the outcome's.
pub(super) fn session(options: &SessionOptions, report: &mut Report) -> Result<u8> {
    report.start(&format!("{}: {}", options.spec.tree, printable(options.spec.source.as_os_str().as_encoded_bytes())));
    let outcome = engine(options, report)?;
    report.outcome(&outcome);
    Ok(outcome.exit.code())
}

/// Arguments to options: everything that can be wrong about them is found here, before anything is sent.
pub(super) fn resolve(args: &SessionArgs, purpose: Purpose, config: Option<&Path>) -> Result<SessionOptions> {
    let mut spec = Spec::load(&args.spec)?;
    spec.check_source()?;
    for pattern in &args.targets {
        globset::Glob::new(pattern).map_err(|e| {
            Error::usage(format!("--target {}: {}", printable(pattern.as_bytes()), e.kind()))
                .hint("a glob such as 'web*' or 'web[1-3]'; quote it, or the shell takes it")
        })?;
    }
    spec.transfer.rate = args.rate.or(spec.transfer.rate);
    spec.delete.extras = (spec.delete.extras || args.delete) && !args.no_delete;
    spec.targets.expect = args.expect.map(Expect::Count).or(spec.targets.expect);
    Ok(SessionOptions {
        purpose,
        key: sign::key_file(args.key.as_deref(), spec.key.as_deref())?,
        spec,
        only: args.targets.clone(),
        timeout: args.timeout,
        checksum: args.checksum,
        network: network::resolve(&args.network, config)?,
    })
}

// ENGINE: to be filled in. Reads the source, signs, runs the session and tells `observer` as it goes.
fn engine(_options: &SessionOptions, _observer: &mut dyn Observer) -> Result<Outcome> {
    Err(Error::refused("deploy and diff are not built yet"))
}
