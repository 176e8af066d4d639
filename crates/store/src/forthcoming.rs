//! New objects, told of before they are durable.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::object::{StoredObject, WatchEvent, WatchKind};

/// Who wants to hear of new objects, by their resource.
#[derive(Debug, Default)]
pub(crate) struct Forthcoming(Mutex<HashMap<String, UnboundedSender<StoredObject>>>);

impl Forthcoming {
    /// Whoever asked before for the same resource hears nothing any more.
    pub(crate) fn of(&self, resource: &str) -> UnboundedReceiver<StoredObject> {
        let (sender, receiver) = unbounded_channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(resource.to_owned(), sender);
        receiver
    }

    /// Tells of the new objects among changes that are about to be made durable.
    pub(crate) fn tell(&self, changes: &[WatchEvent]) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter().filter(|change| change.kind == WatchKind::Added) {
            let resource = &change.object.key.resource;
            if let Some(listener) = listeners.get(resource)
                && listener.send(change.object.clone()).is_err()
            {
                listeners.remove(resource);
            }
        }
    }
}
