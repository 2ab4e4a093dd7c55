//! `makuo check`: reports errors in a spec or a configuration, or explains it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ignore::WalkBuilder;
use serde::Serialize;

use super::args::CheckArgs;
use super::store;
use crate::Result;
use crate::config::{AnyFile, HostConfig, detect};
use crate::report::Report;
use crate::spec::Spec;
use crate::store::{Store, StoreUrl};
use crate::strict::{self, Readers};
use crate::units::printable;

/// Largest number of source entries searched, so that a check returns at once.
const MAX_SEARCHED: usize = 100_000;
/// Largest number of ignore files listed; the others are counted.
const MAX_LISTED_FILES: usize = 5;

#[derive(Serialize)]
struct CheckResult<'a> {
    file: String,
    kind: &'static str,
    trees: Vec<&'a str>,
    warnings: Vec<String>,
}

pub(super) fn run(args: &CheckArgs, report: &mut Report) -> Result<u8> {
    let file = args.file.to_string_lossy().into_owned();
    match detect(&args.file)? {
        AnyFile::Spec(spec) => {
            spec.check_source()?;
            let fields = CheckResult {
                file,
                kind: "spec",
                trees: vec![spec.tree.as_str()],
                warnings: Vec::new(),
            };
            let mut text = spec.explain();
            text.extend(ignore_files(&spec));
            report.plain(text.trim_end(), &fields);
        }
        AnyFile::Config(config) => {
            let authorities = check_repositories(&config)?;
            let trees = config.trees.iter().map(|t| t.name.as_str()).collect();
            let warnings: Vec<String> = trust_warning(&args.file)
                .into_iter()
                .chain(group_key_warning(&config))
                .collect();
            let warnings = [warnings, authorities, executable_warnings(&config)].concat();
            report.plain(
                config.explain().trim_end(),
                &CheckResult {
                    file,
                    kind: "config",
                    trees,
                    warnings: warnings.clone(),
                },
            );
            warnings.iter().for_each(|warning| report.note(warning));
        }
    }

    Ok(0)
}

/// Refuses repositories that the daemon would not open. Returns warnings for certificates that are
/// not on this machine.
fn check_repositories(config: &HostConfig) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for repository in config.trees.iter().filter_map(|t| t.repository.as_ref()) {
        let is_missing = |path: &&Path| matches!(path.try_exists(), Ok(false));
        let authority = repository.ca_file.as_deref();
        let missing = authority.filter(is_missing);
        warnings.extend(missing.map(|path| {
            format!(
                "warning: there is no repository_ca {} on this machine: the daemon needs it to \
                 start",
                printable(path.as_os_str().as_bytes())
            )
        }));

        let options = store::options(authority.filter(|_| missing.is_none()));
        StoreUrl::parse(&repository.url, Path::new("/"))
            .and_then(|url| Store::open(&url, &options))
            .map_err(|e| repository.wrong(&e))?;
    }

    Ok(warnings)
}

/// Lists the ignore files of the source.
fn ignore_files(spec: &Spec) -> Option<String> {
    let names: &[&str] = if spec.gitignore {
        &[".makuoignore", ".gitignore"]
    } else {
        &[".makuoignore"]
    };

    // Rules in ignore files do not matter here: every directory is searched.
    let walk = WalkBuilder::new(&spec.source)
        .standard_filters(false)
        .build();
    let found = walk.take(MAX_SEARCHED).flatten().filter(|entry| {
        let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
        is_file && names.iter().any(|name| entry.file_name() == *name)
    });

    let mut paths: Vec<String> = found
        .filter_map(|entry| {
            let path = entry.path().strip_prefix(&spec.source).ok()?;
            Some(printable(path.as_os_str().as_bytes()))
        })
        .collect();

    paths.sort();

    let more = paths.len().saturating_sub(MAX_LISTED_FILES);
    paths.truncate(MAX_LISTED_FILES);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };

    (!paths.is_empty()).then(|| {
        format!(
            "{:<10} {}{more} in the source\n",
            "ignores",
            paths.join(", ")
        )
    })
}

/// Reason why a daemon would refuse the file at this path.
fn trust_warning(file: &Path) -> Option<String> {
    let error = strict::open(file, Readers::All).err()?;
    let hint = error
        .hint_text()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default();
    Some(format!(
        "warning: a daemon would refuse this file: {error}{hint}"
    ))
}

/// Warning for a missing group key, without which the daemon does not start.
fn group_key_warning(config: &HostConfig) -> Option<String> {
    let is_default = config.network.group_keys.is_empty() && !config.network.plain;
    let place = config.default_group_key();
    let missing = is_default && matches!(place.try_exists(), Ok(false));
    let shown = printable(place.as_os_str().as_bytes());

    missing.then(|| {
        format!(
            "warning: there is no group key {shown} on this machine: the daemon needs it to start"
        )
    })
}

/// Warnings for programs missing at an absolute path on this machine. Names are not looked up,
/// because the daemon's PATH may differ.
fn executable_warnings(config: &HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for tree in &config.trees {
        for (phase, command) in tree.hooks.commands() {
            let program = Path::new(command.program());
            if program.is_absolute() && !is_executable(program) {
                let name = &tree.name;
                let shown = printable(program.as_os_str().as_bytes());
                let key = phase.key();
                warnings.push(format!(
                    "warning: tree {name}: {key}: {shown} is no executable file on this machine"
                ));
            }
        }
    }

    warnings
}

fn is_executable(program: &Path) -> bool {
    std::fs::metadata(program).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
