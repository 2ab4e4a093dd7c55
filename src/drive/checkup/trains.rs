//! Joins datagrams into trains of the kernel.

use crate::net::MAX_SEND_BYTES;
use crate::proto::Transmit;
use crate::proto::control::Control;

/// Largest number of datagrams in one train of the kernel.
const PROBE_TRAIN: usize = 8;

/// Joins queued datagrams, all of one size and destination.
pub(super) fn poll_train(
    control: &mut Control,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Option<Transmit> {
    let first = control.poll(out)?;
    for _ in 1..PROBE_TRAIN {
        if out.len() + first.segment > MAX_SEND_BYTES || control.poll(scratch).is_none() {
            break;
        }
        out.extend_from_slice(scratch);
    }

    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::proto::Dest;

    #[test]
    fn a_train_has_datagrams_of_one_size_and_ends_with_the_queue() {
        let mut control = Control::new(InstanceId(1), 1452, 20);
        for number in 0..PROBE_TRAIN as u32 + 3 {
            control.counted(Dest::Multicast, 1452, (7, 1), number);
        }
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        let mut sizes = Vec::new();
        while let Some(transmit) = poll_train(&mut control, &mut scratch, &mut out) {
            assert_eq!(transmit.segment, 1472);
            sizes.push(out.len() / 1472);
            assert_eq!(out.len() % 1472, 0);
        }
        assert_eq!(sizes, [PROBE_TRAIN, 3]);
    }
}
