//! Tests of the coordinator.

use super::*;

const PACE: Pace = Pace {
    settle: Duration::ZERO,
    max_delay: Duration::from_secs(5),
};

fn coordinator() -> Coordinator {
    Coordinator::new(PACE).expect("an event descriptor")
}

fn dirty(coordinator: &Coordinator) {
    let now = coordinator.now();
    let path = TreePath::new(b"a".as_slice()).expect("legal");
    coordinator.change(|state| state.batcher.touched(now, &path));
}

#[test]
fn what_is_asked_comes_before_what_was_gathered() {
    let coordinator = coordinator();
    dirty(&coordinator);
    coordinator.reload();
    assert!(matches!(coordinator.wait(&Until::default()), Wake::Reload));
    assert!(matches!(
        coordinator.wait(&Until::default()),
        Wake::Batch(ChangeBatch::Paths(_))
    ));
    dirty(&coordinator);
    coordinator.stop();
    assert!(matches!(coordinator.wait(&Until::default()), Wake::Stop));
    coordinator.end(Error::refused("gone"));

    assert!(matches!(
        coordinator.wait(&Until::default()),
        Wake::Ended(_)
    ));
}

#[test]
fn an_attempt_is_due_before_a_batch_and_quiet_comes_last() {
    let coordinator = coordinator();
    dirty(&coordinator);
    let now = Some(coordinator.now());
    let until = Until {
        attempt: now,
        quiet: now,
        ..Until::default()
    };

    assert!(matches!(coordinator.wait(&until), Wake::Attempt));
    let until = Until {
        attempt: None,
        ..until
    };

    assert!(matches!(coordinator.wait(&until), Wake::Batch(_)));
    assert!(matches!(coordinator.wait(&until), Wake::Quiet));
}

#[test]
fn a_pause_holds_what_was_gathered() {
    let coordinator = coordinator();
    dirty(&coordinator);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let until = Until {
        pause: Some(file.path().into()),
        ..Until::default()
    };
    assert!(matches!(coordinator.wait(&until), Wake::Held));
    let until = Until {
        is_held: true,
        ..until
    };

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| coordinator.wait(&until));
        coordinator.reload();
        assert!(matches!(waiting.join().expect("ends"), Wake::Reload));
    });
    drop(file);

    assert!(matches!(coordinator.wait(&until), Wake::Batch(_)));
}

#[test]
fn a_pause_with_nothing_to_hold_is_not_told() {
    let coordinator = coordinator();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let until = Until {
        checks: true,
        pause: Some(file.path().into()),
        ..Until::default()
    };

    // A full check is due, and no change.
    let later = coordinator.now() + Duration::from_secs(700);
    let step = coordinator.state().next(&until, later);
    assert!(matches!(step, WaitStep::Sleep(Some(_))));

    dirty(&coordinator);
    let step = coordinator.state().next(&until, later);
    assert!(matches!(step, WaitStep::Act(Wake::Held)));
}

#[test]
fn the_second_word_to_stop_ends_what_is_under_way() {
    let coordinator = coordinator();
    let running = Interrupt::default();
    coordinator.set_running(Some(running.clone()));
    coordinator.stop();
    assert!(!running.is_asked());
    coordinator.stop();
    assert!(running.is_asked());
}
