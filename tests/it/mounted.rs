//! Hosts with trees that are mount points or layers of an image, and the reserved names of
//! releases.

use std::path::Path;
use std::process::Command;

use crate::support::{self, Host, Lab, Noise, read, skipped, write};

/// Makes a host whose tree is the root of a filesystem of `kind`. The mount outlives the daemon.
fn mounted(lab: &mut Lab, kind: &str) -> bool {
    let image = lab.path("image");
    std::fs::File::create(&image)
        .and_then(|file| file.set_len(320 << 20))
        .expect("an image");
    let made = Command::new(format!("mkfs.{kind}"))
        .arg("-q")
        .arg(&image)
        .output();

    if !support::is_root() || !made.is_ok_and(|out| out.status.success()) {
        skipped(format!(
            "only root mounts filesystems, and mkfs.{kind} has to be there"
        ));
        return false;
    }

    let host = lab.host("web1");
    host.wrap(&format!(
        "mount -o loop {} {} && exec \"$@\"",
        image.display(),
        host.tree().display()
    ));

    host.start();
    true
}

/// Compares the trees by rsync within the host's mounts.
fn differences(host: &Host, source: &Path) -> String {
    let (pid, slash) = (host.pid().to_string(), |path: &Path| {
        format!("{}/", path.display())
    });
    let mut rsync = Command::new("nsenter");
    rsync.args([
        "-t",
        &pid,
        "-m",
        "rsync",
        "-n",
        "-i",
        "-rlptgoDHXc",
        "--delete",
        "--exclude=/.makuo",
    ]);

    let out = rsync
        .arg(slash(source))
        .arg(slash(&host.tree()))
        .output()
        .expect("rsync");

    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );

    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_tree_that_is_a_mount_point_is_deployed_to_like_any_other() {
    for kind in ["ext4", "xfs"] {
        let Some(mut lab) = Lab::loopback_idle() else {
            return;
        };
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
        lab.makuo(&["rollback", "www", "--expect", "1", "-c", config])
            .exits(0);
        assert_eq!(differences(&lab.hosts[0], &first), "");

        lab.spec(&format!("{}[commit]\nlayout = \"swap\"\n", support::DELETE));
        lab.makuo(&["deploy", "www.toml", "--expect", "1"])
            .exits(3)
            .says(&["is a mount point", "in-place"]);
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
    lab.makuo(&["deploy", "www.toml", "--expect", "1"])
        .exits(2)
        .says(&[".makuo", "under this name"]);
    lab.spec(&format!("exclude = [\"/.makuo\"]\n{}", support::DELETE));
    lab.deploy(&[]).exits(0);

    assert!(!lab.hosts[0].tree().join(".makuo").exists());
}

#[test]
fn a_tree_of_a_containers_image_is_deployed_to_like_any_other() {
    let kinds = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !support::is_root() || !kinds.contains("overlay") {
        return skipped("only root mounts overlay filesystems, where the kernel has them");
    }

    for apart in [false, true] {
        let Some(mut lab) = Lab::loopback_idle() else {
            return;
        };
        let layer = |name: &str| lab.path("layers").join(name);
        let www = layer("lower/www");
        Noise::new(5).tree(&www, 20, 3000);
        write(&www.join("old/deep/f"), "goes");
        write(&www.join("kept/one"), "one file");
        std::fs::hard_link(www.join("kept/one"), www.join("kept/two")).expect("new");
        std::fs::create_dir(layer("lower/state")).expect("new");
        ["upper", "work", "other"]
            .iter()
            .for_each(|name| std::fs::create_dir_all(layer(name)).expect("new"));
        let image = lab.path("image");
        support::copy(&www, &image);
        // The layers of an image, or a single layer on another filesystem than the changes.
        let lower = match apart {
            false => format!("L={}", layer("lower").display()),
            true => format!(
                "L={0} && mount -t tmpfs tmpfs $L && cp -a {1}/. $L",
                layer("other").display(),
                layer("lower").display()
            ),
        };
        let options = "redirect_dir=off,index=off,xino=off,metacopy=off";
        let (upper, work) = (layer("upper"), layer("work"));
        let host = lab.host("web1");
        host.wrap(&format!(
            "{lower} && mount -t overlay overlay -o lowerdir=$L,upperdir={},workdir={},{options} {} && exec \"$@\"",
            upper.display(),
            work.display(),
            host.disk().display()
        ));
        host.start();

        // The image's content, with directories removed, names added, and metadata set through one
        // of two hard links.
        let site = lab.site();
        std::fs::remove_dir(&site).expect("empty");
        support::copy(&image, &site);
        std::fs::remove_dir_all(site.join("old")).expect("there");
        std::fs::remove_dir_all(site.join("dir1")).expect("there");
        write(&site.join("dir1"), "a file where a directory was");
        std::fs::hard_link(site.join("kept/one"), site.join("three")).expect("new");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(site.join("kept/one"), private).expect("mine");
        lab.deploy(&[]).exits(0);
        assert_eq!(differences(&lab.hosts[0], &site), "", "apart: {apart}");
        lab.diff(&[]).exits(0);
        let again = lab.deploy(&[]).exits(0).result();
        assert_eq!(again["unchanged"].as_u64(), Some(1), "{again}");

        lab.hosts[0].restart();
        lab.diff(&[]).exits(0);
        let first = lab.path("first");
        support::copy(&site, &first);
        std::fs::remove_dir_all(site.join("dir2")).expect("there");
        std::fs::remove_file(site.join("kept/two")).expect("there");
        lab.deploy(&[]).exits(0);
        assert_eq!(differences(&lab.hosts[0], &site), "", "apart: {apart}");
        let config = lab.hosts[0].config_path();
        let config = config.to_str().expect("UTF-8");
        lab.makuo(&["rollback", "www", "--expect", "1", "-c", config])
            .exits(0);
        assert_eq!(differences(&lab.hosts[0], &first), "", "apart: {apart}");

        lab.spec(&format!("{}[commit]\nlayout = \"swap\"\n", support::DELETE));
        lab.makuo(&["deploy", "www.toml", "--expect", "1"])
            .exits(3)
            .says(&["overlay filesystem", "in-place"]);
        assert_eq!(differences(&lab.hosts[0], &first), "", "apart: {apart}");
    }
}
