//! Which of the serials that hosts claim is believed: the next release has to be above it.

use crate::id::Serial;

/// How far beyond the next lower believed one a serial that a single host claims is believed.
const MAX_SERIAL_STEP: u64 = 1 << 32;

/// The highest of the serials that hosts claim, but that one liar cannot use up all numbers: the next release has to
/// be above it. Two hosts that say the same are believed.
pub fn believed(mut claims: Vec<Serial>) -> Serial {
    claims.sort();
    let mut highest = Serial(0);
    for (i, claim) in claims.iter().enumerate() {
        let twice = claims.get(i + 1) == Some(claim);
        if twice || claim.0 - highest.0 <= MAX_SERIAL_STEP {
            highest = *claim;
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highest(claims: &[u64]) -> u64 {
        believed(claims.iter().map(|c| Serial(*c)).collect()).0
    }

    #[test]
    fn one_liar_is_not_believed_and_two_witnesses_are() {
        let far = MAX_SERIAL_STEP * 5;
        assert_eq!(highest(&[]), 0);
        assert_eq!(highest(&[7, 3, 7]), 7);
        assert_eq!(highest(&[u64::MAX, 7]), 7);
        assert_eq!(highest(&[u64::MAX, u64::MAX - 1, 7]), 7);
        assert_eq!(highest(&[far, 7, far]), far);
        assert_eq!(highest(&[far, 7, far, far + 1]), far + 1);
        assert_eq!(highest(&[7, 7 + MAX_SERIAL_STEP, 7 + MAX_SERIAL_STEP * 2]), 7 + MAX_SERIAL_STEP * 2);
        assert_eq!(highest(&[8 + MAX_SERIAL_STEP, 7]), 7);
    }
}
