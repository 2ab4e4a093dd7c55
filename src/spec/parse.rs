//! Parses the keys of the file into a [`Spec`].

use super::document::{Document, Section};
use super::values::{
    flag, one_of, patterns, read_batches, read_command, read_compress, read_duration, read_expect,
    read_globs, read_mode, read_owner, read_path,
};
use super::*;

/// Every key of a spec.
pub const SPEC_KEYS: &[&str] = &[
    "tree",
    "source",
    "key",
    "exclude",
    "gitignore",
    "expires",
    "delete",
    "delete.extras",
    "delete.max",
    "delete.allow_empty",
    "delete.excluded",
    "owner",
    "owner.user",
    "owner.group",
    "owner.unknown",
    "mode",
    "mode.files",
    "mode.dirs",
    "meta",
    "meta.mtime",
    "meta.xattrs",
    "meta.hardlinks",
    "targets",
    "targets.hosts",
    "targets.expect",
    "commit",
    "commit.require",
    "commit.layout",
    "commit.batches",
    "commit.pause",
    "commit.on_failure",
    "commit.notify",
    "transfer",
    "transfer.rate",
    "transfer.floor",
    "transfer.compress",
];

impl Spec {
    pub(crate) fn from_document(document: &Document) -> Result<Self> {
        let mut top = document.top(SPEC_KEYS)?;
        let tree = top.take("tree").map(|f| f.parse()).transpose()?;
        let source = top
            .take("source")
            .map(|f| read_path(&f, &document.path))
            .transpose()?;
        let spec = Spec {
            path: document.path.clone(),
            tree: match tree {
                Some(tree) => tree,
                None => TreeName::new(DEFAULT_TREE).map_err(|e| top.wrong(&e.to_string()))?,
            },
            source: source.clone().unwrap_or_default(),
            key: top
                .take("key")
                .map(|f| read_path(&f, &document.path))
                .transpose()?,
            exclude: top
                .take("exclude")
                .map(patterns)
                .transpose()?
                .unwrap_or_default(),
            gitignore: flag(&mut top, "gitignore", false)?,
            expires: top.take("expires").map(|f| read_duration(&f)).transpose()?,
            delete: delete(top.section("delete")?)?,
            owner: owner(top.section("owner")?)?,
            mode: modes(top.section("mode")?)?,
            meta: meta(top.section("meta")?)?,
            targets: targets(top.section("targets")?)?,
            commit: commit(top.section("commit")?)?,
            transfer: transfer(top.section("transfer")?)?,
        };

        // A misspelt `source` is reported before the missing one.
        top.finish()?;
        if source.is_none() {
            return Err(Error::usage(format!(
                "{}: the key `source` is missing",
                printable_path(&document.path)
            ))
            .hint("name the directory to release: source = \"site\""));
        }

        Ok(spec)
    }
}

fn delete(mut section: Section) -> Result<Delete> {
    let default = Rules::default();
    let delete = Delete {
        extras: flag(&mut section, "extras", default.delete_extras)?,
        max: section
            .take("max")
            .map_or(Ok(default.delete_max), |f| f.parse_number_or_text())?,
        allow_empty: flag(&mut section, "allow_empty", default.allow_empty)?,
        excluded: flag(&mut section, "excluded", default.delete_excluded)?,
    };

    section.finish().map(|()| delete)
}

fn owner(mut section: Section) -> Result<Ownership> {
    let owner = Ownership {
        user: section
            .take("user")
            .map_or(Ok(OwnerPolicy::Preserve), |f| read_owner(&f))?,
        group: section
            .take("group")
            .map_or(Ok(OwnerPolicy::Preserve), |f| read_owner(&f))?,
        unknown: match section.take("unknown") {
            None => UnknownOwner::Fail,
            Some(f) => one_of(
                &f,
                &[
                    ("fail", UnknownOwner::Fail),
                    ("numeric", UnknownOwner::Numeric),
                ],
            )?,
        },
    };

    section.finish().map(|()| owner)
}

fn modes(mut section: Section) -> Result<Modes> {
    let modes = Modes {
        files: section
            .take("files")
            .map_or(Ok(ModePolicy::Preserve), |f| read_mode(&f, "0644"))?,
        dirs: section
            .take("dirs")
            .map_or(Ok(ModePolicy::Preserve), |f| read_mode(&f, "0755"))?,
    };

    section.finish().map(|()| modes)
}

fn meta(mut section: Section) -> Result<Meta> {
    let meta = Meta {
        mtime: flag(&mut section, "mtime", true)?,
        xattrs: flag(&mut section, "xattrs", false)?,
        hardlinks: flag(&mut section, "hardlinks", true)?,
    };
    section.finish().map(|()| meta)
}

fn targets(mut section: Section) -> Result<Targets> {
    let hosts = match section.take("hosts") {
        None => Vec::new(),
        Some(f) => read_globs(f)?,
    };

    let expect = section.take("expect");
    let wrong = expect.as_ref().map(|field| field.deferred());
    let targets = Targets {
        hosts,
        expect: expect.map(read_expect).transpose()?,
    };

    // A name is one host, a pattern may be many.
    let is_name = |host: &String| !host.contains(['*', '?', '[', '{', '=']);
    let named = targets.hosts.len();
    if let (Some(Expect::Count(count)), Some(wrong)) = (&targets.expect, wrong)
        && (1..*count as usize).contains(&named)
        && targets.hosts.iter().all(is_name)
    {
        let what = format!("{count} hosts cannot answer, since hosts names {named}");
        return Err(wrong(&what));
    }

    section.finish().map(|()| targets)
}

fn commit(mut section: Section) -> Result<Commit> {
    let require = section.take("require");
    let pause = section.take("pause");
    let wrong = pause.as_ref().map(|field| field.deferred());
    let commit = Commit {
        require_given: require.is_some(),
        require: require.map_or(Ok(Quorum::All), |f| f.parse_number_or_text())?,
        layout: match section.take("layout") {
            None => Layout::InPlace,
            Some(f) => one_of(&f, &[("in-place", Layout::InPlace), ("swap", Layout::Swap)])?,
        },
        batches: match section.take("batches") {
            None => Vec::new(),
            Some(f) => read_batches(f)?,
        },
        pause: pause.map_or(Ok(false), |f| f.bool())?,
        on_failure: match section.take("on_failure") {
            None => OnFailure::Stop,
            Some(f) => one_of(
                &f,
                &[("stop", OnFailure::Stop), ("revert", OnFailure::Revert)],
            )?,
        },
        notify: section
            .take("notify")
            .map(|f| read_command(f, NOTIFY_TIMEOUT))
            .transpose()?,
    };

    section.finish()?;
    match wrong.filter(|_| commit.pause && commit.batches.is_empty()) {
        Some(wrong) => {
            let what = "there are no batches to pause between: write batches = [1, \"50%\"]";
            Err(wrong(&what))
        }
        None => Ok(commit),
    }
}

fn transfer(mut section: Section) -> Result<Transfer> {
    let transfer = Transfer {
        rate: section
            .take("rate")
            .map(|f| f.parse_number_or_text())
            .transpose()?,
        floor: section
            .take("floor")
            .map(|f| f.parse_number_or_text())
            .transpose()?
            .unwrap_or_default(),
        compress: match section.take("compress") {
            None => Compress::Auto,
            Some(f) => read_compress(&f)?,
        },
    };

    section.finish().map(|()| transfer)
}
