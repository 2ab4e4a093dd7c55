//! `makuo keygen`: a deploy key, and the line that hosts need.

use serde::Serialize;

use super::args::KeygenArgs;
use super::{not_yet, sign, talk};
use crate::keys;
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
    if args.group {
        return Err(not_yet("keygen --group"));
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => {
            sign::default_key().ok_or_else(|| Error::usage("no home directory to put the key").hint("say -o FILE"))?
        }
    };
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

/// `user@host`, as ssh-keygen writes it.
fn user_at_host() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map_or("makuo".into(), |u| u.name);
    let host = nix::unistd::gethostname().map_or("localhost".into(), |h| h.to_string_lossy().into_owned());
    format!("{user}@{host}")
}
