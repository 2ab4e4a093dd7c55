//! Stores whose interface has conditions, and that do not keep them.

use super::*;

#[test]
fn a_server_that_ignores_conditions_is_a_store_without_them() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    between.throw(1, 100, vec![Mishap::Unconditional]);
    let one = bucket(between.address(), &keys());
    let direct = bucket(moto.address(), &keys());
    stored(put(&direct, HEAD, b"theirs", PutCondition::Any));
    let absent = put(&one, HEAD, b"mine", PutCondition::Absent);
    assert_eq!(absent, PutReply::NoConditions);
    let old = Etag::new("\"00000000000000000000000000000000\"").expect("legal");
    let unchanged = put(&one, HEAD, b"mine", PutCondition::Unchanged(old));
    assert_eq!(unchanged, PutReply::NoConditions);
    assert_eq!(get(&direct, whole(HEAD)).bytes(), b"theirs");

    between.passed();
    let again = put(&one, HEAD, b"mine", PutCondition::Absent);
    assert_eq!(again, PutReply::NoConditions);
    assert!(between.passed().is_empty(), "it is known by now");
    stored(put(&one, HEAD, b"mine", PutCondition::Any));
}

#[test]
fn a_server_that_keeps_conditions_is_asked_once() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let store = bucket(between.address(), &keys());
    let first = stored(put(&store, HEAD, b"1", PutCondition::Absent));
    let mut unchanged = PutCondition::Unchanged(first.expect("a tag"));
    let second = stored(put(&store, HEAD, b"2", unchanged));
    between.passed();
    unchanged = PutCondition::Unchanged(second.expect("a tag"));
    stored(put(&store, HEAD, b"3", unchanged));
    assert_eq!(between.passed().len(), 1);
}

#[test]
fn another_process_knows_what_the_first_one_found() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let home = tempfile::tempdir().expect("a directory");
    let mut settings = keys();
    let path = home.path().display().to_string();
    settings.environment.insert("HOME".into(), path);
    let asked = |object: &str| {
        let store = bucket(between.address(), &settings);
        stored(put(&store, object, b"1", PutCondition::Absent));
        between.passed().len()
    };
    assert!(asked("trees/a/head") > 1);
    assert_eq!(asked("trees/b/head"), 1);

    between.throw(1, 100, vec![Mishap::Unconditional]);
    let other = tempfile::tempdir().expect("a directory");
    let path = other.path().display().to_string();
    settings.environment.insert("HOME".into(), path);
    for _ in 0..2 {
        let store = bucket(between.address(), &settings);
        let reply = put(&store, "trees/c/head", b"1", PutCondition::Absent);
        assert_eq!(
            reply,
            PutReply::NoConditions,
            "only what it keeps is remembered"
        );
    }
}
