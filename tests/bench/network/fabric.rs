//! The network of one run: a sender and hosts at a switch, with port rates, packet loss and
//! counters.

use serde_json::Value;

use crate::support::run::{tool, try_tool};
use crate::support::{Place, Switch};

/// Burst size of tbf, and queue length before drops.
const BURST: &str = "64kb";
const QUEUE: &str = "1mb";
/// Number of hosts that all others name as peers, where there is no multicast.
const WAYS_IN: usize = 3;
/// The two ends of the line between two switches.
const BETWEEN: [&str; 2] = ["between0", "between1"];

/// Properties of ports and cables.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Line {
    /// Rate of every port in Mbit/s, in both directions.
    pub mbit: Option<u32>,
    /// Packet loss in per cent on the receiving side of every host, including the sender.
    pub loss: u32,
    /// Drops multicast that comes in at any port of the switch.
    pub no_multicast: bool,
}

impl Line {
    /// 500 Mbit/s without loss.
    pub const HALF_GBIT: Line = Line {
        mbit: Some(500),
        loss: 0,
        no_multicast: false,
    };

    /// Returns the same line without multicast.
    pub fn unicast(self) -> Self {
        Self {
            no_multicast: true,
            ..self
        }
    }
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

        if line.no_multicast {
            let ports: Vec<String> = (1..=hosts + 1).map(port).collect();
            drop_multicast(&fabric.switch.place(), &ports);
        }

        for number in 1..=hosts + 1 {
            let place = fabric.hosts.get(number - 1).unwrap_or(&fabric.sender);
            if let Some(mbit) = line.mbit {
                shape(place, "eth0", mbit);
                shape(&fabric.switch.place(), &port(number), mbit);
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

    /// Returns the table `[network]` for hosts and commands; empty with multicast.
    pub fn settings(&self) -> String {
        if self.line.no_multicast {
            format!("[network]\nmulticast = false\n{}", self.peers())
        } else {
            String::new()
        }
    }

    /// Returns the setting that names the first hosts as the way in.
    pub fn peers(&self) -> String {
        let few = self.hosts.len().min(WAYS_IN);
        let names: Vec<String> = (0..few).map(|index| self.address(index)).collect();
        format!("peers = {names:?}\n")
    }

    /// Moves all but the first `near` hosts to a second switch. Unicast between the two takes a
    /// line of `mbit` Mbit/s, and multicast stays on its side.
    pub fn split(&self, near: usize, mbit: u32) {
        let switch = &self.switch;
        switch.bridge("br1");
        for number in near + 1..=self.hosts.len() {
            switch.ip(&format!("link set {} master br1", port(number)));
        }

        let [from, to] = BETWEEN;
        switch.ip(&format!("link add {from} type veth peer name {to}"));
        for (end, bridge) in [(from, "br0"), (to, "br1")] {
            switch.ip(&format!("link set {end} master {bridge} up mtu 1500"));
            shape(&switch.place(), end, mbit);
        }

        drop_multicast(&switch.place(), &BETWEEN.map(String::from));
    }

    /// Reads the bytes sent so far between the two switches of [`Fabric::split`], in the direction
    /// that carries more.
    pub fn carried(&self) -> u64 {
        let text = self.switch.place().counters();
        BETWEEN
            .map(|end| counter(&text, end))
            .into_iter()
            .max()
            .unwrap_or(0)
    }

    /// Gives the port of the host at `index` another rate.
    pub fn slow_down(&self, index: usize, mbit: u32) {
        shape(&self.hosts[index], "eth0", mbit);
        shape(&self.switch.place(), &port(index + 1), mbit);
    }

    /// Reads the bytes sent so far by the sender.
    pub fn sent(&self) -> Sent {
        let interface = self.sent_by_interface();
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

    /// Reads the bytes sent so far by the sender, as its interface counts them.
    pub fn sent_by_interface(&self) -> u64 {
        counter(&self.sender.counters(), "eth0")
    }

    /// Reads the bytes sent so far by the interface of each host.
    pub fn sent_by_hosts(&self) -> Vec<u64> {
        let counters = self
            .hosts
            .iter()
            .map(|place| counter(&place.counters(), "eth0"));
        counters.collect()
    }
}

/// Returns the name of a port of the switch: the first host's is p1, the sender's the last.
fn port(number: usize) -> String {
    format!("p{number}")
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

/// Drops multicast that comes in at `ports` of a switch. A filter there sees a packet once; hooks of
/// the bridge see it twice, and take the processor from the hosts.
fn drop_multicast(switch: &Place, ports: &[String]) {
    let devices = ports.join(", ");
    let begin = format!("type filter hook ingress devices = {{ {devices} }} priority 0");
    let chain = format!("chain entry {{ {begin} ; meta pkttype multicast drop ; }}");
    switch.shell(&format!("nft 'table netdev deaf {{ {chain} ; }}'"));
}

/// Parses the bytes sent on an interface from /proc/net/dev: the ninth number of its line.
fn counter(text: &str, interface: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix(interface)?.strip_prefix(':'))
        .expect("every place has it");
    line.split_whitespace()
        .nth(8)
        .and_then(|n| n.parse().ok())
        .expect("a number")
}
