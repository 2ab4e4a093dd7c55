//! The network of one run: a sender and hosts at a switch, with the rate of their ports, their losses and counters.

use serde_json::Value;

use crate::support::run::{tool, try_tool};
use crate::support::{Place, Switch};

/// What tbf lets pass at once, and what waits before it drops.
const BURST: &str = "64kb";
const QUEUE: &str = "1mb";

/// What the ports and cables are like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Line {
    /// Mbit/s of every port, both ways.
    pub mbit: Option<u32>,
    /// Per cent that each host loses of what comes in, the sender too.
    pub loss: u32,
}

impl Line {
    /// 500 Mbit/s without a loss.
    pub const HALF_GBIT: Line = Line {
        mbit: Some(500),
        loss: 0,
    };
}

/// The network.
pub struct Fabric {
    switch: Switch,
    /// Where the tools send from.
    pub sender: Place,
    /// Where they receive.
    pub hosts: Vec<Place>,
    line: Line,
}

/// What the sender's interface has sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// As the interface counts: a train of datagrams has one set of headers.
    pub interface: u64,
    /// As a cable would carry it: every datagram has its own. Only a port with a rate counts so.
    pub frames: Option<u64>,
}

impl Sent {
    /// What was sent between `before` and this.
    pub fn since(self, before: Sent) -> Sent {
        let frames = self.frames.zip(before.frames).map(|(now, then)| now - then);
        Sent {
            interface: self.interface - before.interface,
            frames,
        }
    }

    /// The best count that there is.
    pub fn bytes(self) -> u64 {
        self.frames.unwrap_or(self.interface)
    }
}

impl Fabric {
    /// A sender and `hosts` hosts.
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

    /// The address of the host with this index.
    pub fn address(&self, index: usize) -> String {
        format!("10.77.0.{}", index + 1)
    }

    /// Gives the host with this index a port of another rate.
    pub fn slow_down(&self, index: usize, mbit: u32) {
        shape(&self.hosts[index], "eth0", mbit);
        shape(&self.switch.place(), &format!("p{}", index + 1), mbit);
    }

    /// What the sender has sent so far.
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

/// The bytes that eth0 has sent, out of /proc/net/dev: the ninth number of its line.
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
