//! Options of a line of authorized keys: each restricts trees, roles or time.

use globset::{Glob, GlobMatcher};

use super::PublicKey;
use super::denied::DenialReason;
use super::expiry;
use super::role::Role;
use crate::id::TreeName;
use crate::units::{WallTime, printable};

/// Options before the key; by default no restriction.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyOptions {
    /// Empty: every tree.
    trees: Vec<GlobMatcher>,
    /// Empty: every role.
    roles: Vec<Role>,
    expires: Option<WallTime>,
    /// Set for a security key that may sign without a touch.
    no_touch: bool,
}

impl KeyOptions {
    /// Parses the options at the start of `line`; returns them and the rest of the line.
    pub(super) fn parse(line: &str) -> Result<(Self, &str), String> {
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
            ("no-touch-required", None) => {
                self.no_touch = true;
                Ok(())
            }
            ("no-touch-required", Some(_)) => Err(format!("the option {name} takes no value")),
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
                    "unknown option {name:?}; there are tree=\"...\", deploy, audit, rollback, \
                     expires=\"...\" and no-touch-required"
                ))
            }
        }
    }

    /// Describes trees, roles and time: "deploy, audit of the trees www, static*".
    pub(super) fn explain(&self, now: WallTime) -> String {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        let roles = match roles.is_empty() {
            true => "every role".to_string(),
            false => roles.join(", "),
        };
        let globs: Vec<String> = self
            .trees
            .iter()
            .map(|glob| printable(glob.glob().glob().as_bytes()))
            .collect();
        let trees = match globs.is_empty() {
            true => "every tree".to_string(),
            false => globs.join(", "),
        };
        let time = match self.expires {
            Some(at) if at <= now => format!("; expired {}", expiry::show(at)),
            Some(at) => format!("; until {}", expiry::show(at)),
            None => String::new(),
        };

        let touch = if self.no_touch {
            "; without a touch"
        } else {
            ""
        };
        format!("{roles} on {trees}{time}{touch}")
    }

    /// Returns the reason why the options refuse `role` on `tree` at `now` to a signature by `key`,
    /// if they do.
    pub(super) fn objection(
        &self,
        key: &PublicKey,
        tree: &TreeName,
        role: Role,
        now: WallTime,
    ) -> Option<DenialReason> {
        let KeyOptions {
            trees,
            roles,
            expires,
            no_touch,
        } = self;
        if !trees.is_empty() && !trees.iter().any(|t| t.is_match(tree.as_str())) {
            return Some(DenialReason::OtherTree);
        }

        if !roles.is_empty() && !roles.contains(&role) && !roles.contains(&Role::Deploy) {
            return Some(DenialReason::LacksRole);
        }

        match expires {
            Some(at) if now >= *at => Some(DenialReason::Expired(*at)),
            _ if key.is_untouched() && !no_touch => Some(DenialReason::Untouched),
            _ => None,
        }
    }
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
