//! A validated request: expanded paths, and the options of each session.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::{Named, destination, named, no_such};
use super::request::{AdhocAction, AdhocRequest};
use super::service::{AdhocService, SENT, SendTree};
use crate::drive::deploy::source::{SourcePart, SourceScan, moved, prepare};
use crate::drive::deploy::{self, DeployOptions, Interrupt, ReleaseKeys, ReleaseOrigin};
use crate::id::check_pattern;
use crate::keys::Signer;
use crate::manifest::TreePath;
use crate::manifest::rules::Exclude;
use crate::outcome::{ExitStatus, Observer, Outcome, Purpose};
use crate::spec::{OwnerPolicy, Spec};
use crate::tree::Root;
use crate::units::{Limit, printable};
use crate::{Error, Result};

/// A validated request.
pub(super) struct PlannedRequest<'a> {
    pub(super) service: &'a AdhocService,
    pub(super) tree: &'a SendTree,
    pub(super) request: &'a AdhocRequest,
    root: Arc<Root>,
    signer: Arc<dyn Signer>,
    pub(super) named: Named,
    /// The path that is sent, and the one to which it goes.
    moves: Option<(TreePath, TreePath)>,
    excludes: Vec<Exclude>,
}

impl<'a> PlannedRequest<'a> {
    /// Validates `request` before anything is sent.
    pub(super) fn plan(
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

        let moves = moves(&root, &named, request)?;
        Ok(Self {
            moves,
            service,
            tree,
            request,
            root,
            signer: service.signer()?,
            named,
            excludes,
        })
    }

    /// Returns whether the entries go to another path than their own.
    pub(super) fn is_moved(&self) -> bool {
        self.moves.is_some()
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

    /// Options of a session for `scope`, or for the whole tree without a scope.
    pub(super) fn options(&self, purpose: Purpose, scope: &[TreePath]) -> Result<DeployOptions> {
        let sending = self.service.sending();
        let keys = ReleaseKeys {
            signer: Arc::clone(&self.signer),
            authorized: Some(self.service.handle().keys()),
        };

        Ok(DeployOptions {
            message: self.request.message.clone(),
            only: self.request.targets.clone(),
            strict: sending.strict,
            cache: self.tree.cache.clone().or_else(|| self.state()),
            scan: SourceScan {
                checksum: self.request.checksum,
                root: Some(Arc::clone(&self.root)),
                ..SourceScan::default()
            },
            part: SourcePart {
                scope: match &self.moves {
                    Some((_, to)) => vec![to.clone()],
                    None => scope.to_vec(),
                },
                excludes: self.excludes.clone(),
                without_top: true,
                owner: sending.owner,
                listed: self.request.files,
            },
            lists: self.request.lists || !self.named.missing.is_empty(),
            // This host lacks what goes to another path, and takes it like all others.
            beside: Some(self.service.handle()).filter(|_| !self.is_moved()),
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

    /// Runs one session of the request.
    pub(super) fn session(
        &self,
        options: DeployOptions,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let origin = self.origin(&options);
        self.service
            .send(|network| deploy::run(network, options, origin, interrupt, observer))
    }

    /// The source of a session: a scan, perhaps with its entries moved.
    fn origin(&self, options: &DeployOptions) -> ReleaseOrigin {
        let Some((from, to)) = self.moves.clone() else {
            return ReleaseOrigin::Scan;
        };

        let (spec, scan, cache) = (
            options.spec.clone(),
            options.scan.clone(),
            options.cache.clone(),
        );
        let part = SourcePart {
            scope: vec![from.clone()],
            ..options.part.clone()
        };
        ReleaseOrigin::Prepared(Box::new(move || {
            let prepared = prepare(&spec, &part, scan, cache.as_deref())?;
            moved(prepared, &from, &to, spec.transfer.compress)
        }))
    }

    /// Refuses a path missing here and on every host.
    pub(super) fn check_missing(&self, outcome: &Outcome) -> Result<()> {
        let lines = || outcome.drift.iter().flat_map(|group| &group.lines);
        let deleted = |path: &TreePath| {
            lines().any(|l| crate::manifest::path::is_within(&l.path, path.as_bytes()))
        };

        match self.named.missing.iter().find(|path| !deleted(path)) {
            Some(path) if outcome.exit == ExitStatus::Success => Err(no_such(path)),
            _ => Ok(()),
        }
    }
}

/// The path that `request` moves, and its new one.
fn moves(
    root: &Root,
    named: &Named,
    request: &AdhocRequest,
) -> Result<Option<(TreePath, TreePath)>> {
    let Some(to) = &request.to else {
        return Ok(None);
    };

    let [from] = named.paths.as_slice() else {
        return Err(Error::usage("--to takes one path")
            .hint("send each path alone, or the directory that they are in"));
    };
    if request.action != AdhocAction::Send {
        return Err(Error::usage("--to deletes nothing: leave -D out"));
    }
    let to = destination(root, from, to)?;
    if to.is_within(from) || from.is_within(&to) {
        return Err(Error::usage(format!(
            "{from} cannot go to {to}: one is in the other"
        )));
    }
    Ok(Some((from.clone(), to)))
}

fn check_globs(targets: &[String]) -> Result<()> {
    for pattern in targets {
        check_pattern(pattern)
            .map_err(|why| Error::usage(format!("{}: {why}", printable(pattern.as_bytes()))))?;
    }

    Ok(())
}
