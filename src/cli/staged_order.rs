//! An order about a release that hosts keep staged: the release, its hosts, and the session.
//!
//! Hosts show the release, so the commands need neither spec nor source. Its signature is checked
//! here, and the order is signed by the same key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::args::{HostArgs, OrderArgs, ReleaseName};
use super::{deploy, network, no_host_has, sign};
use crate::config::NetworkConfig;
use crate::drive::deploy::rollback::{fetch_all, spec};
use crate::drive::deploy::source::SourceScan;
use crate::drive::deploy::{self as engine, DeployOptions, Interrupt, ReleaseKeys, ReleaseOrigin};
use crate::drive::survey;
use crate::id::{NamedHost, Serial, TreeName};
use crate::keys::{Namespace, Signer, verify};
use crate::manifest::{Release, ReleaseId};
use crate::outcome::{Event, Observer, Outcome, Purpose, Standing};
use crate::proto::receiver::is_target;
use crate::report::{Report, words};
use crate::spec::Expect;
use crate::tree::StoredRelease;
use crate::wire::message::MAX_NAMED_HOSTS;
use crate::{Error, Result};

/// Longest time for hosts to say what they keep staged.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Key, network and limits of an order.
#[derive(Clone)]
pub(super) struct OrderContext {
    pub(super) network: NetworkConfig,
    pub(super) signer: Arc<dyn Signer>,
    /// Globs on host names; an empty list matches all.
    pub(super) only: Vec<String>,
    pub(super) expect: Option<Expect>,
    pub(super) timeout: Duration,
    pub(super) checksum: bool,
    pub(super) strict: bool,
}

impl OrderContext {
    /// Builds the context from arguments; finds every error in them before anything is sent.
    pub(super) fn of(args: &OrderArgs, config: Option<&Path>) -> Result<Self> {
        deploy::check_targets(&args.select.targets)?;
        let context = Self::with(args.key.as_deref(), &args.hosts, config)?;
        Ok(Self {
            only: args.select.targets.clone(),
            ..context
        })
    }

    /// The context for all hosts of a release.
    pub(super) fn with(
        key: Option<&Path>,
        hosts: &HostArgs,
        config: Option<&Path>,
    ) -> Result<Self> {
        let network = network::resolve(&hosts.network, config)?;
        Ok(Self {
            signer: sign::signer(&sign::key_file(key, None)?)?,
            only: Vec::new(),
            expect: hosts.expect.clone(),
            timeout: hosts.timeout,
            checksum: hosts.reading.checksum,
            strict: hosts.strict_host_keys || network.strict_host_keys,
            network,
        })
    }
}

/// A staged release with the hosts of an order about it.
pub(super) struct StagedOrder {
    pub(super) context: OrderContext,
    pub(super) stored: StoredRelease,
    /// Answers of the hosts that the release is for.
    pub(super) standings: Vec<Standing>,
    /// Hosts of the order, by name.
    pub(super) hosts: Vec<String>,
}

impl StagedOrder {
    /// Finds the release that `choose` names among what hosts keep staged.
    pub(super) fn find(
        context: OrderContext,
        tree: &TreeName,
        report: &mut Report,
        choose: impl FnOnce(&[Standing]) -> Result<ReleaseName>,
    ) -> Result<Self> {
        let network = &context.network;
        network::note_plain(network, report);
        report.start(&format!("{tree}: asking what hosts keep staged"));

        let longest = QUERY_TIMEOUT.min(context.timeout);
        let found = survey::status(network::open(network)?, Some(tree), longest)?.found;
        if found.is_empty() {
            return Err(no_host_has(tree));
        }

        let name = choose(&found)?;
        let id = staged_id(&name, &found)?;
        let stored = fetch_all(network::open(network)?, tree, name.serial, longest)?
            .into_iter()
            .find(|stored| stored.release.id() == id)
            .ok_or_else(|| {
                Error::refused(format!(
                    "no host showed {} with a signature that holds",
                    shown(&name)
                ))
                .hint("try again, or deploy it again")
            })?;
        check_key(&stored, &*context.signer)?;

        let mut standings = found;
        standings
            .retain(|standing| is_target(&stored.release, &standing.host, Some(&standing.labels)));
        let rest = standings.iter().filter(|s| !runs(s, &stored.release));
        let hosts: Vec<String> = rest.map(|standing| standing.host.to_string()).collect();

        // A session without named hosts would be for all.
        if hosts.is_empty() {
            let what = format!("no host that answers can take {}", shown(&name));
            return Err(Error::refused(what).hint(
                "it is in place already, or names and labels of hosts changed since it was \
                 staged: deploy again",
            ));
        }

        Ok(Self {
            context,
            stored,
            standings,
            hosts,
        })
    }

    /// Notes hosts that have the release.
    pub(super) fn note_in_place(&self, report: &mut Report) {
        let release = &self.stored.release;
        let have = self.standings.iter().filter(|s| runs(s, release));
        let have: Vec<NamedHost> = have.map(|s| s.named.clone()).collect();
        if !have.is_empty() {
            let hosts = words::hosts(&have);
            let note = format!("{hosts}: {release} is in place already");
            report.event(&Event::Note(note));
        }
    }

    /// Options of a session for `purpose`.
    pub(super) fn options(&self, purpose: Purpose) -> Result<DeployOptions> {
        let context = &self.context;
        let names = purpose == Purpose::Deploy && !context.only.is_empty();
        if names && self.hosts.len() > MAX_NAMED_HOSTS {
            return Err(Error::usage(format!(
                "an order names at most {MAX_NAMED_HOSTS} hosts: commit on all of them"
            )));
        }

        let mut spec = spec(&self.stored.release, &self.hosts)?;
        spec.targets.expect.clone_from(&context.expect);
        let keys = ReleaseKeys::of(Arc::clone(&context.signer));
        let name = network::host_name()?;

        Ok(DeployOptions {
            only: context.only.clone(),
            // Other hosts of the release must not take it from those that commit now.
            names,
            scan: SourceScan {
                checksum: context.checksum,
                ..SourceScan::default()
            },
            strict: context.strict,
            cache: deploy::cache_dir(),
            ..DeployOptions::new(spec, purpose, keys, name, context.timeout)
        })
    }

    /// Runs the session until its end or `stop`. The caller passes Ctrl-C on to `stop`, once: a
    /// second listener would count one Ctrl-C as two.
    pub(super) fn run(
        self,
        options: DeployOptions,
        stop: &Interrupt,
        report: &mut Report,
    ) -> Result<Outcome> {
        let release = self.stored.release.to_string();
        report.start(&match options.purpose {
            Purpose::Abort => format!("{release}: aborting"),
            _ => format!("{release}: committing"),
        });

        engine::run(
            network::open(&self.context.network)?,
            options,
            ReleaseOrigin::Staged(self.stored),
            stop,
            report,
        )
    }
}

/// The release of this serial, or the only one that hosts keep staged.
pub(super) fn named_or_only(
    tree: &TreeName,
    serial: Option<Serial>,
    standings: &[Standing],
) -> Result<ReleaseName> {
    let serial = serial.map_or_else(|| only_staged(tree, standings), Ok)?;
    Ok(ReleaseName {
        tree: tree.clone(),
        serial,
    })
}

/// Serial of the only release of `tree` that hosts keep staged.
fn only_staged(tree: &TreeName, standings: &[Standing]) -> Result<Serial> {
    let staged = staged_hosts(standings);
    let mut serials: Vec<Serial> = staged.keys().map(|(serial, _)| *serial).collect();
    serials.dedup();
    match serials.as_slice() {
        [serial] => Ok(*serial),
        [] => Err(none_staged(&format!("a release of {tree}"), standings)),
        _ => Err(
            Error::refused(format!("hosts keep several releases of {tree} staged"))
                .hint(format!("say which one: {}", what_is_staged(standings))),
        ),
    }
}

/// Identity of the staged release `name`.
fn staged_id(name: &ReleaseName, standings: &[Standing]) -> Result<ReleaseId> {
    let staged = staged_hosts(standings);
    let ids: Vec<ReleaseId> = staged
        .keys()
        .filter(|(serial, _)| *serial == name.serial)
        .map(|(_, id)| *id)
        .collect();
    match ids.as_slice() {
        [id] => Ok(*id),
        [] => Err(none_staged(&shown(name), standings)),
        _ => Err(Error::refused(format!(
            "hosts keep different releases staged as {}",
            shown(name)
        ))
        .hint("deploy again: that takes a new serial")),
    }
}

fn none_staged(what: &str, standings: &[Standing]) -> Error {
    let hint = match what_is_staged(standings) {
        none if none.is_empty() => "stage one with `makuo deploy --stage`".to_string(),
        staged => format!("staged: {staged}"),
    };
    Error::refused(format!("no host that answers keeps {what} staged")).hint(hint)
}

/// Formats "www@17 on web1-web3; www@18 on db".
fn what_is_staged(standings: &[Standing]) -> String {
    let tree = standings.first().map(|standing| &standing.tree);
    let staged = staged_hosts(standings).into_iter();
    let shown = staged.filter_map(|((serial, _), hosts)| {
        let release = words::release(tree?, Some(serial));
        Some(format!("{release} on {}", words::hosts(&hosts)))
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// Hosts by the release that they keep staged.
fn staged_hosts(standings: &[Standing]) -> BTreeMap<(Serial, ReleaseId), Vec<NamedHost>> {
    let mut hosts: BTreeMap<_, Vec<NamedHost>> = BTreeMap::new();
    for standing in standings {
        if let Some(staged) = standing
            .status
            .as_ref()
            .and_then(|status| status.staged.as_ref())
        {
            let at = hosts.entry((staged.serial, staged.id)).or_default();
            at.push(standing.named.clone());
        }
    }

    hosts
}

/// Returns whether the host runs the release.
fn runs(standing: &Standing, release: &Release) -> bool {
    let status = standing.status.as_ref();
    status.is_some_and(|status| status.runs(release.header().serial, release.id()))
}

/// Refuses to order what another key signed: no host would follow.
fn check_key(stored: &StoredRelease, signer: &dyn Signer) -> Result<()> {
    let release = &stored.release;
    let key = verify(Namespace::RELEASE, release.bytes(), &stored.signature)
        .map_err(|e| Error::refused(format!("the signature of {release} does not hold: {e}")))?;
    if key == *signer.public() {
        return Ok(());
    }

    Err(Error::refused(format!(
        "{release} was signed by {}, and only that key can commit or abort it",
        key.fingerprint()
    ))
    .hint("name it with --key"))
}

fn shown(name: &ReleaseName) -> String {
    words::release(&name.tree, Some(name.serial))
}
