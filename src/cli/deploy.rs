//! `makuo deploy`, and what it shares with `makuo diff`: a spec and flags become the options of one session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{DeployArgs, SessionArgs};
use super::{network, sign};
use crate::config::NetworkConfig;
use crate::drive::deploy::{self, Interrupt};
use crate::drive::outcome::{Observer, Outcome, Purpose};
use crate::drive::source::Unmounted;
use crate::keys::{self, AuthorizedKeys, Signer};
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
    /// Whether a host that shows another key than before is kept out.
    pub strict: bool,
    /// Whether health checks run also where nothing changes.
    pub recheck: bool,
    /// The network.
    pub network: NetworkConfig,
    /// Where the source's index is kept.
    pub cache: Option<PathBuf>,
    /// What to do about a filesystem in the source that is not mounted any more.
    pub unmounted: Unmounted,
    /// The keys that are authorized on this machine.
    pub authorized: Arc<AuthorizedKeys>,
}

pub(super) fn run(args: &DeployArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let purpose = if args.dry_run {
        Purpose::DryRun
    } else {
        Purpose::Deploy
    };

    let mut options = resolve(&args.session, purpose, config)?;
    options.recheck = args.recheck;
    if args.yes_unmounted {
        options.unmounted = Unmounted::Accept;
    }

    session(&options, report)
}

/// Runs a session and reports it; the exit code is the outcome's.
pub(super) fn session(options: &SessionOptions, report: &mut Report) -> Result<u8> {
    network::tell(&options.network, report);
    report.start(&format!(
        "{}: {}",
        options.spec.tree,
        printable(options.spec.source.as_os_str().as_encoded_bytes())
    ));
    let outcome = engine(options, report)?;
    report.outcome(&outcome);

    Ok(outcome.exit.code())
}

/// Arguments to options: everything that can be wrong about them is found here, before anything is sent.
pub(super) fn resolve(
    args: &SessionArgs,
    purpose: Purpose,
    config: Option<&Path>,
) -> Result<SessionOptions> {
    let mut spec = Spec::load(&args.spec)?;
    spec.check_source()?;
    check_targets(&args.targets)?;
    spec.transfer.rate = args.rate.or(spec.transfer.rate);
    spec.delete.extras = (spec.delete.extras || args.delete) && !args.no_delete;
    spec.targets.expect = args.expect.map(Expect::Count).or(spec.targets.expect);
    let network = network::resolve(&args.network, config)?;

    Ok(SessionOptions {
        purpose,
        key: sign::key_file(args.key.as_deref(), spec.key.as_deref())?,
        spec,
        only: args.targets.clone(),
        timeout: args.timeout,
        checksum: args.checksum,
        strict: args.strict_host_keys || network.strict_host_keys,
        recheck: false,
        network,
        cache: cache_dir(),
        authorized: Arc::new(sign::authorized(None, &network::host_config(config)?)?),
        unmounted: if purpose == Purpose::Diff {
            Unmounted::Tell
        } else {
            Unmounted::Refuse
        },
    })
}

/// Refuses what is no glob.
pub(super) fn check_targets(targets: &[String]) -> Result<()> {
    for pattern in targets {
        globset::Glob::new(pattern).map_err(|e| {
            Error::usage(format!(
                "--target {}: {}",
                printable(pattern.as_bytes()),
                e.kind()
            ))
            .hint("a glob such as 'web*' or 'web[1-3]'; quote it, or the shell takes it")
        })?;
    }

    Ok(())
}

/// Reads the source, signs, runs the session and tells `observer` as it goes. Ctrl-C ends it without a commit; a second
/// one ends the process.
fn engine(options: &SessionOptions, observer: &mut dyn Observer) -> Result<Outcome> {
    let signer = Arc::from(keys::open_signer(&options.key)?);
    let links = network::open(&options.network)?;
    let interrupt = Interrupt::default();
    follow_interrupts(interrupt.clone());
    deploy::run(links, for_engine(options, signer)?, &interrupt, observer)
}

/// What the engine takes.
pub(super) fn for_engine(
    options: &SessionOptions,
    signer: Arc<dyn Signer>,
) -> Result<deploy::Options> {
    let (spec, name) = (options.spec.clone(), network::host_name()?);
    Ok(deploy::Options {
        only: options.only.clone(),
        checksum: options.checksum,
        recheck: options.recheck,
        strict: options.strict,
        cache: options.cache.clone(),
        unmounted: options.unmounted,
        authorized: Some(Arc::clone(&options.authorized)),
        ..deploy::Options::new(spec, options.purpose, signer, name, options.timeout)
    })
}

/// Where indexes of sources are kept: the user's cache.
pub(super) fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.map(|dir| dir.join("makuo"))
}

pub(super) fn follow_interrupts(interrupt: Interrupt) {
    // Without the thread Ctrl-C ends the process at once, which leaves every host as it is.
    let _ = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
            else {
                return;
            };
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if interrupt.interrupt() {
                        std::process::exit(INTERRUPTED);
                    }
                }
            });
        });
}

/// The exit code of a process that a person interrupted: 128 and SIGINT.
const INTERRUPTED: i32 = 130;
