//! `makuo check`: reports errors in a spec, a configuration or a file of keys, or explains it.

mod key_file;
mod machine;

use std::os::unix::ffi::OsStrExt;

use ignore::WalkBuilder;
pub(super) use machine::check as on_this_machine;
use serde::Serialize;

use super::args::CheckArgs;
use crate::config::{AnyFile, HostConfig, detect};
use crate::report::Report;
use crate::spec::Spec;
use crate::units::printable;
use crate::{Error, Kind, Result};

/// Largest number of source entries searched, so that a check returns at once.
const MAX_SEARCHED: usize = 100_000;
/// Largest number of ignore files listed; the others are counted.
const MAX_LISTED_FILES: usize = 5;

#[derive(Serialize)]
struct CheckResult<'a> {
    file: String,
    kind: &'static str,
    trees: Vec<&'a str>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

pub(super) fn run(args: &CheckArgs, report: &mut Report) -> Result<u8> {
    let file = args.file.to_string_lossy().into_owned();
    if let Some(text) = key_file::explain(&args.file)? {
        let fields = CheckResult {
            file,
            kind: text.kind,
            trees: Vec::new(),
            errors: Vec::new(),
            warnings: text.warnings.clone(),
        };
        report.plain(text.text.trim_end(), &fields);
        text.warnings
            .iter()
            .for_each(|text| report.note(&format!("warning: {text}")));
        return Ok(0);
    }

    match detect(&args.file)? {
        AnyFile::Spec(spec) => {
            spec.check_source()?;
            let fields = CheckResult {
                file,
                kind: "spec",
                trees: vec![spec.tree.as_str()],
                errors: Vec::new(),
                warnings: Vec::new(),
            };
            let mut text = spec.explain();
            text.extend(ignore_files(&spec));
            report.plain(text.trim_end(), &fields);
            Ok(0)
        }
        AnyFile::Config(config) => check_config(args, &config, report),
    }
}

/// Explains a configuration. What keeps the daemon of this machine from starting is an error.
fn check_config(args: &CheckArgs, config: &HostConfig, report: &mut Report) -> Result<u8> {
    machine::check_repositories(config)?;
    let mut warnings = config.remarks();
    let mut errors = Vec::new();
    if !args.elsewhere {
        let found = machine::check(&args.file, config);
        warnings.extend(found.warnings);
        errors = found.errors;
    }

    let fields = CheckResult {
        file: args.file.to_string_lossy().into_owned(),
        kind: "config",
        trees: config.trees.iter().map(|t| t.name.as_str()).collect(),
        errors: errors.iter().map(Error::with_hint).collect(),
        warnings: warnings.clone(),
    };
    let text = config.explain();
    let exit = match errors.is_empty() {
        true => 0,
        false => Kind::Usage.exit_code(),
    };
    report.checked(text.trim_end(), &fields, exit);
    let warnings = warnings.iter();
    warnings.for_each(|text| report.note(&format!("warning: {text}")));
    errors.iter().for_each(|error| report.found(error));
    if !errors.is_empty() {
        report.note(
            "the daemon of this machine would not start, or not serve each tree; --elsewhere \
             checks the file alone",
        );
    }

    Ok(exit)
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
