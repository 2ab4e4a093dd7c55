//! `makuo check`: what is wrong with a spec or a configuration, or what it means.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

use super::args::CheckArgs;
use crate::Result;
use crate::config::{AnyFile, HostConfig, detect};
use crate::report::Report;
use crate::units::printable;

#[derive(Serialize)]
struct Checked<'a> {
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
            let fields = Checked { file, kind: "spec", trees: vec![spec.tree.as_str()], warnings: Vec::new() };
            report.plain(spec.explain().trim_end(), &fields);
        }
        AnyFile::Config(config) => {
            let trees = config.trees.iter().map(|t| t.name.as_str()).collect();
            let warnings = not_executable(&config);
            report.plain(
                config.explain().trim_end(),
                &Checked { file, kind: "config", trees, warnings: warnings.clone() },
            );
            warnings.iter().for_each(|warning| report.note(warning));
        }
    }
    Ok(0)
}

/// Programs that this machine does not have at the place that is written. What is looked up in the PATH is not looked
/// for: the daemon's PATH may be another.
fn not_executable(config: &HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for tree in &config.trees {
        for (phase, command) in tree.hooks.commands() {
            let program = Path::new(command.program());
            if program.is_absolute() && !is_executable(program) {
                let (name, shown) = (&tree.name, printable(program.as_os_str().as_bytes()));
                let key = phase.key();
                warnings.push(format!("warning: tree {name}: {key}: {shown} is no executable file on this machine"));
            }
        }
    }
    warnings
}

fn is_executable(program: &Path) -> bool {
    std::fs::metadata(program).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
