//! Sessions of `makuo deploy`, `makuo diff` and other commands: builds a session's
//! options from spec and flags, and runs the session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::SessionArgs;
use super::deploy_turn::DeployTurn;
use super::interrupt::handle_ctrl_c;
use super::{network, sign, store};
use crate::config::NetworkConfig;
use crate::drive::deploy::source::{SourceScan, Unmounted};
use crate::drive::deploy::{self, DeployOptions, Interrupt, Publisher, ReleaseKeys, ReleaseOrigin};
use crate::drive::repository::{self, HeadMemory, PublishOptions, try_repository};
use crate::id::{Serial, check_pattern};
use crate::keys::{AuthorizedKeys, Signer};
use crate::manifest::ReleaseMessage;
use crate::outcome::{Event, ExitStatus, Observer, Outcome, Purpose};
use crate::report::{Report, notify};
use crate::repository::SignedRelease;
use crate::repository::head::HeadValidity;
use crate::spec::Spec;
use crate::store::{Store, StoreOptions};
use crate::units::printable;
use crate::{Error, Kind, Result};

/// Options of a session. The flags are already applied to the spec.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Purpose of the session.
    pub purpose: Purpose,
    /// Spec with --rate, --delete, --no-delete and --expect applied.
    pub spec: Spec,
    /// Signing key; the file exists.
    pub key: PathBuf,
    /// Globs of --target, already checked. A host has to match one of these and one of the spec's;
    /// an empty list matches all.
    pub only: Vec<String>,
    /// Longest silence of a host.
    pub timeout: Duration,
    /// Makes hosts re-read every file.
    pub checksum: bool,
    /// Excludes a host with a changed key.
    pub strict: bool,
    /// Runs health checks even without changes.
    pub recheck: bool,
    /// Lists the changed paths of a deploy.
    pub lists: bool,
    /// What the release changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Longest wait for the end of another session of the tree.
    pub wait: Duration,
    /// Keys that sign the release as well.
    pub cosigners: Vec<PathBuf>,
    /// Network settings.
    pub network: NetworkConfig,
    /// Directory for the index of the source.
    pub cache: Option<PathBuf>,
    /// Reaction to a file system in the source that is no longer mounted.
    pub unmounted: Unmounted,
    /// Keys authorized on this machine.
    pub authorized: Arc<AuthorizedKeys>,
}

/// Runs a session, reports it, and returns the exit code.
pub(super) fn session(options: &SessionOptions, report: &mut Report) -> Result<u8> {
    let signer = sign::cosigned(&options.key, &options.cosigners)?;
    let outcome = session_outcome(options, signer, &Interrupt::default(), report)?;
    if let (Purpose::Stage, ExitStatus::Success, Some(serial)) =
        (options.purpose, outcome.exit, outcome.serial)
    {
        let tree = &options.spec.tree;
        let commit = match options.spec.commit.pause {
            true => format!("makuo promote {tree}@{serial} --batch 1"),
            false => format!("makuo commit {tree}@{serial}"),
        };
        report.event(&Event::Note(format!(
            "commit it with `{commit}`, or drop it with `makuo abort {tree}@{serial}`"
        )));
    }

    report.outcome(&outcome);
    notify(&options.spec, &outcome);
    Ok(outcome.exit.code())
}

/// Runs a session until its end or Ctrl-C.
pub(super) fn session_outcome(
    options: &SessionOptions,
    signer: Arc<dyn Signer>,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<Outcome> {
    network::note_plain(&options.network, report);
    let engine = deploy_options(options, signer)?;
    handle_ctrl_c(interrupt.clone());
    report.start(&format!(
        "{}: {}",
        options.spec.tree,
        printable(options.spec.source.as_os_str().as_encoded_bytes())
    ));
    run_until(interrupt, options, engine, report)
}

/// Runs a session whose release is published to the repository `to` as well.
pub(super) fn session_to(
    options: &SessionOptions,
    to: &str,
    how: &StoreOptions,
    report: &mut Report,
) -> Result<u8> {
    let url = store::url(to)?;
    let store = Store::open(&url, how)?;
    let signer = sign::cosigned(&options.key, &options.cosigners)?;
    let mut engine = deploy_options(options, signer)?;

    report.start(&format!("{}: looking into {url}", options.spec.tree));
    let newest = try_repository(&store, &options.spec.tree, &engine.keys).map_err(|e| {
        let e = e.with_kind(Kind::Usage);
        e.hint_else("nothing was sent: without --to the hosts alone get the release")
    })?;

    network::note_plain(&options.network, report);
    report.start(&format!("{}: deploying, and publishing", options.spec.tree));
    let interrupt = Interrupt::default();
    let publication = PublishOptions {
        keep: None,
        valid_for: HeadValidity::AsBefore,
        again: true,
        repair: false,
        message: options.message.clone(),
        keys: engine.keys.clone(),
        name: engine.name.clone(),
        cache: options.cache.clone(),
        memory: HeadMemory::new(options.cache.as_deref(), &url),
        interrupt: interrupt.clone(),
    };
    let place = (store, url.to_string(), newest);
    engine.publisher = Some(publisher(place, publication, &options.spec));

    handle_ctrl_c(interrupt.clone());
    let outcome = run_until(&interrupt, options, engine, report)?;
    report.outcome(&outcome);
    notify(&options.spec, &outcome);
    Ok(outcome.exit.code())
}

/// Stores the committed release of a session in `store`, which has the release `newest`.
fn publisher(
    (store, url, newest): (Store, String, Serial),
    options: PublishOptions,
    spec: &Spec,
) -> Publisher {
    let (shown, spec) = (url.clone(), spec.clone());
    Publisher::new(url, newest, move |source, committed, observer| {
        let root = committed.release.header().root;
        let new = SignedRelease {
            release: committed.release,
            signature: committed.signature,
            orders: vec![committed.order],
        };
        let mut sign = |_: Serial| Ok(new.clone());
        let store = store.clone();
        let published =
            repository::publish(store, &spec, &options, &root, source, &mut sign, observer)
                .map_err(|e| {
                    e.hint_else("`makuo publish` with this spec and --to publishes the content")
                })?;

        let release = &published.release;
        observer.event(&Event::Note(format!("{release} published to {shown}")));
        Ok(())
    })
}

/// Builds options from arguments; finds every error in them before anything is sent.
pub(super) fn resolve(
    args: &SessionArgs,
    purpose: Purpose,
    config: Option<&Path>,
) -> Result<SessionOptions> {
    let mut spec = Spec::load(&args.spec)?;
    spec.check_source()?;
    check_targets(&args.select.targets)?;
    spec.transfer.rate = args.limit.rate.or(spec.transfer.rate);
    spec.delete.extras = (spec.delete.extras || args.delete) && !args.no_delete;
    spec.targets.expect = args.hosts.expect.clone().or(spec.targets.expect);
    let network = network::resolve(&args.hosts.network, config)?;

    Ok(SessionOptions {
        purpose,
        key: sign::key_file(args.key.as_deref(), spec.key.as_deref())?,
        spec,
        only: args.select.targets.clone(),
        timeout: args.hosts.timeout,
        checksum: args.hosts.reading.checksum,
        strict: args.hosts.strict_host_keys || network.strict_host_keys,
        recheck: false,
        lists: false,
        message: None,
        wait: Duration::ZERO,
        cosigners: Vec::new(),
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

/// Rejects illegal patterns.
pub(super) fn check_targets(targets: &[String]) -> Result<()> {
    for pattern in targets {
        check_pattern(pattern).map_err(|why| {
            Error::usage(format!("--target {}: {why}", printable(pattern.as_bytes()))).hint(
                "a glob such as 'web*' or 'web[1-3]', or a label such as zone=a; quote it, or the \
                 shell takes it",
            )
        })?;
    }

    Ok(())
}

/// Runs the session, with events to `observer`, until its end or the interrupt.
fn run_until(
    interrupt: &Interrupt,
    options: &SessionOptions,
    engine: DeployOptions,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let turn = DeployTurn::new(&options.network, &options.spec.tree, options.wait);
    loop {
        turn.wait(interrupt, observer)?;
        let links = network::open(&options.network)?;
        let origin = ReleaseOrigin::Scan;
        let outcome = deploy::run(links, engine.clone(), origin, interrupt, observer)?;
        if !turn.is_missed(&outcome) || interrupt.is_asked() {
            return Ok(outcome);
        }
    }
}

/// Options of the engine.
pub(super) fn deploy_options(
    options: &SessionOptions,
    signer: Arc<dyn Signer>,
) -> Result<DeployOptions> {
    let spec = options.spec.clone();
    let name = network::host_name()?;
    let keys = ReleaseKeys {
        signer,
        authorized: Some(Arc::clone(&options.authorized)),
    };

    Ok(DeployOptions {
        only: options.only.clone(),
        message: options.message.clone(),
        recheck: options.recheck,
        lists: options.lists,
        strict: options.strict,
        cache: options.cache.clone(),
        scan: SourceScan {
            checksum: options.checksum,
            unmounted: options.unmounted,
            ..SourceScan::default()
        },
        ..DeployOptions::new(spec, options.purpose, keys, name, options.timeout)
    })
}

/// Cache directory of the user, for indexes of sources.
pub(super) fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.map(|dir| dir.join("makuo"))
}
