//! Tests of the places of repositories: every form, and the errors of wrong ones.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<StoreUrl> {
    StoreUrl::parse(text, Path::new("/home/me"))
}

#[track_caller]
fn shown(text: &str) -> String {
    parse(text).expect("valid").to_string()
}

#[track_caller]
fn message(text: &str) -> String {
    parse(text).expect_err("wrong").with_hint()
}

#[test]
fn every_form_is_understood() {
    for (text, meant) in [
        ("s3://fleet", "s3://fleet"),
        ("s3://fleet/", "s3://fleet"),
        ("S3://fleet/a/b/", "s3://fleet/a/b"),
        ("gs://fleet/a", "gs://fleet/a"),
        ("az://fleet/a", "az://fleet/a"),
        ("https://host/fleet/", "https://host/fleet"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("file:///srv/repo", "/srv/repo"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("file://localhost/srv", "/srv"),
        ("/srv/repo", "/srv/repo"),
        ("./repo", "/home/me/repo"),
        (".", "/home/me"),
        ("/srv/./repo/.", "/srv/repo"),
        ("file:///srv/./a", "/srv/a"),
        ("../repo", "/home/me/../repo"),
    ] {
        assert_eq!(shown(text), meant, "{text}");
    }
}

#[test]
fn settings_of_a_bucket_are_read() {
    let text = "s3://b/p?endpoint=http%3A%2F%2F127.0.0.1:9000&region=garage&profile=x";
    let StoreUrl::Bucket(url) = parse(text).expect("valid") else {
        panic!("no bucket");
    };

    assert_eq!(url.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(url.region.as_deref(), Some("garage"));
    assert_eq!(url.profile.as_deref(), Some("x"));
    assert_eq!(url.prefix, "p");
}

#[test]
fn passwords_are_used_and_not_shown() {
    let StoreUrl::Web(web) = parse("https://me:p%40ss@host/x").expect("valid") else {
        panic!("no web server");
    };
    assert_eq!(web.login, Some(("me".into(), "p@ss".into())));
    assert_eq!(web.base, "https://host/x");
    assert!(!format!("{web:?}").contains("p@ss"));
    assert!(!format!("{web:?}").contains("me"), "a token can be a user");

    for text in [
        "https://me:secret@host/x?y",
        "ftp://me:secret@host",
        "https://me:secret@",
        "https://me:%zz@host",
    ] {
        assert!(!message(text).contains("secret"), "{text}");
    }
}

/// Text that nobody may see.
const SECRET: &str = "hunter2";

/// A password with [`SECRET`] in it, and signs before and behind it that end other parts of a URL.
fn password() -> impl Strategy<Value = String> {
    let signs = "[a-z0-9/?#@: %=&.\\\\\\[\\]-]{0,4}";
    (signs, signs).prop_map(|(before, behind)| format!("{before}{SECRET}{behind}"))
}

proptest! {
    #[test]
    fn a_password_is_never_shown_however_wrong_the_url_is(
        scheme in prop::sample::select(vec![
            "https://", "http://", "https:/", "https:", "https:///", "HTTPS://", "s3://", "gs://",
            "az://", "file://", "ftp://", "//", "", "./https://",
        ]),
        user in "[a-z]{0,3}[:/]?",
        password in password(),
        rest in "@[a-z0-9:\\[\\]%?#]{0,6}(/[a-z?#=%. ]{0,8})?",
    ) {
        never_shown(&format!("{scheme}{user}{password}{rest}"), scheme);
    }

    #[test]
    fn a_query_is_never_shown(
        scheme in prop::sample::select(vec!["https://", "s3://", "gs://", "az://", "ftp://"]),
        name in prop::sample::select(vec![
            "sig=", "endpoint=", "endpoint=https://me:", "endpoint=http://x/?", "region=%zz",
            "colour=", "", "=", "account=%",
        ]),
        behind in "[a-z@/&%=]{0,5}",
    ) {
        let text = format!("{scheme}host/path?{name}{SECRET}{behind}");
        if let Err(error) = parse(&text) {
            let shown = format!("{} {error:?}", error.with_hint());
            prop_assert!(!shown.contains(SECRET), "{text}: {shown}");
        }
    }
}

fn never_shown(text: &str, scheme: &str) {
    let shown = match parse(text) {
        Err(error) => format!("{} {error:?}", error.with_hint()),
        // Such a text is a path, and nothing else was meant.
        Ok(StoreUrl::Directory(_)) if scheme.starts_with(['/', '.']) => return,
        Ok(StoreUrl::Directory(_)) if scheme.is_empty() || scheme == "file://" => return,
        Ok(url) => format!("{url} {url:?}"),
    };
    assert!(!shown.contains(SECRET), "{text}: {shown}");
}

#[test]
fn a_password_with_other_signs_is_hidden_too() {
    for (text, shown) in [
        ("https://ci:pa/ss@host/x", "https://***@host/x"),
        ("https://ci:12/34@host/x", "https://***@host/x"),
        ("https://ci:pass word@host/x", "https://***@host/x"),
        ("https:/ci:secret@host/x", "https:/***@host/x"),
        ("https://host/x?sig=abc", "https://host/x?***"),
    ] {
        let message = message(text);
        assert!(
            message.contains(&format!("{shown} is no place")),
            "{message}"
        );
    }
}

#[test]
fn errors_name_the_wrong_part() {
    for (text, part) in [
        ("", "empty"),
        ("repo", "./repo"),
        ("ftp://host/x", "there is no ftp://"),
        ("s3://", "name of a bucket"),
        ("s3:///x", "name of a bucket"),
        ("s3://b/a//b", "empty part"),
        ("s3://b/../c", "empty part"),
        ("s3://b?colour=red", "\"colour\""),
        ("s3://b?region=", "?region="),
        ("s3://b?endpoint=host", "https://"),
        ("gs://b?region=x", "known are none"),
        ("https://", "no host"),
        ("https://host:http/x", "port"),
        ("https://host/x?y=1", "neither ? nor #"),
        ("https://[::g]/", "host is not valid"),
        ("file://srv/repo", "file:///srv/repo"),
        ("file:///%zz", "escapes"),
    ] {
        let message = message(text);
        assert!(message.contains(part), "{text}: {message}");
        assert!(message.contains('/'), "{text}: no form in {message}");
    }
}
