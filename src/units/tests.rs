//! Quantities are read and shown in the notation of people.

use super::*;

#[test]
fn sizes_and_rates_read_as_written() {
    assert_eq!("64KiB".parse(), Ok(ByteSize(65536)));
    assert_eq!("1.5MB".parse(), Ok(ByteSize(1_500_000)));
    assert_eq!("500Mbit".parse(), Ok(Rate(500_000_000)));
    assert_eq!("60MB".parse(), Ok(Rate(480_000_000)));
    assert!("60".parse::<Rate>().is_err());
    assert!("0Mbit".parse::<Rate>().is_err());
    assert!("1e3MB".parse::<ByteSize>().is_err());
}

#[test]
fn limits_round_down_and_quorums_up() {
    assert_eq!("10%".parse::<Limit>().map(|l| l.of(15)), Ok(1));
    assert_eq!("7".parse::<Limit>().map(|l| l.of(100)), Ok(7));
    assert_eq!("80%".parse::<Quorum>().map(|q| q.of(4)), Ok(4));
    assert_eq!("50%".parse::<Quorum>().map(|q| q.of(5)), Ok(3));
    assert_eq!("all".parse::<Quorum>().map(|q| q.of(5)), Ok(5));
    assert_eq!("25%".parse(), Ok(Floor::default()));
    assert_eq!("20Mbit".parse(), Ok(Floor::Rate(Rate(20_000_000))));

    for bad in ["", "none", "-1", "0", "101%", "0%"] {
        assert!(bad == "0%" || bad.parse::<Floor>().is_err(), "{bad:?}");
        assert!(bad.parse::<Quorum>().is_err(), "{bad:?}");
    }
}

#[test]
fn durations_read_as_written() {
    assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
    assert!(parse_duration("soon").is_err());
}

#[test]
fn quantities_show_three_digits() {
    assert_eq!(ByteSize(999).to_string(), "999 B");
    assert_eq!(ByteSize(1_250_000).to_string(), "1.25 MB");
    assert_eq!(ByteSize(999_999).to_string(), "1.00 MB");
    assert_eq!(Rate(487_000_000).to_string(), "487 Mbit/s");
}

#[test]
fn printable_never_lets_a_terminal_command_through() {
    assert_eq!(printable(b"a\x1b[2Jb\n\xff\\"), "a\\u{1b}[2Jb\\n\\xff\\\\");
    assert_eq!(printable("grün".as_bytes()), "grün");
    for mark in [
        '\u{61c}', '\u{200e}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{2029}', '\u{85}',
    ] {
        let shown = printable(format!("a{mark}b").as_bytes());
        assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(mark)));
    }

    assert_eq!(one_line("no\n2026 ERROR root"), "no\\n2026 ERROR root");
}

#[test]
fn a_rate_and_its_time_agree() {
    let rate = Rate(8_000_000);
    assert_eq!(rate.time_for(1_000_000), Duration::from_secs(1));
    assert_eq!(rate.bytes_in(Duration::from_secs(2)), 2_000_000);
}
