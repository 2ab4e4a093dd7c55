//! Lists and deletes objects behind HTTP. Only gc and check do.

use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::Remote;
use crate::repository::object::{FaultKind, ListedObject, ObjectPath, StoreFault};
use crate::store::attempts::RequestAttempts;
use crate::store::explain::StoreAction;
use crate::store::stream::next_of;
use crate::units::WallTime;

/// The most objects in a list.
const MAX_LISTED_OBJECTS: u64 = 16 << 20;

impl Remote {
    /// Hands every object to `each`, in any order. Each request is made at most `most` times.
    pub async fn list(
        &self,
        each: &mut (dyn FnMut(ListedObject) + Send),
        most: u32,
    ) -> Result<(), StoreFault> {
        let _place = self.limits.place().await;
        let prefix = StorePath::from(self.backend.prefix.as_str());
        let within = (!prefix.as_ref().is_empty()).then_some(&prefix);
        let mut attempts = RequestAttempts::new(most);
        let mut last: Option<StorePath> = None;
        let mut objects = 0;
        self.backend.transport.list_moves();
        loop {
            let mut pages = match &last {
                Some(last) => self.backend.store.list_with_offset(within, last),
                None => self.backend.store.list(within),
            };

            let error = loop {
                match next_of(&mut pages).await {
                    None => return Ok(()),
                    Some(Err(error)) => break error,
                    Some(Ok(meta)) => {
                        attempts = RequestAttempts::new(most);
                        self.backend.transport.list_moves();
                        objects += 1;
                        if objects > MAX_LISTED_OBJECTS {
                            return Err(self.too_many());
                        }
                        listed(&prefix, &meta).into_iter().for_each(&mut *each);
                        last = Some(meta.location);
                    }
                }
            };

            let failure = self.failure(StoreAction::List, "", &error);
            failure.wait(&mut attempts).await?;
        }
    }

    fn too_many(&self) -> StoreFault {
        let why = format!("there are more than {MAX_LISTED_OBJECTS} (is this the right prefix?)");
        let kind = FaultKind::Permanent;
        self.asked.other(kind, StoreAction::List, "", &why)
    }

    /// Deletes an object in at most `most` attempts; one that does not exist is deleted.
    pub async fn delete(&self, object: &ObjectPath, most: u32) -> Result<(), StoreFault> {
        let _place = self.limits.place().await;
        let mut attempts = RequestAttempts::new(most);
        loop {
            let error = match self.backend.store.delete(&self.path(object)).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };

            let failure = self.failure(StoreAction::Delete, object.as_str(), &error);
            if failure.is_missing(!self.is_web()) {
                return Ok(());
            }
            failure.wait(&mut attempts).await?;
        }
    }
}

/// The object that `meta` describes, if it can be one of a repository.
fn listed(prefix: &StorePath, meta: &ObjectMeta) -> Option<ListedObject> {
    let parts: Vec<_> = meta.location.prefix_match(prefix)?.collect();
    let names: Vec<&str> = parts.iter().map(|part| part.as_ref()).collect();
    Some(ListedObject {
        object: ObjectPath::new(&names.join("/"))?,
        size: meta.size,
        stored: WallTime(meta.last_modified.timestamp()),
    })
}
