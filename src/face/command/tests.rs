//! Tests of the commands of the console.

use super::*;

fn files(line: &str) -> Files {
    match parse(line.as_bytes()) {
        ConsoleCommand::Files(files) => files,
        other => panic!("{line}: {other:?}"),
    }
}

fn said(line: &str) -> String {
    match parse(line.as_bytes()) {
        ConsoleCommand::Wrong(lines) => lines[0].clone(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn flags_come_together_and_apart() {
    let all = files("send -n -r -t mk2 -g web sub/x");
    assert_eq!(all, files("send -nrtmk2 sub/x -gweb"));
    assert!(all.dry_run && all.recurse && all.deed == AdhocAction::Send);
    assert_eq!(
        (all.target.as_deref(), all.group.as_deref()),
        (Some("mk2"), Some("web"))
    );
    assert_eq!(files("send -r -D x").deed, AdhocAction::Sync);
    assert_eq!(files("dsync -r").deed, AdhocAction::Prune);
    assert_eq!(files("md5 -r").deed, AdhocAction::Check);
    assert_eq!(files("send -- -r").paths, [b"-r".to_vec()]);
}

#[test]
fn words_may_hold_blanks() {
    for line in ["send a\\ b", "send \"a b\"", "send 'a b'", "send  a\" \"b "] {
        assert_eq!(files(line).paths, [b"a b".to_vec()], "{line}");
    }
    assert_eq!(files("send '\\'").paths, [b"\\".to_vec()]);
    assert_eq!(said("send 'a"), "error: a quote is not closed");
}

#[test]
fn without_a_path_everything_has_to_be_said() {
    for line in [
        "send",
        "send -n",
        "sync",
        "dsync",
        "check",
        "send -t",
        "send -r -t",
    ] {
        assert!(said(line).starts_with("usage: "), "{line}");
    }

    assert_eq!(said("send -x y"), "error: invalid option -- x");
    assert_eq!(said("check -n y"), "error: invalid option -- n");
    assert_eq!(said("send -:"), "error: invalid option -- :");
}

#[test]
fn what_no_client_of_a_console_says_is_foreign() {
    let lines = [
        "fetch",
        "POST / HTTP/1.1",
        "GET /",
        "Host: x",
        "User-Agent: it's",
        "\x16\x03\x01",
        "\"\\",
        "{\"send\": 1}",
    ];

    // A web page may choose the method of its request.
    let chosen = [
        "send /page HTTP/1.1",
        "sync -r /page HTTP/1.0",
        "status HTTP/2",
        "quit / HTTP/1.1",
    ];

    for line in lines.iter().chain(&chosen) {
        let told = parse(line.as_bytes());
        assert!(
            matches!(
                &told,
                ConsoleCommand::Foreign(why) if why.starts_with("error: unknown command '")
            ),
            "{line}: {told:?}"
        );
    }

    assert_eq!(said("send 'a"), "error: a quote is not closed");
    assert_eq!(said(" \"send"), "error: a quote is not closed");
    assert_eq!(files("send ./HTTP/1.1").paths, [b"./HTTP/1.1".to_vec()]);
}

#[test]
fn every_name_is_a_command() {
    for name in COMMAND_NAMES {
        assert!(
            !matches!(parse(name.as_bytes()), ConsoleCommand::Foreign(_)),
            "{name}"
        );
        assert_eq!(
            parse(name.as_bytes()) == ConsoleCommand::Quit,
            ["quit", "exit", "bye"].contains(name),
            "{name}"
        );
    }
}

#[test]
fn small_commands() {
    assert_eq!(parse(b""), ConsoleCommand::Nothing);
    assert_eq!(parse(b" members "), ConsoleCommand::Members);
    assert_eq!(parse(b"loglevel 2"), ConsoleCommand::LogLevel(2));
    assert_eq!(parse(b"alive on"), ConsoleCommand::Alive(true));
    assert_eq!(
        parse(b"exclude add *.tmp"),
        ConsoleCommand::ExcludeAdd("*.tmp".into())
    );
    assert_eq!(parse(b"bye"), ConsoleCommand::Quit);
    assert_eq!(said("loglevel 10"), "usage: loglevel num (0-9)");

    assert_eq!(said("exclude"), "usage: exclude add PATTERN");
}

proptest::proptest! {
    #[test]
    fn no_line_makes_it_panic(
        line: Vec<u8>,
        more in "(send|sync|check|exclude)( -?[a-zD:'\"\\\\]{0,3}){0,5}",
    ) {
        let _ = parse(&line);
        let _ = parse(more.as_bytes());
    }

    #[test]
    fn quoted_words_stay_what_they_are(word in "[^\r\n]{1,30}") {
        let line = [b"send -r -- ".to_vec(), quoted(word.as_bytes())].concat();
        proptest::prop_assert_eq!(split(&line).unwrap().pop(), Some(word.into_bytes()));
    }
}
