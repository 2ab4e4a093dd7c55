//! A stranger in a network without multicast: whatever it forges or replays, hosts send data to
//! members alone, and few datagrams to the address of a victim.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use makuo::id::{InstanceId, Nonce};
use makuo::wire::Datagram;
use makuo::wire::Front;
use makuo::wire::datagram::{is_relayed, write_peer};
use makuo::wire::peer::{MAX_LISTED_PEERS, PeerMessage, Ping, Pong};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::{
    Beside, Capture, NetworkKind, Noise, Place, Stopwatch, skipped, until, write,
};

const HOSTS: usize = 3;
/// Port of hosts.
const PORT: u16 = 5001;
/// Pings, and answers to pings, that a host sends to one address in a second.
const MAX_PINGS: f64 = 2.0 * 8.0;

/// The kind of a datagram.
const KIND: usize = 3;
/// Kinds of data, and of messages between peers, plain and sealed.
const DATA: [u8; 4] = [2, 4, 0x82, 0x84];
const PEER: [u8; 2] = [3, 0x83];

fn host(number: u8) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, number), PORT).into()
}

/// Opens a socket at `place` that sends from `address`, which may be the one of another place.
fn socket(place: &Place, address: SocketAddr) -> Option<UdpSocket> {
    let Some(namespace) = place.file() else {
        skipped("only root can join a network namespace from a thread");
        return None;
    };

    let open = move || {
        use socket2::{Domain, Socket, Type};
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may");
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        setsockopt(&socket, sockopt::IpTransparent, &true).expect("root may");
        socket.bind(&address.into()).expect("free");
        let socket = UdpSocket::from(socket);
        let wait = Some(Duration::from_millis(2));
        socket.set_read_timeout(wait).expect("legal");
        socket
    };
    Some(std::thread::spawn(open).join().expect("no panic"))
}

/// Returns a datagram that waits or comes soon.
fn received(socket: &UdpSocket) -> Option<(SocketAddr, Vec<u8>)> {
    let mut memory = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut memory).ok()?;
    memory.truncate(len);
    Some((from, memory))
}

/// A process that answers challenges, names the victim to all, and replays what it recorded.
struct Stranger {
    own: UdpSocket,
    /// Sends from the victim's address.
    as_victim: UdpSocket,
    /// Sends from the address of the second host.
    as_host: UdpSocket,
    victim: SocketAddr,
    recorded: Vec<Vec<u8>>,
    counter: u64,
}

impl Stranger {
    fn send(&mut self, from: &UdpSocket, to: SocketAddr, message: &PeerMessage) {
        self.counter += 1;
        let front = Front {
            source: InstanceId(666),
            counter: self.counter,
        };
        let mut out = Vec::new();
        write_peer(&mut out, front, &message.encode());
        let _ = from.send_to(&out, to);
    }

    /// Attacks until the end; returns the number of replayed datagrams that are to be passed on.
    fn attack(mut self, over: &AtomicBool) -> usize {
        let (mut at, mut relayed) = (0, 0);
        let [own, as_victim, as_host] = [&self.own, &self.as_victim, &self.as_host]
            .map(|socket| socket.try_clone().expect("a socket"));
        let victim = self.victim;
        let ping = |echo| {
            PeerMessage::Ping(Ping {
                nonce: Nonce(7),
                echo,
                host: true,
                list: true,
                heard: None,
                segment: None,
                interval: None,
            })
        };

        while !over.load(Ordering::Relaxed) {
            // Each answer brings another one.
            for (from, bytes) in std::iter::from_fn(|| received(&own)).take(4) {
                let Ok(Datagram::Peer(_, message)) = Datagram::parse(&bytes) else {
                    continue;
                };
                match PeerMessage::decode(message) {
                    Some(PeerMessage::Ping(asked)) => {
                        let pong = PeerMessage::Pong(Pong {
                            echo: asked.nonce,
                            nonce: Nonce(7),
                            host: true,
                            known: 10_000,
                            peers: ports(victim).collect(),
                            heard: None,
                            segment: None,
                        });
                        self.send(&own, from, &pong);
                    }
                    Some(PeerMessage::Pong(pong)) => {
                        self.send(&own, from, &ping(Some(pong.nonce)));
                        self.send(&as_victim, from, &ping(Some(pong.nonce)));
                    }
                    Some(PeerMessage::Leave(_)) | None => {}
                }
            }

            for number in 1..=HOSTS as u8 {
                self.send(&own, host(number), &ping(None));
                self.send(&as_victim, host(number), &ping(None));
                for _ in 0..8 {
                    let datagram = &self.recorded[at % self.recorded.len()];
                    at += 1;
                    relayed += usize::from(is_relayed(datagram));
                    for socket in [&own, &as_victim, &as_host] {
                        let _ = socket.send_to(datagram, host(number));
                    }
                }
            }
        }

        relayed
    }
}

/// The victim's address with different ports.
fn ports(victim: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    (PORT..)
        .take(MAX_LISTED_PEERS)
        .map(move |port| SocketAddr::new(victim.ip(), port))
}

#[test]
fn hosts_send_no_data_to_a_victim_and_few_pings() {
    for plain in [true, false] {
        let Some(mut lab) = (match plain {
            true => NetworkKind::Unicast.plain_hosts(HOSTS),
            false => NetworkKind::Unicast.hosts(HOSTS),
        }) else {
            return;
        };

        let (victim, stranger) = (lab.plug(), lab.plug());
        let address = host(HOSTS as u8 + 2);
        let sockets: Option<Vec<_>> = ports(address)
            .map(|address| socket(&victim, address))
            .collect();
        let Some(sockets) = sockets else { return };
        for socket in &sockets {
            socket.set_nonblocking(true).expect("a socket");
        }
        let Ok(capture) = Capture::whole(&lab.hosts[0].place).map_err(|why| skipped(&why)) else {
            return;
        };

        write(&lab.site().join("big"), Noise::new(1).bytes(3 << 20));
        lab.deploy(&[]).exits(0);
        let packets = capture.finish();
        let recorded: Vec<_> = packets
            .iter()
            .flat_map(|packet| packet.contents())
            .map(<[u8]>::to_vec)
            .collect();

        let relayed = recorded.iter().filter(|bytes| is_relayed(bytes)).count();
        assert!(
            relayed > 100,
            "{relayed} of {} pass through hosts",
            recorded.len()
        );
        let open = |address| socket(&stranger, address).expect("as before");
        let stranger = Stranger {
            own: open(host(HOSTS as u8 + 3)),
            as_victim: open(address),
            as_host: open(host(2)),
            victim: address,
            recorded,
            counter: 0,
        };

        let watch = Stopwatch::start();
        let attack = Beside::begin(move |over| stranger.attack(over));
        let mut heard = Vec::new();
        let mut listen = || {
            let waiting = || sockets.iter().find_map(received);
            heard.extend(std::iter::from_fn(waiting).take(1000));
            !heard.is_empty()
        };
        if plain {
            until("the attack to reach the victim", &mut listen);
        }

        write(&lab.site().join("big"), Noise::new(2).bytes(3 << 20));
        lab.deploy(&[]).exits(0);
        lab.all_same(&lab.site());
        listen();
        let seconds = watch.read().as_secs_f64();
        let replayed = attack.end();
        assert!(replayed > 100, "{replayed} datagrams of data were replayed");

        // Without a key, hosts also answer questions that seem to come from the victim.
        let is_data = |datagram: &[u8]| DATA.contains(&datagram[KIND]);
        let is_ping = |datagram: &[u8]| PEER.contains(&datagram[KIND]);
        for (from, datagram) in &heard {
            assert!(!is_data(datagram), "{from} sent data");
            assert!(plain || is_ping(datagram), "{from} sent a message");
        }

        let most = HOSTS as f64 * MAX_PINGS * (seconds + 2.0);
        let pings = heard.iter().filter(|(_, datagram)| is_ping(datagram));
        let pings = pings.count() as f64;
        assert!(pings < most, "{pings} in {seconds:.1} s");
    }
}
