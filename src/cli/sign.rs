//! Signing key: `--key`, else the spec's, else $MAKUO_KEY, else ~/.config/makuo/deploy.key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{GROUP_KEY, HostConfig};
use crate::keys::{AuthorizedKeys, CosignedSigner, Signer, open_signer};
use crate::report::suspend_display;
use crate::units::printable;
use crate::{Error, Kind, Result};

/// Default path of the deploy key below the home directory.
const DEFAULT_KEY: &str = ".config/makuo/deploy.key";

/// Opens the signing key. A question for its passphrase stands alone on the screen.
pub fn signer(path: &Path) -> Result<Arc<dyn Signer>> {
    suspend_display(|| open_signer(path)).map(Arc::from)
}

/// Opens the signing key at `path`, and those of the cosigners of a release.
pub fn cosigned(path: &Path, cosigners: &[PathBuf]) -> Result<Arc<dyn Signer>> {
    let first = signer(path)?;
    if cosigners.is_empty() {
        return Ok(first);
    }

    let others = cosigners.iter().map(|path| signer(path));
    let others = others.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(CosignedSigner::new(first, others)?))
}

/// Path of the signing key. The file exists; [`signer`] checks its content.
pub fn key_file(flag: Option<&Path>, spec: Option<&Path>) -> Result<PathBuf> {
    let (path, origin) = choose(flag, spec, std::env::var_os("MAKUO_KEY"), default_key())?;
    let shown = printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    match path.try_exists() {
        Ok(true) => return Ok(path),
        Ok(false) => {}
        Err(e) => {
            let what = format!("the key to sign with, {shown} ({origin}), cannot be looked at");
            return Err(Error::usage(what)
                .because(e)
                .hint("--key names another one; or run this as a user who may read it"));
        }
    }

    Err(Error::usage(format!(
        "there is no key to sign with: {shown} ({origin}) does not exist"
    ))
    .hint("`makuo keygen` makes one; --key names another, such as ~/.ssh/id_ed25519"))
}

/// Keys whose releases are accepted on this machine, beside the signing key's: those in `file`,
/// else in the configuration's file.
pub fn authorized(file: Option<&Path>, config: &HostConfig) -> Result<AuthorizedKeys> {
    match file {
        // The command line names it.
        Some(path) => AuthorizedKeys::load(path).map_err(|e| e.with_kind(Kind::Usage)),
        None => match AuthorizedKeys::load(&config.authorized_keys) {
            // A machine without a daemon, or a user who cannot read the host's file, has none.
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

/// ~/.config/makuo/deploy.key, if there is a home directory.
pub fn default_key() -> Option<PathBuf> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .map(|home| home.join(DEFAULT_KEY))
}

/// Group key of the user: beside the deploy key.
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
                .hint("pass --key FILE")
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
