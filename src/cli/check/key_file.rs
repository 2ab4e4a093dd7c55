//! Files of keys: recognized by their content, and explained without their secrets.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use crate::Result;
use crate::error::IoResultExt;
use crate::keys::{AuthorizedKeys, GroupKey, public_half};
use crate::report::words;
use crate::units::printable_path;

/// Bytes at the start of a file that tell its kind.
const HEAD: u64 = 64 << 10;

/// Explanation of a file of keys.
pub(super) struct KeyFileText {
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) warnings: Vec<String>,
}

/// Explains a file of keys; `None` for any other file.
pub(super) fn explain(path: &Path) -> Result<Option<KeyFileText>> {
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(HEAD).read_to_end(&mut head))
        .context("cannot read", path)
        .map_err(|e| e.with_kind(crate::Kind::Usage))?;

    let head = String::from_utf8_lossy(&head);
    match kind_of(&head, path) {
        Some(KeyFile::Group) => group_key(path).map(Some),
        Some(KeyFile::Private) => private_key(path).map(Some),
        Some(KeyFile::Authorized) => authorized_keys(path).map(Some),
        None => Ok(None),
    }
}

/// Kinds of files of keys.
enum KeyFile {
    Group,
    Private,
    Authorized,
}

fn kind_of(head: &str, path: &Path) -> Option<KeyFile> {
    let mut lines = head.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(first) = first else {
        // Without a line, only the name tells.
        let is_list = path
            .file_name()
            .is_some_and(|name| name == crate::config::AUTHORIZED_KEYS);
        return is_list.then_some(KeyFile::Authorized);
    };

    let has_key = ["ssh-ed25519 ", "ssh-rsa ", "ecdsa-sha2-", "sk-ssh-"]
        .iter()
        .any(|algorithm| first.starts_with(algorithm) || first.contains(&format!(" {algorithm}")));
    match first {
        _ if first.starts_with("-----BEGIN") => Some(KeyFile::Private),
        _ if first.starts_with("makuo-group-key") => Some(KeyFile::Group),
        _ if has_key => Some(KeyFile::Authorized),
        _ if path
            .file_name()
            .is_some_and(|name| name == crate::config::AUTHORIZED_KEYS) =>
        {
            Some(KeyFile::Authorized)
        }
        _ => None,
    }
}

fn group_key(path: &Path) -> Result<KeyFileText> {
    let key = GroupKey::load(path)?;
    let shown = printable_path(path);
    Ok(KeyFileText {
        kind: "group key",
        text: format!("group key  {shown}: group {}\n", key.id()),
        warnings: Vec::new(),
    })
}

/// A private key, by its public half: no passphrase is needed.
fn private_key(path: &Path) -> Result<KeyFileText> {
    let key = public_half(path)?;
    let shown = printable_path(path);
    let mut warnings = Vec::new();
    let file = std::fs::File::open(path).context("cannot open", path)?;
    if let Err(e) = crate::strict::check_readers(&file, path, crate::strict::Readers::Owner) {
        warnings.push(format!("makuo does not use this key: {}", e.with_hint()));
    }

    Ok(KeyFileText {
        kind: "deploy key",
        text: format!("deploy key {shown}: {}\n", key.fingerprint()),
        warnings,
    })
}

fn authorized_keys(path: &Path) -> Result<KeyFileText> {
    let keys = AuthorizedKeys::load(path)?;
    let count = words::count(keys.len() as u64, "key");
    let mut text = format!("keys       {}: {count}\n", printable_path(path));
    for line in keys.explain(crate::drive::clock::wall_seconds()) {
        let _ = writeln!(text, "           {line}");
    }

    let warning = "no key is listed: a host with this file refuses every release";
    let warnings = keys.is_empty().then(|| warning.to_string());
    Ok(KeyFileText {
        kind: "authorized keys",
        text,
        warnings: warnings.into_iter().collect(),
    })
}
