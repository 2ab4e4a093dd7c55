//! Tests of places pages, and pages of any shape for other tests.

use super::*;
use proptest::prelude::*;

pub(in crate::repository) fn pack(n: u8) -> PackName {
    PackName(BlockHash([n; 32]))
}

fn extent(pack_number: u8, offset: u32, len: u32) -> Extent {
    Extent {
        pack: pack(pack_number),
        offset,
        len,
    }
}

fn golden() -> WirePlaces {
    let blocks = [extent(1, 0, 100), extent(1, 100, 70_000), extent(7, 5, 9)];
    let child = StoredNode {
        node: extent(1, 70_100, 300),
        places: PlacesRef {
            extent: extent(1, 70_400, 20),
            hash: BlockHash([3; 32]),
        },
    };
    wire(&blocks, &[child], pack(1))
}

fn wire(blocks: &[Extent], children: &[StoredNode], own: PackName) -> WirePlaces {
    let mut table = PackTable::default();
    let mut builder = PlacesBuilder::default();
    blocks.iter().for_each(|b| builder.block(table.piece(b)));
    children
        .iter()
        .for_each(|c| builder.child(PackedNode::of(c, &mut table)));
    builder.wire(table.number(own), &table)
}

#[test]
fn the_bytes_of_a_page_are_golden() {
    let bytes = to_vec(&golden());
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let expected = format!(
        "84815820{}83830000028301050183001a00011 1d402851864{}09{}14815820{}",
        "07".repeat(32),
        "1a00011170",
        "19012c",
        "03".repeat(32)
    );
    assert_eq!(hex, expected.replace(' ', ""));
}

#[test]
fn pages_that_contradict_themselves_are_refused() {
    let legal = golden();
    assert!(Places::checked(legal.clone(), pack(1)).is_ok());
    let wrong = |change: fn(&mut WirePlaces)| {
        let mut wire = legal.clone();
        change(&mut wire);
        assert!(Places::checked(wire, pack(1)).is_err());
    };

    wrong(|w| w.runs[0].pieces = 3);
    wrong(|w| w.runs[0].pieces = u32::MAX);
    wrong(|w| w.runs[1].pack = 2);
    wrong(|w| w.runs[2].offset = u32::MAX);
    wrong(|w| w.lens[0] = 0);

    wrong(|w| w.lens[1] = MAX_PIECE_BYTES + 1);
    wrong(|w| w.lens.push(1));
    wrong(|w| w.pages = vec![BlockHash([0; 32]); 3]);
    wrong(|w| w.packs = vec![pack(9); 6]);
}

proptest! {
    #[test]
    fn pieces_come_back(
        blocks in prop::collection::vec((0..4u8, 0..1000u32, 1..300u32), 0..50),
        children in prop::collection::vec((0..4u8, 0..1000u32, 1..300u32, any::<u8>()), 0..9),
    ) {
        let blocks: Vec<Extent> =
            blocks.into_iter().map(|(p, o, l)| extent(p, o, l)).collect();
        let children: Vec<StoredNode> = children
            .into_iter()
            .map(|(p, o, l, h)| StoredNode {
                node: extent(p, o, l),
                places: PlacesRef { extent: extent(p, o + l, 7), hash: BlockHash([h; 32]) },
            })
            .collect();

        let bytes = to_vec(&wire(&blocks, &children, pack(2)));
        let places = Places::decode(&bytes, pack(2)).expect("legal");
        prop_assert_eq!(places.blocks().collect::<Vec<_>>(), blocks);
        prop_assert_eq!(places.children().collect::<Vec<_>>(), children);
        prop_assert_eq!(places.encode(), bytes);
    }

    #[test]
    fn any_bytes_are_refused_or_legal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(places) = Places::decode(&bytes, pack(0)) {
            prop_assert!(places.blocks().chain(places.children().map(|c| c.node))
                .all(|e| e.is_legal()));
        }
    }
}
