//! A proxy between a store and its client that does to answers as networks, caches and broken
//! servers do. It reads each request and answer whole, so that its faults are exact.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Answer, Question, named};
use super::wait::Stopwatch;

/// Longest time that a stalled answer is kept open.
const STALL: Duration = Duration::from_secs(20);
/// Time between the head of an odd answer and its body, for a client that wants no such body.
const SECOND_THOUGHT: Duration = Duration::from_millis(200);

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing.
    None,
    /// The connection ends after this many bytes of the body.
    Cut(usize),
    /// The connection ends without an answer.
    Reset,
    /// The request arrives, its answer does not.
    LostAnswer,
    /// The range of the request is ignored: 200 with the whole object.
    Whole,
    /// 206 with the bytes of another range.
    OtherRange,
    /// 206 with fewer bytes than the range has.
    ShortRange,
    /// A range in the head that is not the one of the body.
    WrongHead,
    /// One byte differs.
    WrongByte,
    /// The answer of an earlier time, if there was one.
    Stale,
    /// This status, with `Retry-After` and a code as S3 has it.
    Status(u16, Option<u32>, &'static str),
    /// After this many bytes of the body comes nothing more.
    Stall(usize),
    /// No length in the head: the body is chunked.
    Chunked,
    /// A body that claims to be compressed.
    Gzip,
    /// A length of many terabytes.
    Huge,
    /// 302 to this address.
    Redirect(String),
    /// This status, with another address.
    Moved(u16, String),
    /// The conditions of a put are ignored.
    Unconditional,
    /// The answer comes later.
    Late(Duration),
}

/// A request that passed.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Method and path.
    pub line: String,
    /// Headers by their lower-case names.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the answer's body that went out.
    pub sent: usize,
    /// Status of the answer; 0 for none.
    pub status: u16,
    /// Headers of the answer.
    pub answered: BTreeMap<String, String>,
}

/// Results of the mishaps.
#[derive(Debug, Default, Clone, Copy)]
pub struct Toll {
    /// Requests that went wrong.
    pub faults: usize,
    /// Bytes counted as sent in [`Passed`] that the client did not wait for.
    pub spared: usize,
    /// The longest time that a client waited for a stalled answer.
    pub waited: Duration,
}

/// The proxy. Its threads end with their connections.
pub struct Middleman {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    script: Mutex<VecDeque<Mishap>>,
    random: Mutex<Option<Dice>>,
    log: Mutex<Vec<Passed>>,
    old: Mutex<BTreeMap<String, Answer>>,
    over: AtomicBool,
    asking: AtomicUsize,
    most: AtomicUsize,
    toll: Mutex<Toll>,
    /// Delay of every answer.
    delay: Mutex<Duration>,
}

struct Dice {
    random: fastrand::Rng,
    choices: Vec<Mishap>,
    /// Out of 100 requests, this many go wrong.
    share: u32,
}

impl Middleman {
    /// A proxy before `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            script: Mutex::default(),
            random: Mutex::default(),
            log: Mutex::default(),
            old: Mutex::default(),
            over: AtomicBool::new(false),
            asking: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            toll: Mutex::default(),
            delay: Mutex::default(),
        });

        let known = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if known.over.load(Ordering::Relaxed) {
                    return;
                }
                let known = Arc::clone(&known);
                if let Ok(client) = client {
                    std::thread::spawn(move || known.serve(client));
                }
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mishaps of the next requests, one after the other.
    pub fn script(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        let mut script = self.shared.script.lock().expect("whole");
        *script = mishaps.into_iter().collect();
    }

    /// From now on, `share` of 100 requests have one of `choices`.
    pub fn throw(&self, seed: u64, share: u32, choices: Vec<Mishap>) {
        let random = fastrand::Rng::with_seed(seed);
        *self.shared.random.lock().expect("whole") = Some(Dice {
            random,
            choices,
            share,
        });
    }

    /// From now on, every answer comes so much later, as from a far store. Those that wait already
    /// count.
    pub fn delay(&self, time: Duration) {
        *self.shared.delay.lock().expect("whole") = time;
    }

    /// Results of the mishaps so far.
    pub fn toll(&self) -> Toll {
        *self.shared.toll.lock().expect("whole")
    }

    /// The most requests that waited for their answers at the same time.
    pub fn most(&self) -> usize {
        self.shared.most.load(Ordering::Relaxed)
    }

    /// Requests since the last call.
    pub fn passed(&self) -> Vec<Passed> {
        std::mem::take(&mut *self.shared.log.lock().expect("whole"))
    }
}

impl Drop for Middleman {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let Ok(reading) = client.try_clone() else {
            return;
        };
        let (mut reader, mut client) = (BufReader::new(reading), client);
        let _ = client.set_read_timeout(Some(STALL));
        let _ = client.set_nodelay(true);
        while let Some(question) = Question::read(&mut reader) {
            if !self.answer(&question, &mut client) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }

    fn mishap(&self) -> Mishap {
        if let Some(next) = self.script.lock().expect("whole").pop_front() {
            return next;
        }
        let mut random = self.random.lock().expect("whole");
        let Some(dice) = random.as_mut() else {
            return Mishap::None;
        };
        match dice.random.u32(0..100) < dice.share {
            true => dice.choices[dice.random.usize(0..dice.choices.len())].clone(),
            false => Mishap::None,
        }
    }

    /// Answers one request. Returns whether the connection goes on.
    fn answer(&self, question: &Question, client: &mut TcpStream) -> bool {
        let asking = self.asking.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(asking, Ordering::Relaxed);
        let mishap = self.mishap();
        self.toll(|toll| toll.faults += usize::from(mishap != Mishap::None));
        self.wait();
        let mut passed = Passed {
            line: question.line.clone(),
            headers: named(&question.headers),
            sent: 0,
            status: 0,
            answered: BTreeMap::new(),
        };

        let upstream = *self.upstream.lock().expect("whole");
        let answer = match &mishap {
            Mishap::Reset => None,
            Mishap::Status(status, after, code) => Some(Answer::failed(*status, *after, code)),
            Mishap::Redirect(to) => Some(Answer::redirect(to)),
            Mishap::Moved(status, to) => {
                let headers = [("Location", to.as_str())];
                Some(Answer::new(*status, &headers, b""))
            }
            Mishap::Unconditional => question
                .without(&["if-match", "if-none-match"])
                .ask(upstream),
            Mishap::Whole => question.without(&["range"]).ask(upstream),
            Mishap::OtherRange => question.with_other_range().ask(upstream),
            Mishap::Stale => {
                let old = self.old.lock().expect("whole").get(&question.line).cloned();
                old.or_else(|| question.ask(upstream))
            }
            _ => question.ask(upstream),
        };

        let Some(mut answer) = answer.filter(|_| mishap != Mishap::LostAnswer) else {
            self.log.lock().expect("whole").push(passed);
            self.asking.fetch_sub(1, Ordering::Relaxed);
            return false;
        };
        if mishap == Mishap::None && answer.status == 200 {
            let mut old = self.old.lock().expect("whole");
            old.entry(question.line.clone())
                .or_insert_with(|| answer.clone());
        }

        answer.spoil(&mishap);
        if let Mishap::Late(time) = mishap {
            std::thread::sleep(time);
        }
        (passed.status, passed.answered) = (answer.status, named(&answer.headers));
        let head_only = question.line.starts_with("HEAD ");
        passed.sent = answer.sent(&mishap, head_only);
        // The client may look at the log as soon as it has the answer.
        let sent = passed.sent;
        self.log.lock().expect("whole").push(passed);
        self.asking.fetch_sub(1, Ordering::Relaxed);
        if matches!(mishap, Mishap::Late(_)) && has_left(client, Duration::ZERO) {
            self.toll(|toll| toll.spared += sent);
            return false;
        }

        match answer.write_after(client, &mishap, head_only) {
            Written::GoesOn => true,
            Written::Over => false,
            Written::Refused => {
                self.toll(|toll| toll.spared += sent);
                false
            }
            Written::Stalled(time) => {
                self.toll(|toll| toll.waited = toll.waited.max(time));
                false
            }
        }
    }

    /// Waits for the delay of all answers, which may change meanwhile.
    fn wait(&self) {
        let watch = Stopwatch::start();
        while watch.read() < *self.delay.lock().expect("whole") {
            super::pause(Duration::from_millis(2));
        }
    }

    fn toll(&self, change: impl FnOnce(&mut Toll)) {
        change(&mut self.toll.lock().expect("whole"));
    }
}

/// How an answer was written.
enum Written {
    /// Whole: the connection goes on.
    GoesOn,
    /// Not whole, or the client has left.
    Over,
    /// The client left after the head.
    Refused,
    /// Nothing more came, until the client left after this time.
    Stalled(Duration),
}

/// Returns whether the client closes the connection within `time`.
fn has_left(client: &TcpStream, time: Duration) -> bool {
    let time = time.max(Duration::from_millis(1));
    let _ = client.set_read_timeout(Some(time));
    let left = matches!(client.peek(&mut [0]), Ok(0))
        || client.take_error().is_ok_and(|error| error.is_some());
    let _ = client.set_read_timeout(Some(STALL));
    left
}

impl Mishap {
    /// One of each kind that bad networks, caches and servers make of a request, without those
    /// that depend on the size of a body or take time.
    pub fn all_sudden() -> Vec<Self> {
        vec![
            Mishap::Reset,
            Mishap::Whole,
            Mishap::OtherRange,
            Mishap::ShortRange,
            Mishap::WrongHead,
            Mishap::WrongByte,
            Mishap::Stale,
            Mishap::Chunked,
            Mishap::Gzip,
            Mishap::Huge,
            Mishap::Status(500, None, "InternalError"),
            Mishap::Status(503, Some(0), "SlowDown"),
        ]
    }

    /// Returns whether a client can see it in the head of the answer, and want no body.
    fn is_in_the_head(&self) -> bool {
        matches!(
            self,
            Mishap::OtherRange
                | Mishap::ShortRange
                | Mishap::WrongHead
                | Mishap::Gzip
                | Mishap::Huge
        )
    }
}

impl Question {
    fn without(&self, names: &[&str]) -> Self {
        let mut other = self.clone();
        let stays = |name: &str| !names.iter().any(|one| name.eq_ignore_ascii_case(one));
        other.headers.retain(|(name, _)| stays(name));
        other
    }

    /// Asks for the range one byte earlier.
    fn with_other_range(&self) -> Self {
        let mut other = self.clone();
        for (name, value) in &mut other.headers {
            let range = value.strip_prefix("bytes=").and_then(|r| r.split_once('-'));
            let Some((first, last)) = range.filter(|_| name.eq_ignore_ascii_case("range")) else {
                continue;
            };
            let number = |text: &str| text.parse::<u64>().unwrap_or(0).saturating_sub(1);
            *value = format!("bytes={}-{}", number(first), number(last));
        }
        other
    }
}

impl Answer {
    fn spoil(&mut self, mishap: &Mishap) {
        let set = |headers: &mut Vec<(String, String)>, name: &str, value: &str| {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            headers.push((name.into(), value.into()));
        };
        let range = named(&self.headers).get("content-range").cloned();
        match mishap {
            Mishap::WrongByte if !self.body.is_empty() => {
                let at = self.body.len() / 2;
                self.body[at] ^= 0x40;
            }
            Mishap::ShortRange if self.status == 206 && self.body.len() > 1 => {
                self.body.truncate(self.body.len() / 2);
                let range = range.unwrap_or_default();
                let first = range.trim_start_matches("bytes ").split('-').next();
                let first: usize = first.and_then(|f| f.parse().ok()).unwrap_or(0);
                let size = range.rsplit('/').next().unwrap_or("*").to_string();
                let value = format!("bytes {first}-{}/{size}", first + self.body.len() - 1);
                set(&mut self.headers, "Content-Range", &value);
            }
            Mishap::WrongHead if self.status == 206 => {
                set(
                    &mut self.headers,
                    "Content-Range",
                    "bytes 1-18446744073709551615/9",
                );
            }
            Mishap::Gzip => set(&mut self.headers, "Content-Encoding", "gzip"),
            _ => {}
        }
    }

    /// Bytes of the body that go out.
    fn sent(&self, mishap: &Mishap, head_only: bool) -> usize {
        match mishap {
            _ if self.is_bare(head_only) => 0,
            Mishap::Cut(at) | Mishap::Stall(at) => (*at).min(self.body.len()),
            _ => self.body.len(),
        }
    }

    fn is_bare(&self, head_only: bool) -> bool {
        head_only || matches!(self.status, 204 | 304)
    }

    /// Writes the answer.
    fn write_after(&self, client: &mut TcpStream, mishap: &Mishap, head_only: bool) -> Written {
        let bare = self.is_bare(head_only);
        let mut text = self.head();
        let chunked = *mishap == Mishap::Chunked && !bare;
        match mishap {
            _ if chunked => text += "transfer-encoding: chunked\r\n",
            Mishap::Huge => text += "content-length: 9000000000000000\r\n",
            _ if self.status != 204 => text += &format!("content-length: {}\r\n", self.body.len()),
            _ => {}
        }
        text += "\r\n";
        match client.write_all(text.as_bytes()) {
            Err(_) => return Written::Over,
            Ok(()) if bare => return Written::GoesOn,
            Ok(()) if mishap.is_in_the_head() && has_left(client, SECOND_THOUGHT) => {
                return Written::Refused;
            }
            Ok(()) => {}
        }

        let end = self.sent(mishap, head_only);
        let sent = match chunked {
            true => write_chunks(client, &self.body),
            false => client.write_all(&self.body[..end]),
        };
        if let Mishap::Stall(_) = mishap {
            // The client goes away, or this ends by itself.
            let watch = Stopwatch::start();
            let _ = client.read(&mut [0]);
            return Written::Stalled(watch.read());
        }
        match sent.is_ok() && end == self.body.len() && *mishap != Mishap::Huge {
            true => Written::GoesOn,
            false => Written::Over,
        }
    }
}

fn write_chunks(client: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    for piece in body.chunks(4000) {
        client.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        client.write_all(piece)?;
        client.write_all(b"\r\n")?;
    }
    client.write_all(b"0\r\n\r\n")
}
