//! `makuo check`: what is wrong with a spec or a configuration, or what it means.

use serde::Serialize;

use super::args::CheckArgs;
use crate::Result;
use crate::config::{AnyFile, detect};
use crate::report::Report;

#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    kind: &'static str,
    trees: Vec<&'a str>,
}

pub(super) fn run(args: &CheckArgs, report: &mut Report) -> Result<u8> {
    let file = args.file.to_string_lossy().into_owned();
    match detect(&args.file)? {
        AnyFile::Spec(spec) => {
            spec.check_source()?;
            let fields = Checked { file, kind: "spec", trees: vec![spec.tree.as_str()] };
            report.plain(spec.explain().trim_end(), &fields);
        }
        AnyFile::Config(config) => {
            let trees = config.trees.iter().map(|t| t.name.as_str()).collect();
            report.plain(config.explain().trim_end(), &Checked { file, kind: "config", trees });
        }
    }
    Ok(0)
}
