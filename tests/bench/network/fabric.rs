//! The network of one run: a sender and hosts at a switch, with port rates, packet loss and
//! counters.

use serde_json::Value;

use crate::support::run::{tool, try_tool};
use crate::support::{Place, Switch};

/// Burst size of tbf, and queue length before drops.
const BURST: &str = "64kb";
const QUEUE: &str = "1mb";

/// Properties of ports and cables.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Line {
    /// Rate of every port in Mbit/s, in both directions.
    pub mbit: Option<u32>,
    /// Packet loss in per cent on the receiving side of every host, including the sender.
    pub loss: u32,
}

impl Line {
    /// 500 Mbit/s without loss.
    pub const HALF_GBIT: Line = Line {
        mbit: Some(500),
        loss: 0,
    };
}

/// The network.
pub struct Fabric {
    switch: Switch,
    /// Place of the sending tools.
    pub sender: Place,
    /// Places of the receivers.
    pub hosts: Vec<Place>,
    line: Line,
}

/// Bytes sent by the sender's interface.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Interface counter: a train of datagrams has one set of headers.
    pub interface: u64,
    /// Bytes on a cable: every datagram has its own headers. Only a port with a rate has this
    /// counter.
    pub frames: Option<u64>,
}

impl Sent {
    /// Returns the bytes sent between `before` and `self`.
    pub fn since(self, before: Sent) -> Sent {
        let frames = self.frames.zip(before.frames).map(|(now, then)| now - then);
        Sent {
            interface: self.interface - before.interface,
            frames,
        }
    }

    /// Returns the most accurate count available.
    pub fn bytes(self) -> u64 {
        self.frames.unwrap_or(self.interface)
    }
}

impl Fabric {
    /// Makes a sender and `hosts` hosts.
    pub fn new(hosts: usize, line: Line) -> Result<Self, String> {
        let mut switch = Switch::new()?;
        let places: Vec<Place> = (0..hosts).map(|_| switch.plug()).collect();
        let sender = switch.plug();
        let fabric = Self {
            switch,
            sender,
            hosts: places,
            line,
        };

        for number in 1..=hosts + 1 {
            let place = fabric.hosts.get(number - 1).unwrap_or(&fabric.sender);
            if let Some(mbit) = line.mbit {
                shape(place, "eth0", mbit);
                shape(&fabric.switch.place(), &format!("p{number}"), mbit);
            }
            if line.loss > 0 {
                place.lose(line.loss);
            }
        }

        Ok(fabric)
    }

    /// Returns the address of the host at `index`.
    pub fn address(&self, index: usize) -> String {
        format!("10.77.0.{}", index + 1)
    }

    /// Gives the port of the host at `index` another rate.
    pub fn slow_down(&self, index: usize, mbit: u32) {
        shape(&self.hosts[index], "eth0", mbit);
        shape(&self.switch.place(), &format!("p{}", index + 1), mbit);
    }

    /// Reads the bytes sent so far by the sender.
    pub fn sent(&self) -> Sent {
        let interface = counter(&tool(self.sender.command("cat").arg("/proc/self/net/dev")));
        let frames = self.line.mbit.and_then(|_| {
            let told = try_tool(
                self.sender
                    .command("tc")
                    .args(["-s", "-j", "qdisc", "show", "dev", "eth0"]),
            )
            .ok()?;
            serde_json::from_str::<Value>(&told).ok()?[0]["bytes"].as_u64()
        });
        Sent { interface, frames }
    }
}

fn shape(place: &Place, interface: &str, mbit: u32) {
    let rate = format!("{mbit}mbit");
    let mut command = place.command("tc");
    command.args([
        "qdisc", "replace", "dev", interface, "root", "tbf", "rate", &rate, "burst", BURST,
        "limit", QUEUE,
    ]);
    tool(&mut command);
}

/// Parses the bytes sent on eth0 from /proc/net/dev: the ninth number of its line.
fn counter(text: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("eth0:"))
        .expect("every host has it");
    line.split_whitespace()
        .nth(8)
        .and_then(|n| n.parse().ok())
        .expect("a number")
}
