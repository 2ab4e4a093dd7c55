//! Tests of the helper process.

use super::super::tests::context as test_context;
use super::*;

/// Runs the helper as a thread of this process.
fn beside(hooks: &Hooks) -> (HelperProcess, std::thread::JoinHandle<io::Result<()>>) {
    let (mine, its) = UnixStream::pair().expect("a pair");
    let thread = std::thread::spawn(move || serve(&its));
    HOOK_FRAMES
        .write(&mine, &WireHooks::from(hooks))
        .expect("it listens");
    (HelperProcess(Arc::new(Mutex::new(mine))), thread)
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
