//! Each kind of store behaves alike: nginx, an S3 server, Google's interface, a directory.

use super::*;

/// Everything that each store can do.
pub(super) fn behaves(store: &Store) {
    let bytes = Noise::new(7).bytes(3 << 20);
    assert_eq!(get(store, whole(HEAD)), Got::Missing);
    assert_eq!(get(store, part(PACK, 5..10)), Got::Missing);
    stored(put(store, PACK, &bytes, PutCondition::Any));
    stored(put(store, PACK, &bytes, PutCondition::Any));
    stored(put(store, HEAD, b"one", PutCondition::Any));
    stored(put(store, "empty", b"", PutCondition::Any));

    assert!(get(store, whole(PACK)).bytes() == bytes);
    assert_eq!(get(store, whole("empty")).bytes(), b"");
    let last = bytes.len() as u64;
    for range in [0..1, 0..last, 1_000_000..1_500_000, last - 1..last] {
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(
            get(store, part(PACK, range.clone())).bytes() == wanted,
            "{range:?}"
        );
    }

    let beyond = get(store, part(PACK, last - 5..last + 5)).fault();
    assert_eq!(beyond.kind, FaultKind::TooShort, "{beyond}");
    assert!(beyond.text.contains("too short"), "{beyond}");
    let behind = get(store, part(PACK, last..last + 5)).fault();
    assert_eq!(behind.kind, FaultKind::TooShort, "{behind}");
    let mut large = whole(PACK);
    large.max = 1000;
    let large = get(store, large).fault();
    assert_eq!(large.kind, FaultKind::TooLarge, "{large}");

    let mut again = whole(HEAD);
    again.unless = Some(tag(store, HEAD));
    assert_eq!(get(store, again.clone()), Got::NotModified);
    stored(put(store, HEAD, b"two and more", PutCondition::Any));
    assert_eq!(get(store, again).bytes(), b"two and more");
    run(store.delete(&path("empty"))).expect("deleted");
    run(store.delete(&path("empty"))).expect("deleted twice");
    assert_eq!(get(store, whole("empty")), Got::Missing);
}

/// The tag of an object. One that has just changed on a web server has none.
fn tag(store: &Store, object: &str) -> Etag {
    let mut found = None;
    support::until("a tag", || {
        found = match get(store, whole(object)) {
            Got::Whole(_, etag) => etag,
            other => panic!("no object: {other:?}"),
        };
        found.is_some()
    });
    found.expect("found")
}

#[test]
fn a_file_that_changes_twice_in_a_second_is_seen_twice() {
    let Some(nginx) = nginx() else { return };
    let store = open(&format!("http://{}", nginx.http()), &options(&[]));
    for round in 10..40 {
        let text = format!("release {round}");
        write(&nginx.files().join(HEAD), &text);
        let Got::Whole(_, unless) = get(&store, whole(HEAD)) else {
            panic!("no head");
        };

        let later = text.replace("release", "RELEASE");
        write(&nginx.files().join(HEAD), &later);
        let again = Get {
            unless,
            ..whole(HEAD)
        };
        assert_eq!(get(&store, again).bytes(), later.as_bytes());
    }
}

/// The conditions of two publishers.
fn keeps_conditions(store: &Store) {
    let head = "trees/www/conditions/head";
    let first = put(store, head, b"1", PutCondition::Absent);
    let first = stored(first).expect("a tag");
    assert_eq!(
        put(store, head, b"other", PutCondition::Absent),
        PutReply::Conflict
    );
    assert_eq!(get(store, whole(head)).bytes(), b"1");

    let unchanged = PutCondition::Unchanged(first.clone());
    let second = stored(put(store, head, b"2", unchanged.clone())).expect("a tag");
    assert_ne!(first, second);
    assert_eq!(put(store, head, b"3", unchanged), PutReply::Conflict);
    assert_eq!(get(store, whole(head)).bytes(), b"2");
    assert_eq!(get(store, whole(head)).etag(), second);
    run(store.delete(&path(head))).expect("deleted");
    let unchanged = PutCondition::Unchanged(second);
    assert_eq!(put(store, head, b"4", unchanged), PutReply::Conflict);
}

#[test]
fn nginx_is_a_store() {
    let Some(nginx) = nginx() else { return };
    std::fs::create_dir(nginx.files().join("fleet")).expect("writable");
    let store = open(&format!("http://{}/fleet/", nginx.http()), &options(&[]));
    behaves(&store);
    assert!(nginx.files().join("fleet").join(PACK).exists());

    let absent = put(&store, HEAD, b"x", PutCondition::Absent);
    assert_eq!(absent, PutReply::NoConditions);
    let fault = listed(&store).expect_err("no list");
    assert!(fault.text.contains("cannot list"), "{fault}");

    let closed = open(&format!("http://{}/closed", nginx.http()), &options(&[]));
    let fault = get(&closed, whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Denied, "{fault}");
    let readonly = open(&format!("http://{}/readonly", nginx.http()), &options(&[]));
    let PutReply::Failed(fault) = put(&readonly, HEAD, b"x", PutCondition::Any) else {
        panic!("stored");
    };
    assert!(fault.text.contains("dav_methods"), "{fault}");
}

#[test]
fn an_s3_server_is_a_store() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let store = bucket(between.address(), &keys());
    behaves(&store);
    keeps_conditions(&store);
    let found = listed(&store).expect("a list");
    let objects: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(objects, ["makuo-repository", PACK, HEAD]);
    assert_eq!(found[PACK], 3 << 20);

    let passed = between.passed();
    let control = |object: &str| {
        let line = format!("PUT /{BUCKET}/site/{object} ");
        let one = passed.iter().find(|p| p.line.starts_with(&line));
        one.expect("stored").headers["cache-control"].clone()
    };
    assert_eq!(control(PACK), "public, max-age=31536000, immutable");
    assert_eq!(control(HEAD), "no-cache");
    for one in &passed {
        assert_eq!(one.headers["accept-encoding"], "identity", "{}", one.line);
    }
    // Reading takes nothing but GET on the object itself.
    get(&store, whole(HEAD));
    get(&store, part(PACK, 10..20));
    let lines: Vec<String> = between.passed().into_iter().map(|p| p.line).collect();
    let line = |object| format!("GET /{BUCKET}/site/{object} HTTP/1.1");
    assert_eq!(lines, [line(HEAD), line(PACK)]);
}

#[test]
fn a_directory_is_a_store_that_a_web_server_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().display());
    let store = open(&url, &options(&[]));
    behaves(&store);
    keeps_conditions(&store);
    let found = listed(&store).expect("a list");
    let objects: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(objects, [PACK, HEAD], "no temporary file is left");

    let mode = |path: &str| {
        let found = std::fs::metadata(dir.path().join(path)).expect("there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode("packs"), mode("packs/ab"), mode(PACK)),
        (0o755, 0o755, 0o644)
    );

    let gone = open(&format!("{}/gone", dir.path().display()), &options(&[]));
    let fault = get(&gone, whole(HEAD)).fault();
    assert!(fault.text.contains("mkdir"), "{fault}");
    let PutReply::Failed(fault) = put(&gone, HEAD, b"x", PutCondition::Any) else {
        panic!("stored on a disk that is not there");
    };
    assert!(fault.text.contains("mounted"), "{fault}");
    write(&dir.path().join("trees/.git/x"), "foreign");
    assert_eq!(listed(&store).expect("a list").len(), 2);

    let Some(nginx) = nginx() else { return };
    let files = format!("file://{}", nginx.files().display());
    stored(put(
        &open(&files, &options(&[])),
        PACK,
        b"pack",
        PutCondition::Any,
    ));
    let web = open(&format!("http://{}", nginx.http()), &options(&[]));
    assert_eq!(get(&web, whole(PACK)).bytes(), b"pack");
}

#[test]
fn two_publishers_to_a_directory_never_both_win() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().display().to_string(), &options(&[]));
    let rounds: Vec<usize> = (0..20)
        .map(|round| {
            let head = format!("trees/t{round}/head");
            let first = stored(put(&store, &head, b"0", PutCondition::Absent));
            let condition = PutCondition::Unchanged(first.expect("a tag"));
            let race = |name: u8| {
                let (store, head, condition) = (store.clone(), head.clone(), condition.clone());
                std::thread::spawn(move || put(&store, &head, &[name], condition))
            };
            let racers: Vec<_> = (1..5).map(race).collect();
            let won = racers
                .into_iter()
                .map(|racer| racer.join().expect("no panic"))
                .filter(|reply| matches!(reply, PutReply::Done { .. }));
            won.count()
        })
        .collect();
    assert_eq!(rounds, [1; 20]);
}

/// A bucket with Google's interface: states have numbers.
fn google() -> std::net::SocketAddr {
    let objects: Mutex<BTreeMap<String, (Vec<u8>, u64)>> = Mutex::default();
    serve_by(move |question| {
        let headers = support::http::named(&question.headers);
        let mut words = question.line.split(' ');
        let (method, path) = (
            words.next().expect("a method"),
            words.next().expect("a path"),
        );
        let mut objects = objects.lock().expect("whole");
        let number = objects.get(path).map_or(0, |(_, number)| *number);
        if method == "PUT" {
            let wanted = headers.get("x-goog-if-generation-match");
            if wanted.is_some_and(|wanted| *wanted != number.to_string()) {
                return Answer::failed(412, None, "PreconditionFailed");
            }
            objects.insert(path.to_string(), (question.body.clone(), number + 1));
        }

        let Some((bytes, number)) = objects.get(path) else {
            return Answer::failed(404, None, "NoSuchKey");
        };
        let (etag, number) = (format!("\"{number:x}-e\""), number.to_string());
        if method == "GET" && headers.get("if-none-match") == Some(&etag) {
            return Answer::new(304, &[], b"");
        }
        let state = [
            ("ETag", etag.as_str()),
            ("x-goog-generation", number.as_str()),
        ];
        match method {
            "GET" => Answer::new(200, &state, bytes),
            _ => Answer::new(200, &state, b""),
        }
    })
}

#[test]
fn conditions_hold_by_generations_where_the_store_has_those() {
    // An account without a key: nobody is asked for a token.
    let account = format!(
        "{{\"private_key\":\"\",\"private_key_id\":\"\",\"client_email\":\"\",\
         \"disable_oauth\":true,\"gcs_base_url\":\"http://{}\"}}",
        google()
    );
    let settings = options(&[("GOOGLE_SERVICE_ACCOUNT_KEY", &account)]);
    let store = open("gs://fleet/site", &settings);
    assert_eq!(get(&store, whole(HEAD)), Got::Missing);
    let first = stored(put(&store, HEAD, b"1", PutCondition::Absent)).expect("a tag");
    assert_eq!(
        put(&store, HEAD, b"2", PutCondition::Absent),
        PutReply::Conflict
    );
    let unchanged = PutCondition::Unchanged(first.clone());
    let second = stored(put(&store, HEAD, b"2", unchanged.clone())).expect("a tag");
    assert_eq!(put(&store, HEAD, b"3", unchanged), PutReply::Conflict);

    assert_eq!(
        get(&store, whole(HEAD)),
        Got::Whole(b"2".to_vec(), Some(second.clone()))
    );
    let mut again = whole(HEAD);
    again.unless = Some(second);
    assert_eq!(get(&store, again.clone()), Got::NotModified);
    again.unless = Some(first);
    assert_eq!(get(&store, again).bytes(), b"2");
}

#[test]
fn directories_of_a_web_server_cost_few_requests() {
    let Some(nginx) = nginx() else { return };
    let between = Middleman::start(nginx.http());
    let store = near(&between, &options(&[]));
    let methods = |object: &str, len: usize| {
        stored(put(&store, object, &vec![7; len], PutCondition::Any));
        let passed = between.passed();
        let method = |one: &Passed| one.line.split(' ').next().unwrap_or_default().to_string();
        passed.iter().map(method).collect::<Vec<_>>()
    };

    let first = methods("packs/ab/1.pack", 10);
    assert_eq!(first.last().map(String::as_str), Some("PUT"), "{first:?}");
    assert_eq!(methods("packs/ab/2.pack", 10), ["PUT"]);
    assert_eq!(methods("packs/cd/1.pack", 10), ["PUT", "MKCOL", "PUT"]);
    let large = methods("packs/ef/1.pack", 1 << 20);
    assert_eq!(large, ["MKCOL", "PUT"], "it is sent once");
}
