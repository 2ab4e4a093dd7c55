//! The field GF(256): bytes, added by exclusive or, multiplied as polynomials modulo x^8 + x^4 +
//! x^3 + x + 1 (0x11B).
//!
//! Uses the polynomial of AES, because processors have an instruction for it (GFNI). Independent of
//! rows and symbols.

/// Low byte of the polynomial.
const REDUCTION: u8 = 0x1B;

/// Product of `a` and `b`.
pub const fn multiply(a: u8, b: u8) -> u8 {
    let mut product = 0;
    let mut a = a;
    let mut b = b;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { REDUCTION };
        b >>= 1;
    }

    product
}

/// Multiplicative inverse of `a`. Zero has no inverse; the result is zero.
pub const fn inverse(a: u8) -> u8 {
    // a^254: there are 255 nonzero elements, so a^255 is 1.
    let square = multiply(a, a);
    let mut power = square;
    let mut product = square;
    let mut bits = 6;
    while bits > 0 {
        power = multiply(power, power);
        product = multiply(product, power);
        bits -= 1;
    }

    product
}

/// Multiplies each of eight bytes by x.
pub(super) const fn double_each(bytes: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let carries = (bytes >> 7) & LOW;
    ((bytes & (LOW * 0x7F)) << 1) ^ (carries * REDUCTION as u64)
}

/// For every factor, its products with the low nibbles 0 to 15, then with the high nibbles 0x00 to
/// 0xF0: lookup tables for byte shuffles.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code)
)]
pub(super) static NIBBLES: [[u8; 32]; 256] = nibbles();

const fn nibbles() -> [[u8; 32]; 256] {
    let mut tables = [[0; 32]; 256];
    let mut at = 0;
    while at < 256 * 16 {
        let factor = at / 16;
        let nibble = at % 16;
        tables[factor][nibble] = multiply(factor as u8, nibble as u8);
        tables[factor][16 + nibble] = multiply(factor as u8, (nibble << 4) as u8);
        at += 1;
    }

    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_field_of_aes() {
        // The worked examples of FIPS 197, section 4.2.
        assert_eq!(multiply(0x57, 0x83), 0xC1);
        assert_eq!(multiply(0x57, 0x13), 0xFE);
        assert_eq!(inverse(0x53), 0xCA);
    }

    #[test]
    fn the_laws_of_a_field_hold() {
        assert_eq!(inverse(0), 0);

        for a in 0..=255u8 {
            assert_eq!(multiply(a, 1), a);
            assert_eq!(multiply(a, 0), 0);
            assert!(
                a == 0 || multiply(a, inverse(a)) == 1,
                "{a} times its inverse"
            );

            for b in 0..=255u8 {
                assert_eq!(multiply(a, b), multiply(b, a));
                assert!(
                    a == 0 || b == 0 || multiply(a, b) != 0,
                    "{a} and {b} divide zero"
                );

                for c in [0, 1, 2, 3, 0x1B, 0x53, 0x80, 0x8D, 0xFF] {
                    assert_eq!(multiply(a, multiply(b, c)), multiply(multiply(a, b), c));
                    assert_eq!(multiply(a, b ^ c), multiply(a, b) ^ multiply(a, c));
                }
            }
        }
    }

    #[test]
    fn eight_are_doubled_as_one_is() {
        for a in 0..=255u8 {
            let eight = [a, 0, 0xFF, a ^ 0x55, 0x80, 1, a, !a];
            assert_eq!(
                double_each(u64::from_ne_bytes(eight)).to_ne_bytes(),
                eight.map(|b| multiply(b, 2))
            );
        }
    }

    #[test]
    fn nibbles_add_up_to_products() {
        for (factor, table) in NIBBLES.iter().enumerate() {
            for byte in 0..=255u8 {
                let sum = table[usize::from(byte & 15)] ^ table[16 + usize::from(byte >> 4)];
                assert_eq!(sum, multiply(factor as u8, byte));
            }
        }
    }
}
