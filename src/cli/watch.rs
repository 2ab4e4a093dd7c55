//! `makuo watch`: runs the live mode with the options of `makuo deploy`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::WatchArgs;
use super::deploy::{self, SessionOptions};
use super::{network, sign};
use crate::drive::deploy::DeployOptions;
use crate::keys::Signer;
use crate::outcome::Purpose;
use crate::report::Report;
use crate::units::Quorum;
use crate::watch::batch::Pace;
use crate::watch::{WatchModes, WatchSetup};
use crate::{Error, Kind, Result};

pub(super) fn run(args: &WatchArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let modes = modes(args)?;
    let mut first = resolve(args, config)?;
    first.lists = report.lists_paths();
    let temporary = cache(&mut first)?;
    let mut reloader = SpecReloader {
        args,
        config: config.map(Path::to_path_buf),
        cache: first.cache.clone(),
        lists: first.lists,
        signer: None,
    };

    let options = reloader.options(&first)?;
    let network = first.network.clone();
    network::note_plain(&network, report);
    let dial = Box::new(move || network::open(&network));
    let ended = crate::watch::run(
        WatchSetup {
            options,
            modes,
            dial,
            reload: Box::new(|| reloader.reload()),
        },
        report,
    );

    drop(temporary);
    ended
}

fn modes(args: &WatchArgs) -> Result<WatchModes> {
    if args.max_delay < args.settle {
        return Err(Error::usage(
            "--max-delay is shorter than --settle: no batch could ever be quiet",
        ));
    }

    let pace = Pace {
        settle: args.settle,
        max_delay: args.max_delay,
    };

    Ok(WatchModes {
        pace,
        once: args.once,
        initial: !args.no_initial,
        pause: args.pause_file.clone(),
    })
}

fn resolve(args: &WatchArgs, config: Option<&Path>) -> Result<SessionOptions> {
    let mut options = deploy::resolve(&args.session, Purpose::Deploy, config)?;
    if options.spec.commit.pause {
        return Err(
            Error::usage("commit.pause: a watch has nobody to promote batches")
                .hint("set pause = false, or use `makuo deploy`"),
        );
    }

    options.message.clone_from(&args.about.message);
    // A host away for long must not keep later changes from the others.
    if !options.spec.commit.require_given {
        options.spec.commit.require = Quorum::Count(1);
    }
    Ok(options)
}

/// Ensures a directory for the index between two batches: a temporary one if there is no other.
fn cache(options: &mut SessionOptions) -> Result<Option<tempfile::TempDir>> {
    let usable = |dir: &PathBuf| {
        std::fs::create_dir_all(dir).is_ok()
            && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
    };

    if options.cache.as_ref().is_some_and(usable) {
        return Ok(None);
    }

    let failed = |e| Error::new(Kind::Io, "cannot make a directory for the index").because(e);
    let dir = tempfile::Builder::new()
        .prefix("makuo-")
        .tempdir()
        .map_err(failed)?;
    options.cache = Some(dir.path().to_path_buf());

    Ok(Some(dir))
}

/// Reloads the spec with the same flags; opens a key only once.
struct SpecReloader<'a> {
    args: &'a WatchArgs,
    config: Option<PathBuf>,
    cache: Option<PathBuf>,
    lists: bool,
    signer: Option<(PathBuf, Arc<dyn Signer>)>,
}

impl SpecReloader<'_> {
    fn reload(&mut self) -> Result<DeployOptions> {
        let mut options = resolve(self.args, self.config.as_deref())?;
        options.lists = self.lists;
        options.cache.clone_from(&self.cache);
        self.options(&options)
    }

    fn options(&mut self, options: &SessionOptions) -> Result<DeployOptions> {
        let known = self
            .signer
            .as_ref()
            .filter(|(path, _)| *path == options.key)
            .map(|(_, signer)| Arc::clone(signer));
        let signer = match known {
            Some(signer) => signer,
            None => sign::signer(&options.key)?,
        };

        self.signer = Some((options.key.clone(), Arc::clone(&signer)));
        deploy::deploy_options(options, signer)
    }
}
