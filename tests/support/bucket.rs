//! A repository in memory: a bucket of S3 whose lists come in short pages, each of which can go
//! wrong, and a web server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::files::read;
use super::http::{Answer, Question, named, serve_by};

/// Objects of a page.
const PAGE_OBJECTS: usize = 2;
/// Time of all objects.
const STORED: &str = "2026-01-01T00:00:00.000Z";

/// A page of a list that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageFault {
    /// The status, with a code as S3 has it.
    Status(u16, &'static str),
    /// The page of a portal.
    Portal,
    /// A failure with the status of success.
    WrongStatus,
    /// The first half of the page.
    Half,
    /// The page does not say how to ask for the next one, although there is one.
    NoToken,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Pages so far.
    pages: usize,
    /// The page that goes wrong, and how.
    fault: Option<(usize, PageFault)>,
    /// A page of a part did not say how to ask for the next one.
    has_no_token: bool,
    deletions: usize,
    /// Objects whose content nobody may read.
    locked: BTreeSet<String>,
    /// Requests for the content of each object.
    gets: BTreeMap<String, usize>,
}

/// The bucket, behind a server of its own.
pub struct MemoryBucket {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl MemoryBucket {
    /// A bucket with the files below `dir`.
    pub fn of(dir: &Path) -> Self {
        let state = Arc::new(Mutex::new(State {
            objects: objects_of(dir),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let address = serve_by(move |question| shared.lock().expect("whole").answer(question));
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("s3://fleet?endpoint=http://{}", self.address)
    }

    /// The URL of the same objects for a client of a web server.
    pub fn web_url(&self) -> String {
        format!("http://{}/fleet", self.address)
    }

    /// Replaces all objects by the files below `dir`.
    pub fn refill(&self, dir: &Path) {
        self.state.lock().expect("whole").objects = objects_of(dir);
    }

    /// Requests for the content of an object so far.
    pub fn gets(&self, object: &str) -> usize {
        let state = self.state.lock().expect("whole");
        state.gets.get(object).copied().unwrap_or_default()
    }

    /// Refuses requests for the content of an object from now on.
    pub fn lock(&self, object: &str) {
        let mut state = self.state.lock().expect("whole");
        state.locked.insert(object.to_string());
    }

    /// Changes a byte of an object.
    pub fn damage(&self, object: &str) {
        let mut state = self.state.lock().expect("whole");
        let bytes = state.objects.get_mut(object).expect("there");
        *bytes.last_mut().expect("not empty") ^= 1;
    }

    /// Names of all objects.
    pub fn objects(&self) -> Vec<String> {
        let state = self.state.lock().expect("whole");
        state.objects.keys().cloned().collect()
    }

    /// From now on, the page with this number goes wrong, counted from 0 and from now.
    pub fn spoil(&self, page: usize, fault: PageFault) {
        let mut state = self.state.lock().expect("whole");
        state.pages = 0;
        state.fault = Some((page, fault));
        state.has_no_token = false;
    }

    /// Pages since the last [`MemoryBucket::spoil`].
    pub fn pages(&self) -> usize {
        self.state.lock().expect("whole").pages
    }

    /// Whether [`PageFault::NoToken`] hid a page, since the last [`MemoryBucket::spoil`]. It spoils
    /// no page that is the last one.
    pub fn has_hidden(&self) -> bool {
        self.state.lock().expect("whole").has_no_token
    }

    /// Objects that were deleted so far.
    pub fn deletions(&self) -> usize {
        self.state.lock().expect("whole").deletions
    }
}

impl State {
    fn answer(&mut self, question: &Question) -> Answer {
        let mut words = question.line.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Answer::failed(400, None, "BadRequest");
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let object = path.trim_start_matches("/fleet").trim_start_matches('/');
        let headers = named(&question.headers);
        match method {
            "GET" if object.is_empty() => self.list(query),
            "GET" => self.get(object, headers.get("range").map(String::as_str)),
            "PUT" => {
                self.objects.insert(object.into(), question.body.clone());
                Answer::new(200, &[("ETag", &etag(&question.body))], b"")
            }
            "DELETE" => {
                self.deletions += usize::from(self.objects.remove(object).is_some());
                Answer::new(204, &[], b"")
            }
            _ => Answer::failed(501, None, "NotImplemented"),
        }
    }

    fn get(&mut self, object: &str, range: Option<&str>) -> Answer {
        *self.gets.entry(object.to_string()).or_default() += 1;
        let Some(bytes) = self.objects.get(object) else {
            return Answer::failed(404, None, "NoSuchKey");
        };

        if self.locked.contains(object) {
            return Answer::failed(403, None, "AccessDenied");
        }
        let tag = etag(bytes);
        let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((first, last)) = range else {
            return Answer::new(200, &[("ETag", &tag)], bytes);
        };
        let (first, last): (usize, usize) =
            (first.parse().expect("legal"), last.parse().expect("legal"));
        let last = last.min(bytes.len() - 1);
        let content = format!("bytes {first}-{last}/{}", bytes.len());
        let headers = [("ETag", tag.as_str()), ("Content-Range", &content)];
        Answer::new(206, &headers, &bytes[first..=last])
    }

    fn list(&mut self, query: &str) -> Answer {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(known, _)| *known == name);
            found.map(|(_, value)| value.replace("%2F", "/"))
        };
        let after = value("continuation-token").or_else(|| value("start-after"));
        let after = after.unwrap_or_default();
        let mut rest = self.objects.iter().filter(|(name, _)| **name > after);
        let page: Vec<_> = rest.by_ref().take(PAGE_OBJECTS).collect();
        let is_part = rest.next().is_some();
        let next = page.last().map_or("", |(name, _)| name).to_string();

        let number = self.pages;
        self.pages += 1;
        let fault = self.fault.filter(|(at, _)| *at == number);
        let fault = fault.map(|(_, fault)| fault);
        let mut body = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        if is_part {
            body += "<IsTruncated>true</IsTruncated>";
            if fault == Some(PageFault::NoToken) {
                self.has_no_token = true;
            } else {
                body += &format!("<NextContinuationToken>{next}</NextContinuationToken>");
            }
        }
        for (name, bytes) in page {
            body += &format!(
                "<Contents><Key>{name}</Key><LastModified>{STORED}</LastModified>\
                 <ETag>{}</ETag><Size>{}</Size></Contents>",
                etag(bytes).replace('"', "&quot;"),
                bytes.len()
            );
        }
        body += "</ListBucketResult>";

        match fault {
            Some(PageFault::Status(status, code)) => Answer::failed(status, None, code),
            Some(PageFault::Portal) => Answer::new(200, &[], b"<html><body>Log in</body></html>"),
            Some(PageFault::WrongStatus) => Answer {
                status: 200,
                ..Answer::failed(500, None, "InternalError")
            },
            Some(PageFault::Half) => Answer::new(200, &[], &body.as_bytes()[..body.len() / 2]),
            _ => Answer::new(200, &[], body.as_bytes()),
        }
    }
}

fn objects_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).expect("below").display().to_string();
            objects.insert(name, read(&path));
        }
    }
    objects
}

fn etag(bytes: &[u8]) -> String {
    let sum = |sum: u64, byte: &u8| sum.rotate_left(5) ^ u64::from(*byte);
    format!("\"{:016x}\"", bytes.iter().fold(bytes.len() as u64, sum))
}
