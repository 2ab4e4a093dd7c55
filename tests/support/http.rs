//! Requests and answers of HTTP, read whole, and a server that a function is.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A request.
#[derive(Debug, Clone)]
pub struct Question {
    /// Method, path and version.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Serves every connection by `answer`, until the process ends.
pub fn serve_by(answer: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || {
                // Head and body are written apart: the body would wait for the client's late ACK.
                let _ = client.set_nodelay(true);
                let mut reader = BufReader::new(client.try_clone().expect("a handle"));
                let mut client = client;
                while let Some(question) = Question::read(&mut reader) {
                    if answer(&question).write(&mut client).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Headers by their lower-case names.
pub fn named(headers: &[(String, String)]) -> BTreeMap<String, String> {
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    headers.iter().map(lower).collect()
}

/// Reads a head: its first line and its headers.
fn head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        reader.read_line(line).ok().filter(|&read| read > 0)
    };
    next(&mut line)?;
    let first = line.trim_end().to_string();
    let mut headers = Vec::new();
    loop {
        next(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_string(), value.trim().to_string())),
            None => return Some((first, headers)),
        }
    }
}

fn length(headers: &[(String, String)]) -> Option<usize> {
    named(headers).get("content-length")?.parse().ok()
}

impl Question {
    pub fn read(reader: &mut impl BufRead) -> Option<Self> {
        let (line, headers) = head(reader)?;
        let mut body = vec![0; length(&headers).unwrap_or(0)];
        if named(&headers).contains_key("transfer-encoding") {
            body = unchunked(reader)?;
        } else {
            reader.read_exact(&mut body).ok()?;
        }
        Some(Self {
            line,
            headers,
            body,
        })
    }

    /// Asks the server, on a connection of its own.
    pub fn ask(&self, upstream: SocketAddr) -> Option<Answer> {
        let mut server = TcpStream::connect(upstream).ok()?;
        server.set_nodelay(true).ok()?;
        let mut line = self.line.clone();
        // A client that takes this for a forward proxy sends a whole URL.
        if let Some((method, rest)) = line.clone().split_once(" http://") {
            let path = rest.find('/').map_or("/", |at| &rest[at..]);
            line = format!("{method} {path}");
        }

        let mut text = format!("{line}\r\n");
        for (name, value) in &self.headers {
            if !matches!(
                name.to_ascii_lowercase().as_str(),
                "connection" | "transfer-encoding" | "content-length" | "proxy-connection"
            ) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        text += &format!(
            "connection: close\r\ncontent-length: {}\r\n\r\n",
            self.body.len()
        );
        server.write_all(text.as_bytes()).ok()?;
        server.write_all(&self.body).ok()?;
        Answer::read(&mut BufReader::new(server), self.line.starts_with("HEAD "))
    }
}

fn unchunked(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece).ok()?;
        match size {
            0 => return Some(body),
            _ => body.extend_from_slice(&piece[..size]),
        }
    }
}

impl Answer {
    pub fn read(reader: &mut impl BufRead, head_only: bool) -> Option<Self> {
        let (line, headers) = head(reader)?;
        let status: u16 = line.split(' ').nth(1)?.parse().ok()?;
        let mut body = Vec::new();
        if named(&headers).contains_key("transfer-encoding") {
            body = unchunked(reader)?;
        } else if !head_only && status != 304 && status != 204 {
            match length(&headers) {
                Some(length) => {
                    body = vec![0; length];
                    reader.read_exact(&mut body).ok()?;
                }
                None => {
                    reader.read_to_end(&mut body).ok()?;
                }
            }
        }
        Some(Self {
            status,
            headers,
            body,
        })
    }

    /// A failure as S3 has it.
    pub fn failed(status: u16, after: Option<u32>, code: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
        let mut headers = vec![("Date".into(), "Fri, 31 Dec 1999 23:59:59 GMT".into())];
        headers.extend(after.map(|after| ("Retry-After".to_string(), after.to_string())));
        Self {
            status,
            headers,
            body: body.into_bytes(),
        }
    }

    pub fn redirect(to: &str) -> Self {
        Self {
            status: 302,
            headers: vec![("Location".into(), to.into())],
            body: Vec::new(),
        }
    }

    /// An answer with these headers.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Self {
            status,
            headers: headers.iter().map(owned).collect(),
            body: body.to_vec(),
        }
    }

    /// The head without its end and without a length.
    pub fn head(&self) -> String {
        let mut text = format!("HTTP/1.1 {} So\r\n", self.status);
        for (name, value) in &self.headers {
            let own = ["content-length", "transfer-encoding", "connection"];
            if !own.contains(&name.to_ascii_lowercase().as_str()) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        text
    }

    fn write(&self, client: &mut TcpStream) -> std::io::Result<()> {
        let bare = matches!(self.status, 204 | 304);
        let length = format!("content-length: {}\r\n", self.body.len());
        let text = self.head() + if bare { "" } else { &length } + "\r\n";
        client.write_all(text.as_bytes())?;
        client.write_all(&self.body)
    }
}
