//! `makuo keygen`: creates a deploy key, with the line for the hosts, and a group key.

use std::path::Path;

use serde::Serialize;

use super::args::KeygenArgs;
use super::{print_note, sign};
use crate::keys::{self, GroupKey};
use crate::report::{Report, Settings};
use crate::units::printable;
use crate::{Error, Result};

#[derive(Serialize, Default)]
struct CreatedKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_key: Option<String>,
}

pub(super) fn run(args: &KeygenArgs, settings: Settings, report: &mut Report) -> Result<u8> {
    let no_home = || Error::usage("no home directory to put the key").hint("pass -o FILE");
    let key = sign::default_key().ok_or_else(no_home);
    let group = sign::default_group_key().ok_or_else(no_home);
    let mut created = CreatedKeys::default();

    match (&args.output, args.group, args.deploy) {
        (Some(path), true, _) => make_group(path, args.force, &mut created)?,
        (None, true, _) => make_group(&group?, args.force, &mut created)?,
        (Some(path), false, _) => make_deploy(path, args, &mut created)?,
        (None, false, true) => make_deploy(&key?, args, &mut created)?,
        (None, false, false) => {
            let key = key?;
            let group = group?;
            // Keeps an existing key. With both present, creating the deploy key reports the
            // conflict.
            let has_group = group.exists();
            if !key.exists() || args.force || has_group {
                make_deploy(&key, args, &mut created)?;
            } else {
                print_note(settings, &format!("deploy key   {} is kept", shown(&key)));
            }
            if !has_group {
                make_group(&group, false, &mut created)?;
            }
        }
    }

    print_keys(&created, settings);
    let line = created
        .authorized_line
        .as_ref()
        .or(created.group_key.as_ref())
        .cloned()
        .unwrap_or_default();

    report.plain(&line, &created);
    Ok(0)
}

fn make_deploy(path: &Path, args: &KeygenArgs, created: &mut CreatedKeys) -> Result<()> {
    let comment = args.comment.clone().unwrap_or_else(user_at_host);
    let key = keys::generate(path, &comment, args.force)?;
    created.private = Some(shown(&key.private_file));
    created.public = Some(shown(&key.public_file));
    created.fingerprint = Some(key.public.fingerprint().to_string());
    created.authorized_line = Some(key.authorized_line);
    Ok(())
}

/// Creates a group key, whose content is never shown.
fn make_group(path: &Path, force: bool, created: &mut CreatedKeys) -> Result<()> {
    GroupKey::random()?.save(path, force)?;
    created.group_key = Some(shown(path));
    Ok(())
}

/// Prints the created keys and their paths on hosts.
fn print_keys(created: &CreatedKeys, settings: Settings) {
    if let (Some(private), Some(public), Some(fingerprint)) =
        (&created.private, &created.public, &created.fingerprint)
    {
        print_note(
            settings,
            &format!("private key  {private} (keep it secret)"),
        );
        print_note(settings, &format!("public key   {public}"));
        print_note(settings, &format!("fingerprint  {fingerprint}"));
    }

    if let Some(group) = &created.group_key {
        print_note(
            settings,
            &format!(
                "group key    {group} (a secret; the same file on every host, \
                 as /etc/makuo/group.key,"
            ),
        );
        print_note(
            settings,
            "             or as named by group_key in [network] of makuo.toml; \
             then restart the daemons)",
        );
    }

    if created.authorized_line.is_some() {
        print_note(
            settings,
            "On every host, add this line to /etc/makuo/authorized_keys; \
             tree=\"www\" limits it to a tree:",
        );
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// `user@host`, as written by ssh-keygen.
pub(super) fn user_at_host() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .map_or("makuo".into(), |u| u.name);
    let host =
        nix::unistd::gethostname().map_or("localhost".into(), |h| h.to_string_lossy().into_owned());
    format!("{user}@{host}")
}
