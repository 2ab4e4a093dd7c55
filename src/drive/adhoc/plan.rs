//! A validated request: expanded paths, and the options of each session.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::{Named, named, no_such};
use super::request::{AdhocAction, AdhocRequest};
use super::service::{AdhocService, SENT, SendTree};
use crate::drive::deploy::source::{SourcePart, SourceScan};
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

    /// Runs one session of the request.
    pub(super) fn session(
        &self,
        options: DeployOptions,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        self.service
            .send(|network| deploy::run(network, options, ReleaseOrigin::Scan, interrupt, observer))
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

fn check_globs(targets: &[String]) -> Result<()> {
    for pattern in targets {
        check_pattern(pattern)
            .map_err(|why| Error::usage(format!("{}: {why}", printable(pattern.as_bytes()))))?;
    }

    Ok(())
}
