//! Tests of makuosan's flags.

use super::*;

fn meant(line: &str) -> Result<Meant> {
    MakuosanFlags::try_parse_from(line.split(' '))
        .expect(line)
        .over(HostConfig::default())
}

#[test]
fn the_old_command_line_is_a_host() {
    let meant = meant(
        "makuosan -b /var/www -u www-data -g www-data -G adm,web -p 5001 -i 10.0.0.1 \
             -T 80 -n -O",
    )
    .unwrap();
    let tree = &meant.config.trees[0];
    assert_eq!(
        (tree.name.as_str(), tree.path.to_str()),
        ("default", Some("/var/www"))
    );

    assert!(tree.catch_up == CatchUp::Off && meant.config.network.plain);
    assert_eq!(meant.config.network.port, 5001);
    assert_eq!(
        meant.config.console.listen,
        ConsoleListen::At("127.0.0.1:5001".parse().unwrap())
    );
    assert_eq!(meant.rate, Some(Rate(80_000_000)));

    assert_eq!(
        (meant.user.as_deref(), meant.groups.len()),
        (Some("www-data"), 2)
    );

    assert!(
        meant.foreground && meant.owned && meant.sends && meant.receives && meant.unused.is_empty()
    );
}

#[test]
fn what_means_nothing_any_more_is_named_once() {
    let meant = meant("makuosan -b /x -f 5 -R 100 -S 100 -C -r -s -o").unwrap();
    assert_eq!(meant.unused, ["-f", "-R", "-S", "-C"]);
    assert!(!meant.sends && !meant.receives);
    assert_eq!(meant.config.console.listen, ConsoleListen::Off);
}

#[test]
fn the_console_stays_on_this_machine_without_a_password() {
    assert!(
        meant("makuosan -b /x -l 0.0.0.0")
            .unwrap_err()
            .to_string()
            .contains("other machines reach")
    );

    assert!(meant("makuosan -b /x -l 0.0.0.0 -K /etc/pw").is_ok());
    let unix = meant("makuosan -b /x -U /run/m.sock")
        .unwrap()
        .config
        .console;
    assert_eq!(
        (unix.listen, unix.socket),
        (ConsoleListen::Off, Some("/run/m.sock".into()))
    );

    assert!(meant("makuosan -b /").is_err() && meant("makuosan -b /x -m 10.0.0.1").is_err());
}

#[test]
fn the_group_key_of_the_flags_stands_for_that_of_the_configuration() {
    let config = || {
        let mut config = HostConfig::default();
        config
            .network
            .group_keys
            .push("/etc/makuo/group.key".into());
        config
    };

    let over = |line: &str| {
        MakuosanFlags::try_parse_from(line.split(' '))
            .expect(line)
            .over(config())
            .expect(line)
    };

    let meant = over("makuosan -b /x -k /a -k /b");
    assert!(meant.group_keys_fixed);
    assert_eq!(
        meant.config.network.group_keys,
        [PathBuf::from("/a"), "/b".into()]
    );
    let meant = over("makuosan -b /x");

    assert!(!meant.group_keys_fixed);
    assert_eq!(
        meant.config.network.group_keys,
        [PathBuf::from("/etc/makuo/group.key")]
    );
    assert!(!meant.config.network.plain);

    assert!(over("makuosan -b /x -k key").config.network.group_keys[0].is_absolute());
}

#[test]
fn confined_is_to_base_and_state_or_not_at_all() {
    let meant = meant("makuosan -b /x -c").unwrap();
    assert_eq!(meant.config.sandbox, Sandbox::Require);
    assert!(
        meant
            .config
            .trees
            .iter()
            .all(|tree| tree.swap == Some(false))
    );
}

#[test]
fn clap_finds_no_contradiction() {
    <MakuosanFlags as clap::CommandFactory>::command().debug_assert();
}
