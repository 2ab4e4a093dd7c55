//! `makuo keygen`: a deploy key with the line that hosts need, and a group key.

use std::path::Path;

use serde::Serialize;

use super::args::KeygenArgs;
use super::{sign, talk};
use crate::keys::{self, GroupKey};
use crate::report::{Report, Settings};
use crate::units::printable;
use crate::{Error, Result};

#[derive(Serialize, Default)]
struct Made {
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
    let no_home = || Error::usage("no home directory to put the key").hint("say -o FILE");
    let key = sign::default_key().ok_or_else(no_home);
    let group = sign::default_group_key().ok_or_else(no_home);
    let mut made = Made::default();

    match (&args.output, args.group, args.deploy) {
        (Some(path), true, _) => make_group(path, args.force, &mut made)?,
        (None, true, _) => make_group(&group?, args.force, &mut made)?,
        (Some(path), false, _) => make_deploy(path, args, &mut made)?,
        (None, false, true) => make_deploy(&key?, args, &mut made)?,
        (None, false, false) => {
            let (key, group) = (key?, group?);
            // A key that is there is kept. When both are there the deploy key says so.
            let has_group = group.exists();
            if !key.exists() || args.force || has_group {
                make_deploy(&key, args, &mut made)?;
            } else {
                talk(settings, &format!("deploy key   {} is kept", shown(&key)));
            }
            if !has_group {
                make_group(&group, false, &mut made)?;
            }
        }
    }

    tell(&made, settings);
    let line = made
        .authorized_line
        .as_ref()
        .or(made.group_key.as_ref())
        .cloned()
        .unwrap_or_default();

    report.plain(&line, &made);
    Ok(0)
}

fn make_deploy(path: &Path, args: &KeygenArgs, made: &mut Made) -> Result<()> {
    let comment = args.comment.clone().unwrap_or_else(user_at_host);
    let key = keys::generate(path, &comment, args.force)?;
    made.private = Some(shown(&key.private_file));
    made.public = Some(shown(&key.public_file));
    made.fingerprint = Some(key.public.fingerprint().to_string());
    made.authorized_line = Some(key.authorized_line);
    Ok(())
}

/// Makes a group key. The key itself is shown nowhere.
fn make_group(path: &Path, force: bool, made: &mut Made) -> Result<()> {
    GroupKey::random()?.save(path, force)?;
    made.group_key = Some(shown(path));
    Ok(())
}

/// Names the keys that were made, and their places on hosts.
fn tell(made: &Made, settings: Settings) {
    if let (Some(private), Some(public), Some(fingerprint)) =
        (&made.private, &made.public, &made.fingerprint)
    {
        talk(
            settings,
            &format!("private key  {private} (keep it secret)"),
        );
        talk(settings, &format!("public key   {public}"));
        talk(settings, &format!("fingerprint  {fingerprint}"));
    }

    if let Some(group) = &made.group_key {
        talk(
            settings,
            &format!(
                "group key    {group} (a secret; the same file on every host, as /etc/makuo/group.key,"
            ),
        );
        talk(
            settings,
            "             or as group_key says in [network] of makuo.toml; then restart the daemons)",
        );
    }

    if made.authorized_line.is_some() {
        talk(
            settings,
            "On every host, add this line to /etc/makuo/authorized_keys; tree=\"www\" narrows it to a tree:",
        );
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// `user@host`, as ssh-keygen writes it.
pub(super) fn user_at_host() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .map_or("makuo".into(), |u| u.name);
    let host =
        nix::unistd::gethostname().map_or("localhost".into(), |h| h.to_string_lossy().into_owned());
    format!("{user}@{host}")
}
