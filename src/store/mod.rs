//! The client of repositories: carries out the requests of [`crate::repository`] on buckets, web
//! servers and directories.
//!
//! Only this room knows object_store, and only its transport knows HTTP. One place repeats a failed
//! request: the caller's machine, which asks by [`Store::once`], or this room for a caller without
//! one. With the Cargo feature `store` off, only directories can be opened.

mod local;
mod options;
mod url;

#[cfg(feature = "store")]
mod answer;
#[cfg(feature = "store")]
mod attempts;
#[cfg(feature = "store")]
mod backend;
#[cfg(feature = "store")]
mod client;
#[cfg(feature = "store")]
mod download;
#[cfg(feature = "store")]
mod explain;
#[cfg(feature = "store")]
mod limits;
#[cfg(feature = "store")]
mod list_page;
#[cfg(feature = "store")]
mod manners;
#[cfg(feature = "store")]
mod metadata;
#[cfg(feature = "store")]
mod profile;
#[cfg(feature = "store")]
mod reader;
#[cfg(feature = "store")]
mod refusal;
#[cfg(feature = "store")]
mod remote;
#[cfg(feature = "store")]
mod speed;
#[cfg(feature = "store")]
mod status;
#[cfg(feature = "store")]
mod stream;
#[cfg(feature = "store")]
mod tls_fault;
#[cfg(feature = "store")]
mod transport;
#[cfg(feature = "store")]
mod upload;

use std::sync::Arc;

pub use options::{LookUp, StoreOptions};
pub use url::{BucketKind, BucketUrl, StoreUrl, WebUrl};

use crate::Result;
use crate::metrics::StoreFigures;
use crate::repository::object::{
    Get, GetReply, ListedObject, ObjectPath, Put, PutReply, StoreFault,
};
use crate::units::WallTime;

/// A place of a repository, open for requests. Clones share its limits.
#[derive(Debug, Clone)]
pub struct Store {
    place: StorePlace,
    figures: Arc<StoreFigures>,
}

#[derive(Debug, Clone)]
enum StorePlace {
    Directory(Arc<local::Directory>),
    #[cfg(feature = "store")]
    Remote {
        remote: Arc<remote::Remote>,
        /// How often a request is made.
        attempts: u32,
    },
}

/// One get under way. It holds one of [`StoreOptions::parallel`] places until its last reply.
pub struct ObjectReader {
    from: ReaderFrom,
    figures: Arc<StoreFigures>,
}

/// How the server of a store behaves, by its answers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreManners {
    /// Whether it honours byte ranges; `None` if none was asked for yet.
    pub ranges: Option<bool>,
    /// Its time of day at present; `None` if it has not told.
    pub clock: Option<WallTime>,
}

enum ReaderFrom {
    Directory(local::ObjectFileReader),
    #[cfg(feature = "store")]
    Remote(Box<reader::RemoteReader>),
}

impl Store {
    /// Opens the store behind `url`. Nothing is asked yet: an error is one of the settings.
    pub fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Self> {
        let place = match url {
            StoreUrl::Directory(path) => {
                StorePlace::Directory(Arc::new(local::Directory::new(path.clone())))
            }
            #[cfg(feature = "store")]
            url => StorePlace::Remote {
                remote: Arc::new(open_remote(url, options)?),
                attempts: options.attempts.max(1),
            },
            #[cfg(not(feature = "store"))]
            url => {
                let _ = options;
                let why = format!("this makuo cannot reach {url}");
                let hint = "it was built without the Cargo feature `store`: use a directory";
                return Err(crate::Error::usage(why).hint(hint));
            }
        };

        Ok(Self {
            place,
            figures: Arc::default(),
        })
    }

    /// The same store, which counts what is read from it in `figures`.
    pub fn counted(self, figures: Arc<StoreFigures>) -> Self {
        Self { figures, ..self }
    }

    /// The same store for a caller that repeats failed requests itself: repetitions of both would
    /// multiply.
    pub fn once(&self) -> Self {
        let place = match &self.place {
            StorePlace::Directory(directory) => StorePlace::Directory(Arc::clone(directory)),
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, .. } => StorePlace::Remote {
                remote: Arc::clone(remote),
                attempts: 1,
            },
        };
        Self {
            place,
            figures: Arc::clone(&self.figures),
        }
    }

    /// Begins to read an object.
    pub fn get(&self, get: Get) -> ObjectReader {
        let from = match &self.place {
            StorePlace::Directory(directory) => {
                ReaderFrom::Directory(local::ObjectFileReader::new(Arc::clone(directory), get))
            }
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, attempts } => {
                let reader = reader::RemoteReader::new(Arc::clone(remote), get, *attempts);
                ReaderFrom::Remote(Box::new(reader))
            }
        };
        ObjectReader {
            from,
            figures: Arc::clone(&self.figures),
        }
    }

    /// Stores an object. Heads are marked for caches as changing, all others as immutable.
    pub async fn put(&self, put: &Put) -> PutReply {
        match &self.place {
            StorePlace::Directory(directory) => directory.put(put).await,
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, attempts } => remote.put(put, *attempts).await,
        }
    }

    /// Bytes sent to the store so far: bodies of objects, and of other requests.
    pub fn sent(&self) -> u64 {
        match &self.place {
            StorePlace::Directory(directory) => directory.sent(),
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, .. } => remote.limits.sent(),
        }
    }

    /// How the server behaves; a directory has nothing to tell.
    pub fn manners(&self) -> StoreManners {
        match &self.place {
            StorePlace::Directory(_) => StoreManners::default(),
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, .. } => {
                remote.limits.manners.known(tokio::time::Instant::now())
            }
        }
    }

    /// Hands every object to `each`, in any order; other files are left out. A failure in between
    /// is mended or ends the list, so an error means that some objects are missing. Web servers
    /// without WebDAV cannot list.
    pub async fn list(&self, mut each: impl FnMut(ListedObject) + Send) -> Result<(), StoreFault> {
        match &self.place {
            StorePlace::Directory(directory) => directory.list(&mut each).await,
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, attempts } => remote.list(&mut each, *attempts).await,
        }
    }

    /// Deletes an object; one that does not exist is deleted.
    pub async fn delete(&self, object: &ObjectPath) -> Result<(), StoreFault> {
        match &self.place {
            StorePlace::Directory(directory) => directory.delete(object).await,
            #[cfg(feature = "store")]
            StorePlace::Remote { remote, attempts } => remote.delete(object, *attempts).await,
        }
    }
}

impl ObjectReader {
    /// The next reply; `None` after the last one. A call that is dropped loses no byte.
    pub async fn next(&mut self) -> Option<GetReply> {
        let reply = match &mut self.from {
            ReaderFrom::Directory(reader) => reader.next().await,
            #[cfg(feature = "store")]
            ReaderFrom::Remote(reader) => reader.next().await,
        };

        if let Some(reply) = &reply {
            self.figures.on_reply(reply);
        }
        reply
    }
}

#[cfg(feature = "store")]
fn open_remote(url: &StoreUrl, options: &StoreOptions) -> Result<remote::Remote> {
    let limits = Arc::new(limits::Limits::new(options));
    let backend = match url {
        StoreUrl::Web(web) => backend::web(web, options, Arc::clone(&limits))?,
        StoreUrl::Bucket(bucket) => backend::bucket(bucket, options, Arc::clone(&limits))?,
        StoreUrl::Directory(_) => return Err(crate::Error::usage("a directory is no server")),
    };

    let asked = explain::AskedStore {
        url: url.clone(),
        who: backend.who.clone(),
        metadata: metadata::MetadataHosts::of(options),
    };
    Ok(remote::Remote::new(backend, asked, limits, options))
}
