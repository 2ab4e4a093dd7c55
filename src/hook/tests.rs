//! Tests with real commands: their environment, their end, and that no process is left behind.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::command::MAX_COMMAND_CHARS;
use super::*;
use crate::block::BlockHash;
use crate::id::{HostName, Serial, TreeName};
use crate::manifest::ReleaseId;

const LONG: Duration = Duration::from_secs(100);

fn command(argv: &[&str], timeout: Duration) -> Command {
    Command::new(argv.iter().map(OsString::from).collect(), timeout).expect("legal")
}

fn shell(script: &str) -> Command {
    command(&["/bin/sh", "-c", script], LONG)
}

pub(super) fn context() -> HookContext {
    HookContext {
        tree: TreeName::new("www").expect("legal"),
        serial: Serial(7),
        previous: Some(Serial(6)),
        release: ReleaseId(BlockHash::of(b"x")),
        path: "/var/www".into(),
        host: HostName::new("web1").expect("legal"),
        sender: HostName::new("ci").ok(),
        cause: Cause::Commit,
    }
}

fn run(command: &Command) -> Result<RunRecord, Failure> {
    command.run(Phase::After, &context(), &AtomicBool::new(false))
}

fn fails(command: &Command) -> Failure {
    run(command).expect_err("it fails")
}

/// Returns whether the process with the id in `file` is gone, or a zombie for its new parent to
/// reap.
fn is_gone(file: &Path) -> bool {
    let pid = std::fs::read_to_string(file)
        .expect("it has started")
        .trim()
        .to_string();

    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// Waits for a condition.
fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain: {what}");
}

#[test]
fn what_passes_has_printed_on_both_ways() {
    let ran = run(&shell("echo one; echo two >&2; echo three")).expect("passes");
    assert_eq!(ran.output, "one\ntwo\nthree");
    assert_eq!(ran.tries, 1);
}

#[test]
fn a_failure_names_the_command_the_status_and_what_it_said() {
    let failure = fails(&shell("echo 'no\x1b[2J way'; exit 22"));
    assert_eq!(failure.what, FailureCause::Exited(22));
    assert_eq!(
        failure.to_string(),
        "after hook /bin/sh -c 'echo 'no\\u{1b}[2J way'; exit 22' \
         failed: exit status 22\n  no\\u{1b}[2J way"
    );
    let failure = fails(&shell("kill -9 $$"));
    assert_eq!(failure.what, FailureCause::Killed(9));

    assert!(
        failure.to_string().ends_with("failed: killed by SIGKILL"),
        "{failure}"
    );
}

#[test]
fn words_are_arguments_and_no_shell_reads_them() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("made");
    let trap = format!("; touch {} $(echo x) *", file.display());
    let ran = run(&command(&["printf", "<%s>", "a b", &trap], LONG)).expect("passes");
    assert_eq!(ran.output, format!("<a b><{trap}>"));
    assert!(!file.exists());
}

#[test]
fn words_that_are_no_command_are_refused() {
    let new =
        |argv: &[&str]| Command::new(argv.iter().map(OsString::from).collect(), LONG).map(drop);
    assert_eq!(new(&[]), Err(CommandError::Empty));
    assert_eq!(new(&["", "x"]), Err(CommandError::Empty));
    assert_eq!(new(&["bin/x"]), Err(CommandError::Relative("bin/x".into())));
    assert_eq!(new(&["x", "a\0b"]), Err(CommandError::Illegal));
    assert_eq!(new(&vec!["x"; MAX_WORDS + 1]), Err(CommandError::Illegal));

    assert_eq!(new(&["curl", ""]), Ok(()));
}

#[test]
fn the_environment_is_clean_and_says_what_happens() {
    let ran = run(&command(&["env"], LONG)).expect("passes");
    let mut lines: Vec<&str> = ran.output.lines().collect();
    lines.sort_unstable();
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|l| l.split_once('='))
        .map(|(name, _)| name)
        .collect();

    let own = [
        "CAUSE", "HOST", "PATH", "PHASE", "PREVIOUS", "RELEASE", "SENDER", "SERIAL", "TREE",
    ];
    let expected: Vec<String> = ["HOME", "LANG"]
        .map(String::from)
        .into_iter()
        .chain(own.map(|n| format!("MAKUO_{n}")))
        .collect();

    assert_eq!(names, [expected, vec!["PATH".to_string()]].concat());
    let release = format!("MAKUO_RELEASE={}", context().release);
    for line in [
        "MAKUO_TREE=www",
        "MAKUO_SERIAL=7",
        "MAKUO_PREVIOUS=6",
        "MAKUO_PATH=/var/www",
        "MAKUO_HOST=web1",
    ] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }

    for line in [
        "MAKUO_SENDER=ci",
        "MAKUO_PHASE=after",
        "MAKUO_CAUSE=commit",
        "LANG=C.UTF-8",
        &release,
    ] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }

    let first = HookContext {
        previous: None,
        sender: None,
        cause: Cause::Revert,
        ..context()
    };

    let script =
        shell("set -u; echo \"<$MAKUO_PREVIOUS> <$MAKUO_SENDER> $MAKUO_PHASE $MAKUO_CAUSE\"");
    let ran = script
        .run(Phase::Before, &first, &AtomicBool::new(false))
        .expect("passes");

    assert_eq!(ran.output, "<> <> before revert");
}

#[test]
fn it_runs_in_the_root_without_input_as_a_group_of_its_own() {
    let ran = run(&shell("pwd; cat; ps -o pgid= -p $$ | tr -d ' '; echo $$")).expect("passes");
    let lines: Vec<&str> = ran.output.lines().collect();
    assert_eq!(lines[0], "/");
    assert_eq!(lines[1], lines[2], "{lines:?}");
}

#[test]
fn what_is_not_there_is_told() {
    let failure = fails(&command(&["/nowhere/at all"], LONG));
    assert!(
        failure
            .to_string()
            .starts_with("after hook '/nowhere/at all' failed: cannot be started: no such program")
    );
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("x");
    std::fs::write(&file, "#!/bin/sh\n").expect("written");
    let plain = command(&[file.to_str().expect("text")], LONG);
    assert!(fails(&plain).to_string().contains("not executable"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("mine");

    assert!(run(&plain).is_ok());
}

#[test]
fn a_time_limit_ends_the_whole_group() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("pid");
    let script = format!(
        "sleep 1000 & echo $! > {}; echo begun; wait",
        file.display()
    );
    let slow = command(&["/bin/sh", "-c", &script], Duration::from_millis(500));

    let failure = fails(&slow);
    assert_eq!(
        failure.what,
        FailureCause::TimedOut(Duration::from_millis(500))
    );
    assert!(
        failure
            .to_string()
            .ends_with("timed out after 0.5 s\n  begun"),
        "{failure}"
    );

    until("the grandchild is gone", || is_gone(&file));
}

#[test]
fn who_does_not_listen_is_killed() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("pid");
    let script = format!(
        "trap '' TERM; (sleep 1000; sleep 1000) & echo $! > {}; sleep 1000; sleep 1000",
        file.display()
    );
    let failure = fails(&command(
        &["/bin/sh", "-c", &script],
        Duration::from_millis(300),
    ));
    assert_eq!(
        failure.what,
        FailureCause::TimedOut(Duration::from_millis(300))
    );

    until("the grandchild is gone", || is_gone(&file));
}

#[test]
fn the_end_of_the_daemon_ends_it() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("pid");
    let stop = AtomicBool::new(false);
    let script = shell(&format!("echo $$ > {}; exec sleep 1000", file.display()));
    let failure = std::thread::scope(|scope| {
        let running = scope.spawn(|| script.run(Phase::Before, &context(), &stop));
        until("it runs", || {
            std::fs::read(&file).is_ok_and(|b| b.ends_with(b"\n"))
        });
        stop.store(true, Ordering::Release);
        running.join().expect("no panic").expect_err("it was ended")
    });
    assert_eq!(failure.what, FailureCause::Stopped);

    assert!(is_gone(&file));
}

#[test]
fn what_a_command_leaves_behind_does_not_hold_us() {
    let dir = tempfile::tempdir().expect("temp");
    let file = dir.path().join("pid");
    let ran = run(&shell(&format!(
        "sleep 1000 & echo $! > {}; echo left",
        file.display()
    )))
    .expect("passes");

    assert_eq!(ran.output, "left");
    assert!(!is_gone(&file), "what a hook starts on purpose goes on");
    let pid = std::fs::read_to_string(&file)
        .expect("there")
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);

    rustix::process::kill_process(pid.expect("a number"), rustix::process::Signal::KILL)
        .expect("mine");
}

#[test]
fn much_output_neither_blocks_it_nor_fills_memory() {
    let ran = run(&shell(
        "i=0; while [ $i -lt 3000 ]; do \
         echo \"line $i of a long story that nobody reads to its end\"; i=$((i+1)); done",
    ))
    .expect("passes");

    assert!(ran.output.len() <= output::MAX_OUTPUT);
    assert!(
        ran.output.starts_with("line ")
            && ran
                .output
                .ends_with("line 2999 of a long story that nobody reads to its end")
    );
    let endless = fails(&command(&["yes"], Duration::from_millis(300)));

    assert!(matches!(endless.what, FailureCause::TimedOut(_)) && endless.output.len() <= 2048);
}

fn health(script: &str, deadline: Duration) -> Health {
    Health {
        command: shell(script),
        interval: Duration::from_millis(20),
        deadline,
    }
}

#[test]
fn health_is_tried_until_it_is_there() {
    let dir = tempfile::tempdir().expect("temp");
    let count = dir.path().join("count").display().to_string();
    let script = format!("echo x >> {count}; [ $(wc -l < {count}) -ge 3 ]");
    let ran = health(&script, LONG)
        .check(&context(), &AtomicBool::new(false))
        .expect("becomes healthy");
    assert_eq!(ran.tries, 3);
}

#[test]
fn health_that_does_not_come_fails_with_the_last_try() {
    let deadline = Duration::from_millis(300);
    let failure = health("echo sick; exit 22", deadline).check(&context(), &AtomicBool::new(false));
    let failure = failure.expect_err("never healthy");
    assert_eq!(
        (failure.phase, &failure.what),
        (Phase::Health, &FailureCause::Exited(22))
    );

    assert!(failure.tries >= 1);
    assert!(
        failure
            .to_string()
            .starts_with("health check /bin/sh -c 'echo sick; exit 22' failed: exit status 22")
    );

    assert!(failure.to_string().ends_with("\n  sick"));
    let hangs = health("sleep 1000", deadline).check(&context(), &AtomicBool::new(false));
    assert!(
        matches!(hangs.expect_err("hangs").what, FailureCause::TimedOut(limit) if limit <= deadline)
    );

    // The last attempt hangs until the deadline.
    let dir = tempfile::tempdir().expect("temp");
    let tried = dir.path().join("tried").display().to_string();
    let script = format!("[ -e {tried} ] && sleep 1000; touch {tried}; echo sick; exit 22");

    // Long enough for the first attempt on a busy machine.
    let deadline = Duration::from_secs(2);
    let failure = health(&script, deadline)
        .check(&context(), &AtomicBool::new(false))
        .expect_err("never healthy");

    assert_eq!(
        (&failure.what, failure.tries),
        (&FailureCause::Exited(22), 2)
    );
}

#[test]
fn health_is_not_tried_again_when_there_is_no_program_or_the_daemon_ends() {
    let mut missing = health("", LONG);
    missing.command = command(&["/nowhere/x"], LONG);
    assert_eq!(
        missing
            .check(&context(), &AtomicBool::new(false))
            .expect_err("missing")
            .tries,
        1
    );
    let stopped = health("exit 1", LONG)
        .check(&context(), &AtomicBool::new(true))
        .expect_err("ends");

    assert_eq!((stopped.what, stopped.tries), (FailureCause::Stopped, 1));
}

#[test]
fn tries_are_told_when_there_were_several() {
    let ran = RunRecord {
        output: String::new(),
        took: Duration::from_millis(30_040),
        tries: 4,
    };

    let curl = command(&["/usr/bin/curl", "-fsS", "http://127.0.0.1/health"], LONG);
    assert_eq!(
        Failure::new(Phase::Health, &curl, FailureCause::Exited(22), &ran).to_string(),
        "health check /usr/bin/curl -fsS http://127.0.0.1/health \
         failed: exit status 22 (4 tries in 30 s)"
    );
    assert_eq!(seconds(Duration::from_millis(1250)), "1.3 s");

    assert_eq!(seconds(Duration::from_millis(50)), "50 ms");
}

proptest::proptest! {
    #[test]
    fn any_words_are_shown_on_one_safe_line(words in proptest::collection::vec(".{0,80}", 1..6)) {
        if let Ok(command) = Command::new(words.iter().map(OsString::from).collect(), LONG) {
            let shown = command.to_string();
            proptest::prop_assert!(!shown.contains(char::is_control));
            proptest::prop_assert!(shown.chars().count() <= MAX_COMMAND_CHARS + 3);
        }
    }
}

#[test]
fn a_senders_command_reads_its_input_and_says_why_it_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("read");
    let path = file.to_str().expect("UTF-8");
    let keeps = command(&["/bin/sh", "-c", "cat > \"$0\"", path], LONG);
    assert_eq!(keeps.run_with(b"{\"a\":1}\n"), Ok(()));
    assert_eq!(std::fs::read(&file).expect("written"), b"{\"a\":1}\n");

    let reads_nothing = shell("exit 0");
    assert_eq!(reads_nothing.run_with(&vec![b'x'; 1 << 20]), Ok(()));

    let why = shell("echo no way >&2; exit 3")
        .run_with(b"")
        .expect_err("fails");
    assert!(why.ends_with("failed: exit status 3: no way"), "{why}");
    let slow = command(&["/bin/sleep", "1000"], Duration::from_millis(50));
    let why = slow.run_with(b"").expect_err("is too slow");
    assert!(why.contains("timed out after 50 ms"), "{why}");
    let none = command(&["makuo-has-no-such-program"], LONG);
    assert!(
        none.run_with(b"")
            .is_err_and(|why| why.contains("no such program"))
    );
}
