//! The machine of a configuration: what its daemon would meet there.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::{network, store};
use crate::config::HostConfig;
use crate::daemon::Preflight;
use crate::hook::Phase;
use crate::id::TreeName;
use crate::store::{Store, StoreUrl};
use crate::units::{printable, printable_path};
use crate::{Error, Result};

/// Goes through the start of a daemon with the configuration `config`, which stands in `file`.
pub(in crate::cli) fn check(file: &Path, config: &HostConfig) -> Preflight {
    let mut preflight = Preflight::run(config);
    preflight.require(HostConfig::load(file));
    network::preflight(config, &mut preflight);
    preflight.warnings.extend(program_warnings(config));
    check_state_dir(config, &mut preflight);

    // Another user may be able to read what this one cannot.
    if !nix::unistd::geteuid().is_root() {
        let (hidden, errors) = preflight
            .errors
            .into_iter()
            .partition(|e| e.is_os(std::io::ErrorKind::PermissionDenied));
        let hidden: Vec<crate::Error> = hidden;
        preflight.errors = errors;
        let unknown = hidden
            .iter()
            .map(|e| format!("not checked, run it as root: {e}"));
        preflight.warnings.extend(unknown);
    }

    preflight
}

/// Looks at the directory for states: it is there or can be made, on the filesystem of the trees.
fn check_state_dir(config: &HostConfig, preflight: &mut Preflight) {
    let Some(dir) = &config.state_dir else {
        return;
    };

    let shown = printable_path(dir);
    // The daemon makes the last directory of the path.
    let places = [Some(dir.as_path()), dir.parent()];
    let mut found = places.iter().flatten().map(std::fs::metadata);
    let Some(state) = found.find_map(|found| found.ok()) else {
        let what = format!("state_dir: neither {shown} nor the directory above it is there");
        preflight
            .errors
            .push(Error::usage(what).hint("make it, or name another one"));
        return;
    };
    if !state.is_dir() {
        let what = format!("state_dir: {shown} is no directory");
        preflight
            .errors
            .push(Error::usage(what).hint("name a directory"));
        return;
    }

    for tree in &config.trees {
        let is_apart = |tree: &Metadata| tree.dev() != state.dev();
        if std::fs::metadata(&tree.path).as_ref().is_ok_and(is_apart) {
            preflight.warnings.push(format!(
                "tree {}: state_dir {shown} is on another filesystem: its state is kept beside it",
                tree.name
            ));
        }
    }
}

/// Refuses a repository that no daemon would open. Certificates may be on another machine.
pub(super) fn check_repositories(config: &HostConfig) -> Result<()> {
    for repository in config.trees.iter().filter_map(|t| t.repository.as_ref()) {
        let is_there = |path: &&Path| !matches!(path.try_exists(), Ok(false));
        let authority = repository.ca_file.as_deref().filter(is_there);
        StoreUrl::parse(&repository.url, Path::new("/"))
            .and_then(|url| Store::open(&url, &store::options(authority)))
            .map_err(|e| repository.wrong(&e))?;
    }

    Ok(())
}

/// Warnings for programs of hooks that are not on this machine. A name is looked up in the PATH of
/// this process, as the daemon looks it up in its own.
fn program_warnings(config: &HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for tree in &config.trees {
        for (phase, command) in tree.hooks.commands() {
            let program = Path::new(command.program());
            if !candidates(program).iter().any(|path| is_executable(path)) {
                warnings.push(program_warning(&tree.name, phase, program));
            }
        }
    }

    warnings
}

fn program_warning(tree: &TreeName, phase: Phase, program: &Path) -> String {
    let shown = printable(program.as_os_str().as_bytes());
    let what = match program.is_absolute() {
        true => "no executable file on this machine",
        false => "no program in the PATH here",
    };
    format!("tree {tree}: {}: {shown} is {what}", phase.key())
}

/// Paths at which a program may be.
fn candidates(program: &Path) -> Vec<PathBuf> {
    if program.is_absolute() {
        return vec![program.to_path_buf()];
    }

    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .collect()
}

fn is_executable(program: &Path) -> bool {
    std::fs::metadata(program).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
