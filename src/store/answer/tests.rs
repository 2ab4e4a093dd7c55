//! Tests of the check of answers, with hostile headers among them.

use super::*;
use reqwest::header::HeaderValue;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    map
}

fn part(status: u16, lines: &[(&str, &str)]) -> Result<AnswerContent, AnswerFault> {
    let status = StatusCode::from_u16(status).expect("a status");
    check(&WantedBytes::Part(10..20), status, &headers(lines))
}

fn whole(status: u16, lines: &[(&str, &str)]) -> Result<AnswerContent, AnswerFault> {
    let status = StatusCode::from_u16(status).expect("a status");
    check(
        &WantedBytes::Whole { at_most: 100 },
        status,
        &headers(lines),
    )
}

#[test]
fn a_part_has_its_range() {
    let found = part(
        206,
        &[("content-range", "bytes 10-19/50"), ("etag", "\"a\"")],
    );
    let delivery = AnswerContent {
        skip: 0,
        length: Some(10),
        size: Some(50),
        etag: Some("\"a\"".into()),
        is_young: false,
        generation: None,
    };
    assert_eq!(found, Ok(delivery));
    assert!(part(206, &[("content-range", "bytes 10-19/*")]).is_ok());
}

#[test]
fn a_wrong_range_is_refused() {
    for value in [
        "bytes 0-9/50",
        "bytes 10-18/50",
        "bytes 10-20/50",
        "bytes 10-19/15",
        "bytes 19-10/50",
        "bytes 10-18446744073709551615/50",
        "bytes +10-19/50",
        "bytes 10-19",
        "10-19/50",
        "bytes */50",
        "",
    ] {
        assert!(part(206, &[("content-range", value)]).is_err(), "{value}");
    }

    assert_eq!(part(206, &[]), Err(AnswerFault::Header("Content-Range")));
    let twice = [
        ("content-range", "bytes 10-19/50"),
        ("content-range", "bytes 0-9/50"),
    ];
    assert!(part(206, &twice).is_err());
    let lines = [
        ("content-range", "bytes 10-19/50"),
        ("content-length", "11"),
    ];
    assert_eq!(
        part(206, &lines),
        Err(AnswerFault::Header("Content-Length"))
    );
}

#[test]
fn an_object_that_ends_early_is_named() {
    assert_eq!(
        part(206, &[("content-range", "bytes 10-14/15")]),
        Err(AnswerFault::TooShort(15))
    );
    assert_eq!(
        part(416, &[("content-range", "bytes */7")]),
        Err(AnswerFault::TooShort(7))
    );
    assert_eq!(part(416, &[]), Err(AnswerFault::Status(416)));
}

#[test]
fn a_whole_file_is_cut_only_if_it_is_small() {
    let found = part(200, &[("content-length", "50")]).expect("small");
    assert_eq!((found.skip, found.length), (10, Some(10)));
    let large = (MAX_CUT_BYTES + 1).to_string();
    assert_eq!(
        part(200, &[("content-length", &large)]),
        Err(AnswerFault::NoRanges)
    );
    assert_eq!(part(200, &[]), Err(AnswerFault::NoRanges));
    assert_eq!(
        part(200, &[("content-length", "19")]),
        Err(AnswerFault::TooShort(19))
    );
}

#[test]
fn a_whole_object_stays_below_its_limit() {
    assert_eq!(
        whole(200, &[("content-length", "101")]),
        Err(AnswerFault::TooLarge(101, 100))
    );
    assert!(whole(200, &[("content-length", "100")]).is_ok());
    assert!(whole(200, &[]).is_ok(), "the reader counts");
    assert_eq!(whole(206, &[]), Err(AnswerFault::Status(206)));
    assert!(whole(200, &[("content-length", "-1")]).is_err());
}

#[test]
fn the_first_part_of_a_range_is_taken_if_it_is_worth_a_request() {
    let answer = |first: u64, last: u64| {
        let range = format!("bytes {first}-{last}/900000");
        let lines = headers(&[("content-range", &range)]);
        check(
            &WantedBytes::Part(5..500_000),
            StatusCode::PARTIAL_CONTENT,
            &lines,
        )
    };
    let found = answer(5, 100_000).map(|delivery| delivery.length);
    assert_eq!(found, Ok(Some(99_996)));
    for (first, last) in [(5, 1000), (6, 100_000), (5, 500_000)] {
        let found = answer(first, last);
        assert!(
            matches!(found, Err(AnswerFault::OtherRange(..))),
            "{found:?}"
        );
    }
}

#[test]
fn a_compressed_body_is_refused() {
    let gzip = [("content-length", "50"), ("content-encoding", "gzip")];
    assert_eq!(whole(200, &gzip), Err(AnswerFault::Encoded("gzip".into())));
    let odd = [
        ("content-length", "50"),
        ("content-encoding", "aws-chunked"),
    ];
    assert!(whole(200, &odd).is_ok());
}

#[test]
fn the_rest_of_a_range_begins_at_the_next_byte() {
    assert_eq!(
        WantedBytes::Part(10..20).rest(3, 10),
        WantedBytes::Part(13..20)
    );
    let whole = WantedBytes::Whole { at_most: 100 };
    assert_eq!(whole.rest(3, 50), WantedBytes::Part(3..50));
}

proptest::proptest! {
    #[test]
    fn no_header_makes_bytes_outside_of_the_range(
        start in 0u64..100, many in 1u64..100, status in 100u16..600,
        length in proptest::option::of("[0-9]{1,21}|[ -~]{0,8}"),
        range in proptest::option::of(
            "bytes [0-9]{1,3}-[0-9]{1,3}/([0-9]{1,3}|\\*)|[ -~]{0,24}"),
    ) {
        let mut lines = Vec::new();
        lines.extend(length.as_deref().map(|value| ("content-length", value)));
        lines.extend(range.as_deref().map(|value| ("content-range", value)));
        let status = StatusCode::from_u16(status).expect("a status");
        let found = check(&WantedBytes::Part(start..start + many), status, &headers(&lines));
        if let Ok(found) = found {
            proptest::prop_assert_eq!(found.length, Some(many));
            proptest::prop_assert!(found.skip == 0 || found.skip == start);
            proptest::prop_assert!(found.size.is_none_or(|size| size >= start + many));
        }
    }
}
