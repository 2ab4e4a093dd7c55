//! Redirects: a get follows a few, nothing else follows any, and a password stays where it is.

use super::*;

#[test]
fn redirects_are_followed_within_reason() {
    let Some((nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    let same = format!("http://{}/{PACK}", between.address());
    between.script([Mishap::Redirect(same.clone())]);
    assert!(get(&store, part(PACK, 5..50)).bytes() == bytes[5..50]);
    between.script(vec![Mishap::Redirect(same); 12]);
    let fault = get(&store, whole(PACK)).fault();
    assert!(fault.text.contains("redirects"), "{fault}");
    assert!(between.passed().len() < 10, "a circle ends");
    between.script([]);
    between.script([Mishap::Redirect(format!(
        "http://localhost:{}/x",
        nginx.http().port()
    ))]);
    let fault = get(&store, whole(PACK)).fault();
    assert!(fault.text.contains("redirects"), "{fault}");
}

#[test]
fn only_a_get_is_redirected() {
    let Some((nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    write(&nginx.files().join("login"), "who are you?");
    let store = near(&between, &options(&[]));
    let login = format!("http://{}/login", between.address());
    for status in [301, 302, 303, 307, 308] {
        between.script([Mishap::Moved(status, login.clone())]);
        let PutReply::Failed(fault) = put(&store, HEAD, b"x", PutCondition::Any) else {
            panic!("{status}: the answer of the login counts as stored");
        };
        assert_eq!(fault.kind, FaultKind::Permanent, "{status}: {fault}");
        assert!(fault.text.contains("/login"), "{status}: {fault}");
        assert_eq!(between.passed().len(), 1, "{status}: a put went on");

        between.script([Mishap::Moved(status, login.clone())]);
        let fault = run(store.delete(&path(PACK))).expect_err("it is there");
        assert!(fault.text.contains("/login"), "{status}: {fault}");
        between.script([Mishap::Moved(status, login.clone())]);
        let fault = listed(&store).expect_err("no list");
        assert!(fault.text.contains("/login"), "{status}: {fault}");
        assert_eq!(between.passed().len(), 2, "{status}");

        let there = format!("http://{}/{PACK}", between.address());
        between.script([Mishap::Moved(status, there)]);
        assert!(get(&store, whole("elsewhere")).bytes() == bytes, "{status}");
        between.passed();
    }
    assert!(!nginx.files().join(HEAD).exists());
    assert!(get(&store, whole(PACK)).bytes() == bytes);
}

/// A request that arrived: its host and port, and whether it had a password.
type Arrived = (String, bool);

#[test]
fn a_password_stays_with_its_host_and_port() {
    let (seed, rounds) = seed_and_rounds(120);
    let mut random = fastrand::Rng::with_seed(seed);
    let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
    let plan: Arc<Mutex<Vec<String>>> = Arc::default();
    let server = || {
        let (arrived, plan) = (Arc::clone(&arrived), Arc::clone(&plan));
        serve_by(move |question| {
            let headers = support::http::named(&question.headers);
            let has_password = headers.contains_key("authorization");
            let one = (headers["host"].clone(), has_password);
            arrived.lock().expect("whole").push(one);
            match plan.lock().expect("whole").pop() {
                Some(to) => Answer::redirect(&to),
                None => Answer::new(200, &[], b"head"),
            }
        })
    };
    let servers: Vec<_> = (0..3).map(|_| server()).collect();
    let names = ["127.0.0.1", "localhost", "[::1]"];

    let mut moved = 0;
    for _ in 0..rounds {
        let home = format!("127.0.0.1:{}", servers[0].port());
        let steps = random.usize(0..4);
        *plan.lock().expect("whole") = (0..steps)
            .map(|_| {
                let port = servers[random.usize(0..3)].port();
                let scheme = ["http", "http", "http", "https"][random.usize(0..4)];
                let name = names[random.usize(0..4).min(2).saturating_sub(random.usize(0..2))];
                format!("{scheme}://{name}:{port}/x")
            })
            .collect();

        let store = open(&format!("http://ci:hunter2@{home}/x"), &options(&[]));
        let _ = ends(get_later(&store.once(), whole(HEAD)));
        let arrived = std::mem::take(&mut *arrived.lock().expect("whole"));
        assert_eq!(arrived[0], (home.clone(), true), "MAKUO_STORE_SEED={seed}");
        for (host, has_password) in arrived {
            moved += usize::from(host != home);
            assert!(
                !has_password || host == home,
                "MAKUO_STORE_SEED={seed}: the password went to {host}"
            );
        }
    }
    assert!(
        moved > 0,
        "MAKUO_STORE_SEED={seed}: no redirect led elsewhere"
    );
}

#[test]
fn nothing_goes_on_without_encryption_that_began_with_it() {
    let Some((_nginx, port, trusting)) = encrypted() else {
        return;
    };
    let url = format!("https://ci:hunter2@localhost:{port}/away");
    let fault = get(&open(&url, &trusting), whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent, "{fault}");
    assert!(fault.text.contains("which is not followed"), "{fault}");
    assert!(!fault.text.contains("hunter2"), "{fault}");
}
