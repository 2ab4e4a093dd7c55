//! Addresses of host names: looked up in this process, or in a helper process once this one must
//! not read /etc.
//!
//! The helper is this program, started again before the daemon confines itself. It resolves names,
//! nothing else, and ends with the daemon.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};

use minicbor::{Decode, Encode};

use crate::error::IoResultExt;
use crate::helper::{self, Frames};
use crate::sync::locked;

/// Name of the helper process, by which it recognizes itself.
const PEER_HELPER: &str = "makuo-peers";
/// Frame limits of requests and answers: a name, or its addresses.
const PEER_FRAMES: Frames = Frames {
    max: 1 << 20,
    word: None,
};

/// Socket to the helper process, if one runs.
static HELPER: OnceLock<Mutex<UnixStream>> = OnceLock::new();

#[derive(Debug, Encode, Decode)]
struct PeerRequest {
    #[n(0)]
    host: String,
    #[n(1)]
    port: u16,
}

#[derive(Debug, Encode, Decode)]
struct PeerResponse {
    #[n(0)]
    addresses: Vec<SocketAddr>,
    /// Why the name does not resolve.
    #[n(1)]
    error: Option<String>,
}

/// All addresses of a host name or address; an error for people if there are none.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let request = PeerRequest {
        host: host.into(),
        port,
    };

    let response = match HELPER.get() {
        None => look_up(&request),
        Some(stream) => {
            let stream = locked(stream);
            PEER_FRAMES
                .write(&stream, &request)
                .and_then(|()| PEER_FRAMES.read(&stream))
                .map_err(|e| e.to_string())?
                .ok_or("the process that resolves names has ended")?
        }
    };

    match response.error {
        Some(error) => Err(error),
        None => Ok(response.addresses),
    }
}

/// Starts the helper; later lookups go there. The program has to call [`served`] first of all.
pub fn start() -> crate::Result<()> {
    let stream =
        helper::start(PEER_HELPER).io_context("cannot start the process that resolves names")?;
    // A running helper stays.
    let _ = HELPER.set(Mutex::new(stream));
    Ok(())
}

/// Serves lookups if this process was started as the helper; returns whether it was.
pub fn served() -> bool {
    helper::served(PEER_HELPER, serve)
}

fn serve(stream: &UnixStream) -> io::Result<()> {
    while let Some(request) = PEER_FRAMES.read::<PeerRequest>(stream)? {
        PEER_FRAMES.write(stream, &look_up(&request))?;
    }
    Ok(())
}

fn look_up(request: &PeerRequest) -> PeerResponse {
    let found = (request.host.as_str(), request.port).to_socket_addrs();
    match found {
        Ok(addresses) => PeerResponse {
            addresses: addresses.collect(),
            error: None,
        },
        Err(e) => PeerResponse {
            addresses: Vec::new(),
            error: Some(e.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_answers_as_this_process_does() {
        let (mine, its) = UnixStream::pair().expect("a pair");
        let helper = std::thread::spawn(move || serve(&its));
        for host in ["127.0.0.1", "::1", "a..b"] {
            let request = PeerRequest {
                host: host.into(),
                port: 5001,
            };
            PEER_FRAMES.write(&mine, &request).expect("written");
            let there: PeerResponse = PEER_FRAMES.read(&mine).expect("read").expect("an answer");
            let here = look_up(&request);
            assert_eq!(
                (there.addresses, there.error),
                (here.addresses, here.error),
                "{host}"
            );
        }

        drop(mine);
        assert!(helper.join().expect("no panic").is_ok());
    }
}
