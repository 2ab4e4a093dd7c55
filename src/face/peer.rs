//! User at the other end of a local TCP connection, from the kernel's table of sockets.
//!
//! A port above 1023 is free for every local user, and any local user can connect to a listener:
//! addresses do not identify the peer. The table lists the user of each socket.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;

use crate::sync::locked;

/// State of a listening socket.
const LISTEN_STATE: u8 = 0x0a;
/// Largest number of reads of a table for one socket.
const MAX_TABLE_READS: usize = 5;
/// Largest part of a table to read, in bytes.
const MAX_TABLE: u64 = 64 << 20;

/// Open socket tables of this process's network.
#[derive(Debug)]
pub struct Sockets {
    /// Read from the beginning, by one thread at a time.
    tables: Mutex<Vec<File>>,
}

/// A line of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

impl Sockets {
    /// Opens the tables, which stay readable after the process loses the right to open files.
    pub fn open() -> Self {
        let paths = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
        Self {
            tables: Mutex::new(
                paths
                    .iter()
                    .filter_map(|path| File::open(path).ok())
                    .collect(),
            ),
        }
    }

    /// Returns the user of the socket at `remote` that is connected to `local`, both on this
    /// machine. `None` if unknown: a socket closed by its process belongs to nobody, and is shown
    /// as root's.
    pub fn user_of_client(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let is_it =
            |s: &Socket| s.local == plain(remote) && s.remote == plain(local) && s.inode != 0;
        self.users(is_it).first().copied()
    }

    /// Returns the users of all sockets that accept connections to `address`; empty if unknown.
    pub fn users_of_listeners(&self, address: SocketAddr) -> Vec<u32> {
        let address = plain(address);
        let is_it = |s: &Socket| {
            let here = s.local.ip() == address.ip() || s.local.ip().is_unspecified();
            s.state == LISTEN_STATE && s.local.port() == address.port() && here
        };

        self.users(is_it)
    }

    /// Returns the users of the sockets that `is_it` selects, each once. A table is read in pieces,
    /// and a line can be missed while others come and go: reads again while there is none.
    fn users(&self, is_it: impl Fn(&Socket) -> bool) -> Vec<u32> {
        for _ in 0..MAX_TABLE_READS {
            let sockets = self.all().unwrap_or_default();
            let users: BTreeSet<u32> = sockets.iter().filter(|s| is_it(s)).map(|s| s.uid).collect();
            if !users.is_empty() {
                return users.into_iter().collect();
            }
        }

        Vec::new()
    }

    fn all(&self) -> io::Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        let tables = locked(&self.tables);
        for mut table in &*tables {
            let mut text = String::new();
            table.seek(SeekFrom::Start(0))?;
            table.take(MAX_TABLE).read_to_string(&mut text)?;
            sockets.extend(text.lines().skip(1).filter_map(parse));
        }

        Ok(sockets)
    }
}

/// Parses a line such as `0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000
/// 0 0 22 1 ...`.
fn parse(line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(Socket {
        local: address(words.get(1)?)?,
        remote: address(words.get(2)?)?,
        state: u8::from_str_radix(words.get(3)?, 16).ok()?,
        uid: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// Parses an address of the table: words of 32 bits in the machine's order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        Some(
            u32::from_str_radix(ip.get(at..at + 8)?, 16)
                .ok()?
                .to_ne_bytes(),
        )
    };

    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };

    Some(plain(SocketAddr::new(ip, port)))
}

/// Normalizes an address: IPv4 instead of mapped IPv6, without scopes.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_a_connection_are_this_user() {
        let me = nix::unistd::geteuid().as_raw();
        for bound in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(bound) else {
                crate::skip::skipped(format!("{bound} is not here"));
                continue;
            };
            let mut at = listener.local_addr().unwrap();
            if at.ip().is_unspecified() {
                at.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            let client = TcpStream::connect(at).unwrap();
            let (server, remote) = listener.accept().unwrap();
            let sockets = Sockets::open();
            assert_eq!(
                sockets.users_of_listeners(client.peer_addr().unwrap()),
                [me],
                "{bound}"
            );
            assert_eq!(
                sockets.user_of_client(server.local_addr().unwrap(), remote),
                Some(me),
                "{bound}"
            );

            // Holds with many lookups at once.
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    let sockets = &sockets;
                    let local = server.local_addr().unwrap();
                    scope.spawn(move || {
                        (0..5).for_each(|_| {
                            assert_eq!(sockets.user_of_client(local, remote), Some(me), "{bound}")
                        });
                    });
                }
            });

            // A closed socket is shown as root's, and means nothing.
            drop(client);
            let local = server.local_addr().unwrap();
            soon(bound, || sockets.user_of_client(local, remote).is_none());
            drop(listener);
            soon(bound, || sockets.users_of_listeners(at).is_empty());
        }
    }

    /// Waits until a closed socket is gone: a process that another test starts has a copy of it
    /// until it is executed.
    fn soon(bound: &str, is_gone: impl Fn() -> bool) {
        let is_gone = |_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            is_gone()
        };
        assert!((0..500).any(is_gone), "{bound}");
    }

    #[test]
    fn lines_are_read_and_others_passed_over() {
        let zeros = "00000000:00000000 00:00000000 00000000";
        let socket = parse(&format!(
            "  0: 0100007F:1388 00000000:0000 0A {zeros}  1000        0 4711 1 0"
        ))
        .unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(socket.local, "127.0.0.1:5000".parse().unwrap());
        }

        assert_eq!(
            (socket.state, socket.uid, socket.inode),
            (LISTEN_STATE, 1000, 4711)
        );

        for line in [
            "",
            "sl local_address",
            "0: x:y z 0A",
            "0: 0100007F:1388 00000000:0000",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[0-9A-F: \u{e9}]{0,80}") {
            let _ = parse(&line);
        }
    }
}
