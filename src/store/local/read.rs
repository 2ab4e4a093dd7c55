//! Reads files of a repository, piece by piece.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::{Directory, FileFault, blocking, etag_of, step};
use crate::repository::object::{Etag, FaultKind, Get, GetReply, StoreFault};

/// Bytes of one reply.
const FILE_PIECE_BYTES: usize = 256 << 10;

/// One get under way.
pub(in crate::store) struct ObjectFileReader {
    directory: Arc<Directory>,
    get: Get,
    state: FileReaderState,
}

enum FileReaderState {
    Closed,
    Open(OpenFile),
    Over,
}

#[derive(Clone)]
struct OpenFile {
    file: Arc<File>,
    path: Arc<Path>,
    next: u64,
    end: u64,
    etag: Option<Etag>,
}

impl ObjectFileReader {
    /// A reader that has not opened its file yet.
    pub fn new(directory: Arc<Directory>, get: Get) -> Self {
        Self {
            directory,
            get,
            state: FileReaderState::Closed,
        }
    }

    /// The next reply; `None` after the last one.
    pub async fn next(&mut self) -> Option<GetReply> {
        loop {
            let reply = match &self.state {
                FileReaderState::Over => return None,
                FileReaderState::Closed => match self.open().await {
                    Ok(open) => {
                        self.state = FileReaderState::Open(open);
                        continue;
                    }
                    Err(reply) => reply,
                },
                FileReaderState::Open(open) if open.next == open.end => GetReply::End {
                    etag: open.etag.clone(),
                },
                FileReaderState::Open(open) => match read(open.clone()).await {
                    Ok(bytes) => {
                        let mut open = open.clone();
                        open.next += bytes.len() as u64;
                        self.state = FileReaderState::Open(open);
                        return Some(GetReply::Bytes(bytes));
                    }
                    Err(fault) => GetReply::Failed(fault),
                },
            };

            self.state = FileReaderState::Over;
            return Some(reply);
        }
    }

    async fn open(&self) -> Result<OpenFile, GetReply> {
        let directory = Arc::clone(&self.directory);
        let get = self.get.clone();
        let opened = blocking(move || {
            directory.check_root()?;
            Ok(open(&directory.path(&get.object), &get))
        });
        opened.await.unwrap_or_else(|e| Err(GetReply::Failed(e)))
    }
}

fn open(path: &Path, get: &Get) -> Result<OpenFile, GetReply> {
    let failed = |fault: FileFault| GetReply::Failed(fault.into_fault());
    // A pipe in place of a file must not block.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path);
    let file = match opened {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(GetReply::Missing);
        }
        opened => step("open", path, opened).map_err(failed)?,
    };

    let found = step("look at", path, file.metadata()).map_err(failed)?;
    let wrong = |kind, why: String| {
        let path = crate::units::printable_path(path);
        let text = format!("cannot read {path}: {why}");
        let after = None;
        GetReply::Failed(StoreFault { kind, after, text })
    };
    if !found.is_file() {
        return Err(wrong(FaultKind::Permanent, "it is not a file".into()));
    }

    let etag = etag_of(&found);
    if get.unless.is_some() && get.unless == etag {
        return Err(GetReply::NotModified);
    }

    let range = get.range.clone().unwrap_or(0..found.len());
    let length = range.end.saturating_sub(range.start);
    if length > get.max {
        let why = format!("{length} bytes are more than the {} allowed here", get.max);
        return Err(wrong(FaultKind::TooLarge, why));
    }
    if range.end > found.len() || (length == 0 && get.range.is_some()) {
        let why = format!("it has {} bytes and is too short", found.len());
        return Err(wrong(FaultKind::TooShort, why));
    }

    Ok(OpenFile {
        file: Arc::new(file),
        path: path.into(),
        next: range.start,
        end: range.end,
        etag,
    })
}

async fn read(open: OpenFile) -> Result<Vec<u8>, StoreFault> {
    blocking(move || {
        let left = usize::try_from(open.end - open.next).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(FILE_PIECE_BYTES)];
        let read = open.file.read_exact_at(&mut bytes, open.next);
        let read = step("read", &open.path, read);
        read.map_err(FileFault::into_fault)?;
        Ok(bytes)
    })
    .await
}
