//! New deploy keys, in files of OpenSSH's format.

use std::io::Write;
use std::path::{Path, PathBuf};

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

use super::{PublicKey, random_bytes, shown};
use crate::error::IoResultExt;
use crate::{Error, Result};

/// A new key.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// File of the private half.
    pub private_file: PathBuf,
    /// File of the public half.
    pub public_file: PathBuf,
    /// The public half.
    pub public: PublicKey,
    /// Line for the authorized_keys of hosts.
    pub authorized_line: String,
}

/// Makes an Ed25519 key in `path` (mode 0600) and `path.pub` (0644). Creates a missing directory
/// (0700), and keeps existing files unless `force`. `comment` is `user@host` by convention.
pub fn generate(path: &Path, comment: &str, force: bool) -> Result<NewKey> {
    let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
    let broken =
        |e: ssh_key::Error| Error::new(crate::Kind::Io, "cannot encode the new key").because(e);
    let pair = Ed25519Keypair::from_seed(&random_bytes()?);
    let public = PublicKey::from_bytes(pair.public.0)
        .map_err(|e| Error::refused(format!("the new key: {e}")))?;
    let private = PrivateKey::new(KeypairData::Ed25519(pair), comment.as_str()).map_err(broken)?;

    let text = private.to_openssh(LineEnding::LF).map_err(broken)?;

    let public_file = with_pub(path);
    if !force && public_file.exists() {
        return Err(exists(&public_file));
    }

    write_file(path, text.as_bytes(), 0o600, force)?;
    let public_line = format!("{public} {comment}");
    let public_line = public_line.trim_end();
    write_file(
        &public_file,
        format!("{public_line}\n").as_bytes(),
        0o644,
        force,
    )?;

    Ok(NewKey {
        private_file: path.to_path_buf(),
        public_file,
        public,
        authorized_line: authorized_line("*", public_line),
    })
}

/// Line that grants the public key `public_line` all roles on `trees`: names or globs, separated by
/// commas.
pub fn authorized_line(trees: &str, public_line: &str) -> String {
    format!(
        "tree=\"{trees}\",deploy,audit,rollback {}",
        public_line.trim_end()
    )
}

/// Creates the directory of `path` if missing.
fn make_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };

    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent);
    made.context("cannot make the directory", parent)
}

/// `deploy.key` -> `deploy.key.pub`.
pub(super) fn with_pub(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".pub");
    name.into()
}

/// Writes a file atomically, in a directory created if missing (0700). The name is taken by a link
/// or rename, so an existing file is never truncated; it is replaced only with `force`.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    make_parent(path)?;
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));

    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(parent)
        .context("cannot write", path)?;
    file.write_all(bytes).context("cannot write", path)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .context("cannot write", path)?;

    file.as_file().sync_all().context("cannot write", path)?;
    let placed = if force {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };

    match placed {
        Ok(_) => Ok(()),
        Err(e) if !force && e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(exists(path))
        }
        Err(e) => Err(e.error).context("cannot write", path),
    }
}

fn exists(path: &Path) -> Error {
    Error::usage(format!("{} exists already", shown(path)))
        .hint("overwriting it loses the key that hosts trust: choose another name, or use --force")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Namespace, open_signer, verify};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_new_key_signs_and_is_never_overwritten_by_accident() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("config/deploy.key");
        let new = generate(&path, "ci@example\n", false).expect("made");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").mode() & 0o777;
        assert_eq!(
            (mode(&new.private_file), mode(&new.public_file)),
            (0o600, 0o644)
        );

        assert_eq!(
            std::fs::read_to_string(&new.public_file).expect("reads"),
            format!("{} ci@example\n", new.public)
        );
        assert_eq!(
            new.authorized_line,
            format!("tree=\"*\",deploy,audit,rollback {} ci@example", new.public)
        );

        let signer = open_signer(&path).expect("opens");

        let signature = signer.sign(Namespace::RELEASE, b"x").expect("signs");
        assert_eq!(
            verify(Namespace::RELEASE, b"x", signature.as_bytes()),
            Ok(new.public)
        );

        assert_eq!(
            generate(&path, "", false).expect_err("kept").kind(),
            crate::Kind::Usage
        );

        assert_ne!(
            generate(&path, "", true).expect("forced").public,
            new.public
        );
    }
}
