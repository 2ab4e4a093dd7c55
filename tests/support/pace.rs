//! How evenly bytes come, seen from a line of a given rate.

use std::time::Duration;

use super::capture::Packet;

/// The time over which a rate is held.
const WINDOW: Duration = Duration::from_millis(100);

/// How evenly packets came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The most bytes of any 100 ms over what the line carries in that time.
    pub window: f64,
    /// The most bytes that waited before the line, from the arrival of a packet on until the line has taken all of it.
    pub backlog: f64,
}

/// The pace of packets, in the order of their times, before a line of `mbit` Mbit/s.
pub fn pace(packets: &[Packet], mbit: u32) -> Pace {
    let bytes_a_second = f64::from(mbit) * 1e6 / 8.0;
    let (mut first, mut inside, mut most) = (0, 0, 0);
    let (mut backlog, mut deepest, mut before) = (0.0_f64, 0.0_f64, None);
    for packet in packets {
        inside += packet.wire();
        while packets[first].at + WINDOW <= packet.at {
            inside -= packets[first].wire();
            first += 1;
        }
        most = most.max(inside);
        let since = before.map_or(0.0, |at: Duration| {
            packet.at.saturating_sub(at).as_secs_f64()
        });
        backlog = (backlog - since * bytes_a_second).max(0.0) + packet.wire() as f64;
        deepest = deepest.max(backlog);
        before = Some(packet.at);
    }

    Pace {
        window: most as f64 / (bytes_a_second * WINDOW.as_secs_f64()),
        backlog: deepest,
    }
}
