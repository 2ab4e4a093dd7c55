//! Tests of the confinement.

use std::io::ErrorKind;

use super::*;

/// A thread confined to `www` and `state` tries every way out.
#[test]
fn a_confined_thread_reaches_its_own_and_nothing_else() {
    if !is_possible() {
        crate::skip::skipped("this kernel has no Landlock");
        return;
    }

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["www", "state", "other", "keys", "run"] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("file"), name).unwrap();
    }

    let reach = SandboxRules {
        write: vec![at("www"), at("state")],
        sockets: vec![at("run")],
        read: vec![at("keys")],
    };

    let names = ["www", "state", "other", "keys", "run"].map(at);
    let tried = std::thread::spawn(move || {
        assert_ne!(confine(&reach).unwrap(), Confined::Not);
        let [www, state, other, keys, run] = names;
        std::fs::write(state.join("staged"), "x").unwrap();
        std::fs::rename(state.join("staged"), www.join("staged")).unwrap();
        std::fs::create_dir(www.join("dir")).unwrap();
        assert_eq!(std::fs::read(keys.join("file")).unwrap(), b"keys");
        drop(std::os::unix::net::UnixListener::bind(run.join("sock")).unwrap());
        std::fs::remove_file(run.join("sock")).unwrap();
        [
            std::fs::write(other.join("new"), "x"),
            std::fs::write(other.join("file"), "x"),
            std::fs::write(keys.join("file"), "x"),
            std::fs::write(run.join("file"), "x"),
            std::fs::read(other.join("file")).map(drop),
            std::fs::read("/etc/passwd").map(drop),
            std::fs::read_dir("/etc").map(drop),
            std::fs::read_dir(&other).map(drop),
            std::fs::remove_file(other.join("file")),
            std::fs::create_dir(other.join("dir")),
            std::fs::rename(other.join("file"), www.join("stolen")),
            std::fs::rename(www.join("staged"), other.join("left")),
            std::fs::hard_link(other.join("file"), www.join("linked")),
            std::os::unix::fs::symlink("x", other.join("link")),
            std::process::Command::new("/bin/true").status().map(drop),
        ]
        .map(|tried| tried.map_err(|e| e.kind()))
    });

    for (number, tried) in tried.join().unwrap().into_iter().enumerate() {
        // A link or rename across the border fails like one across devices.
        let refused = [ErrorKind::PermissionDenied, ErrorKind::CrossesDevices];
        assert!(
            tried.is_err_and(|kind| refused.contains(&kind)),
            "{number}: {tried:?}"
        );
    }

    assert_eq!(std::fs::read(at("other/file")).unwrap(), b"other");
    // This thread stays unconfined.
    std::fs::write(at("other/new"), "x").unwrap();
}

#[test]
fn nobody_becomes_whom_there_is_not() {
    let run_as = |user: &str| RunAs {
        user: Some(user.into()),
        ..RunAs::default()
    };

    assert!(
        user("no-such-user-here")
            .unwrap_err()
            .to_string()
            .contains("no user")
    );

    assert!(
        group("no-such-group-here")
            .unwrap_err()
            .to_string()
            .contains("no group")
    );

    assert_eq!(user("0").unwrap().name, "root");
    assert!(drop_to(&RunAs::default(), false).is_ok());

    // Other test threads run beside this one.
    assert!(drop_to(&run_as("root"), false).is_err());
}
