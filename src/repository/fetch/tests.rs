//! Ranges: how many, which, and again from which byte.

use super::*;
use crate::block::BlockHash;
use std::time::Duration;

fn pack(n: u8) -> PackName {
    PackName(BlockHash([n; 32]))
}

fn extent(offset: u32, len: u32) -> Extent {
    Extent {
        pack: pack(1),
        offset,
        len,
    }
}

/// A fetcher that wants `extents`, and its requests.
fn requests(extents: &[Extent]) -> (Fetcher, Dice, Vec<(RequestId, std::ops::Range<u64>)>) {
    let (mut fetcher, mut dice) = (Fetcher::default(), Dice::new(1));
    extents.iter().for_each(|extent| fetcher.want(*extent));
    let mut found = Vec::new();
    while let Some((id, get)) = fetcher.poll(Moment(0), &mut dice) {
        assert_eq!(
            Some(get.max),
            get.range.as_ref().map(|range| range.end - range.start)
        );
        found.push((id, get.range.expect("a range")));
    }
    (fetcher, dice, found)
}

fn ranges(extents: &[Extent]) -> Vec<std::ops::Range<u64>> {
    requests(extents)
        .2
        .into_iter()
        .map(|(_, range)| range)
        .collect()
}

#[test]
fn neighbours_are_read_together_and_others_are_not() {
    let gap = GAP_BYTES;
    assert_eq!(
        ranges(&[extent(500, 10), extent(0, 100), extent(100, 9)]),
        [0..510]
    );
    let near = [extent(0, 100), extent(100 + gap, 5)];
    assert_eq!(ranges(&near), [0..u64::from(gap) + 105]);
    let far = [extent(0, 100), extent(101 + gap, 5)];
    assert_eq!(
        ranges(&far),
        [0..100, u64::from(gap) + 101..u64::from(gap) + 106]
    );
    assert_eq!(ranges(&[extent(7, 10), extent(7, 10)]), [7..17]);
}

#[test]
fn a_full_pack_is_two_requests() {
    for piece in [4_000, 65_536, 262_144] {
        let mut pieces: Vec<Extent> = Vec::new();
        let mut at = 0;
        while at < 16 << 20 {
            let len = piece.min((16 << 20) - at);
            pieces.push(extent(at, len));
            at += len;
        }
        let found = ranges(&pieces);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[0].start, found[0].end, found[1].end),
            (0, found[1].start, 16 << 20)
        );
        assert!(found[0].end <= u64::from(PART_BYTES + piece));
    }
}

#[test]
fn four_requests_are_under_way() {
    let far: Vec<Extent> = (0..9).map(|n| extent(n << 24, 10)).collect();
    let (mut fetcher, mut dice, found) = requests(&far);
    assert_eq!(found.len(), MAX_PARTS);
    let (id, _) = found[2].clone();
    fetcher.reply(id, GetReply::Bytes(vec![1; 10]), Moment(0), &mut dice);
    fetcher.reply(id, GetReply::End { etag: None }, Moment(0), &mut dice);
    assert_eq!(fetcher.next(), Some(Fetched::Piece(far[2], vec![1; 10])));
    assert!(fetcher.poll(Moment(0), &mut dice).is_some());
    assert!(fetcher.poll(Moment(0), &mut dice).is_none());
}

#[test]
fn large_requests_begin_one_after_another_and_none_while_held() {
    let pieces: Vec<Extent> = (0..64).map(|n| extent(n << 20, 1 << 20)).collect();
    let (mut fetcher, mut dice, found) = requests(&pieces);
    assert_eq!((found.len(), fetcher.missing_bytes()), (3, 64 << 20));

    fetcher.hold(true);
    for (id, _) in &found {
        let bytes = vec![0; 3 << 20];
        fetcher.reply(*id, GetReply::Bytes(bytes), Moment(0), &mut dice);
    }
    assert!(fetcher.poll(Moment(0), &mut dice).is_none());
    fetcher.hold(false);
    assert!(fetcher.poll(Moment(0), &mut dice).is_some());
    assert!(fetcher.poll(Moment(0), &mut dice).is_none());
    assert_eq!(fetcher.missing_bytes(), 55 << 20);
    fetcher.clear();
    assert_eq!(fetcher.missing_bytes(), 23 << 20, "those under way");
}

#[test]
fn a_cut_answer_goes_on_at_its_byte() {
    let pieces = [extent(10, 100), extent(500, 100)];
    let fault = || GetReply::Failed(StoreFault::new(FaultKind::Temporary, "cut"));
    let body: Vec<u8> = (0..590u32).map(|n| n as u8).collect();
    // Bytes that come before the cut, and the first byte of the next request.
    for (came, next) in [
        (0, 10),
        (1, 11),
        (99, 109),
        (100, 500),
        (300, 500),
        (491, 501),
    ] {
        for end in [fault(), GetReply::End { etag: None }] {
            let (mut fetcher, mut dice, found) = requests(&pieces);
            let (id, range) = found[0].clone();
            assert_eq!((found.len(), range), (1, 10..600));
            fetcher.reply(
                id,
                GetReply::Bytes(body[..came].to_vec()),
                Moment(0),
                &mut dice,
            );
            fetcher.reply(id, end, Moment(0), &mut dice);
            assert!(
                fetcher.poll(Moment(0), &mut dice).is_none(),
                "it waits first"
            );

            let at = fetcher.timeout().expect("a time");
            let (id, get) = fetcher.poll(at, &mut dice).expect("again");
            assert_eq!(get.range, Some(next..600), "after {came} bytes");
            let rest = body[next as usize - 10..].to_vec();
            fetcher.reply(id, GetReply::Bytes(rest), at, &mut dice);
            fetcher.reply(id, GetReply::End { etag: None }, at, &mut dice);

            let first = Fetched::Piece(pieces[0], body[..100].to_vec());
            let second = Fetched::Piece(pieces[1], body[490..].to_vec());
            assert_eq!(
                [fetcher.next(), fetcher.next()],
                [Some(first), Some(second)]
            );
            assert!(fetcher.is_idle());
        }
    }
}

#[test]
fn progress_renews_the_patience_and_silence_ends_it() {
    let fault = || GetReply::Failed(StoreFault::new(FaultKind::Temporary, "cut"));
    let (mut fetcher, mut dice, found) = requests(&[extent(0, 1000)]);
    let (mut id, mut now) = (found[0].0, Moment(0));
    for _ in 0..100 {
        fetcher.reply(id, GetReply::Bytes(vec![0; 9]), now, &mut dice);
        fetcher.reply(id, fault(), now, &mut dice);
        now = fetcher.timeout().expect("a time");
        id = fetcher.poll(now, &mut dice).expect("again").0;
    }

    let began = now;
    let end = loop {
        fetcher.reply(id, fault(), now, &mut dice);
        if let Some(end) = fetcher.next() {
            break end;
        }
        now = fetcher.timeout().expect("a time");
        id = fetcher.poll(now, &mut dice).expect("again").0;
    };
    assert!(matches!(end, Fetched::Failed(_)));
    assert!(
        now.since(began) < Duration::from_secs(120),
        "{:?}",
        now.since(began)
    );
}

#[test]
fn a_pack_that_vanished_takes_its_extents_along_and_no_others() {
    let other = Extent {
        pack: pack(2),
        ..extent(0, 50)
    };
    let far: Vec<Extent> = (0..6).map(|n| extent(n << 24, 10)).collect();
    let (mut fetcher, mut dice, found) = requests(&[&far[..3], &[other]].concat());
    far[3..].iter().for_each(|extent| fetcher.want(*extent));
    fetcher.reply(found[1].0, GetReply::Missing, Moment(0), &mut dice);
    let Some(Fetched::Missing(gone, mut lost, false)) = fetcher.next() else {
        panic!("it vanished");
    };
    lost.sort_unstable();
    assert_eq!((gone, &lost[..]), (pack(1), &far[..]));

    // The other answers about it have no effect.
    fetcher.reply(
        found[0].0,
        GetReply::Bytes(vec![1; 10]),
        Moment(0),
        &mut dice,
    );
    fetcher.reply(
        found[0].0,
        GetReply::End { etag: None },
        Moment(0),
        &mut dice,
    );
    fetcher.reply(found[2].0, GetReply::Missing, Moment(0), &mut dice);
    assert_eq!(fetcher.next(), None);
    fetcher.reply(
        found[3].0,
        GetReply::Bytes(vec![2; 50]),
        Moment(0),
        &mut dice,
    );
    fetcher.reply(
        found[3].0,
        GetReply::End { etag: None },
        Moment(0),
        &mut dice,
    );
    assert_eq!(fetcher.next(), Some(Fetched::Piece(other, vec![2; 50])));
    assert!(fetcher.is_idle());
}

#[test]
fn wrong_bytes_are_asked_for_a_few_times() {
    let mut fetcher = Fetcher::default();
    let times = (0..).take_while(|_| fetcher.reject(extent(0, 5))).count();
    assert_eq!(times, usize::from(MAX_REJECTIONS));
}
