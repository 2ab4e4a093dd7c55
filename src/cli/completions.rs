//! `makuo completions` and `makuo man`: made from the definitions that also parse.

use std::io::Write;

use clap::CommandFactory;
use serde::Serialize;

use super::args::{Cli, CompletionsArgs, ManArgs};
use crate::report::Report;
use crate::{Error, Result};

#[derive(Serialize)]
struct Written {
    pages: usize,
}

/// The script is the output, also with --json: a shell reads it.
pub(super) fn run(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "makuo", &mut script);
    // A reader that is gone has what it wanted.
    let _ = std::io::stdout().write_all(&script);
    Ok(0)
}

pub(super) fn man(args: &ManArgs, report: &mut Report) -> Result<u8> {
    std::fs::create_dir_all(&args.dir).map_err(|e| Error::io("cannot make the directory", &args.dir, e))?;
    clap_mangen::generate_to(Cli::command(), &args.dir)
        .map_err(|e| Error::io("cannot write man pages to", &args.dir, e))?;
    let pages = 1 + Cli::command().get_subcommands().count();
    report.plain("", &Written { pages });
    Ok(0)
}
