//! Evenness of the arrival of bytes, relative to a line of a given rate.

use std::time::Duration;

use super::capture::Packet;

/// Time over which a rate limit must hold.
const WINDOW: Duration = Duration::from_millis(100);

/// Measured evenness of packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Largest number of bytes in any 100 ms, relative to the line's capacity in that time.
    pub window: f64,
    /// Largest queue before the line in bytes, counted from a packet's arrival until its last byte
    /// is sent.
    pub backlog: f64,
}

/// Measures packets, in order of time, before a line of `mbit` Mbit/s.
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
