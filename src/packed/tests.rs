//! A packed list behaves as the plain one, in less memory and with few chunks unpacked.

use proptest::prelude::*;

use super::*;

fn list(numbers: &[u64]) -> Packed<u64> {
    numbers.iter().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_packed_list_is_the_list(
        numbers in prop::collection::vec(any::<u64>(), 0..3 * CHUNK_LEN),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 8),
    ) {
        let mut numbers = numbers;
        let mut packed = list(&numbers);
        prop_assert_eq!(packed.len(), numbers.len());
        prop_assert!(packed.iter().eq(numbers.iter().copied()));
        prop_assert!(packed.iter().rev().eq(numbers.iter().copied().rev()));
        prop_assert_eq!(packed.iter().len(), numbers.len());
        let bytes = minicbor::to_vec(&packed).unwrap();

        prop_assert_eq!(&bytes, &minicbor::to_vec(&numbers).unwrap());
        prop_assert_eq!(&minicbor::decode::<Packed<u64>>(&bytes).unwrap(), &packed);
        for pick in if numbers.is_empty() { &[][..] } else { &picks } {
            let at = pick.index(numbers.len());
            prop_assert_eq!(*packed.get(at), numbers[at]);
            packed.update(at, |n| *n /= 2);
            numbers[at] /= 2;
            prop_assert_eq!(*packed.get(at), numbers[at]);
        }

        prop_assert!(packed.iter().eq(numbers.iter().copied()));
        // From both ends, alternating.
        let mut ours = packed.iter();
        let mut theirs = numbers.iter().copied();

        while let Some(front) = ours.next() {
            prop_assert_eq!(Some(front), theirs.next());
            prop_assert_eq!(ours.next_back(), theirs.next_back());
            prop_assert_eq!(ours.len(), theirs.len());
        }
    }

    #[test]
    fn what_is_sorted_is_found(
        numbers in prop::collection::btree_set(0..2000u64, 0..3 * CHUNK_LEN),
    ) {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let packed = list(&numbers);
        for n in 0..2000 {
            prop_assert_eq!(packed.search(|m| m.cmp(&n)), numbers.binary_search(&n).ok());
        }
    }
}

#[test]
fn a_search_unpacks_one_chunk_and_searches_in_order_each_chunk_once() {
    let chunks = 100;
    let packed = list(&(0..(chunks * CHUNK_LEN) as u64).collect::<Vec<_>>());
    for n in 0..(chunks * CHUNK_LEN) as u64 {
        assert_eq!(packed.search(|m| m.cmp(&n)), Some(n as usize));
    }

    assert_eq!(packed.unpacked(), chunks);

    // Each is in another chunk than the ones before.
    let far = |n: usize| ((n * 37 % chunks) * CHUNK_LEN + 5) as u64;
    for n in 0..chunks {
        assert_eq!(packed.search(|m| m.cmp(&far(n))), Some(far(n) as usize));
    }

    assert_eq!(packed.unpacked(), 2 * chunks);
}

#[test]
fn what_was_looked_at_last_stays_unpacked() {
    let packed = list(&(0..(10 * CHUNK_LEN) as u64).collect::<Vec<_>>());
    for chunk in 1..10 {
        assert_eq!(
            (*packed.get(0), *packed.get(chunk * CHUNK_LEN)),
            (0, (chunk * CHUNK_LEN) as u64)
        );
    }

    assert_eq!(packed.unpacked(), 10);
}

#[test]
fn all_are_changed_or_the_first_error_is_told() {
    let mut packed = list(&(0..1000).collect::<Vec<_>>());
    packed
        .try_update_all(|n| {
            Ok::<_, ()>(if *n % 300 == 0 {
                *n += 7;
                true
            } else {
                false
            })
        })
        .unwrap();

    let expected = (0..1000).map(|n| if n % 300 == 0 { n + 7 } else { n });
    assert!(packed.iter().eq(expected));
    assert_eq!(
        packed.try_update_all(|n| if *n == 500 { Err("here") } else { Ok(false) }),
        Err("here")
    );
}

#[test]
fn a_long_list_takes_little_memory() {
    let packed: Packed<String> = (0..100_000)
        .map(|n| format!("some/directory/with/a/name/file-{n:06}.html"))
        .collect();
    let bytes: usize = packed.chunks.iter().map(|c| c.bytes.len()).sum();
    assert!(bytes < 1_000_000, "{bytes}");
}
