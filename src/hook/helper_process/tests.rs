//! Tests of the helper process.

use std::ffi::OsString;

use super::super::tests::context as test_context;
use super::*;

/// Runs the helper as a thread of this process.
fn beside(hooks: &Hooks) -> (HelperProcess, std::thread::JoinHandle<io::Result<()>>) {
    let (mine, its) = UnixStream::pair().expect("a pair");
    let thread = std::thread::spawn(move || serve(&its, reread));
    let begin = Begin {
        hooks: WireHooks::from(hooks),
        source: HookSource::new(Path::new("/etc/makuo/makuo.toml"), "www"),
    };
    HOOK_FRAMES.write(&mine, &begin).expect("it listens");
    (HelperProcess(Arc::new(Mutex::new(mine))), thread)
}

/// The commands of a reload: named by the source.
fn reread(source: &HookSource) -> crate::Result<Hooks> {
    let (file, tree) = source.parts();
    Ok(Hooks {
        before: Some(sh(&format!("echo {} {tree}; exit 4", file.display()))),
        ..Hooks::default()
    })
}

#[test]
fn commands_are_read_again_by_the_process_itself() {
    let hooks = Hooks {
        after: Some(sh("true")),
        ..Hooks::default()
    };
    let (helper, thread) = beside(&hooks);
    let now = helper.reload().expect("it answers");
    assert!(now.after.is_none(), "the old commands are gone");

    let never = AtomicBool::new(false);
    let context = test_context();
    let ran = now
        .run(Phase::Before, &context, &never)
        .expect("there is one");
    let failure = ran.expect_err("exits with 4");
    assert_eq!(failure.output.trim(), "/etc/makuo/makuo.toml www");
    drop((now, helper));
    thread.join().expect("no defect").expect("a good end");
}

fn sh(script: &str) -> Command {
    let argv = ["/bin/sh", "-c", script].map(OsString::from).into();
    Command::new(argv, Duration::from_secs(20)).expect("legal")
}

#[test]
fn what_runs_there_ends_as_here() {
    let mut hooks = Hooks {
        before: Some(sh("echo $MAKUO_TREE; exit 3")),
        after: Some(sh("true")),
        ..Hooks::default()
    };

    let (helper, thread) = beside(&hooks);
    hooks.helper = Some(helper);
    let context = test_context();
    let never = AtomicBool::new(false);
    for _ in 0..2 {
        let failure = hooks
            .run(Phase::Before, &context, &never)
            .expect("there is one")
            .expect_err("exits with 3");
        assert_eq!(
            (failure.what, failure.output.trim()),
            (FailureCause::Exited(3), context.tree.as_str())
        );
        assert!(
            hooks
                .run(Phase::After, &context, &never)
                .expect("there is one")
                .is_ok()
        );
    }

    assert!(hooks.run(Phase::Health, &context, &never).is_none());
    drop(hooks);
    thread.join().expect("no defect").expect("a good end");
}

#[test]
fn the_end_of_the_daemon_ends_what_runs() {
    let mut hooks = Hooks {
        before: Some(sh("sleep 60")),
        ..Hooks::default()
    };

    let (helper, thread) = beside(&hooks);
    hooks.helper = Some(helper);
    let ending = AtomicBool::new(true);
    let failure = hooks
        .run(Phase::Before, &test_context(), &ending)
        .expect("there is one")
        .expect_err("stopped");

    assert_eq!(failure.what, FailureCause::Stopped);
    // The helper keeps running for the next command.
    let failure = hooks
        .run(Phase::Before, &test_context(), &ending)
        .expect("there is one")
        .expect_err("stopped");

    assert_eq!(failure.what, FailureCause::Stopped);
    drop(hooks);
    thread.join().expect("no defect").expect("a good end");
}

#[test]
fn a_process_that_is_gone_is_a_failure() {
    let mut hooks = Hooks {
        before: Some(sh("true")),
        ..Hooks::default()
    };

    let (mine, its) = UnixStream::pair().expect("a pair");
    drop(its);
    hooks.helper = Some(HelperProcess(Arc::new(Mutex::new(mine))));
    let never = AtomicBool::new(false);
    let failure = hooks
        .run(Phase::Before, &test_context(), &never)
        .expect("there is one")
        .expect_err("gone");

    assert!(
        matches!(failure.what, FailureCause::NotStarted(_)),
        "{failure}"
    );
}
