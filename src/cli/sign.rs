//! Which key signs: `--key`, else the spec's, else $MAKUO_KEY, else ~/.config/makuo/deploy.key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{GROUP_KEY, HostConfig};
use crate::keys::AuthorizedKeys;
use crate::units::printable;
use crate::{Error, Result};

/// The deploy key's place below the home directory.
const DEFAULT_KEY: &str = ".config/makuo/deploy.key";

/// The file of the key to sign with. It exists; whether it is a key is `keys::open_signer`'s question.
pub fn key_file(flag: Option<&Path>, spec: Option<&Path>) -> Result<PathBuf> {
    let (path, said_by) = choose(flag, spec, std::env::var_os("MAKUO_KEY"), default_key())?;
    if path.exists() {
        return Ok(path);
    }

    let shown = printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    Err(Error::usage(format!(
        "there is no key to sign with: {shown} ({said_by}) does not exist"
    ))
    .hint("`makuo keygen` makes one; --key names another, such as ~/.ssh/id_ed25519"))
}

/// Whose releases count on this machine, beside those of the key that signs: the keys of `file`, else of its configuration.
pub fn authorized(file: Option<&Path>, config: &HostConfig) -> Result<AuthorizedKeys> {
    match file {
        Some(path) => AuthorizedKeys::load(path),
        None => match AuthorizedKeys::load(&config.authorized_keys) {
            // A machine that is no host, or a user who may not read the host's file, has none.
            Err(e)
                if e.is_os(std::io::ErrorKind::NotFound)
                    || e.is_os(std::io::ErrorKind::PermissionDenied) =>
            {
                Ok(AuthorizedKeys::none(&config.authorized_keys))
            }
            found => found,
        },
    }
}

/// ~/.config/makuo/deploy.key, when there is a home.
pub fn default_key() -> Option<PathBuf> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .map(|home| home.join(DEFAULT_KEY))
}

/// The group key of a user: beside the deploy key.
pub fn default_group_key() -> Option<PathBuf> {
    default_key().map(|key| key.with_file_name(GROUP_KEY))
}

fn choose(
    flag: Option<&Path>,
    spec: Option<&Path>,
    variable: Option<OsString>,
    default: Option<PathBuf>,
) -> Result<(PathBuf, &'static str)> {
    let variable = variable.filter(|v| !v.is_empty()).map(PathBuf::from);
    flag.map(|p| (p.to_path_buf(), "from --key"))
        .or(spec.map(|p| (p.to_path_buf(), "from the spec")))
        .or(variable.map(|p| (p, "from $MAKUO_KEY")))
        .or(default.map(|p| (p, "the default")))
        .ok_or_else(|| {
            Error::usage("there is no key to sign with, and no home directory to look in")
                .hint("say --key FILE")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_wins() {
        let chosen = |flag: Option<&str>,
                      spec: Option<&str>,
                      variable: Option<&str>,
                      default: Option<&str>| {
            let default = default.map(PathBuf::from);
            choose(
                flag.map(Path::new),
                spec.map(Path::new),
                variable.map(OsString::from),
                default,
            )
            .map(|(path, _)| path.to_string_lossy().into_owned())
            .ok()
        };

        assert_eq!(
            chosen(Some("a"), Some("b"), Some("c"), Some("d")).as_deref(),
            Some("a")
        );
        assert_eq!(
            chosen(None, Some("b"), Some("c"), Some("d")).as_deref(),
            Some("b")
        );

        assert_eq!(
            chosen(None, None, Some("c"), Some("d")).as_deref(),
            Some("c")
        );
        assert_eq!(
            chosen(None, None, Some(""), Some("d")).as_deref(),
            Some("d")
        );

        assert_eq!(chosen(None, None, None, None), None);
    }
}
