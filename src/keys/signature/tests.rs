//! Tests of signatures.

use super::*;
use crate::keys::{FileSigner, Signer};
use proptest::prelude::*;

fn signed() -> (FileSigner, Signature) {
    let signer = FileSigner::from_seed([7; 32]);
    let signature = signer.sign(Namespace::RELEASE, b"header").expect("signs");
    (signer, signature)
}

#[test]
fn what_is_signed_verifies_and_nothing_else_does() {
    let (signer, signature) = signed();
    let blob = signature.as_bytes();
    assert_eq!(
        verify(Namespace::RELEASE, b"header", blob),
        Ok(*signer.public())
    );
    assert_eq!(
        verify(Namespace::RELEASE, b"headeR", blob),
        Err(SignatureError::Mismatch(signer.public().fingerprint()))
    );

    assert_eq!(
        verify(Namespace::ORDER, b"header", blob).map_err(|e| e.to_string()),
        Err("the signature was made for \"makuo-release@v1\", not for \"makuo-order@v1\"".into())
    );

    assert_eq!(
        verify(Namespace::RELEASE, b"header", &[blob, b"x"].concat()),
        Err(SignatureError::Malformed)
    );
}

#[test]
fn every_flipped_bit_is_refused() {
    let (_, signature) = signed();
    for bit in 0..signature.as_bytes().len() * 8 {
        let mut blob = signature.as_bytes().to_vec();
        blob[bit / 8] ^= 1 << (bit % 8);
        assert!(
            verify(Namespace::RELEASE, b"header", &blob).is_err(),
            "bit {bit}"
        );
    }
}

/// The group's order L, little-endian: S and S + L are the same scalar, and only S is
/// canonical.
const ORDER_L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a_non_canonical_scalar_and_a_small_order_point_are_refused() {
    let (_, signature) = signed();
    let blob = signature.as_bytes();
    let r = blob.len() - 64;
    let s = blob.len() - 32;
    let mut malleated = blob.to_vec();
    let mut carry = 0u16;

    for (byte, add) in malleated[s..].iter_mut().zip(ORDER_L) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry as u8;
        carry >>= 8;
    }

    assert!(verify(Namespace::RELEASE, b"header", &malleated).is_err());

    let mut small = blob.to_vec();
    small[r..].fill(0);
    small[r] = 1;
    assert!(verify(Namespace::RELEASE, b"header", &small).is_err());

    // A key of small order verifies anything in a lax check.
    let mut weak = blob.to_vec();

    let key = 6 + 4 + 4 + 4 + ED25519.len() + 4;
    weak[key..key + 32].fill(0);
    weak[key] = 1;
    weak[r..].fill(0);
    weak[r] = 1;

    assert_eq!(
        verify(Namespace::RELEASE, b"header", &weak),
        Err(SignatureError::Key(KeyError::Unsound))
    );
}

#[test]
fn armor_comes_back() {
    let (_, signature) = signed();
    let armor = signature.to_armor();
    assert!(armor.lines().all(|l| l.len() <= ARMOR_WIDTH));
    assert_eq!(Signature::from_armor(&armor), Ok(signature.clone()));
    assert_eq!(
        Signature::from_armor(&armor.replace('\n', "\r\n")),
        Ok(signature)
    );

    assert_eq!(
        Signature::from_armor("nonsense"),
        Err(SignatureError::Malformed)
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text: String) {
        let _ = verify(Namespace::RELEASE, b"x", &bytes);
        let _ = verify(Namespace::RELEASE, b"x", &[&b"SSHSIG\0\0\0\x01"[..], &bytes].concat());
        let _ = Signature::from_armor(&format!("{BEGIN}{text}{END}"));
    }
}
