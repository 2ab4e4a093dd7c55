//! Tests of the choice of an interface.

use super::*;
use crate::net::testing::interface;

fn some() -> Vec<Interface> {
    vec![
        interface("lo", 1, &["127.0.0.1", "::1"]),
        interface("eth0", 2, &["10.0.0.1", "10.0.0.2", "fe80::1", "fd00::1"]),
        interface("eth1", 3, &["10.1.0.1"]),
        Interface {
            up: false,
            ..interface("eth2", 4, &[])
        },
        Interface {
            multicast: false,
            ..interface("wg0", 5, &["10.2.0.1"])
        },
    ]
}

fn picked(want: Option<&str>, default: Option<&str>, family: Family) -> Result<Interface> {
    pick(some(), want, default, family)
}

#[test]
fn an_interface_is_chosen_by_name_or_by_any_of_its_addresses() {
    assert_eq!(
        picked(Some("eth1"), Some("eth0"), Family::V4)
            .unwrap()
            .index,
        3
    );

    let second = picked(Some("10.0.0.2"), None, Family::V4).unwrap();
    assert_eq!(
        (second.index, second.v4),
        (2, Some("10.0.0.2".parse().unwrap()))
    );
    let eth0 = picked(Some("eth0"), None, Family::V6).unwrap();

    assert_eq!(
        eth0.v6,
        Some("fd00::1".parse().unwrap()),
        "an address that reaches further comes first"
    );
}

#[test]
fn without_a_wish_the_default_route_decides_then_the_first_that_can() {
    assert_eq!(picked(None, Some("eth1"), Family::V4).unwrap().name, "eth1");
    assert_eq!(picked(None, None, Family::V4).unwrap().name, "eth0");
    assert_eq!(picked(None, Some("wg0"), Family::V4).unwrap().name, "eth0");
    assert_eq!(picked(None, Some("eth1"), Family::V6).unwrap().name, "eth0");
    let lonely = vec![interface("lo", 1, &["127.0.0.1"])];
    assert_eq!(
        pick(lonely.clone(), None, None, Family::V4).unwrap().name,
        "lo"
    );
    assert!(pick(lonely, None, None, Family::V6).is_err());
    let lonely = vec![interface("lo", 1, &["127.0.0.1", "::1"])];

    assert!(
        pick(lonely, None, None, Family::V6).is_err(),
        "loopback carries no IPv6 multicast"
    );
}

#[test]
fn a_refused_choice_says_why_and_what_there_is() {
    let cases = [
        (
            "nope",
            Family::V4,
            "no network interface is named nope",
            "eth0 (10.0.0.1, ",
        ),
        (
            "192.0.2.77",
            Family::V4,
            "has the address 192.0.2.77",
            "eth1 (10.1.0.1; MTU 1500)",
        ),
        ("eth2", Family::V4, "is down", "ip link set dev eth2 up"),
        ("eth1", Family::V6, "has no IPv6 address", "there are: "),
        ("lo", Family::V6, "carries no IPv6 multicast", "224.0.0.108"),
        ("wg0", Family::V4, "cannot multicast", "multicast on"),
        ("a\x1bb", Family::V4, "a\\u{1b}b", "there are: "),
    ];

    for (want, family, message, hint) in cases {
        let error = picked(Some(want), None, family).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(
            error.hint_text().unwrap().contains(hint),
            "{:?}",
            error.hint_text()
        );
        assert_eq!(error.kind(), Kind::Usage);
    }
}

#[test]
fn the_default_route_with_the_lowest_metric_wins() {
    let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\
        MTU\tWindow\tIRTT\n\
        wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        eth2\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\nbroken\n";
    assert_eq!(parse_route_v4(v4).as_deref(), Some("eth0"));
    let zero = "0".repeat(32);
    let v6 = format!(
        "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
         {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000003 00000000 \
         00450003 eth0\n"
    );
    assert_eq!(parse_route_v6(&v6).as_deref(), Some("eth0"));

    assert_eq!(parse_route_v4(""), None);
}

#[test]
fn the_machine_itself_lists_a_loopback() {
    let all = list().unwrap();
    match all.iter().find(|i| i.loopback) {
        Some(lo) => assert!(lo.index > 0 && lo.mtu > 0 && lo.describe().contains(&lo.name)),
        None => crate::skip::skipped("this machine has no loopback interface"),
    }
}
