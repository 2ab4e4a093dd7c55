//! Network location of a host: this machine's loopback interface, or a port of a switch of network
//! namespaces.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::run::{tool, try_tool};

/// Network environment of commands.
#[derive(Debug, Clone)]
pub enum Place {
    /// The loopback interface, with a UDP port of the lab's own.
    Loopback(u16),
    /// A network namespace with the interface `eth0`.
    Namespace(Inside),
}

/// Whether a network carries multicast: the parameter of tests that hold with and without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// Hosts hear each other's multicast.
    Multicast,
    /// The switch drops multicast, and hosts start from peers.
    Unicast,
}

/// Handle for entering a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Inside {
    kind: NetworkKind,
    holder: u32,
    /// Holder process of the user namespace, unless the tests run as root.
    user: Option<u32>,
}

/// Flags of a network without multicast; the first hosts are the way in.
const UNICAST: [&str; 5] = [
    "--interface",
    "eth0",
    "--no-multicast",
    "--peers",
    "10.77.0.1,10.77.0.2,10.77.0.3",
];

impl Place {
    /// Prepares `program` for this place. The process dies with the thread that starts it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match self {
            Place::Loopback(_) => Command::new("setpriv"),
            Place::Namespace(inside) => {
                let mut command = inside.enter();
                command.arg("setpriv");
                command
            }
        };

        command.args(["--pdeathsig", "KILL", program]);
        command
    }

    /// Returns makuo's flags for this network.
    pub fn flags(&self) -> Vec<String> {
        match self {
            Place::Loopback(port) => ["--interface", "lo", "--port", &port.to_string()]
                .map(String::from)
                .into(),
            Place::Namespace(inside) => match inside.kind {
                NetworkKind::Multicast => ["--interface", "eth0"].map(String::from).into(),
                NetworkKind::Unicast => UNICAST.map(String::from).into(),
            },
        }
    }

    /// Changes the network with `ip` and the words of `line`; no-op on the loopback interface.
    pub fn ip(&self, line: &str) {
        let Place::Namespace(inside) = self else {
            return;
        };
        tool(inside.enter().arg("ip").args(line.split(' ')));
    }

    /// Runs a shell script; no-op on the loopback interface.
    pub fn shell(&self, script: &str) {
        let Place::Namespace(inside) = self else {
            return;
        };
        tool(inside.enter().args(["sh", "-c", script]));
    }

    /// Drops `percent` of the incoming packets; no-op on the loopback interface.
    pub fn lose(&self, percent: u32) {
        self.lose_on("eth0", percent);
    }

    /// Drops `percent` of the incoming packets on the interface `name`.
    pub fn lose_on(&self, name: &str, percent: u32) {
        let Place::Namespace(inside) = self else {
            return;
        };

        let drop = format!("iifname {name} numgen random mod 100 < {percent} drop");
        let rules = format!(
            "table inet loss {{ chain in {{ type filter hook input priority -300; {drop} ; }} ; }}"
        );
        tool(inside.enter().args(["nft", &rules]));
    }

    /// Drops all incoming (`input`) or outgoing (`output`) packets on eth0 that match `filter`,
    /// until [`Place::heal`]. No-op on the loopback interface.
    pub fn cut(&self, direction: &str, filter: &str) {
        let Place::Namespace(inside) = self else {
            return;
        };

        let interface = if direction == "input" {
            "iifname"
        } else {
            "oifname"
        };

        let rule = format!("{interface} eth0 {filter} drop");
        let chain = format!(
            "chain {direction} {{ type filter hook {direction} priority -300 ; {rule} ; }}"
        );

        tool(
            inside
                .enter()
                .args(["nft", &format!("table inet cut {{ {chain} ; }}")]),
        );
    }

    /// Reverts [`Place::cut`].
    pub fn heal(&self) {
        let Place::Namespace(inside) = self else {
            return;
        };

        tool(
            inside
                .enter()
                .args(["nft", "table inet cut ; delete table inet cut"]),
        );
    }

    /// Reads the counters of all interfaces, as in /proc/net/dev.
    pub fn counters(&self) -> String {
        let process = match self {
            Place::Loopback(_) => "self".to_string(),
            Place::Namespace(inside) => inside.holder.to_string(),
        };

        std::fs::read_to_string(format!("/proc/{process}/net/dev")).expect("held")
    }

    /// Returns the process that holds the network namespace; `None` on the loopback interface.
    pub fn holder(&self) -> Option<u32> {
        match self {
            Place::Namespace(inside) => Some(inside.holder),
            Place::Loopback(_) => None,
        }
    }

    /// Opens the file of the network namespace, as a process needs for entering. `None` on the
    /// loopback interface, and where another user namespace would have to be entered first.
    pub fn file(&self) -> Option<std::fs::File> {
        match self {
            Place::Namespace(Inside {
                holder, user: None, ..
            }) => Some(std::fs::File::open(format!("/proc/{holder}/ns/net")).expect("held")),
            _ => None,
        }
    }
}

impl Inside {
    fn enter(self) -> Command {
        let mut command = Command::new("nsenter");
        if let Some(user) = self.user {
            command.args([
                "--preserve-credentials",
                &format!("--user=/proc/{user}/ns/user"),
            ]);
        }

        command.arg(format!("--net=/proc/{}/ns/net", self.holder));
        command
    }
}

/// A switch in a namespace of its own, and its ports.
#[derive(Debug)]
pub struct Switch {
    kind: NetworkKind,
    holder: Holder,
    rootless: bool,
    ports: Vec<Holder>,
    wires: u32,
}

/// A process that holds a namespace until its input ends.
#[derive(Debug)]
struct Holder(Child);

impl Switch {
    /// Makes a switch without ports, or returns the reason for the failure.
    pub fn new() -> Result<Self, String> {
        for tool in ["rsync", "nft", "ip", "unshare", "nsenter", "setpriv"] {
            try_tool(Command::new(tool).arg("--version"))
                .or_else(|_| try_tool(Command::new(tool).arg("-V")))?;
        }
        let rootless = !super::is_root();
        let mut command = Command::new("unshare");
        command.args(if rootless {
            &["-U", "-r", "-n"][..]
        } else {
            &["-n"]
        });
        let switch = Self {
            kind: NetworkKind::Multicast,
            holder: Holder::start(&mut command)?,
            rootless,
            ports: Vec::new(),
            wires: 0,
        };
        let inside = switch.inside(&switch.holder);
        // The switch has no querier: with snooping on, groups would time out.
        let bridge = [
            "ip",
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ];
        try_tool(inside.enter().args(bridge))?;
        try_tool(
            inside
                .enter()
                .args(["ip", "link", "set", "br0", "up", "mtu", "1500"]),
        )?;
        Ok(switch)
    }

    /// Drops all multicast from now on.
    pub fn without_multicast(mut self) -> Result<Self, String> {
        self.kind = NetworkKind::Unicast;
        let drop = "type filter hook forward priority 0 ; meta pkttype multicast drop ;";
        let table = format!("table bridge unicast {{ chain forward {{ {drop} }} ; }}");
        try_tool(self.inside(&self.holder).enter().args(["nft", &table]))?;
        Ok(self)
    }

    /// Adds a second switch beside the first.
    pub fn bridge(&self, name: &str) {
        self.ip(&format!("link add {name} type bridge mcast_snooping 0"));
        self.ip(&format!("link set {name} up mtu 1500"));
    }

    /// Moves the ports `ports`, counted from 1, to a second switch. Unicast passes between the two,
    /// and multicast stays on its side.
    pub fn split(&self, ports: &[usize]) {
        self.bridge("br1");
        for number in ports {
            self.ip(&format!("link set p{number} master br1"));
        }

        self.ip("link add between0 type veth peer name between1");
        self.ip("link set between0 master br0 up mtu 1500");
        self.ip("link set between1 master br1 up mtu 1500");
        let drop = "iifname { between0, between1 } meta pkttype multicast drop";
        let chain = format!("chain in {{ type filter hook prerouting priority 0 ; {drop} ; }}");
        self.place()
            .shell(&format!("nft 'table bridge apart {{ {chain} ; }}'"));
    }

    /// Changes the switch with `ip` and the words of `line`.
    pub fn ip(&self, line: &str) {
        tool(
            self.inside(&self.holder)
                .enter()
                .arg("ip")
                .args(line.split(' ')),
        );
    }

    /// Raises the MTU to `mtu` bytes on all ports of the first switch.
    pub fn widen(&self, mtu: u32) {
        for (number, holder) in (1..).zip(&self.ports) {
            self.ip(&format!("link set p{number} mtu {mtu}"));
            tool(self.inside(holder).enter().args([
                "ip",
                "link",
                "set",
                "eth0",
                "mtu",
                &mtu.to_string(),
            ]));
        }

        self.ip(&format!("link set br0 mtu {mtu}"));
    }

    /// Connects `place` to the switch `bridge` by the interface `name` with the address `address`.
    pub fn wire(&mut self, place: &Place, bridge: &str, name: &str, address: &str) {
        let Place::Namespace(inside) = place else {
            return;
        };

        self.wires += 1;
        let port = format!("w{}", self.wires);
        self.ip(&format!(
            "link add {port} mtu 1500 type veth peer name {name} netns {}",
            inside.holder
        ));
        self.ip(&format!("link set {port} master {bridge} up"));
        place.ip(&format!("addr add {address} dev {name}"));

        place.ip(&format!("link set {name} up mtu 1500"));
    }

    /// Connects a new host to the switch.
    pub fn plug(&mut self) -> Place {
        let number = self.ports.len() + 1;
        let switch = self.inside(&self.holder);
        let mut unshare = if self.rootless {
            let mut command = Command::new("nsenter");
            command.args([
                "--preserve-credentials",
                &format!("--user=/proc/{}/ns/user", self.holder.0.id()),
                "unshare",
            ]);
            command
        } else {
            Command::new("unshare")
        };

        let holder = Holder::start(unshare.arg("-n")).expect("the switch got a namespace, too");
        let inside = self.inside(&holder);
        let (port, pid, address) = (
            format!("p{number}"),
            holder.0.id().to_string(),
            format!("10.77.0.{number}/16"),
        );

        let ip = |at: Inside, line: &str| tool(at.enter().arg("ip").args(line.split(' ')));
        ip(
            switch,
            &format!("link add {port} mtu 1500 type veth peer name eth0 netns {pid}"),
        );
        ip(switch, &format!("link set {port} master br0 up"));
        ip(inside, "link set lo up");

        ip(inside, &format!("addr add {address} dev eth0"));
        ip(inside, "link set eth0 up mtu 1500");
        ip(inside, "route add default dev eth0");
        self.ports.push(holder);

        Place::Namespace(inside)
    }

    /// Returns the switch itself. The switch's port for host number n, from 1, is `pn`.
    pub fn place(&self) -> Place {
        Place::Namespace(self.inside(&self.holder))
    }

    fn inside(&self, holder: &Holder) -> Inside {
        Inside {
            kind: self.kind,
            holder: holder.0.id(),
            user: self.rootless.then(|| self.holder.0.id()),
        }
    }
}

impl Holder {
    fn start(unshare: &mut Command) -> Result<Self, String> {
        unshare
            .args(["sh", "-c", "echo && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = unshare
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{unshare:?}: {e}"))?;

        let mut ready = [0];
        if child
            .stdout
            .as_mut()
            .is_some_and(|out| out.read_exact(&mut ready).is_ok())
        {
            return Ok(Self(child));
        }

        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        Err(format!(
            "no network namespace: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
