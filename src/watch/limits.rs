//! Kernel limits of inotify, and the messages for reaching them.

use std::path::Path;

use crate::units::printable;
use crate::{Error, Kind};

/// Directory of the kernel's inotify limits.
const LIMITS: &str = "/proc/sys/fs/inotify";
/// Name of the limit of watches per user.
const MAX_WATCHES: &str = "fs.inotify.max_user_watches";
/// Name of the additional limit in a user namespace.
const MAX_WATCHES_HERE: &str = "user.max_inotify_watches";
/// Name of the limit of inotify instances.
pub const MAX_INOTIFY_INSTANCES: &str = "max_user_instances";
/// Name of the limit of queued events.
pub const MAX_QUEUED_EVENTS: &str = "max_queued_events";

/// Value of a limit, if readable.
pub fn limit(name: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new(LIMITS).join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Name and value of the lower limit of watches.
pub fn watches() -> (&'static str, Option<u64>) {
    let here = std::fs::read_to_string("/proc/sys/user/max_inotify_watches")
        .ok()
        .and_then(|n| n.trim().parse().ok());
    let all = limit("max_user_watches");

    match (here, all) {
        (Some(here), Some(all)) if here < all => (MAX_WATCHES_HERE, Some(here)),
        _ => (MAX_WATCHES, all),
    }
}

/// Error for more directories than the user's limit of watches, which counts all programs of the
/// user.
pub fn too_few_watches(
    source: &Path,
    directories: u64,
    (name, limit): (&str, Option<u64>),
) -> Error {
    let is = limit.map_or_else(|| "unknown".to_string(), |n| n.to_string());
    // Other programs of this user need watches as well.
    let enough = directories
        .saturating_add(limit.unwrap_or(0))
        .next_power_of_two();
    Error::usage(format!(
        "{} has {directories} directories and each of them needs a watch; {name} is {is}",
        shown(source)
    ))
    .hint(format!(
        "sysctl {name}={enough}, and in /etc/sysctl.d for good; or exclude directories"
    ))
}

/// Error for a failure to create an inotify instance.
pub fn no_instance(error: std::io::Error, limit: Option<u64>) -> Error {
    let many = error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error());
    let failed = Error::new(Kind::Usage, "cannot watch directories (inotify)").because(error);
    match limit.filter(|_| many) {
        Some(n) => failed.hint(format!(
            "fs.inotify.{MAX_INOTIFY_INSTANCES} is {n}, which this user's programs have used up: \
             sysctl fs.inotify.{MAX_INOTIFY_INSTANCES}={}",
            n.saturating_mul(4)
        )),
        None => failed,
    }
}

/// Message for lost events.
pub fn overflowed(limit: Option<u64>) -> String {
    let limit = limit.map_or_else(String::new, |n| {
        format!(" (fs.inotify.{MAX_QUEUED_EVENTS} is {n})")
    });
    format!("the queue of changes overflowed{limit}: rescanning the whole source")
}

/// Formats a path for a message.
pub fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_watches_say_how_many_are_needed_and_what_to_set() {
        let error = too_few_watches(Path::new("/srv/site"), 50_000, (MAX_WATCHES, Some(8192)));
        assert_eq!(error.kind().exit_code(), 2);
        let told = error.to_string();
        for word in [
            "/srv/site",
            "50000 directories",
            "fs.inotify.max_user_watches is 8192",
        ] {
            assert!(told.contains(word), "{told}");
        }

        assert!(
            error
                .hint_text()
                .expect("a hint")
                .contains("sysctl fs.inotify.max_user_watches=65536")
        );
    }

    #[test]
    fn too_many_users_of_inotify_are_told_from_other_trouble() {
        let full = std::io::Error::from(rustix::io::Errno::MFILE);
        let error = no_instance(full, Some(128));
        assert!(
            error
                .hint_text()
                .is_some_and(|h| h.contains("max_user_instances=512")),
            "{error}"
        );
        assert!(
            no_instance(std::io::Error::from(rustix::io::Errno::NOMEM), Some(128))
                .hint_text()
                .is_none()
        );
    }

    #[test]
    fn an_overflow_says_so() {
        assert!(
            overflowed(Some(16384)).contains("overflowed (fs.inotify.max_queued_events is 16384)")
        );
    }
}
