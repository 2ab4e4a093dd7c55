//! SHA-256 of many messages: each lane takes the next message when its own has ended, so that
//! lanes stay busy with messages of unequal length.

use sha2::{Digest, Sha256};

#[cfg(target_arch = "x86_64")]
use super::sha_ni::{STEP, ShaNi};

/// SHA-256 of a message.
type Sha256Hash = [u8; 32];

/// Hashes of all `messages`, in their order.
pub(super) fn hash_all(messages: &[&[u8]]) -> Vec<Sha256Hash> {
    #[cfg(target_arch = "x86_64")]
    if messages.len() > 1
        && let Some(sha) = ShaNi::available()
    {
        return x86::hash_all(sha, messages);
    }

    let hashes = messages
        .iter()
        .map(|message| Sha256::digest(message).into());
    hashes.collect()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    /// Initial state of FIPS 180-4.
    const INITIAL: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    /// A message on its way through a lane.
    struct Lane<'a> {
        /// Place of its hash.
        at: usize,
        state: [u32; 8],
        /// Whole steps that are left.
        body: &'a [[u8; STEP]],
        /// Padded end, of one or two steps.
        tail: [[u8; STEP]; 2],
        /// Steps of the end that are left.
        left: usize,
    }

    impl<'a> Lane<'a> {
        fn new(at: usize, message: &'a [u8]) -> Self {
            let (body, rest) = message.as_chunks::<STEP>();
            let mut tail = [[0; STEP]; 2];
            // The end mark and eight bytes of length follow the message.
            let left = if rest.len() + 9 <= STEP { 1 } else { 2 };
            let bytes = tail.as_flattened_mut();
            if let Some(head) = bytes.get_mut(..rest.len()) {
                head.copy_from_slice(rest);
            }
            if let Some(mark) = bytes.get_mut(rest.len()) {
                *mark = 0x80;
            }
            let bits = (message.len() as u64 * 8).to_be_bytes();
            if let Some(length) = bytes.get_mut(left * STEP - 8..left * STEP) {
                length.copy_from_slice(&bits);
            }
            // The end stands at the back, so that what is left of it is its end.
            if left == 1 {
                tail.swap(0, 1);
            }

            Self {
                at,
                state: INITIAL,
                body,
                tail,
                left,
            }
        }

        /// Steps that follow without a change of place.
        fn next(&self) -> &[[u8; STEP]] {
            match self.body {
                [] => self.tail.get(2 - self.left..).unwrap_or_default(),
                body => body,
            }
        }

        /// Passes over `steps`.
        fn skip(&mut self, steps: usize) {
            match self.body {
                [] => self.left = self.left.saturating_sub(steps),
                body => self.body = body.get(steps..).unwrap_or_default(),
            }
        }

        fn is_over(&self) -> bool {
            self.body.is_empty() && self.left == 0
        }

        fn hash(&self) -> Sha256Hash {
            let mut hash = [0; 32];
            for (bytes, word) in hash.chunks_exact_mut(4).zip(self.state) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            hash
        }
    }

    pub(super) fn hash_all(sha: ShaNi, messages: &[&[u8]]) -> Vec<Sha256Hash> {
        let mut hashes = vec![[0; 32]; messages.len()];
        let mut waiting = messages.iter().enumerate();
        let mut next = || waiting.next().map(|(at, message)| Lane::new(at, message));
        let (mut one, mut two) = (next(), next());

        while let (Some(a), Some(b)) = (&mut one, &mut two) {
            run(sha, [a, b]);
            for lane in [&mut one, &mut two] {
                if let Some(over) = lane.take_if(|lane| lane.is_over()) {
                    hashes[over.at] = over.hash();
                    *lane = next();
                }
            }
        }

        if let Some(mut last) = one.or(two) {
            while !last.is_over() {
                run(sha, [&mut last]);
            }
            hashes[last.at] = last.hash();
        }
        hashes
    }

    /// Takes as many steps in each lane as the shortest has.
    fn run<const N: usize>(sha: ShaNi, mut lanes: [&mut Lane<'_>; N]) {
        let steps = lanes.iter().map(|lane| lane.next().len()).min();
        let steps = steps.unwrap_or(0);
        let mut states = [[0; 8]; N];
        for (state, lane) in states.iter_mut().zip(&lanes) {
            *state = lane.state;
        }

        sha.compress(
            &mut states,
            lanes.each_ref().map(|lane| &lane.next()[..steps]),
        );

        for (lane, state) in lanes.iter_mut().zip(states) {
            lane.state = state;
            lane.skip(steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge is the `sha2` crate.
    fn check(messages: &[&[u8]]) {
        let hashes: Vec<Sha256Hash> = messages.iter().map(|m| Sha256::digest(m).into()).collect();
        assert_eq!(hash_all(messages), hashes);
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        bytes
    }

    #[test]
    fn messages_of_every_length_at_a_border_have_their_hash() {
        let noise = noise(300 << 10);
        check(&[]);
        for length in (0..260).chain(
            (1..=300)
                .step_by(23)
                .flat_map(|kib| [(kib << 10) - 1, kib << 10]),
        ) {
            let message = &noise[..length];
            check(&[message]);
            check(&[message, &noise[..64]]);
            check(&[&noise[7..], message]);
        }
    }

    #[test]
    fn random_batches_have_their_hashes() {
        let seed = std::env::var("MAKUO_LANES_SEED")
            .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a seed"));
        println!("MAKUO_LANES_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let noise = noise(64 << 10);
        for _ in 0..100 {
            let most = [3, 130, 5_000, noise.len()][rng.usize(..4)];
            let batch: Vec<&[u8]> = (0..rng.usize(..9))
                .map(|_| {
                    let length = rng.usize(..=most);
                    let start = rng.usize(..=noise.len() - length);
                    &noise[start..start + length]
                })
                .collect();
            check(&batch);
        }
    }
}
