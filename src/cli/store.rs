//! The store that a command's URL names, with the command's options.

use std::path::Path;

use super::args::StoreArgs;
use crate::store::{Store, StoreOptions, StoreUrl};
use crate::{Error, Result};

/// Parses the URL of a repository.
pub(super) fn url(text: &str) -> Result<StoreUrl> {
    let here = std::env::current_dir()
        .map_err(|e| Error::usage("the working directory is gone").because(e))?;
    StoreUrl::parse(text, &here)
}

/// Opens the store behind `url`.
pub(super) fn open(url: &StoreUrl, args: &StoreArgs) -> Result<Store> {
    let options = StoreOptions {
        rate: args.limit.rate,
        ..options(args.ca_file.as_deref())
    };
    Store::open(url, &options)
}

/// Options of a store with the environment of this process.
pub(super) fn options(ca_file: Option<&Path>) -> StoreOptions {
    StoreOptions {
        ca_file: ca_file.map(Path::to_path_buf),
        ..StoreOptions::from_environment()
    }
}
