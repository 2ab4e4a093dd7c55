//! `makuo rollback`: returns every host to an earlier release.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::RollbackArgs;
use super::{deploy, interrupt, kept, network, sign};
use crate::config::{HostConfig, NetworkConfig};
use crate::drive::deploy::rollback::{
    EarlierRelease, RollbackPath, check_key, choose, fetch, fetch_all, spec, targets,
};
use crate::drive::deploy::source::SourceScan;
use crate::drive::deploy::{self as engine, DeployOptions, Interrupt, ReleaseKeys, ReleaseOrigin};
use crate::drive::{clock, survey};
use crate::id::{NamedHost, Serial, TreeName};
use crate::manifest::Release;
use crate::outcome::{
    DriftGroup, Event, ExitStatus, HostResult, Observer, Outcome, Purpose, Silent,
};
use crate::report::Report;
use crate::report::words;
use crate::store::StoreUrl;
use crate::tree::{StateReader, StoredRelease};
use crate::units::printable;
use crate::{Error, Result};

/// Longest time for hosts to list their kept releases.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(args: &RollbackArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    deploy::check_targets(&args.select.targets)?;
    let config = network::host_config(config)?;
    let network = network::for_command(&args.hosts.network, &config)?;
    let key = sign::key_file(args.key.as_deref(), None)?;
    let signer = sign::cosigned(&key, &args.cosign.keys)?;

    let authorized = Arc::new(sign::authorized(args.authorized_keys.as_deref(), &config)?);
    network::note_plain(&network, report);
    report.start(&format!("{}: asking what hosts keep", args.tree));
    let local = local(args, &config)?;
    let Goal {
        way,
        earlier,
        replaced,
    } = find_goal(args, local.as_ref(), &network)?;

    check_key(
        &earlier,
        signer.public(),
        &authorized,
        clock::wall_seconds(),
    )?;

    let mut spec = spec(&earlier.release, &targets(&replaced))?;
    spec.transfer.rate = args.limit.rate;
    spec.targets.expect.clone_from(&args.hosts.expect);
    let interrupt = Interrupt::default();
    interrupt::handle_ctrl_c(interrupt.clone());
    let excluded = excluded_note(&earlier.release, &replaced);
    let sessions = RollbackSessions {
        options: DeployOptions {
            message: args.about.message.clone(),
            only: args.select.targets.clone(),
            scan: SourceScan {
                checksum: args.hosts.reading.checksum,
                ..SourceScan::default()
            },
            strict: args.hosts.strict_host_keys || network.strict_host_keys,
            cache: deploy::cache_dir(),
            ..DeployOptions::new(
                spec,
                Purpose::Deploy,
                ReleaseKeys {
                    signer,
                    authorized: Some(authorized),
                },
                network::host_name()?,
                args.hosts.timeout,
            )
        },
        network,
        earlier: earlier.release,
        local,
        interrupt,
    };

    report.event(&Event::Note(announcement(&args.tree, &way)));
    if let Some(note) = excluded {
        report.event(&Event::Note(note));
    }

    let purpose = if args.preview.dry_run {
        Purpose::DryRun
    } else {
        preview(&sessions, &args.tree, &way, report)?;
        Purpose::Deploy
    };

    let outcome = sessions.run(purpose, report)?;
    let is_done = purpose == Purpose::Deploy && outcome.exit == ExitStatus::Success;
    if let Some(note) = pulled_note(args, &config).filter(|_| is_done) {
        report.event(&Event::Note(note));
    }
    report.outcome(&outcome);
    Ok(outcome.exit.code())
}

/// Note on hosts that only pull, if this machine's tree has a repository.
fn pulled_note(args: &RollbackArgs, config: &HostConfig) -> Option<String> {
    let tree = config.trees.iter().find(|tree| tree.name == args.tree)?;
    let url = &tree.repository.as_ref()?.url;
    let url = StoreUrl::parse(url, Path::new("/")).ok()?;
    Some(format!(
        "hosts that only pull from {url} keep their release: `makuo repo rollback` is for them"
    ))
}

/// Reports the changes of a rollback, and refuses one without any.
///
/// The rollback rescans each tree: a host that joined in between was not compared, and changes
/// since would go unnoticed.
fn preview(
    sessions: &RollbackSessions,
    tree: &TreeName,
    way: &RollbackPath,
    report: &mut Report,
) -> Result<()> {
    let to = words::release(tree, Some(way.to));
    report.start(&format!("{tree}: comparing with {to}"));
    let preview = sessions.run(Purpose::DryRun, &mut Silent)?;

    // The rollback itself reports obstacles.
    if preview.exit == ExitStatus::Success {
        if preview.drift.is_empty() {
            return Err(nothing_to_change(tree, way, &preview));
        }
        change_lines(&preview)
            .iter()
            .for_each(|line| report.event(&Event::Note(line.clone())));
    }

    report.start(&format!("{tree}: back to {to}"));
    Ok(())
}

/// The sessions of one rollback: a comparison, and the rollback itself.
struct RollbackSessions {
    options: DeployOptions,
    network: NetworkConfig,
    earlier: Release,
    /// Path and state of the tree on this machine, if served here.
    local: Option<(PathBuf, StateReader)>,
    interrupt: Interrupt,
}

impl RollbackSessions {
    fn run(&self, purpose: Purpose, observer: &mut dyn Observer) -> Result<Outcome> {
        let options = DeployOptions {
            purpose,
            ..self.options.clone()
        };
        let earlier = EarlierRelease {
            release: self.earlier.clone(),
            from: self.local.clone(),
        };

        engine::run(
            network::open(&self.network)?,
            options,
            ReleaseOrigin::Earlier(earlier),
            &self.interrupt,
            observer,
        )
    }
}

/// Release to restore, and the releases to replace.
struct Goal {
    way: RollbackPath,
    earlier: StoredRelease,
    /// Present releases, as far as any host has them.
    replaced: Vec<Release>,
}

/// "back from www@3 to www@1".
fn announcement(tree: &TreeName, way: &RollbackPath) -> String {
    let shown = |serial: &Serial| words::release(tree, Some(*serial));
    let from: Vec<String> = way.from.iter().map(shown).collect();
    let from = if from.is_empty() {
        String::new()
    } else {
        format!(" from {}", from.join(", "))
    };

    format!("back{from} to {}", shown(&way.to))
}

/// Paths left alone because the replaced releases exclude them.
fn excluded_note(earlier: &Release, replaced: &[Release]) -> Option<String> {
    let own = earlier.header().rules.patterns().unwrap_or_default();
    let rules = replaced
        .iter()
        .map(|release| &release.header().rules)
        .filter(|rules| !rules.delete_excluded);
    let excluded: Vec<String> = rules
        .flat_map(|rules| rules.patterns().unwrap_or_default().into_owned())
        .filter(|exclude| !own.contains(exclude))
        .map(|exclude| printable(exclude.pattern.as_bytes()))
        .collect();

    (!excluded.is_empty()).then(|| {
        format!(
            "left alone, as excluded by what runs: {}",
            excluded.join(", ")
        )
    })
}

/// "web1, web2: 3 changed, 1 extra".
fn change_lines(preview: &Outcome) -> Vec<String> {
    let line =
        |group: &DriftGroup| format!("{}: {}", words::hosts(&group.hosts), words::drift(group));
    preview.drift.iter().map(line).collect()
}

fn nothing_to_change(tree: &TreeName, way: &RollbackPath, preview: &Outcome) -> Error {
    let hosts: Vec<NamedHost> = preview.hosts.iter().map(HostResult::named).collect();
    let to = words::release(tree, Some(way.to));
    Error::refused(format!(
        "nothing to change: {} already match {to}",
        words::hosts(&hosts)
    ))
    .hint("see `makuo log` for the releases that hosts keep, and give one with --to")
}

/// Path and state of the tree on this machine, if served here and readable.
fn local(args: &RollbackArgs, config: &HostConfig) -> Result<Option<(PathBuf, StateReader)>> {
    match kept::local_state(&args.tree, config) {
        Err(e) if e.is_os(std::io::ErrorKind::PermissionDenied) => {
            tracing::warn!("hosts that did not keep the release cannot be served from here: {e}");
            Ok(None)
        }
        found => found,
    }
}

/// Finds the release to restore and the present ones: in this machine's own state, else in the
/// fleet.
fn find_goal(
    args: &RollbackArgs,
    local: Option<&(PathBuf, StateReader)>,
    network: &NetworkConfig,
) -> Result<Goal> {
    let longest = QUERY_TIMEOUT.min(args.hosts.timeout);
    let log = survey::log(network::open(network)?, &args.tree, longest)?.found;
    let kept = match local {
        Some((_, records)) => records.kept()?,
        None => Vec::new(),
    };

    let signed = |serial: Serial| -> Result<Vec<Release>> {
        let found = fetch_all(network::open(network)?, &args.tree, serial, longest)?;
        Ok(found.into_iter().map(|stored| stored.release).collect())
    };

    let way = choose(&log, &kept, args.to, signed)?;
    if !log.unshown.is_empty() {
        tracing::warn!(
            "not counted, because their release has no valid signature: {}; \
             their makuo may be too old",
            words::hosts(&log.unshown)
        );
    }

    let here = |serial: Serial| local.map_or(Ok(None), |(_, records)| records.stored(serial));
    let earlier = match here(way.to)? {
        Some(stored) => stored,
        None => fetch(network::open(network)?, &args.tree, way.to, longest)?,
    };

    let mut replaced = Vec::new();
    for &serial in way.from.iter().filter(|&&serial| serial != way.to) {
        let found = fetch_all(network::open(network)?, &args.tree, serial, longest)?;
        replaced.extend(found.into_iter().map(|stored| stored.release));
        replaced.extend(here(serial)?.map(|stored| stored.release));
    }

    if replaced.is_empty() {
        replaced.push(earlier.release.clone());
    }

    Ok(Goal {
        way,
        earlier,
        replaced,
    })
}
