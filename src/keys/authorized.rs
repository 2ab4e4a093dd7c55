//! The authorized keys of a host, with their permissions for each tree.
//!
//! The file has the form of OpenSSH's `authorized_keys` with makuo's own options:
//!
//! ```text
//! tree="www,static*",deploy ssh-ed25519 AAAA... ci@example
//! audit,expires="2027-01-31" ssh-ed25519 AAAA... auditor
//! ssh-ed25519 AAAA... admin
//! ```
//!
//! - `tree="..."`: names or globs, separated by commas, repeatable. None: every tree of the host.
//! - `deploy`, `audit`, `rollback`: roles. `deploy` includes the other two. None: all of them; as
//!   in OpenSSH a line without options is unrestricted, and each option restricts it.
//! - `expires="..."`: from this moment (UTC) the line is ignored; `expiry-time` is a synonym, as in
//!   OpenSSH.
//! - `no-touch-required`: a security key need not be touched, as in OpenSSH.
//!
//! Anything else is an error with file and line, because an unknown option may be a restriction. An
//! empty file authorizes nothing. A key may have several lines; one that allows the action is
//! enough.

use std::path::{Path, PathBuf};

use super::denied::{DenialReason, Denied};
use super::key_options::KeyOptions;
use super::role::Role;
use super::{PublicKey, read_key_file, shown};
use crate::id::TreeName;
use crate::strict::Readers;
use crate::units::{WallTime, printable};
use crate::{Error, Result};

/// Largest number of lines with keys; a fleet has a handful.
const MAX_AUTHORIZED_KEYS: usize = 10_000;
/// Example of a line for error messages.
const EXAMPLE: &str = "ssh-ed25519 AAAA... ci@example";
/// Largest line in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// The keys that may sign orders for a host.
#[derive(Debug, Clone)]
pub struct AuthorizedKeys {
    file: PathBuf,
    entries: Vec<KeyLine>,
}

/// One line of the file.
#[derive(Debug, Clone)]
struct KeyLine {
    key: PublicKey,
    comment: String,
    options: KeyOptions,
}

impl AuthorizedKeys {
    /// Reads the file. A missing file is an error with cause "not found"; a caller that prefers to
    /// run and refuse everything then uses [`AuthorizedKeys::none`].
    pub fn load(path: &Path) -> Result<Self> {
        let (bytes, _) = read_key_file(path, Readers::All)
            .map_err(|e| e.hint_else("list the keys that may sign orders for this host there"))?;
        Self::parse(&bytes, path)
    }

    /// No keys: everything is refused. `file` is where keys should be listed.
    pub fn none(file: &Path) -> Self {
        Self {
            file: file.to_path_buf(),
            entries: Vec::new(),
        }
    }

    /// Parses the text of the file `path`.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let mut entries = Vec::new();
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let wrong =
                |what: String| Error::usage(format!("{}:{}: {what}", shown(path), index + 1));
            if line.len() > MAX_LINE_BYTES || entries.len() > MAX_AUTHORIZED_KEYS {
                return Err(wrong(format!(
                    "more than {MAX_AUTHORIZED_KEYS} keys, or a line of more than \
                     {MAX_LINE_BYTES} bytes"
                )));
            }
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                entries.push(KeyLine::parse(line).map_err(wrong)?);
            }
        }

        Ok(Self {
            file: path.to_path_buf(),
            entries,
        })
    }

    /// Number of lines with a key.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no key is listed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file with the keys.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Describes each line, at `now`: the key, and what it may do.
    pub fn explain(&self, now: WallTime) -> Vec<String> {
        let line = |entry: &KeyLine| {
            let comment = match entry.comment.is_empty() {
                true => String::new(),
                false => format!(" ({})", printable(entry.comment.as_bytes())),
            };
            let key = entry.key.fingerprint();
            format!("{key}{comment}: {}", entry.options.explain(now))
        };
        self.entries.iter().map(line).collect()
    }

    /// Returns whether `key` has `role` on `tree` at `now`.
    pub fn allows(
        &self,
        key: &PublicKey,
        tree: &TreeName,
        role: Role,
        now: WallTime,
    ) -> Result<(), Denied> {
        let mut reason = DenialReason::NotListed;
        for entry in self.entries.iter().filter(|e| e.key == *key) {
            match entry.options.objection(key, tree, role, now) {
                None => return Ok(()),
                // Of several lines, report the one that came nearest to allowing the action.
                Some(objection) if objection.rank() >= reason.rank() => reason = objection,
                Some(_) => {}
            }
        }

        Err(Denied {
            key: Box::new(*key),
            tree: tree.clone(),
            role,
            reason,
            file: self.file.clone(),
        })
    }
}

impl KeyLine {
    fn parse(line: &str) -> Result<Self, String> {
        let (options, key) = if starts_with_algorithm(line) {
            (KeyOptions::default(), line)
        } else {
            KeyOptions::parse(line)?
        };

        if key.is_empty() {
            return Err(format!(
                "no key on this line; it should be like: tree=\"www\",deploy {EXAMPLE}"
            ));
        }

        let (key, comment) = PublicKey::from_openssh(key).map_err(|e| e.to_string())?;
        Ok(KeyLine {
            key,
            comment,
            options,
        })
    }
}

fn starts_with_algorithm(line: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|p| line.starts_with(p))
}

#[cfg(test)]
mod tests;
