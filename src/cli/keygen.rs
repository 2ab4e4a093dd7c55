//! `makuo keygen`: a deploy key and the line that hosts need, or a group key.

use std::path::Path;

use serde::Serialize;

use super::args::KeygenArgs;
use super::{sign, talk};
use crate::config::GROUP_KEY;
use crate::keys::{self, GroupKey};
use crate::report::{Report, Settings};
use crate::units::printable;
use crate::{Error, Result};

#[derive(Serialize)]
struct Made {
    private: String,
    public: String,
    fingerprint: String,
    authorized_line: String,
}

pub(super) fn run(args: &KeygenArgs, settings: Settings, report: &mut Report) -> Result<u8> {
    let path = match &args.output {
        Some(path) => path.clone(),
        None => {
            let key = sign::default_key();
            let key = key.ok_or_else(|| Error::usage("no home directory to put the key").hint("say -o FILE"))?;
            if args.group { key.with_file_name(GROUP_KEY) } else { key }
        }
    };
    if args.group {
        return group(args, &path, settings, report);
    }
    let comment = args.comment.clone().unwrap_or_else(user_at_host);
    let key = keys::generate(&path, &comment, args.force)?;
    let made = Made {
        private: printable(key.private_file.as_os_str().as_encoded_bytes()),
        public: printable(key.public_file.as_os_str().as_encoded_bytes()),
        fingerprint: key.public.fingerprint().to_string(),
        authorized_line: key.authorized_line,
    };
    talk(settings, &format!("private key  {} (keep it secret)", made.private));
    talk(settings, &format!("public key   {}", made.public));
    talk(settings, &format!("fingerprint  {}", made.fingerprint));
    talk(settings, "On every host, add this line to /etc/makuo/authorized_keys; tree=\"www\" narrows it to a tree:");
    report.plain(&made.authorized_line, &made);
    Ok(0)
}

#[derive(Serialize)]
struct MadeGroup {
    group_key: String,
}

/// A group key. Its file's name goes to standard output; the key itself is shown nowhere.
fn group(args: &KeygenArgs, path: &Path, settings: Settings, report: &mut Report) -> Result<u8> {
    GroupKey::random()?.save(path, args.force)?;
    let made = MadeGroup { group_key: printable(path.as_os_str().as_encoded_bytes()) };
    talk(settings, "Copy this file (a secret) to every host, and to wherever commands are run; there, in makuo.toml:");
    talk(settings, "  [network]\n  group_key = \"/etc/makuo/group.key\"");
    talk(settings, "then restart the daemons: those with the key and those without do not hear each other.");
    report.plain(&made.group_key, &made);
    Ok(0)
}

/// `user@host`, as ssh-keygen writes it.
fn user_at_host() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map_or("makuo".into(), |u| u.name);
    let host = nix::unistd::gethostname().map_or("localhost".into(), |h| h.to_string_lossy().into_owned());
    format!("{user}@{host}")
}
