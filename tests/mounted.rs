//! A host whose tree is a mount point, and what no release may name.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Host, Lab, Noise, read, skipped, write};

/// A host whose tree is the root of a filesystem of `kind`, which outlives its daemon.
fn mounted(lab: &mut Lab, kind: &str) -> bool {
    let image = lab.path("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(320 << 20)).expect("an image");
    let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output();
    if !support::is_root() || !made.is_ok_and(|out| out.status.success()) {
        skipped(&format!("only root mounts filesystems, and mkfs.{kind} has to be there"));
        return false;
    }
    let host = lab.host("web1");
    host.wrap(&format!("mount -o loop {} {} && exec \"$@\"", image.display(), host.tree().display()));
    host.start();
    true
}

/// What rsync finds within the host's mounts.
fn differences(host: &Host, source: &Path) -> String {
    let (pid, slash) = (host.pid().to_string(), |path: &Path| format!("{}/", path.display()));
    let mut rsync = Command::new("nsenter");
    rsync.args(["-t", &pid, "-m", "rsync", "-n", "-i", "-rlptgoDHXc", "--delete", "--exclude=/.makuo"]);
    let out = rsync.arg(slash(source)).arg(slash(&host.tree())).output().expect("rsync");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_tree_that_is_a_mount_point_is_deployed_to_like_any_other() {
    for kind in ["ext4", "xfs"] {
        let Some(mut lab) = Lab::loopback_idle() else { return };
        if !mounted(&mut lab, kind) {
            continue;
        }
        Noise::new(3).tree(&lab.site(), 30, 5000);
        lab.deploy(&[]).exits(0);
        assert_eq!(differences(&lab.hosts[0], &lab.site()), "");
        lab.diff(&[]).exits(0);
        lab.makuo(&["status", "--json"]).exits(0).says(&["www"]);

        let first = lab.path("first");
        support::copy(&lab.site(), &first);
        std::fs::remove_dir_all(lab.site().join("dir1")).expect("there");
        write(&lab.site().join("dir2/new"), "new");
        lab.deploy(&[]).exits(0);
        assert_eq!(differences(&lab.hosts[0], &lab.site()), "");

        lab.hosts[0].restart();
        lab.diff(&[]).exits(0);
        lab.deploy(&[]).exits(0);
        let config = lab.hosts[0].config_path();
        let config = config.to_str().expect("UTF-8");
        lab.makuo(&["rollback", "www", "--expect", "1", "-c", config]).exits(0);
        assert_eq!(differences(&lab.hosts[0], &first), "");

        lab.spec(&format!("{}[commit]\nlayout = \"swap\"\n", support::DELETE));
        lab.makuo(&["deploy", "www.toml", "--expect", "1"]).exits(3).says(&["is a mount point", "in-place"]);
        assert_eq!(differences(&lab.hosts[0], &first), "");
    }
}

#[test]
fn what_has_the_name_of_the_state_is_not_sent() {
    let Some(lab) = Lab::loopback(1) else { return };
    write(&lab.site().join("a"), "a");
    write(&lab.site().join(".makuo/www/f"), "somebody's state");
    lab.deploy(&[]).exits(0);
    assert!(!lab.hosts[0].tree().join(".makuo").exists());
    assert_eq!(read(&lab.hosts[0].tree().join("a")), b"a");

    std::fs::remove_dir_all(lab.site().join(".makuo")).expect("there");
    write(&lab.site().join(".makuo"), "a file");
    lab.makuo(&["deploy", "www.toml", "--expect", "1"]).exits(2).says(&[".makuo", "under this name"]);
    lab.spec(&format!("exclude = [\"/.makuo\"]\n{}", support::DELETE));
    lab.deploy(&[]).exits(0);
    assert!(!lab.hosts[0].tree().join(".makuo").exists());
}
