//! `makuo demo` for a first-time user: works on any machine and leaves no files behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the demo through `wrapper`, with all writable paths below `home`.
fn demo(wrapper: &[&str], program: &Path, home: &Path, flags: &[&str]) -> Output {
    let mut words = wrapper
        .iter()
        .map(std::ffi::OsStr::new)
        .chain([program.as_os_str(), "demo".as_ref()])
        .chain(flags.iter().map(std::ffi::OsStr::new));
    Command::new(words.next().expect("a program"))
        .args(words)
        .current_dir(home)
        .env("HOME", home)
        .env("TMPDIR", home)
        .env_remove("MAKUO_KEY")
        .env_remove("MAKUO_CONFIG")
        .output()
        .expect("the binary runs")
}

fn assert_clean(output: &Output, home: &Path) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let left: Vec<_> = std::fs::read_dir(home)
        .expect("readable")
        .map(|e| e.expect("readable").path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn the_demo_works_and_leaves_nothing() {
    let program = Path::new(env!("CARGO_BIN_EXE_makuo"));
    for flags in [&[][..], &["--no-multicast"]] {
        let home = tempfile::tempdir().expect("a directory");
        assert_clean(&demo(&[], program, home.path(), flags), home.path());
    }
}

#[test]
fn the_demo_works_where_multicast_is_dropped() {
    let drop = "table inet cut { chain in { type filter hook input priority 0 ; \
        ip daddr 224.0.0.0/4 drop ; } ; }";
    let script = format!("ip link set lo up && nft '{drop}' && exec \"$0\" \"$@\"");
    let network = ["unshare", "-n", "sh", "-c", &script];
    let probe = Command::new(network[0])
        .args(&network[1..])
        .arg("true")
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return crate::support::skipped("no network namespace, or no nft in it");
    }

    let program = Path::new(env!("CARGO_BIN_EXE_makuo"));
    let home = tempfile::tempdir().expect("a directory");
    let flags = ["--no-multicast"];
    assert_clean(&demo(&network, program, home.path(), &flags), home.path());
}

#[test]
fn the_demo_needs_no_root() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skipped("not root, the other test shows it");
    }

    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];

    if !Command::new(nobody[0])
        .args(&nobody[1..])
        .arg("true")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        return crate::support::skipped("setpriv is not here, or may not change the user");
    }

    let dir = tempfile::tempdir().expect("a directory");
    let (program, home) = (dir.path().join("makuo"), dir.path().join("home"));

    // Other users may have no access to the build directory.
    crate::support::copy_program(&program);
    std::fs::create_dir(&home).expect("new");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
    nix::unistd::chown(&home, Some(65534.into()), Some(65534.into())).expect("root may");

    assert_clean(&demo(&nobody, &program, &home, &[]), &home);
}
