//! Heads: golden bytes, caps, trust.

use super::*;
use crate::keys::{FileSigner, Signer};
use crate::repository::pack::MAX_PACK_BYTES;
use crate::wire::message::{HostSet, Order, OrderKind};
use proptest::prelude::*;

const NOW: WallTime = WallTime(1_790_000_000);

fn www() -> TreeName {
    TreeName::new("www").expect("legal")
}

fn head() -> Head {
    let kept = |serial: u64| HeadRelease {
        serial: Serial(serial),
        pack: PackName(BlockHash([serial as u8; 32])),
        offset: 5000,
        len: 700,
        hash: BlockHash([9; 32]),
        lead: 5000,
        top: 1000,
    };
    Head {
        format: REPOSITORY_FORMAT,
        tree: www(),
        made: NOW,
        valid_until: Some(WallTime(NOW.0 + 3600)),
        release: ReleaseId(BlockHash([1; 32])),
        kept: vec![kept(17), kept(16)],
        orders: Vec::new(),
        pinned: None,
        by_age: None,
    }
}

fn sign(head: &Head, namespace: Namespace, key: u8) -> SignedHead {
    let signer = FileSigner::from_seed([key; 32]);
    let signature = signer.sign(namespace, &head.encode()).expect("signs");
    SignedHead {
        head: head.encode(),
        signature: signature.as_bytes().to_vec(),
    }
}

fn keys(options: &str) -> AuthorizedKeys {
    let line = format!("{options} {}", FileSigner::from_seed([7; 32]).public());
    AuthorizedKeys::parse(line.as_bytes(), "keys".as_ref()).expect("legal")
}

fn order() -> SignedOrder {
    let order = Order {
        session: crate::id::SessionId(1),
        release: ReleaseId(BlockHash([1; 32])),
        kind: OrderKind::Revert,
        up_to: None,
        tree: Some(www()),
        serial: Some(Serial(17)),
        hosts: None,
        except: None,
    };
    SignedOrder {
        order: order.encode(),
        signature: vec![7; 180],
        hosts: None,
    }
}

#[test]
fn the_bytes_of_a_head_are_golden() {
    let hex: String = head().encode().iter().map(|b| format!("{b:02x}")).collect();
    let kept = |serial: &str| {
        format!(
            "87{serial}5820{}1913881902bc5820{}1913881903e8",
            serial.repeat(32),
            "09".repeat(32)
        )
    };
    let expected = format!(
        "8701637777771a6ab13b801a6ab149905820{}82{}{}80",
        "01".repeat(32),
        kept("11"),
        kept("10")
    );
    assert_eq!(hex, expected);
}

#[test]
fn a_head_is_trusted_by_the_role_of_its_key_for_the_tree() {
    let head = head();
    let signed = sign(&head, Namespace::HEAD, 7);
    let verify = |signed: &SignedHead, keys: &AuthorizedKeys| {
        let again = SignedHead::decode(&signed.encode()).expect("legal");
        again
            .verify(&www(), keys, None, NOW)
            .map(|verified| verified.head().clone())
    };

    for options in ["", "tree=\"www\",deploy", "rollback"] {
        assert_eq!(
            verify(&signed, &keys(options)),
            Ok(head.clone()),
            "{options}"
        );
    }
    for options in ["audit", "tree=\"db\",deploy", "expires=\"2026-01-01\""] {
        assert!(
            matches!(verify(&signed, &keys(options)), Err(HeadError::Denied(_))),
            "{options}"
        );
    }

    let none = AuthorizedKeys::none("keys".as_ref());
    assert!(matches!(verify(&signed, &none), Err(HeadError::Denied(_))));
    let own = *FileSigner::from_seed([7; 32]).public();
    assert!(signed.verify(&www(), &none, Some(&own), NOW).is_ok());

    for wrong in [
        sign(&head, Namespace::RELEASE, 7),
        sign(&head, Namespace::ORDER, 7),
        SignedHead {
            signature: Vec::new(),
            ..signed.clone()
        },
    ] {
        assert!(matches!(
            verify(&wrong, &keys("")),
            Err(HeadError::Signature(_))
        ));
    }
    assert!(matches!(
        verify(&sign(&head, Namespace::HEAD, 8), &keys("")),
        Err(HeadError::Denied(_))
    ));

    let other = Head {
        tree: TreeName::new("db").expect("legal"),
        ..head
    };
    let refused = verify(&sign(&other, Namespace::HEAD, 7), &keys(""));
    assert!(matches!(refused, Err(HeadError::OtherTree(_))));
}

#[test]
fn heads_beyond_their_caps_are_refused_and_newer_ones_are_told() {
    let refused = |change: fn(&mut Head)| {
        let mut head = head();
        change(&mut head);
        Head::decode(&head.encode()).expect_err("not legal")
    };

    assert_eq!(refused(|h| h.format = 2), HeadError::Format(2));
    assert_eq!(refused(|h| h.format = 0), HeadError::Format(0));
    refused(|h| h.kept.clear());
    refused(|h| h.kept.reverse());
    refused(|h| h.kept = vec![h.kept[0]; 2]);
    refused(|h| h.kept[0].serial = Serial(Serial::MAX_ACCEPTED + 1));
    refused(|h| h.kept[0].lead = 5001);
    refused(|h| h.kept[0].top = 5001);

    refused(|h| h.kept[1].offset = u32::MAX);
    refused(|h| h.kept[1].len = 0);
    refused(|h| h.kept[1].len = MAX_RECORD_BYTES + 1);
    refused(|h| h.orders = vec![order(); MAX_HEAD_ORDERS + 1]);
    refused(|h| {
        h.orders = vec![SignedOrder {
            hosts: Some(HostSet::of([].into_iter())),
            ..order()
        }];
    });
    refused(|h| {
        let kept = |n| HeadRelease {
            serial: Serial(100 - n),
            ..h.kept[0]
        };
        h.kept = (0..=MAX_KEPT as u64).map(kept).collect();
    });
    assert!(SignedHead::decode(&[0; MAX_HEAD_BYTES + 1]).is_err());
}

#[test]
fn the_largest_head_fits_with_some_orders() {
    let mut head = head();
    let kept = |n| HeadRelease {
        serial: Serial(Serial::MAX_ACCEPTED - n),
        offset: MAX_PACK_BYTES - MAX_RECORD_BYTES,
        len: MAX_RECORD_BYTES,
        lead: MAX_LEAD_BYTES,
        top: MAX_LEAD_BYTES,
        ..head.kept[0]
    };
    head.kept = (0..MAX_KEPT as u64).map(kept).collect();

    let orders: Vec<SignedOrder> = (0..9)
        .map(|n| SignedOrder {
            order: vec![n; 120],
            ..order()
        })
        .collect();
    head.add_orders(orders.iter().chain(&orders));
    let signed = sign(&head, Namespace::HEAD, 7);
    assert!(signed.encode().len() <= MAX_HEAD_BYTES);
    assert_eq!(head.orders, orders[..MAX_HEAD_ORDERS]);
    assert!(signed.verify(&www(), &keys(""), None, NOW).is_ok());
}

#[test]
fn a_stale_head_is_told() {
    let signed = sign(&head(), Namespace::HEAD, 7);
    let verified = signed.verify(&www(), &keys(""), None, NOW).expect("signed");
    let stale = |after: i64, max: Option<u64>| {
        let now = WallTime(NOW.0 + after);
        let staleness = verified.head().times().staleness(now, max);
        let is_over = matches!(staleness, Some(Staleness::Ended(_)));
        assert_eq!(verified.is_stale(now), is_over);
        staleness.is_some()
    };
    assert!(!stale(3599, None) && stale(3600, None));
    assert!(!stale(60, Some(60)) && stale(61, Some(60)));
    // A clock that is behind says nothing about the head.
    assert!(!stale(-9999, Some(60)) && !stale(0, Some(u64::MAX)));
}

#[test]
fn a_head_that_is_signed_again_holds_as_long_as_before() {
    let ends = |head: Head, validity: HeadValidity| {
        let mut head = head;
        head.date(WallTime(NOW.0 + 500), validity);
        assert_eq!(head.made, WallTime(NOW.0 + 500));
        head.valid_until.map(|until| until.0 - NOW.0)
    };
    assert_eq!(ends(head(), HeadValidity::AsBefore), Some(500 + 3600));
    assert_eq!(ends(head(), HeadValidity::For(60)), Some(560));
    assert_eq!(ends(head(), HeadValidity::Endless), None);

    let odd = |made: i64, until: Option<i64>| Head {
        made: WallTime(made),
        valid_until: until.map(WallTime),
        ..head()
    };
    assert_eq!(ends(odd(NOW.0, None), HeadValidity::AsBefore), None);
    let backwards = odd(i64::MAX, Some(i64::MIN));
    assert_eq!(ends(backwards, HeadValidity::AsBefore), Some(500));
}

#[test]
fn only_heads_have_the_paths_of_heads() {
    let object = |path: &str| ObjectPath::new(path).expect("legal");
    assert_eq!(tree_of_head(&head_object(&www())), Some(www()));
    for other in ["trees/www/other", "trees/a/b/head", "packs/ab/head", "head"] {
        assert_eq!(tree_of_head(&object(other)), None, "{other}");
    }
}

proptest! {
    #[test]
    fn heads_come_back(
        serials in prop::collection::btree_set(1..1_000_000u64, 1..MAX_KEPT),
        numbers in (0..1_000_000u32, 1..1_000_000u32, 0..300_000u32, any::<u8>()),
        made: i64,
        valid_until in prop::option::of(any::<i64>()),
        orders in 0..3usize,
    ) {
        let (offset, len, lead, byte) = numbers;
        let kept = |serial: u64| HeadRelease {
            serial: Serial(serial),
            pack: PackName(BlockHash([byte; 32])),
            offset,
            len,
            hash: BlockHash([byte ^ 1; 32]),
            lead: lead.min(offset).min(MAX_LEAD_BYTES),
            top: 0,
        };
        let head = Head {
            made: WallTime(made),
            valid_until: valid_until.map(WallTime),
            kept: serials.into_iter().rev().map(kept).collect(),
            orders: vec![order(); orders],
            ..head()
        };
        prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
    }
}

#[test]
fn a_pin_of_the_oldest_release_costs_no_other_one() {
    let template = head().kept[0];
    let mut head = Head {
        by_age: Some(2),
        ..head()
    };

    for serial in 18..24 {
        let oldest = head.kept[1].serial;
        let pins = head.pinned.clone().unwrap_or_default();
        head.set_pins(&pins, Some(PinChange::Pin(oldest)));
        assert_eq!(head.kept_by_age(), 2, "{:?}", head.kept);

        // The next publication.
        let new = HeadRelease {
            serial: Serial(serial),
            ..template
        };
        let all: Vec<HeadRelease> = [new].into_iter().chain(head.kept.clone()).collect();
        let pins = head.pinned.clone().unwrap_or_default();
        head.kept = split_kept(&all, &pins, head.kept_by_age()).0;
        let newest = head.kept.iter().map(|kept| kept.serial.0).take(2);
        assert_eq!(newest.collect::<Vec<_>>(), [serial, serial - 1]);
    }

    // Heads of older publishers have no number; other numbers are cut.
    head.by_age = None;
    assert!(head.kept_by_age() >= 1);
    head.by_age = Some(0);
    assert_eq!(head.kept_by_age(), 1);
    head.by_age = Some(u8::MAX);
    assert_eq!(head.kept_by_age(), MAX_KEPT);
    let read = Head::decode(&head.encode()).expect("legal");
    assert_eq!(read, head);
}
