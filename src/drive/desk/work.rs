//! A wish made a release, or several: the paths that it names, the spec that it stands for, the sessions that fulfil it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Base, Deed, Desk, SENT, Wish};
use crate::drive::deploy::{self, Interrupt, Options};
use crate::drive::outcome::{
    DriftGroup, DriftLine, Event, ExitStatus, HostState, Observer, Outcome, Purpose, What,
};
use crate::drive::paths::{Named, named, no_such};
use crate::drive::source::{Facts, Part, Source};
use crate::keys::Signer;
use crate::manifest::TreePath;
use crate::manifest::header::MAX_PATTERNS;
use crate::manifest::rules::Exclude;
use crate::spec::{Compress, OwnerPolicy, Spec};
use crate::tree::{LiveTree, Merged, Root, StoredSource, Tree};
use crate::units::Limit;
use crate::{Error, Result};

/// The most bytes of the paths of one scope.
const MAX_SCOPE: usize = 32 << 10;

/// From so many parts on they are sent again in one.
const MERGED_PARTS: usize = 32;

/// How many further ones come before that is tried again.
const MERGED_AGAIN: usize = 16;

/// A wish with everything found that can be wrong about it.
pub(super) struct Work<'a> {
    desk: &'a Desk,
    base: &'a Base,
    wish: &'a Wish,
    root: Arc<Root>,
    signer: Arc<dyn Signer>,
    named: Named,
    excludes: Vec<Exclude>,
}

impl<'a> Work<'a> {
    /// Looks at all that can be wrong about `wish` before anything is sent.
    pub(super) fn plan(desk: &'a Desk, base: &'a Base, wish: &'a Wish) -> Result<Self> {
        let root = desk.root(base)?;
        let deletes = matches!(wish.deed, Deed::Sync | Deed::Prune);
        let named = named(&root, &wish.paths, deletes)?;
        check_globs(&wish.targets)?;
        let at_top = wish.excludes.iter().map(|p| Exclude::at_top(p.as_str()));
        let mut excludes: Vec<Exclude> = at_top.collect();

        if !wish.recurse {
            // Only the directory itself is sent; what is deleted or compared is what is right in it.
            let pattern = if wish.deed == Deed::Send && !wish.paths.is_empty() {
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
            desk,
            base,
            wish,
            root,
            signer: desk.signer()?,
            named,
            excludes,
        })
    }

    /// Does it.
    pub(super) fn fulfil(
        &self,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        match self.wish.deed {
            Deed::Prune => self.prune(interrupt, observer),
            _ => self.run(interrupt, observer),
        }
    }

    fn deletes(&self) -> bool {
        matches!(self.wish.deed, Deed::Sync | Deed::Prune)
    }

    fn spec(&self, scope: &[TreePath]) -> Result<Spec> {
        let mut spec = Spec::parse("source = \".\"\n", Path::new("ad hoc"))?;
        spec.tree = self.base.tree.clone();
        spec.source.clone_from(&self.base.path);
        spec.delete.extras = self.deletes();

        // Whoever names a path and what to do there means it; whoever names nothing may have forgotten something.
        spec.delete.allow_empty = !scope.is_empty();
        let most = if scope.is_empty() {
            spec.delete.max
        } else {
            Limit::NONE
        };

        spec.delete.max = self.wish.max_delete.unwrap_or(most);
        spec.transfer.rate = self.desk.sending.rate;
        if let Some(group) = &self.wish.group {
            spec.owner.group = OwnerPolicy::Fixed(group.clone());
        }

        Ok(spec)
    }

    fn options(&self, purpose: Purpose, scope: &[TreePath]) -> Result<Options> {
        let (signer, timeout) = (Arc::clone(&self.signer), self.desk.sending.timeout);
        Ok(Options {
            only: self.wish.targets.clone(),
            checksum: self.wish.checksum,
            strict: self.desk.sending.strict,
            cache: self.base.cache.clone().or_else(|| self.state()),
            root: Some(Arc::clone(&self.root)),
            part: Part {
                scope: scope.to_vec(),
                excludes: self.excludes.clone(),
                without_top: true,
                owner: self.desk.sending.owner,
                listed: self.wish.files,
            },
            lists: self.wish.lists || !self.named.missing.is_empty(),
            beside: Some(self.desk.handle()),
            authorized: Some(self.desk.handle().keys()),
            ..Options::new(
                self.spec(scope)?,
                purpose,
                signer,
                self.desk.name.clone(),
                timeout,
            )
        })
    }

    /// A place in the state of a tree that could not be opened when the daemon started.
    fn state(&self) -> Option<PathBuf> {
        let tree = self.desk.handle.tree(&self.base.tree)?;
        Some(tree.state().here().join(SENT))
    }

    fn session(
        &self,
        options: Options,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        deploy::run(self.desk.door()?, options, interrupt, observer)
    }

    fn run(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let purpose = match (self.wish.deed, self.wish.dry_run) {
            (Deed::Check, _) => Purpose::Diff,
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
            && self.wish.targets.is_empty()
        {
            self.merge(interrupt);
        }

        Ok(outcome)
    }

    /// Sends again, in one, what many parts said: a new host takes one release instead of many, and hosts keep no more.
    /// Hosts have all of it, or it is not sent: nothing changes that nobody asked for.
    fn merge(&self, interrupt: &Interrupt) {
        let Some(tree) = self.desk.handle.tree(&self.base.tree) else {
            return;
        };

        if !self.desk.may_merge(&self.base.tree) {
            return;
        }

        match tree.parts(usize::MAX) {
            Ok(parts)
                if parts.iter().filter(|(_, is_replaced)| !is_replaced).count() < MERGED_PARTS =>
            {
                return;
            }
            Ok(_) => {}
            Err(e) => {
                return tracing::warn!(
                    "tree {}: what was sent stays in many parts: {e}",
                    tree.name()
                );
            }
        }

        // Whoever sends waits for this: what was in vain is not done again at once.
        self.desk.merge_after(&self.base.tree, MERGED_AGAIN);
        for deletes in [true, false] {
            if let Err(e) = self.merge_kind(&tree, deletes, interrupt) {
                return tracing::warn!(
                    "tree {}: what was sent stays in many parts: {e}",
                    tree.name()
                );
            }
        }
    }

    /// Sends again what was sent with deletions, or the rest, as the history says it now.
    fn merge_kind(&self, tree: &Arc<Tree>, deletes: bool, interrupt: &Interrupt) -> Result<()> {
        let kind = if deletes {
            "with deletions"
        } else {
            "without deletions"
        };

        let stays = |why: &str| {
            tracing::debug!(
                "tree {}: what was sent {kind} stays in parts: {why}",
                tree.name()
            )
        };

        let merged = match tree.merged_part(deletes, MERGED_PARTS / 2)? {
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
            "tree {}: {} parts sent again in one: {:?}",
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
        (options.lists, options.part.listed, options.checksum) =
            (purpose == Purpose::DryRun, false, false);
        options.only_after = Some(merged.after);
        let facts = Facts {
            root: merged.root,
            top: None,
            scope: merged.scope.clone(),
            rules: merged.rules.clone(),
            scanned: None,
            notes: Vec::new(),
            files: Vec::new(),
        };

        let (live, records) = (LiveTree::Served(Arc::clone(tree)), (*tree.state()).clone());
        let prepare = move || {
            let source = StoredSource::open(live, records, facts.root)?;
            Ok((Source::of(Box::new(source), Compress::Auto), facts))
        };

        deploy::put(
            self.desk.door()?,
            options,
            Box::new(prepare),
            interrupt,
            &mut Unheard,
        )
    }

    /// A path that is nowhere is a mistake.
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

    /// Deletes what is extra and changes nothing else: what the hosts have beyond the source is asked for, and becomes
    /// the scope of a release that has nothing in it. Hosts with the same extras get it together.
    fn prune(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let mut found = self.session(
            self.options(Purpose::DryRun, &self.named.paths)?,
            interrupt,
            observer,
        )?;

        for group in &mut found.drift {
            group.lines.retain(|line| line.what == What::Extra);
            (group.changed, group.missing) = (0, 0);
        }

        found.drift.retain(|group| !group.is_empty());
        self.check_missing(&found)?;
        if self.wish.dry_run || found.exit.code() != 0 {
            return Ok(found);
        }

        // Whoever has nothing extra is as it should be.
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

    fn pruning(&self, group: &DriftGroup, scope: &[TreePath]) -> Result<Options> {
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

/// Adds what a later session came to at the hosts that it was for.
fn add(found: &mut Outcome, done: Outcome) {
    for host in done.hosts {
        match found
            .hosts
            .iter_mut()
            .find(|known| known.named() == host.named())
        {
            // A failure stays one.
            Some(known) if known.state.is_trouble() => {}
            Some(known) => {
                let (deleted, written) = (known.files_deleted, known.files_written);
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

/// What is extra, the topmost of it, in lists that a header takes.
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

/// Whether a release would change nothing but times of directories, of which others change what is in them.
fn changes_nothing(found: &Outcome) -> bool {
    let is_time = |line: &DriftLine| line.what == What::Time && line.itemized.starts_with(".d");
    let lines = |group: &DriftGroup| {
        group.lines.len() as u64 == group.total() && group.lines.iter().all(is_time)
    };
    found.exit == ExitStatus::Success && found.drift.iter().all(lines)
}

/// Hears of what nobody asked for: it is in the log.
struct Unheard;

impl Observer for Unheard {
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
