//! Every legal name, kind of entry, mode and owner arrives unchanged.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use crate::support::{self, Lab, is_root, skipped, write};

const NAMES: [&[u8]; 16] = [
    b"with space",
    b" leading and trailing ",
    b"new\nline",
    b"tab\tand\rreturn",
    b"-rf",
    b"--delete",
    b"*",
    b"back\\slash",
    b"\"quoted\" 'twice'",
    b"$(reboot)`reboot`;",
    "gr\u{fc}n \u{2603} \u{1f980}".as_bytes(),
    b"latin\xe9",
    b"\xff\xfe\x80",
    b"\x1b[31mred\x07",
    b"...",
    b"#.tmp~",
];

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mine");
}

/// Deploys, compares, changes all contents and deploys again.
fn arrives(lab: &Lab) {
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    lab.diff(&[]).exits(0);
    lab.diff(&["--checksum"]).exits(0);
}

#[test]
fn names_are_bytes() {
    let Some(lab) = Lab::loopback(2) else { return };
    let site = lab.site();
    let long = vec![b'l'; 255];
    for name in NAMES.iter().copied().chain([&long[..]]) {
        let name = OsStr::from_bytes(name);
        write(&site.join("files").join(name), name.as_bytes());
        write(&site.join("dirs").join(name).join(name), name.as_bytes());
        symlink(name, site.join("dirs").join(name).join("link")).expect("new");
    }

    arrives(&lab);

    let gone = site.join("dirs").join(OsStr::from_bytes(NAMES[11]));
    std::fs::remove_dir_all(gone).expect("there");
    NAMES
        .iter()
        .for_each(|name| write(&site.join("files").join(OsStr::from_bytes(name)), "changed"));

    let shown = lab.makuo(&["diff", "www.toml", "-v"]).exits(1);
    let all = format!("{}{}", shown.out, shown.err);
    assert!(
        !all.contains('\x1b') && !all.contains('\x07') && !all.contains('\r'),
        "{all:?}"
    );
    let told = lab.diff(&[]).exits(1);

    assert!(
        told.events()
            .iter()
            .filter(|e| e["event"] == "change")
            .count()
            >= NAMES.len(),
        "{told}"
    );

    arrives(&lab);
}

#[test]
fn fifty_directories_deep() {
    let Some(lab) = Lab::loopback(1) else { return };
    let deep = (0..50).fold(lab.site(), |dir, i| dir.join(format!("level{i}")));
    write(&deep.join("file"), "down here");
    arrives(&lab);
    std::fs::remove_dir_all(lab.site().join("level0/level1")).expect("there");
    arrives(&lab);
}

#[test]
fn every_kind_of_entry() {
    let Some(lab) = Lab::loopback(2) else { return };
    let site = lab.site();
    write(&site.join("empty"), "");
    write(&site.join("dir/file"), "content");
    std::fs::create_dir_all(site.join("empty dir/inner")).expect("new");
    symlink("dir/file", site.join("link")).expect("new");
    symlink("nowhere", site.join("dangling")).expect("new");

    symlink("/etc/passwd", site.join("absolute")).expect("new");
    symlink("../../..", site.join("up")).expect("new");
    symlink("dir", site.join("to a dir")).expect("new");
    std::fs::hard_link(site.join("dir/file"), site.join("second name")).expect("new");
    std::fs::hard_link(site.join("dir/file"), site.join("empty dir/third name")).expect("new");
    support::run::tool(std::process::Command::new("mkfifo").arg(site.join("fifo")));
    arrives(&lab);

    // Each path changes its kind.
    std::fs::remove_file(site.join("link")).expect("there");

    write(&site.join("link/now/a/dir"), "x");
    std::fs::remove_dir_all(site.join("empty dir")).expect("there");
    symlink("link", site.join("empty dir")).expect("new");
    std::fs::remove_file(site.join("fifo")).expect("there");
    write(&site.join("fifo"), "a file now");
    std::fs::remove_file(site.join("second name")).expect("there");
    write(&site.join("second name"), "content");

    arrives(&lab);
    assert!(support::read(Path::new("/etc/passwd")).starts_with(b"root:"));
}

#[test]
fn modes_arrive_as_they_are() {
    let Some(lab) = Lab::loopback(2) else { return };
    let site = lab.site();
    for mode in [0o4755, 0o2755, 0o6711, 0o1644, 0o600, 0o444, 0o777] {
        let file = site.join(format!("{mode:o}"));
        write(&file, "x");
        set_mode(&file, mode);
    }

    for mode in [0o1777, 0o2775, 0o700, 0o555, 0o500] {
        let dir = site.join(format!("dir{mode:o}"));
        write(&dir.join("inside"), "x");
        set_mode(&dir, mode);
    }

    arrives(&lab);

    // Changes below directories that deny access to their owner.
    for dir in ["dir555", "dir500"] {
        let dir = site.join(dir);
        let mode = std::fs::metadata(&dir).expect("there").permissions().mode() & 0o7777;
        set_mode(&dir, 0o755);
        write(&dir.join("inside"), "changed");
        write(&dir.join("new"), "new");
        set_mode(&dir, mode);
    }

    set_mode(&site.join("600"), 0o640);
    set_mode(&site.join("dir700"), 0o750);
    arrives(&lab);

    // Allows the removal of the trees if the tests do not run as root.
    for root in std::iter::once(site).chain(lab.hosts.iter().map(support::Host::tree)) {
        ["dir555", "dir500"]
            .iter()
            .for_each(|dir| set_mode(&root.join(dir), 0o755));
    }
}

#[test]
fn owners_without_a_name_arrive_by_number() {
    if !is_root() {
        return skipped("only root gives files away");
    }

    let Some(lab) = Lab::loopback(2) else { return };
    let site = lab.site();
    write(&site.join("dir/file"), "x");
    chown(site.join("dir/file"), Some(54_321), Some(54_322)).expect("root may");
    chown(site.join("dir"), Some(54_323), Some(0)).expect("root may");
    write(&site.join("daemon's"), "x");
    chown(site.join("daemon's"), Some(1), Some(1)).expect("root may");

    let ran = lab.deploy(&[]);
    assert!(ran.code == 0 || ran.code == 3, "{ran}");
    if ran.code == 3 {
        // Ids without a name cannot be looked up: `unknown = "numeric"` permits the number.
        lab.spec(&format!(
            "{}[owner]\nunknown = \"numeric\"\n",
            support::DELETE
        ));
    }

    arrives(&lab);
    chown(site.join("dir/file"), Some(54_324), Some(54_322)).expect("root may");
    arrives(&lab);
}
