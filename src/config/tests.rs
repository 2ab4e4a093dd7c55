//! Tests of parsing configurations and of the errors for wrong ones. `MAKUO_CONFIG_SEED` replays the
//! damaged files.

use super::*;

const FULL: &str = r#"
name = "web1"
authorized_keys = "/etc/makuo/authorized_keys"
state_dir = "/var/lib/makuo"
socket = "/run/makuo/makuo.sock"
[network]
interface = "eth0"
group = "ff02::6d61"
port = 5001
ttl = 4
[console]
listen = "off"
[[tree]]
name = "www"
path = "/var/www/"
protect = ["/uploads/"]
max_delete = "20%"
keep = 5
max_age = "30d"
before = ["/etc/makuo/hooks/drain", "for a while"]
after = ["systemctl", "reload", "nginx"]
health = ["curl", "-fsS", "http://127.0.0.1/health"]
hook_timeout = "2m"
health_timeout = "500ms"
health_interval = "2s"
health_deadline = "1m"
[[tree]]
name = "static"
path = "/srv/static"
max_delete = 100
"#;

fn parse(text: &str) -> Result<HostConfig> {
    HostConfig::parse(text, Path::new("/etc/makuo/makuo.toml"))
}

fn error_of(text: &str) -> String {
    crate::error::tests::usage_text(&parse(text).expect_err(text))
}

#[test]
fn every_key_is_read() {
    let config = parse(FULL).expect("legal");
    assert_eq!(config.name.as_ref().map(HostName::as_str), Some("web1"));
    assert_eq!(config.trees[0].path, Path::new("/var/www"));
    assert_eq!(
        config.trees[0].max_age,
        Some(std::time::Duration::from_secs(30 * 86_400))
    );
    assert_eq!(config.trees[1].max_age, None);
    assert_eq!(config.trees[1].max_delete, Some(Limit::Count(100)));
    let upload = crate::manifest::TreePath::new(&b"uploads/x"[..]).expect("legal");
    assert!(config.trees[0].protect.matches(&upload, false));

    insta::assert_snapshot!(config.explain(), @r#"
        config     /etc/makuo/makuo.toml
        host       web1
        keys       /etc/makuo/authorized_keys: who may deploy, audit and roll back
        state      /var/lib/makuo
        socket     /run/makuo/makuo.sock
        sender     signs releases from this host with /etc/makuo/sender.key, if it exists
        console    off
        metrics    off
        network    group ff02::6d61 port 5001 on eth0; ttl 4: this link only; unicast port 5001, and 5002 to 5063 for commands; datagrams are sealed with group.key beside this file
        tree       www in /var/www; deletes at most 20% of its paths; never touches /uploads/; warns when its release is older than 30 d; keeps 5 releases for rollback
        before     www: /etc/makuo/hooks/drain 'for a while'; at most 120 s; a failure makes this host refuse the release
        after      www: systemctl reload nginx; at most 120 s; a failure makes this host unhealthy
        health     www: curl -fsS http://127.0.0.1/health; must pass within 60 s: at most 0.5 s per attempt, 2 s between two
        tree       static in /srv/static; deletes at most 100 paths; keeps 3 releases for rollback
        "#);
}

#[test]
fn interfaces_are_one_or_several() {
    let of =
        |text: &str| parse(&format!("[network]\ninterface = {text}")).map(|c| c.network.interfaces);
    assert_eq!(of("\"eth0\"").expect("legal"), ["eth0"]);
    assert_eq!(
        of("[\"eth0\", \"10.0.0.1\"]").expect("legal"),
        ["eth0", "10.0.0.1"]
    );

    let explained = parse("[network]\ninterface = [\"eth0\", \"eth1\"]")
        .expect("legal")
        .explain();
    assert!(explained.contains("on eth0, eth1;"), "{explained}");

    for (wrong, what) in [
        ("[]", "leave it out"),
        ("[1]", "text in quotes"),
        ("7", "list"),
        ("[\"a b\"]", "\"a b\""),
    ] {
        let said = error_of(&format!("\n[network]\ninterface = {wrong}"));
        assert!(
            said.contains("makuo.toml:3: network.interface: ") && said.contains(what),
            "{said}"
        );
    }
}

#[test]
fn an_empty_file_is_a_host_with_the_documented_defaults() {
    let config = parse("").expect("legal");
    assert_eq!(config.network, NetworkConfig::default());

    insta::assert_snapshot!(config.explain(), @r#"
        config     /etc/makuo/makuo.toml
        host       the system's host name
        keys       /etc/makuo/authorized_keys: who may deploy, audit and roll back
        state      .makuo/TREE beside each tree, inside one that is a mount point
        socket     /run/makuo/makuo.sock
        sender     signs releases from this host with /etc/makuo/sender.key, if it exists
        console    off
        metrics    off
        network    group 224.0.0.108 port 5000 on the interface that the system routes multicast to; ttl 1: this link only; unicast port 5001, and 5002 to 5063 for commands; datagrams are sealed with group.key beside this file
        tree       none: this host can send, and receives nothing
        "#);
}

#[test]
fn mistakes_are_named_with_line_and_what_to_write() {
    let tree = |rest: &str| {
        error_of(&format!(
            "[[tree]]\nname = \"www\"\npath = \"/var/www\"\n{rest}"
        ))
    };

    let all = [
        error_of("nmae = \"web1\""),
        error_of("name = \"web 1\""),
        error_of("interface = \"eth0\""),
        error_of("socket = \"makuo.sock\""),
        error_of("[network]\ngroup = \"10.0.0.1\""),
        error_of("[network]\nport = 70000"),
        error_of("[network]\ninterface = \"eth0 \""),
        error_of("[tree]\nname = \"www\""),
        error_of("[[tree]]\nname = \"www\""),
        error_of("[[tree]]\npath = \"/x\""),
        error_of("[[tree]]\nname = \"www\"\npath = \"www\""),
        error_of("[[tree]]\nname = \"www\"\npath = \"/\""),
        tree("max_age = 30"),
        tree("max_age = \"0s\""),
        tree("protec = []"),
        tree("protect = [\n\"\"]"),
        tree("[[tree]]\nname = \"www\"\npath = \"/b\""),
        tree("[[tree]]\nname = \"b\"\npath = \"/var/www/b\""),
        tree("[[tree]]\nname = \"b\"\npath = \"/var\""),
        tree("[[tree]]\nname = \"b\"\npath = \"/var//www/.\""),
        error_of("state_dir = \"/var/www/.state\"\n[[tree]]\nname = \"www\"\npath = \"/var/www\""),
    ];

    insta::assert_snapshot!(all.join("\n"), @r#"
        /etc/makuo/makuo.toml:1: unknown key "nmae"
          hint: did you mean "name"?
        /etc/makuo/makuo.toml:1: name: host name "web 1" is not legal: 1 to 64 characters of A-Z a-z 0-9 . _ -, not starting with . or -
        /etc/makuo/makuo.toml:1: unknown key "interface"
          hint: did you mean "network.interface"? It stands below [network]
        /etc/makuo/makuo.toml:1: socket: "makuo.sock" is not an absolute path without "..", as in "/var/www"
        /etc/makuo/makuo.toml:2: network.group: "10.0.0.1" is not a multicast group: 224.0.0.0 to 239.255.255.255, or of ff00::/8
        /etc/makuo/makuo.toml:2: network.port: 70000 is not a port from 1 to 65535
        /etc/makuo/makuo.toml:2: network.interface: "eth0 " is not an interface: write its name or address, as "eth0"
        /etc/makuo/makuo.toml:1: tree: write each tree as a table of its own: [[tree]], then name and path
        /etc/makuo/makuo.toml:1: a [[tree]] without `path`
          hint: a tree needs name and path
        /etc/makuo/makuo.toml:1: a [[tree]] without `name`
          hint: a tree needs name and path
        /etc/makuo/makuo.toml:3: tree.path: "www" is not an absolute path without "..", as in "/var/www"
        /etc/makuo/makuo.toml:3: tree.path: the whole filesystem cannot be a tree; write a directory below /
        /etc/makuo/makuo.toml:4: tree.max_age: 30 is not a text in quotes
        /etc/makuo/makuo.toml:4: tree.max_age: every release is older than that; write an age such as "30d"
        /etc/makuo/makuo.toml:4: unknown key "tree.protec"
          hint: did you mean "tree.protect"?
        /etc/makuo/makuo.toml:5: tree.protect: a pattern is one line of .gitignore, as in "*.tmp"
        /etc/makuo/makuo.toml:4: there are two trees www
        /etc/makuo/makuo.toml:4: the tree b (/var/www/b) is inside the tree www (/var/www)
        /etc/makuo/makuo.toml:4: the tree www (/var/www) is inside the tree b (/var)
        /etc/makuo/makuo.toml:4: the trees www and b are the same directory /var/www
        /etc/makuo/makuo.toml:1: state_dir: /var/www/.state is inside the tree www, which would serve it
        "#);
}

#[test]
fn hooks_have_the_documented_limits() {
    let text = "[[tree]]\nname = \"www\"\npath = \"/var/www\"\nafter = [\"x\"]\nhealth = [\"y\"]";
    let hooks = parse(text).expect("legal").trees.remove(0).hooks;
    assert_eq!(hooks.before, None);
    let limits = |c: &crate::hook::Command| c.timeout().as_secs();
    let health = hooks.health.as_ref().expect("there");
    assert_eq!(hooks.after.as_ref().map(limits), Some(60));
    assert_eq!(
        (
            limits(&health.command),
            health.interval.as_secs(),
            health.deadline.as_secs()
        ),
        (10, 1, 30)
    );

    assert!(
        TreeConfig::new(TreeName::new("www").expect("legal"), "/x".into())
            .hooks
            .is_empty()
    );
}

#[test]
fn wrong_hooks_are_named_with_line_and_what_to_write() {
    let tree = |rest: &str| {
        error_of(&format!(
            "[[tree]]\nname = \"www\"\npath = \"/var/www\"\n{rest}"
        ))
    };

    let all = [
        tree("before = []"),
        tree("after = [\"\", \"x\"]"),
        tree("\nhealth = \"curl -fsS http://127.0.0.1/\""),
        tree("health = [\"bin/check\"]"),
        tree("health = [\"curl\",\n 7]"),
        tree("after = [\"a\\u0000b\"]"),
        tree("after = 7"),
        tree("hook_timeout = \"soon\""),
        tree("health_deadline = \"0s\""),
        tree("health_interval = \"2d\""),
        tree("hook_timout = \"1s\""),
    ];

    insta::assert_snapshot!(all.join("\n"), @r#"
        /etc/makuo/makuo.toml:4: tree.before: name a program and its arguments, as in ["systemctl", "reload", "nginx"]
        /etc/makuo/makuo.toml:4: tree.after: name a program and its arguments, as in ["systemctl", "reload", "nginx"]
        /etc/makuo/makuo.toml:5: tree.health: no shell reads it: write a list of words, as in ["systemctl", "reload", "nginx"]
        /etc/makuo/makuo.toml:4: tree.health: bin/check is neither an absolute path nor the bare name of a program in the PATH
        /etc/makuo/makuo.toml:5: tree.health: 7 is not a text in quotes
        /etc/makuo/makuo.toml:4: tree.after: an argument has a NUL byte or exceeds 16384 bytes, or there are more than 256
        /etc/makuo/makuo.toml:4: tree.after: 7 is not a list of words, as in ["systemctl", "reload", "nginx"]
        /etc/makuo/makuo.toml:4: tree.hook_timeout: "soon" is not a duration such as 500ms, 30s, 10m, 2h or 7d
        /etc/makuo/makuo.toml:4: tree.health_deadline: write a time from 1ms to 24h, such as "30s"
        /etc/makuo/makuo.toml:4: tree.health_interval: write a time from 1ms to 24h, such as "30s"
        /etc/makuo/makuo.toml:4: unknown key "tree.hook_timout"
          hint: did you mean "tree.hook_timeout"?
        "#);
}

#[test]
fn group_keys_are_a_path_or_a_list_the_new_one_first() {
    let keys =
        |text: &str| parse(&format!("[network]\ngroup_key = {text}")).map(|c| c.network.group_keys);
    assert_eq!(keys("\"/etc/a\"").ok(), Some(vec!["/etc/a".into()]));
    assert_eq!(
        keys("[\"/etc/b\", \"/etc/a\"]").ok(),
        Some(vec!["/etc/b".into(), "/etc/a".into()])
    );

    let explained = parse("[network]\ngroup_key = [\"/etc/b\", \"/etc/a\"]")
        .expect("legal")
        .explain();
    assert!(
        explained.contains("sealed with /etc/b, and /etc/a opens them too"),
        "{explained}"
    );

    let wrong = |text: &str| keys(text).expect_err(text).to_string();
    assert!(wrong("[]").contains("name a file"));
    assert!(wrong("\"group.key\"").contains("is not an absolute path"));

    assert!(wrong("[\"/a\",\"/b\",\"/c\",\"/d\",\"/e\"]").contains("too many group keys"));
}

#[test]
fn plain_is_said_in_words_and_leaves_no_key_unused() {
    let parse = |text: &str| HostConfig::parse(text, Path::new("/srv/makuo.toml"));
    let sealed = |text: &str| {
        let mut config = parse(text).expect(text);
        config.seal_by_default();
        config.network.group_keys
    };

    assert_eq!(sealed(""), [Path::new("/srv/group.key")]);
    assert_eq!(
        sealed("[network]\ngroup_key = \"/etc/a\"\nplain = false"),
        [Path::new("/etc/a")]
    );
    assert!(sealed("[network]\nplain = true").is_empty());
    assert!(
        parse("[network]\nplain = true")
            .expect("legal")
            .explain()
            .contains("; plain: datagrams are not sealed")
    );

    let both = parse("\n[network]\nplain = true\ngroup_key = \"/etc/a\"")
        .expect_err("both")
        .to_string();

    assert!(
        both.contains("makuo.toml:2: ") && both.contains("take one of the two out"),
        "{both}"
    );
}

#[test]
fn a_segment_is_a_name_of_hosts_with_multicast() {
    let network = |text: &str| format!("\n[network]\npeers = \"web1\"\n{text}");
    let config = parse(&network("segment = \"fra1\"")).expect("legal");
    assert_eq!(
        config.network.segment.as_ref().map(SegmentName::as_str),
        Some("fra1")
    );
    let explained = config.explain();
    assert!(explained.contains("\nsegment    fra1: "), "{explained}");
    assert!(!parse("").expect("legal").explain().contains("segment "));

    for (wrong, what) in [
        ("segment = \"fra 1\"", "makuo.toml:4: network.segment: "),
        ("segment = 1", "makuo.toml:4: network.segment: "),
        (
            "multicast = false\nsegment = \"fra1\"",
            "take one of the two out",
        ),
    ] {
        let said = error_of(&network(wrong));
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn metrics_listen_on_an_address_and_have_names() {
    let metrics = |text: &str| parse(&format!("[metrics]\n{text}")).map(|c| c.metrics);
    assert_eq!(parse("").expect("legal").metrics, MetricsConfig::default());
    let at = |text: &str| Some(text.parse().expect("an address"));
    let found = metrics("listen = \"[::1]:9108\"\nnames = \"web1.example\"").expect("legal");
    assert_eq!((found.listen, found.names.len()), (at("[::1]:9108"), 1));

    for (wrong, why) in [
        ("listen = \"9108\"", "write an address with its port"),
        (
            "listen = \"localhost:9108\"",
            "write an address with its port",
        ),
        ("names = [\"web1\"]", "there is no server"),
        ("listen = \"[::1]:1\"\nnames = [\"a:1\"]", "without port"),
        ("listen = \"[::1]:1\"\nnames = [\"\"]", "is no name"),
        ("port = 1", "metrics.port"),
    ] {
        let error = error_of(&format!("[metrics]\n{wrong}"));
        assert!(
            error.contains(why) && error.contains("makuo.toml:"),
            "{error}"
        );
    }

    let told = |text: &str| parse(text).expect("legal").explain();
    assert!(told("").contains("\nmetrics    off\n"));
    let own = told("[metrics]\nlisten = \"127.0.0.1:9108\"");
    assert!(
        own.contains("the fleet on http://127.0.0.1:9108/; programs on this machine"),
        "{own}"
    );
    let all = told("[metrics]\nlisten = \"0.0.0.0:1\"\nnames = [\"a\", \"b\"]");
    assert!(
        all.contains("http://0.0.0.0:1/, also as a, b; everybody who reaches"),
        "{all}"
    );
}

#[test]
fn the_console_is_for_this_machine_unless_told_otherwise() {
    let console = |text: &str| parse(&format!("[console]\n{text}")).map(|c| c.console);
    assert_eq!(parse("").expect("legal").console, ConsoleConfig::default());
    let at = |text: &str| ConsoleListen::At(text.parse().expect("an address"));
    assert_eq!(
        console("listen = \"127.0.0.1:5001\"")
            .expect("legal")
            .listen,
        at("127.0.0.1:5001")
    );

    assert_eq!(
        console("listen = \"off\"\nsocket = \"/run/c\"")
            .expect("legal")
            .listen,
        ConsoleListen::Off
    );

    let open = "listen = \"0.0.0.0:5000\"\nremote = true\npassword = \"/etc/makuo/console\"";
    assert_eq!(console(open).expect("legal").listen, at("0.0.0.0:5000"));
    for refused in [
        "listen = \"5000\"",
        "listen = \"0.0.0.0:5000\"",
        "listen = \"[::]:5000\"\nremote = true",
    ] {
        let error = console(refused).expect_err(refused).to_string();
        assert!(error.contains("console.listen"), "{error}");
    }

    let config =
        parse("socket_group = \"web\"\n[sender]\nkey = \"/etc/makuo/key\"").expect("legal");
    assert_eq!(
        config.sender_key.as_deref(),
        Some(Path::new("/etc/makuo/key"))
    );

    assert_eq!(config.socket_group.as_deref(), Some("web"));
}

#[test]
fn a_name_like_www_is_no_nested_tree_of_ww() {
    let text =
        "[[tree]]\nname = \"a\"\npath = \"/var/ww\"\n[[tree]]\nname = \"b\"\npath = \"/var/www\"";
    assert_eq!(parse(text).map(|c| c.trees.len()).ok(), Some(2));
}

#[test]
fn a_file_is_known_by_its_keys() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("x.toml");
    let kind = |text: &str| {
        std::fs::write(&file, text).expect("written");
        match detect(&file) {
            Ok(AnyFile::Spec(_)) => "spec".to_string(),
            Ok(AnyFile::Config(_)) => "config".to_string(),
            Err(e) => e
                .to_string()
                .rsplit_once("x.toml")
                .map_or_else(String::new, |(_, rest)| rest.to_string()),
        }
    };

    assert_eq!(kind("source = \"s\"\ntree = \"www\""), "spec");
    assert_eq!(kind(FULL), "config");
    assert_eq!(kind("[[tree]]\nname = \"www\"\npath = \"/x\""), "config");
    assert_eq!(kind("[network]\nport = 1"), "config");
    assert_eq!(kind("tree = \"www\""), ": the key `source` is missing");

    assert_eq!(
        kind("[network]\nprot = 1"),
        ":2: unknown key \"network.prot\""
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String, rest in "[a-z.=\"\\[\\]{}, 0-9\n/-]{0,60}") {
        let _ = parse(&text);
        let _ = parse(&format!("[[tree]]\n{rest}"));
    }
}

/// A configuration whose repository has a password, and where that is.
fn with_password() -> (String, std::ops::Range<usize>) {
    let text = format!("{FULL}repository = \"https://ci:hunter2@releases.example/fleet\"\n");
    let at = text.find("hunter2").expect("it is there");
    (text, at..at + "hunter2".len())
}

fn assert_hidden(text: &str) -> bool {
    let Err(error) = parse(text) else {
        return false;
    };
    let told = format!("{error:?} {error} {}", error.with_hint());
    assert!(!told.contains("hunter2"), "{told}\n{text}");
    true
}

#[test]
fn no_error_has_the_password_of_a_repository() {
    let (text, _) = with_password();
    let url = "\"https://ci:hunter2@releases.example/fleet\"";
    for wrong in [
        url.to_string(),
        url.replace("https://", ""),
        url.replace('2', "2 x"),
        format!("[{url}]"),
        format!("{{ url = {url} }}"),
        format!("{{ {url} = 1 }}"),
        format!("{url} x"),
        url.trim_start_matches('"').to_string(),
        url.trim_end_matches('"').to_string(),
        url.trim_matches('"').to_string(),
    ] {
        // As the value of every key, beside the right one or not.
        let mut refused = 0;
        for key in crate::config::parse::CONFIG_KEYS {
            let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
            let section = match table {
                "" => String::new(),
                "tree" => "[[tree]]\n".into(),
                table => format!("[{table}]\n"),
            };
            refused += u32::from(assert_hidden(&format!("{section}{key} = {wrong}\n")));
            refused += u32::from(assert_hidden(&format!("{text}{key} = {wrong}\n")));
        }
        assert!(refused > 60, "{refused} of {wrong}");
        assert_hidden(&format!("{text}{wrong} = 1\n{wrong} = 1\n"));
    }
}

#[test]
fn no_error_of_a_damaged_file_has_the_password_of_a_repository() {
    let (text, secret) = with_password();
    let seed = std::env::var("MAKUO_CONFIG_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("MAKUO_CONFIG_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    let mut refused = 0;
    for _ in 0..2000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..rng.usize(1..4) {
            // Mostly in the line with the password, and never within it.
            let from = if rng.u8(..4) > 0 {
                secret.start - 24
            } else {
                0
            };
            let at = rng.usize(from..bytes.len());
            if (secret.start.saturating_sub(3)..secret.end + 3).contains(&at) {
                continue;
            }
            let byte = *rng.choice(b"\"'=[]{}.,#\n\\ @:/x7").expect("some");
            match rng.u8(..3) {
                0 => bytes[at] = byte,
                1 if at > secret.end => drop(bytes.remove(at)),
                _ if at > secret.end => bytes.insert(at, byte),
                _ => {}
            }
        }
        let text = String::from_utf8(bytes).expect("ascii");
        refused += u32::from(assert_hidden(&text));
    }
    assert!(refused > 500, "{refused}");
}
