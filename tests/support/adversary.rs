//! An attacker at the switch with makuo's wire format: receives the group's datagrams and sends
//! arbitrary ones.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use makuo::id::InstanceId;
use makuo::keys::GroupKey;
use makuo::units::Moment;
use makuo::wire::datagram::{Fragment, Front, SymbolHeader, write_fragment, write_symbol};
use makuo::wire::fragment::{Reassembly, cut};
use makuo::wire::seal::{Plain, Seal, Sealed};
use makuo::wire::{Datagram, Message};
use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::place::Place;
use super::{Stopwatch, skipped};

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 108), 5000);
/// Largest piece of a message, in bytes.
const DATAGRAM: usize = 1200;

pub struct Adversary {
    socket: UdpSocket,
    /// Seals and opens datagrams; plain until a group key is set.
    seal: Box<dyn Seal>,
    counter: u64,
    message: u32,
    reassembly: Reassembly,
    clock: u64,
    hosts: Vec<InstanceId>,
}

impl Adversary {
    /// Takes over `place`; `None` if a thread cannot enter the namespace.
    pub fn at(place: &Place) -> Option<Self> {
        let Some(namespace) = place.file() else {
            skipped("only root can join a network namespace from a thread");
            return None;
        };

        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may");
            open()
        });
        let socket = thread.join().expect("no panic");
        Some(Self {
            socket,
            seal: Box::new(Plain),
            counter: 1 << 40,
            message: 0,
            reassembly: Reassembly::default(),
            clock: 0,
            hosts: Vec::new(),
        })
    }

    /// Uses the group key in the file `path` from now on.
    pub fn take_key(&mut self, path: &Path) {
        let keys = [GroupKey::load(path).expect("a group key")];
        self.seal = Box::new(Sealed::new(&keys, [9; 4]).expect("with a key"));
    }

    /// Sends `bytes` to the group unchanged. Datagrams beyond the socket buffer are dropped.
    pub fn send(&self, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, GROUP);
    }

    /// Sends `bytes` to one address.
    pub fn send_to(&self, to: SocketAddr, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, to);
    }

    /// Sends `message` to one address, as `source`.
    pub fn say_to(&mut self, to: SocketAddr, source: InstanceId, message: &Message) {
        self.message += 1;
        let bytes = message.encode();
        let pieces: Vec<Fragment<'_>> = cut(&bytes, self.message, DATAGRAM)
            .expect("few pieces")
            .collect();

        for piece in pieces {
            let mut out = Vec::new();
            write_fragment(&mut out, self.front(source), piece);
            self.send_to(to, &out);
        }
    }

    /// Returns up to `most` pending datagrams with their source addresses.
    pub fn hear_from(&self, most: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut heard, mut memory) = (Vec::new(), vec![0; 65_536]);
        while heard.len() < most {
            match self.socket.recv_from(&mut memory) {
                Ok((len, from)) => heard.push((from, memory[..len].to_vec())),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // Signals address the process of all tests.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("{e}"),
            }
        }

        heard
    }

    /// Returns the source addresses of up to `most` pending datagrams, without blocking.
    pub fn speakers(&self, most: usize) -> Vec<SocketAddr> {
        let (socket, mut memory) = (
            socket2::SockRef::from(&self.socket),
            [MaybeUninit::uninit(); 64],
        );
        let next = || {
            socket
                .recv_from_with_flags(&mut memory, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
                .ok()
        };

        std::iter::from_fn(next)
            .take(most)
            .filter_map(|(_, from)| from.as_socket())
            .collect()
    }

    /// Sends `message` to the group, as `source`.
    pub fn say(&mut self, source: InstanceId, message: &Message) {
        self.say_bytes(source, &message.encode());
    }

    /// Sends the bytes of a message, valid or not, to the group.
    pub fn say_bytes(&mut self, source: InstanceId, bytes: &[u8]) {
        self.message += 1;
        let pieces: Vec<Fragment<'_>> = cut(bytes, self.message, DATAGRAM)
            .expect("few pieces")
            .collect();

        for piece in pieces {
            let mut out = Vec::new();
            write_fragment(&mut out, self.front(source), piece);
            self.send_sealed(out);
        }
    }

    /// Encodes a short message as a datagram of `source`.
    pub fn datagram(&mut self, source: InstanceId, message: &Message) -> Vec<u8> {
        self.message += 1;
        let (mut out, bytes) = (Vec::new(), message.encode());
        let piece = Fragment {
            message: self.message,
            index: 0,
            count: 1,
            bytes: &bytes,
        };

        write_fragment(&mut out, self.front(source), piece);
        self.sealed(out)
    }

    fn sealed(&mut self, mut datagram: Vec<u8>) -> Vec<u8> {
        datagram.resize(datagram.len() + self.seal.room(), 0);
        self.seal.seal(&mut datagram);
        datagram
    }

    fn send_sealed(&mut self, datagram: Vec<u8>) {
        let sealed = self.sealed(datagram);
        self.send(&sealed);
    }

    /// Sends a symbol to the group, as `source`.
    pub fn symbol(&mut self, source: InstanceId, header: SymbolHeader, bytes: &[u8]) {
        let mut out = Vec::new();
        write_symbol(&mut out, self.front(source), header, bytes);
        self.send_sealed(out);
    }

    fn front(&mut self, source: InstanceId) -> Front {
        self.counter += 1;
        Front {
            source,
            counter: self.counter,
        }
    }

    /// Returns up to `most` pending datagrams.
    pub fn hear(&self, most: usize) -> Vec<Vec<u8>> {
        let (mut heard, mut memory) = (Vec::new(), vec![0; 65_536]);
        while heard.len() < most {
            match self.socket.recv(&mut memory) {
                Ok(len) => heard.push(memory[..len].to_vec()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // Signals address the process of all tests.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("{e}"),
            }
        }

        heard
    }

    /// Records all datagrams until `is_over`.
    pub fn record(&self, mut is_over: impl FnMut() -> bool) -> Vec<Vec<u8>> {
        let (mut all, watch) = (Vec::new(), Stopwatch::start());
        while !is_over() {
            assert!(watch.read() < super::wait::LONG, "recorded in vain");
            all.extend(self.hear(1000));
        }
        all.extend(self.hear(100_000));
        all
    }

    /// Returns the hosts that sent any of `heard` to the group, and the hosts known before.
    pub fn hosts(&mut self, heard: &[Vec<u8>]) -> Vec<InstanceId> {
        for bytes in heard {
            if let Ok(Datagram::Control(front, piece)) = Datagram::parse(bytes)
                && let Ok(Message::Hello(hello)) = Message::decode(piece.bytes)
                && hello.trees.iter().any(|tree| tree.tree.as_str() == "www")
                && !self.hosts.contains(&front.source)
            {
                self.hosts.push(front.source);
            }
        }

        self.hosts.clone()
    }

    /// Opens the pending messages, each with its source.
    pub fn said(&mut self) -> Vec<(InstanceId, Message)> {
        let mut heard = self.hear(1000);
        for bytes in &mut heard {
            if let Ok(open) = self.seal.open(bytes) {
                let length = open.len();
                bytes.truncate(length);
            }
        }

        self.messages(&heard)
    }

    /// Opens the messages among the datagrams, each with its source.
    pub fn messages(&mut self, datagrams: &[Vec<u8>]) -> Vec<(InstanceId, Message)> {
        let mut messages = Vec::new();
        for bytes in datagrams {
            self.clock += 1;
            if let Ok(Datagram::Control(front, piece)) = Datagram::parse(bytes)
                && let Some(whole) = self.reassembly.add(Moment(self.clock), front.source, piece)
                && let Ok(message) = Message::decode(&whole)
            {
                messages.push((front.source, message));
            }
        }

        messages
    }
}

/// Opens a socket in the thread's namespace.
fn open() -> UdpSocket {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("legal");

    // Root may exceed the system's limit.
    let _ =
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20));
    socket
        .bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GROUP.port()).into())
        .expect("free");
    socket
        .join_multicast_v4(GROUP.ip(), &Ipv4Addr::UNSPECIFIED)
        .expect("joins");

    socket.set_multicast_loop_v4(false).expect("legal");
    socket
        .set_read_timeout(Some(Duration::from_millis(5)))
        .expect("legal");

    socket.into()
}
