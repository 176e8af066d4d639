//! Keeps the catalogue and the kernel true to the store.

use std::time::Duration;

use futures::FutureExt as _;
use network::{ForwardServicesError, Network};
use store::{ObjectWatches, Store, WatchEvent, WatchKind};

use crate::SharedCatalog;
use crate::catalog::Catalog;
use crate::forwards::forwards;

const SERVICES: &str = "services";
const SLICES: &str = "endpointslices";
const NAMESPACES: &str = "namespaces";

/// Wait after a change that the kernel did not take.
const RETRY: Duration = Duration::from_secs(2);

/// Follows the store.
pub struct Follower {
    store: Store,
    network: Network,
    node_name: String,
    catalog: SharedCatalog,
    watches: ObjectWatches,
    /// Whether the kernel has all of it.
    is_done: bool,
}

impl Follower {
    /// Tells the kernel what there is now.
    pub async fn start(store: Store, network: Network, node_name: String, catalog: SharedCatalog) -> Self {
        let watches = begin(&store, &catalog);
        let mut this = Self { store, network, node_name, catalog, watches, is_done: true };
        this.forward().await;
        this
    }

    /// Follows until the store is closed.
    pub async fn run(mut self) {
        loop {
            let news = self.watches.next();
            let event = if self.is_done {
                news.await
            } else if let Ok(event) = tokio::time::timeout(RETRY, news).await {
                event
            } else {
                self.forward().await;
                continue;
            };
            match event {
                Some(event) => self.take_all(&event),
                None if !self.watches.is_expired() => return,
                None => self.watches = begin(&self.store, &self.catalog),
            }
            self.forward().await;
        }
    }

    /// What has come by now is one change for the kernel.
    fn take_all(&mut self, event: &WatchEvent) {
        let watches = &mut self.watches;
        self.catalog.change(|catalog| {
            take(catalog, event);
            while let Some(Some(event)) = watches.next().now_or_never() {
                take(catalog, &event);
            }
        });
    }

    async fn forward(&mut self) {
        let wanted = self.catalog.read(|catalog| forwards(catalog, &self.node_name));
        self.is_done = match self.network.forward_services(wanted).await {
            Ok(()) => true,
            Err(ForwardServicesError::Interrupted) => false,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "services are not forwarded to as they should be");
                false
            }
        }
    }
}

/// The watches are there before the lists, so that nothing falls between.
fn begin(store: &Store, catalog: &SharedCatalog) -> ObjectWatches {
    loop {
        if let Ok(watches) = store.watch_all([SERVICES, SLICES, NAMESPACES]) {
            let listed = list(store);
            catalog.change(|catalog| *catalog = listed);
            return watches;
        }
    }
}

fn list(store: &Store) -> Catalog {
    let mut catalog = Catalog::default();
    store.list(SERVICES, None).objects.iter().for_each(|object| catalog.put_service(object));
    store.list(SLICES, None).objects.iter().for_each(|object| catalog.put_slice(object));
    store.list(NAMESPACES, None).objects.iter().for_each(|object| catalog.note_namespace(&object.key.name, true));
    catalog
}

fn take(catalog: &mut Catalog, event: &WatchEvent) {
    let (object, is_gone) = (&event.object, event.kind == WatchKind::Deleted);
    match object.key.resource.as_str() {
        SERVICES if is_gone => catalog.remove_service(object),
        SERVICES => catalog.put_service(object),
        NAMESPACES => catalog.note_namespace(&object.key.name, !is_gone),
        _ => {
            // Its label may have named another Service.
            if let Some(previous) = &event.previous {
                catalog.remove_slice(previous);
            }
            if is_gone {
                catalog.remove_slice(object);
            } else {
                catalog.put_slice(object);
            }
        }
    }
}
