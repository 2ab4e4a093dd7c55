//! `makuo init`: creates the keys of a group with one file for all hosts, and unpacks that file on
//! a host.

mod host_file;
mod pack;
mod unpack;

use std::path::Path;

use self::host_file::{HOST_FILE, HostFile};
use super::args::InitArgs;
use crate::Result;
use crate::config::DEFAULT_CONFIG;
use crate::report::{Report, Settings};
use crate::units::printable;

pub(super) fn run(
    args: &InitArgs,
    config: Option<&Path>,
    settings: Settings,
    report: &mut Report,
) -> Result<u8> {
    match &args.host {
        Some(file) => unpack::run(file, args.force, config, settings, report),
        None => pack::run(args, settings, report),
    }
}

/// Returns whether `text` is a host file, and asserts that formatting preserves it.
#[doc(hidden)]
pub fn is_host_file(text: &str) -> bool {
    let parse = |text: &str| HostFile::parse(text, Path::new(DEFAULT_CONFIG));
    let Ok(file) = parse(text) else { return false };
    assert_eq!(parse(&file.to_text(HOST_FILE)).ok().as_ref(), Some(&file));
    true
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}
