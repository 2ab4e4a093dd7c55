//! Passwords of repositories: no command and no daemon shows one, whatever is wrong with the file.

use super::{begin, run};
use crate::support::{Lab, Running, until, write};

const URL: &str = "https://ci:hunter2@127.0.0.1:1/fleet";

/// Lines of a tree's table, with something wrong in each.
fn wrong_rules() -> Vec<String> {
    vec![
        format!("repository = \"{URL}\"\npool = \"1s\""),
        format!("repository = \"{URL}\"\npoll = \"{URL}\""),
        format!("repository = [\"{URL}\"]"),
        format!("repository = {{ url = \"{URL}\" }}"),
        format!("repository = \"{URL}"),
        format!("repository = {URL}"),
        format!("repository = \"{URL}\" poll = \"1s\""),
        format!("repository = \"{URL}\"\nrepository = \"{URL}\""),
        format!("keep = \"{URL}\""),
        format!("\"{URL}\" = 1"),
        format!("repository = \"{}\"", URL.replace("://", ":/")),
        format!("repository = \"{}\"", URL.replace("https", "nonsense")),
        format!("repository = \"{}\"", URL.replace("hunter2", "hunter2/x y")),
        format!("repository = \"{}\"", URL.replace(":1/", ":99999/")),
    ]
}

#[test]
fn no_command_shows_the_password_of_a_file_with_a_mistake() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    lab.host("web1");
    let mut refused = 0;
    for rule in wrong_rules() {
        let keys = lab.path("authorized_keys").display().to_string();
        let tree = lab.hosts[0].tree().display().to_string();
        let table = format!("[[tree]]\nname = \"www\"\npath = \"{tree}\"\n{rule}\n");
        let text = format!("authorized_keys = \"{keys}\"\n{table}");
        write(&lab.path("makuo.toml"), text);
        let checked = run(&lab, &["check", "makuo.toml"]);
        assert!(checked.code == 2, "{rule}: {checked}");
        let socket = lab.path("sock").display().to_string();
        let mut started = Vec::new();
        let pull = ["pull", "./repo", "www", &tree, "-c", "makuo.toml"];
        for args in [
            &["check", "makuo.toml"][..],
            &["daemon", "-c", "makuo.toml", "--plain"],
            &["status", "-c", "makuo.toml"],
            &["members", "-c", "makuo.toml", "--socket", &socket],
            &["deploy", "www.toml", "-c", "makuo.toml"],
            &pull,
        ] {
            // Side by side: some wait for hosts in vain.
            let both = [&[][..], &["--json"]].map(|more| begin(&lab, &[args, more].concat()));
            started.extend(both);
        }
        for ran in started.into_iter().map(Running::wait) {
            let told = format!("{ran}");
            assert!(!told.contains("hunter2"), "{rule}: {told}");
            refused += u32::from(ran.code != 0);
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_daemon_shows_no_password_of_a_repository_that_it_cannot_reach() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let host = lab.host("web1");
    host.catch_up = true;
    host.rule(&format!("repository = \"{URL}\"\npoll = \"1s\""));
    host.env.push(("RUST_LOG".into(), "trace".into()));
    host.start();
    until("a warning", || {
        host.log().contains("WARN tree www: repository")
    });
    assert!(!host.log().contains("hunter2"), "{}", host.log());

    let status = lab.makuo(&["status"]);
    assert!(!format!("{status}").contains("hunter2"), "{status}");
}
