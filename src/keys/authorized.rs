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
//!
//! Anything else is an error with file and line, because an unknown option may be a restriction. An
//! empty file authorizes nothing. A key may have several lines; one that allows the action is
//! enough.

use std::fmt;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobMatcher};

use super::{Fingerprint, PublicKey, expiry, read_key_file, shown};
use crate::id::TreeName;
use crate::manifest::Intent;
use crate::strict::Readers;
use crate::units::{WallTime, printable};
use crate::{Error, Result};

/// Largest number of lines with keys; a fleet has a handful.
const MAX_AUTHORIZED_KEYS: usize = 10_000;
/// Largest line in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Permission of a key on a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Deploy a release; includes the other two.
    Deploy,
    /// Compare the tree with a release, and read the differences.
    Audit,
    /// Deploy a release that the tree had before.
    Rollback,
}

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
    options: KeyOptions,
}

/// Options before the key; by default no restriction.
#[derive(Debug, Clone, Default)]
struct KeyOptions {
    /// Empty: every tree.
    trees: Vec<GlobMatcher>,
    /// Empty: every role.
    roles: Vec<Role>,
    expires: Option<WallTime>,
}

/// Reason why a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// No line has the key.
    NotListed,
    /// The lines of the key are for other trees.
    OtherTree,
    /// The lines of the key for this tree lack the role.
    LacksRole,
    /// The line expired at this time.
    Expired(WallTime),
}

/// Refusal of a key. The message explains how to allow the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The signing key.
    pub key: PublicKey,
    /// The tree.
    pub tree: TreeName,
    /// The requested role.
    pub role: Role,
    /// Reason for the refusal.
    pub reason: DenialReason,
    /// The file with the authorized keys.
    pub file: PathBuf,
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
            match entry.objection(tree, role, now) {
                None => return Ok(()),
                // Of several lines, report the one that came nearest to allowing the action.
                Some(objection) if objection.rank() >= reason.rank() => reason = objection,
                Some(_) => {}
            }
        }

        Err(Denied {
            key: *key,
            tree: tree.clone(),
            role,
            reason,
            file: self.file.clone(),
        })
    }
}

impl Role {
    /// The option's word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Deploy => "deploy",
            Role::Audit => "audit",
            Role::Rollback => "rollback",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Role::Deploy, Role::Audit, Role::Rollback]
            .into_iter()
            .find(|r| r.as_str() == word)
    }
}

impl From<Intent> for Role {
    fn from(intent: Intent) -> Self {
        match intent {
            Intent::Deploy => Role::Deploy,
            Intent::Audit => Role::Audit,
            Intent::Rollback => Role::Rollback,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DenialReason {
    fn rank(self) -> u8 {
        match self {
            DenialReason::NotListed => 0,
            DenialReason::OtherTree => 1,
            DenialReason::LacksRole => 2,
            DenialReason::Expired(_) => 3,
        }
    }
}

impl Denied {
    /// Fingerprint of the signing key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            tree,
            role,
            reason,
            file,
        } = self;

        let file = shown(file);
        write!(f, "key {} may not {role} {tree}: ", key.fingerprint())?;
        match reason {
            DenialReason::NotListed => write!(f, "it is not listed in {file}")?,
            DenialReason::OtherTree => write!(f, "its line in {file} is for other trees")?,
            DenialReason::LacksRole => {
                write!(f, "its line in {file} does not have the role {role}")?
            }
            DenialReason::Expired(at) => {
                write!(f, "its line in {file} expired at {}", expiry::show(*at))?
            }
        }

        write!(
            f,
            "; to allow it, add this line: tree=\"{tree}\",{role} {key}"
        )
    }
}

impl std::error::Error for Denied {}

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

        let (key, _comment) = PublicKey::from_openssh(key).map_err(|e| e.to_string())?;
        Ok(KeyLine { key, options })
    }

    fn objection(&self, tree: &TreeName, role: Role, now: WallTime) -> Option<DenialReason> {
        let KeyOptions {
            trees,
            roles,
            expires,
        } = &self.options;
        if !trees.is_empty() && !trees.iter().any(|t| t.is_match(tree.as_str())) {
            return Some(DenialReason::OtherTree);
        }

        if !roles.is_empty() && !roles.contains(&role) && !roles.contains(&Role::Deploy) {
            return Some(DenialReason::LacksRole);
        }

        expires.filter(|&at| now >= at).map(DenialReason::Expired)
    }
}

impl KeyOptions {
    /// Parses the options at the start of `line`; returns them and the rest of the line.
    fn parse(line: &str) -> Result<(Self, &str), String> {
        let mut options = Self::default();
        let mut rest = line;
        loop {
            let (name, after) =
                rest.split_at(rest.find([',', '=', ' ', '\t']).unwrap_or(rest.len()));

            let (value, after) = match after.strip_prefix('=') {
                Some(quoted) => quoted_value(quoted).map(|(v, after)| (Some(v), after))?,
                None => (None, after),
            };

            options.apply(name, value)?;
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() || after.starts_with([' ', '\t']) => {
                    return Ok((options, after.trim_start()));
                }
                None => {
                    return Err(format!(
                        "a comma or blank is missing after the option {:?}",
                        printable(name.as_bytes())
                    ));
                }
            }
        }
    }

    fn apply(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        if let Some(role) = Role::from_word(name) {
            self.roles.push(role);
            return if value.is_none() {
                Ok(())
            } else {
                Err(format!("the option {name} takes no value"))
            };
        }

        match (name, value) {
            ("tree", Some(value)) => value
                .split(',')
                .try_for_each(|p| tree_glob(p).map(|g| self.trees.push(g))),
            ("expires" | "expiry-time", Some(value)) => {
                let shown = printable(value.as_bytes());
                let at = expiry::parse(value).ok_or_else(|| {
                    format!(
                        "{shown:?} is not a date: write it as 2027-01-31 or 2027-01-31T18:00Z (UTC)"
                    )
                })?;
                // Of two dates the earlier one: options restrict.
                self.expires = Some(self.expires.map_or(at, |old| old.min(at)));
                Ok(())
            }
            ("tree" | "expires" | "expiry-time", None) => {
                Err(format!("the option {name} needs a value: {name}=\"...\""))
            }
            _ => {
                let name = printable(name.as_bytes());
                Err(format!(
                    "unknown option {name:?}; there are tree=\"...\", deploy, audit, rollback \
                     and expires=\"...\""
                ))
            }
        }
    }
}

/// Example of a line for error messages.
const EXAMPLE: &str = "ssh-ed25519 AAAA... ci@example";

fn starts_with_algorithm(line: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|p| line.starts_with(p))
}

/// Splits a quoted value from the rest. No value contains a quote, so there is no escape.
fn quoted_value(text: &str) -> Result<(&str, &str), String> {
    let body = text
        .strip_prefix('"')
        .ok_or("a value must be in quotes, as in tree=\"www\"")?;
    body.split_once('"')
        .ok_or_else(|| "a quote is not closed".to_string())
}

fn tree_glob(pattern: &str) -> Result<GlobMatcher, String> {
    let pattern = pattern.trim();
    let legal = !pattern.is_empty()
        && !pattern.starts_with('!')
        && pattern
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-*?[]!^".contains(&b));
    let shown = printable(pattern.as_bytes());

    if !legal {
        return Err(format!(
            "{shown:?} is not a tree's name or glob such as www or static*"
        ));
    }

    Glob::new(pattern)
        .map(|g| g.compile_matcher())
        .map_err(|e| format!("{shown:?} is not a glob: {}", e.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{FileSigner, Signer};
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: WallTime = WallTime(1_763_697_540);

    fn key(n: u8) -> PublicKey {
        *FileSigner::from_seed([n; 32]).public()
    }

    fn parse(text: &str) -> Result<AuthorizedKeys> {
        AuthorizedKeys::parse(text.as_bytes(), Path::new("/etc/makuo/authorized_keys"))
    }

    fn tree(name: &str) -> TreeName {
        TreeName::new(name).expect("legal")
    }

    fn reason(keys: &AuthorizedKeys, n: u8, name: &str, role: Role) -> Option<DenialReason> {
        keys.allows(&key(n), &tree(name), role, NOW)
            .err()
            .map(|d| d.reason)
    }

    #[test]
    fn nothing_listed_is_nothing_accepted() {
        let keys = parse("\n# a comment\r\n   \n").expect("legal");
        assert!(keys.is_empty());
        for role in [Role::Deploy, Role::Audit, Role::Rollback] {
            assert_eq!(reason(&keys, 1, "www", role), Some(DenialReason::NotListed));
        }
    }

    #[test]
    fn options_restrict_tree_role_and_time() {
        let text = format!(
            "tree=\"www,static*\",deploy {} ci@example with words\r\n\
             audit,tree=\"a\",tree=\"b\" {}\n{}\n{},expires=\"2020-01-01\" {}",
            key(1),
            key(2),
            key(3),
            "rollback",
            key(4)
        );

        let keys = parse(&text).expect("legal");
        assert_eq!(keys.len(), 4);
        assert_eq!(reason(&keys, 1, "static-eu", Role::Rollback), None);
        assert_eq!(reason(&keys, 1, "www", Role::Audit), None);
        assert_eq!(
            reason(&keys, 1, "www2", Role::Deploy),
            Some(DenialReason::OtherTree)
        );

        assert_eq!(reason(&keys, 2, "b", Role::Audit), None);
        assert_eq!(
            reason(&keys, 2, "b", Role::Deploy),
            Some(DenialReason::LacksRole)
        );
        assert_eq!(
            reason(&keys, 2, "b", Role::Rollback),
            Some(DenialReason::LacksRole)
        );
        assert_eq!(reason(&keys, 3, "any", Role::Deploy), None);

        assert_eq!(
            reason(&keys, 4, "any", Role::Rollback),
            Some(DenialReason::Expired(WallTime(1_577_836_800)))
        );

        assert_eq!(
            reason(&keys, 5, "www", Role::Deploy),
            Some(DenialReason::NotListed)
        );
    }

    #[test]
    fn a_key_on_two_lines_may_what_one_of_them_allows() {
        let text = format!(
            "tree=\"a\",audit {0}\ntree=\"b\" {0}\ntree=\"c\",expires=\"20200101\" {0}",
            key(1)
        );
        let keys = parse(&text).expect("legal");
        assert_eq!(reason(&keys, 1, "b", Role::Deploy), None);
        assert_eq!(
            reason(&keys, 1, "a", Role::Deploy),
            Some(DenialReason::LacksRole)
        );

        assert!(matches!(
            reason(&keys, 1, "c", Role::Deploy),
            Some(DenialReason::Expired(_))
        ));
    }

    #[test]
    fn a_refusal_says_how_to_allow() {
        let denied = parse("")
            .expect("legal")
            .allows(&key(1), &tree("www"), Role::Deploy, NOW)
            .expect_err("refused");
        insta::assert_snapshot!(denied, @r#"key SHA256:fe85JkIjo8VPe+XqXJGH5Mau1EMFdK1OdKvJUFicyA8 may not deploy www: it is not listed in /etc/makuo/authorized_keys; to allow it, add this line: tree="www",deploy ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"#);
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let said = |line: &str| {
            parse(&format!("# keys\n{line}\n"))
                .expect_err("refused")
                .to_string()
        };

        let k = key(1);
        let all = [
            said(&format!("no-pty {k}")),
            said(&format!("tree=www {k}")),
            said(&format!("tree=\"www {k}")),
            said(&format!("tree=\"w/w\" {k}")),
            said(&format!("tree {k}")),
            said(&format!("deploy=\"x\" {k}")),
            said(&format!("tree=\"a\"deploy {k}")),
            said(&format!("expires=\"soon\" {k}")),
            said(&format!("deploy, {k}")),
            said("deploy"),
            said("ssh-rsa AAAAB3Nza x"),
            said("ssh-ed25519 AAAAB3Nza x"),
            said("garbage"),
        ];
        insta::assert_snapshot!(all.join("\n"), @r#"
        /etc/makuo/authorized_keys:2: unknown option "no-pty"; there are tree="...", deploy, audit, rollback and expires="..."
        /etc/makuo/authorized_keys:2: a value must be in quotes, as in tree="www"
        /etc/makuo/authorized_keys:2: a quote is not closed
        /etc/makuo/authorized_keys:2: "w/w" is not a tree's name or glob such as www or static*
        /etc/makuo/authorized_keys:2: the option tree needs a value: tree="..."
        /etc/makuo/authorized_keys:2: the option deploy takes no value
        /etc/makuo/authorized_keys:2: a comma or blank is missing after the option "tree"
        /etc/makuo/authorized_keys:2: "soon" is not a date: write it as 2027-01-31 or 2027-01-31T18:00Z (UTC)
        /etc/makuo/authorized_keys:2: unknown option ""; there are tree="...", deploy, audit, rollback and expires="..."
        /etc/makuo/authorized_keys:2: no key on this line; it should be like: tree="www",deploy ssh-ed25519 AAAA... ci@example
        /etc/makuo/authorized_keys:2: it is a ssh-rsa key, and makuo takes only ssh-ed25519 keys
        /etc/makuo/authorized_keys:2: it is not an SSH public key (`ssh-ed25519 AAAA... comment`)
        /etc/makuo/authorized_keys:2: unknown option "garbage"; there are tree="...", deploy, audit, rollback and expires="..."
        "#);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("temp");
        std::fs::write(file.path(), format!("{}\n", key(1))).expect("writes");
        assert_eq!(AuthorizedKeys::load(file.path()).expect("legal").len(), 1);
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o664))
            .expect("chmod");
        let refused = AuthorizedKeys::load(file.path()).expect_err("refused");
        assert!(
            refused
                .hint_text()
                .is_some_and(|h| h.starts_with("chmod go-w")),
            "{refused}"
        );
        let missing = AuthorizedKeys::load(Path::new("/nonexistent/keys")).expect_err("refused");

        assert!(missing.is_os(std::io::ErrorKind::NotFound));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(bytes: Vec<u8>, text in "[a-z=\",# \t\r\n\\\\0-9-]{0,80}") {
            let _ = AuthorizedKeys::parse(&bytes, Path::new("x"));
            let _ = AuthorizedKeys::parse(text.as_bytes(), Path::new("x"));
        }
    }
}
