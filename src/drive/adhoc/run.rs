//! Carries out a request: expands the paths, builds the spec, and runs one session or several.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::{Named, named, no_such};
use super::request::{AdhocAction, AdhocRequest};
use super::service::{AdhocService, SENT, SendTree};
use crate::drive::deploy::source::{PreparedRelease, ReleaseSource, SourcePart, SourceScan};
use crate::drive::deploy::{self, DeployOptions, Interrupt, ReleaseKeys, ReleaseOrigin};
use crate::keys::Signer;
use crate::manifest::TreePath;
use crate::manifest::header::MAX_PATTERNS;
use crate::manifest::rules::Exclude;
use crate::outcome::{
    DriftGroup, DriftKind, DriftLine, Event, ExitStatus, HostState, Observer, Outcome, Purpose,
};
use crate::spec::{Compress, OwnerPolicy, Spec};
use crate::tree::{LiveTree, Merged, Root, StoredSource, Tree};
use crate::units::Limit;
use crate::{Error, Result};

/// Largest number of bytes of the paths in one scope.
const MAX_SCOPE: usize = 32 << 10;

/// Number of parts that are merged into one release.
const MERGE_FROM_PARTS: usize = 32;

/// Number of further parts before the next attempt to merge.
const MERGE_RETRY_PARTS: usize = 16;

/// Carries out `request`, after other sessions of the same tree.
pub fn run(
    service: &AdhocService,
    request: &AdhocRequest,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    if !service.may_send() && request.action != AdhocAction::Check {
        return Err(Error::usage("this server can't send"));
    }

    let tree = service.tree(request.tree.as_ref(), &request.paths)?;
    let work = PlannedRequest::plan(service, tree, request)?;
    let _turn = service.begin(&tree.name, interrupt)?;

    match request.action {
        AdhocAction::Prune => work.prune(interrupt, observer),
        _ => work.send(interrupt, observer),
    }
}

/// A validated request.
struct PlannedRequest<'a> {
    service: &'a AdhocService,
    tree: &'a SendTree,
    request: &'a AdhocRequest,
    root: Arc<Root>,
    signer: Arc<dyn Signer>,
    named: Named,
    excludes: Vec<Exclude>,
}

impl<'a> PlannedRequest<'a> {
    /// Validates `request` before anything is sent.
    fn plan(
        service: &'a AdhocService,
        tree: &'a SendTree,
        request: &'a AdhocRequest,
    ) -> Result<Self> {
        let root = service.root(tree)?;
        let deletes = matches!(request.action, AdhocAction::Sync | AdhocAction::Prune);
        let named = named(&root, &request.paths, deletes)?;
        check_globs(&request.targets)?;
        let at_top = request.excludes.iter().map(|p| Exclude::at_top(p.as_str()));
        let mut excludes: Vec<Exclude> = at_top.collect();

        if !request.recurse {
            // Without recursion a directory is sent alone, and deletions and comparisons cover
            // direct entries.
            let pattern = if request.action == AdhocAction::Send && !request.paths.is_empty() {
                "/*"
            } else {
                "/*/"
            };
            let bases: Vec<Option<TreePath>> = match named.paths.is_empty() {
                true => vec![None],
                false => named.dirs.iter().cloned().map(Some).collect(),
            };
            excludes.extend(bases.into_iter().map(|base| Exclude {
                base,
                pattern: pattern.into(),
            }));
        }

        Ok(Self {
            service,
            tree,
            request,
            root,
            signer: service.signer()?,
            named,
            excludes,
        })
    }

    fn deletes(&self) -> bool {
        matches!(self.request.action, AdhocAction::Sync | AdhocAction::Prune)
    }

    fn spec(&self, scope: &[TreePath]) -> Result<Spec> {
        let mut spec = Spec::parse("source = \".\"\n", Path::new("ad hoc"))?;
        spec.tree = self.tree.name.clone();
        spec.source.clone_from(&self.tree.path);
        spec.delete.extras = self.deletes();

        // A named path is meant; without paths, an empty source may be a mistake.
        spec.delete.allow_empty = !scope.is_empty();
        let most = if scope.is_empty() {
            spec.delete.max
        } else {
            Limit::NONE
        };

        spec.delete.max = self.request.max_delete.unwrap_or(most);
        spec.transfer.rate = self.service.sending().rate;
        if let Some(group) = &self.request.group {
            spec.owner.group = OwnerPolicy::Fixed(group.clone());
        }

        Ok(spec)
    }

    fn options(&self, purpose: Purpose, scope: &[TreePath]) -> Result<DeployOptions> {
        let sending = self.service.sending();
        let keys = ReleaseKeys {
            signer: Arc::clone(&self.signer),
            authorized: Some(self.service.handle().keys()),
        };

        Ok(DeployOptions {
            only: self.request.targets.clone(),
            strict: sending.strict,
            cache: self.tree.cache.clone().or_else(|| self.state()),
            scan: SourceScan {
                checksum: self.request.checksum,
                root: Some(Arc::clone(&self.root)),
                ..SourceScan::default()
            },
            part: SourcePart {
                scope: scope.to_vec(),
                excludes: self.excludes.clone(),
                without_top: true,
                owner: sending.owner,
                listed: self.request.files,
            },
            lists: self.request.lists || !self.named.missing.is_empty(),
            beside: Some(self.service.handle()),
            ..DeployOptions::new(
                self.spec(scope)?,
                purpose,
                keys,
                self.service.name().clone(),
                sending.timeout,
            )
        })
    }

    /// Cache in the state of a tree opened late.
    fn state(&self) -> Option<PathBuf> {
        let tree = self.service.handle().tree(&self.tree.name)?;
        Some(tree.state().here().join(SENT))
    }

    fn session(
        &self,
        options: DeployOptions,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        deploy::run(
            self.service.join()?,
            options,
            ReleaseOrigin::Scan,
            interrupt,
            observer,
        )
    }

    fn send(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let purpose = match (self.request.action, self.request.dry_run) {
            (AdhocAction::Check, _) => Purpose::Diff,
            (_, true) => Purpose::DryRun,
            (_, false) => Purpose::Deploy,
        };

        let outcome = self.session(
            self.options(purpose, &self.named.paths)?,
            interrupt,
            observer,
        )?;

        self.check_missing(&outcome)?;
        if purpose == Purpose::Deploy
            && outcome.exit == ExitStatus::Success
            && self.request.targets.is_empty()
        {
            self.merge(interrupt);
        }

        Ok(outcome)
    }

    /// Merges many parts into one release, which spares new hosts and the history the many parts.
    ///
    /// Sent only if every host has the content already, so that nothing changes unrequested.
    fn merge(&self, interrupt: &Interrupt) {
        let Some(tree) = self.service.handle().tree(&self.tree.name) else {
            return;
        };

        if !self.service.may_merge(&self.tree.name) {
            return;
        }

        match tree.parts(usize::MAX) {
            Ok(parts)
                if parts.iter().filter(|(_, is_replaced)| !is_replaced).count()
                    < MERGE_FROM_PARTS =>
            {
                return;
            }
            Ok(_) => {}
            Err(e) => {
                return tracing::warn!("tree {}: cannot merge its parts: {e}", tree.name());
            }
        }

        // The user waits for the merge, so a failed one is not repeated at once.
        self.service.merge_after(&self.tree.name, MERGE_RETRY_PARTS);
        for deletes in [true, false] {
            if let Err(e) = self.merge_kind(&tree, deletes, interrupt) {
                return tracing::warn!("tree {}: cannot merge its parts: {e}", tree.name());
            }
        }
    }

    /// Merges the parts with deletions, or those without, by the current history.
    fn merge_kind(&self, tree: &Arc<Tree>, deletes: bool, interrupt: &Interrupt) -> Result<()> {
        let kind = if deletes {
            "with deletions"
        } else {
            "without deletions"
        };

        let stays = |why: &str| {
            tracing::debug!(
                "tree {}: its parts {kind} are not merged: {why}",
                tree.name()
            )
        };

        let merged = match tree.merged_part(deletes, MERGE_FROM_PARTS / 2)? {
            Ok(merged) => merged,
            Err(why) => {
                stays(why);
                return Ok(());
            }
        };

        if !changes_nothing(&self.put(tree, &merged, Purpose::DryRun, interrupt)?) {
            stays("hosts differ from it");
            return Ok(());
        }

        let outcome = self.put(tree, &merged, Purpose::Deploy, interrupt)?;
        tracing::info!(
            "tree {}: {} parts merged into one release: {:?}",
            tree.name(),
            merged.parts,
            outcome.exit
        );

        Ok(())
    }

    fn put(
        &self,
        tree: &Arc<Tree>,
        merged: &Merged,
        purpose: Purpose,
        interrupt: &Interrupt,
    ) -> Result<Outcome> {
        let mut options = self.options(purpose, &merged.scope)?;
        options.lists = purpose == Purpose::DryRun;
        options.part.listed = false;
        options.scan.checksum = false;
        options.conditions.only_after = Some(merged.after);
        let facts = PreparedRelease {
            root: merged.root,
            top: None,
            scope: merged.scope.clone(),
            rules: merged.rules.clone(),
            scanned: None,
            notes: Vec::new(),
            files: Vec::new(),
        };

        let live = LiveTree::Served(Arc::clone(tree));
        let records = (*tree.state()).clone();
        let prepare = move || {
            let source = StoredSource::open(live, records, facts.root)?;
            Ok((ReleaseSource::of(Box::new(source), Compress::Auto), facts))
        };

        deploy::run(
            self.service.join()?,
            options,
            ReleaseOrigin::Prepared(Box::new(prepare)),
            interrupt,
            &mut NoObserver,
        )
    }

    /// Refuses a path missing here and on every host.
    fn check_missing(&self, outcome: &Outcome) -> Result<()> {
        let lines = || outcome.drift.iter().flat_map(|group| &group.lines);
        let deleted = |path: &TreePath| {
            lines().any(|l| crate::manifest::path::is_within(&l.path, path.as_bytes()))
        };

        match self.named.missing.iter().find(|path| !deleted(path)) {
            Some(path) if outcome.exit == ExitStatus::Success => Err(no_such(path)),
            _ => Ok(()),
        }
    }

    /// Deletes extra paths and changes nothing else.
    ///
    /// A dry run finds the extra paths, which become the scope of an empty release. Hosts with the
    /// same extra paths share a session.
    fn prune(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let mut found = self.session(
            self.options(Purpose::DryRun, &self.named.paths)?,
            interrupt,
            observer,
        )?;

        for group in &mut found.drift {
            group.lines.retain(|line| line.what == DriftKind::Extra);
            (group.changed, group.missing) = (0, 0);
        }

        found.drift.retain(|group| !group.is_empty());
        self.check_missing(&found)?;
        if self.request.dry_run || found.exit.code() != 0 {
            return Ok(found);
        }

        // A host without extra paths is as requested.
        for host in &mut found.hosts {
            host.state = if host.state == HostState::Diffed {
                HostState::Unchanged
            } else {
                host.state
            };
        }

        found.purpose = Purpose::Deploy;
        for group in found.drift.clone() {
            for scope in scopes(&group) {
                let done = self.session(self.pruning(&group, &scope)?, interrupt, observer)?;
                add(&mut found, done);
            }
        }

        let error = found.error.take();
        let mut found = found.settle();
        found.error = error;

        Ok(found)
    }

    fn pruning(&self, group: &DriftGroup, scope: &[TreePath]) -> Result<DeployOptions> {
        let mut options = self.options(Purpose::Deploy, scope)?;
        if group.hosts.len() <= MAX_PATTERNS {
            options.spec.targets.hosts = group
                .hosts
                .iter()
                .map(|host| host.name.to_string())
                .collect();
            options.only = Vec::new();
        }

        options.part.listed = false;
        options.lists = false;
        Ok(options)
    }
}

/// Adds the result of a later session to its hosts.
fn add(found: &mut Outcome, done: Outcome) {
    for host in done.hosts {
        match found
            .hosts
            .iter_mut()
            .find(|known| known.named() == host.named())
        {
            // A failure is not overwritten.
            Some(known) if known.state.is_trouble() => {}
            Some(known) => {
                let deleted = known.files_deleted;
                let written = known.files_written;
                *known = host;
                known.files_deleted += deleted;
                known.files_written += written;
            }
            None => found.hosts.push(host),
        }
    }

    found.serial = done.serial.or(found.serial);
    found.bytes_sent = crate::units::ByteSize(found.bytes_sent.0.saturating_add(done.bytes_sent.0));
    found.took += done.took;

    found.error = found.error.take().or(done.error);
}

/// The topmost extra paths, in lists short enough for a header.
fn scopes(group: &DriftGroup) -> Vec<Vec<TreePath>> {
    let mut scopes: Vec<Vec<TreePath>> = Vec::new();
    let (mut bytes, mut last): (usize, Option<TreePath>) = (0, None);
    for line in &group.lines {
        let Ok(path) = TreePath::new(line.path.as_slice()) else {
            continue;
        };
        if last.as_ref().is_some_and(|last| path.is_within(last)) {
            continue;
        }
        bytes += path.as_bytes().len() + 8;
        match scopes.last_mut() {
            Some(scope) if scope.len() < MAX_PATTERNS && bytes <= MAX_SCOPE => {
                scope.push(path.clone())
            }
            _ => {
                bytes = path.as_bytes().len() + 8;
                scopes.push(vec![path.clone()]);
            }
        }
        last = Some(path);
    }

    scopes
}

/// Returns whether a release would change only times of directories, whose content other releases
/// change.
fn changes_nothing(found: &Outcome) -> bool {
    let is_time =
        |line: &DriftLine| line.what == DriftKind::Time && line.itemized.starts_with(".d");
    let lines = |group: &DriftGroup| {
        group.lines.len() as u64 == group.total() && group.lines.iter().all(is_time)
    };
    found.exit == ExitStatus::Success && found.drift.iter().all(lines)
}

/// Ignores the events of unrequested sessions, which are logged.
struct NoObserver;

impl Observer for NoObserver {
    fn event(&mut self, _: &Event) {}
}

fn check_globs(targets: &[String]) -> Result<()> {
    for pattern in targets {
        globset::Glob::new(pattern).map_err(|e| {
            Error::usage(format!(
                "{}: {}",
                crate::units::printable(pattern.as_bytes()),
                e.kind()
            ))
        })?;
    }

    Ok(())
}
