//! What every request can reach, and what one request asks for.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use agent::Agent;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use spec::Timestamp;
use spec::service_network::ServiceNetwork;
use store::{ObjectKey, Store, StoreError, WriteError};
use tokio_util::sync::CancellationToken;

use crate::http::accept::Form;
use crate::http::body::decode_noting;
use crate::http::query::Query;
use crate::http::status::{ApiError, chain};
use crate::kinds::{Kind, RESOURCE_QUOTA, SERVICE};
use crate::limits::Limits;
use crate::quotas::has_quotas;
use crate::render::Renderer;

/// What every request can reach.
pub struct Context {
    /// The objects.
    pub store: Store,
    /// The doors into running Pods, and the images.
    pub agent: Agent,
    /// The name of this machine's Node.
    pub node_name: String,
    /// Where Services get their addresses from.
    pub service_network: ServiceNetwork,
    /// Held while something is written that the next such write must see: a Service, which has an address and ports of
    /// its own, and anything in a namespace with a quota.
    pub shared_writes: tokio::sync::Mutex<()>,
    /// What was done for the last Pods.
    pub steps: steps::Recorder,
    /// How much more may be done at once.
    pub limits: Limits,
    /// Version of the engine, for `/version`.
    pub version: String,
    /// Where the state is that is in no store: `DATA`.
    pub data_dir: PathBuf,
    /// Where uploads are kept while they arrive.
    pub spool: PathBuf,
    /// The certificate, in PEM, by which clients know this server over TLS.
    pub ca: Option<String>,
    /// Fires when the daemon ends; watches end with it.
    pub shutdown: CancellationToken,
}

/// One request for objects of a kind.
pub struct Call {
    /// The server.
    pub context: Arc<Context>,
    /// The kind it is about.
    pub kind: &'static Kind,
    /// The namespace in its path.
    pub pod_namespace: Option<String>,
    /// Its parameters.
    pub query: Query,
    /// Its headers.
    pub headers: HeaderMap,
    /// Paths of fields that stand twice in its body.
    pub twice: OnceLock<Vec<String>>,
}

impl Context {
    /// The present, read once here for all that this crate dates.
    pub fn now() -> Timestamp {
        jiff::Timestamp::now()
    }
}

impl Call {
    /// The store's name of an object.
    pub fn key(&self, name: &str) -> ObjectKey {
        match &self.pod_namespace {
            Some(pod_namespace) => ObjectKey::namespaced(self.kind.resource, pod_namespace.as_str(), name),
            None => ObjectKey::cluster(self.kind.resource, name),
        }
    }

    /// Waits for its turn where two writes must not judge at the same time: Services share addresses and ports, the
    /// objects of a namespace its quotas, and a new one must see what the last one got.
    pub async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let Context { store, shared_writes, .. } = &*self.context;
        let is_shared = [SERVICE.resource, RESOURCE_QUOTA.resource].contains(&self.kind.resource);
        let waits = is_shared || has_quotas(store, self.pod_namespace.as_deref());
        if waits { Some(shared_writes.lock().await) } else { None }
    }

    /// The object in its body.
    pub fn decode(&self, body: &Bytes) -> Result<Value, ApiError> {
        decode_noting(&self.headers, body).map(|decoded| self.note_twice(decoded))
    }

    /// Keeps in mind which fields stand twice in what its body holds.
    pub fn note_twice(&self, (object, twice): (Value, Vec<String>)) -> Value {
        self.twice.get_or_init(|| twice);
        object
    }

    /// How the answer is to be written.
    pub fn renderer(&self) -> Result<Renderer, ApiError> {
        Renderer::new(self.kind, Form::negotiate(&self.headers)?, &self.query)
    }
}

/// The face of a write that the store did not take.
pub fn refuse(error: WriteError<ApiError>) -> ApiError {
    match error {
        WriteError::Refused(error) => error,
        WriteError::Store(StoreError::TooLarge { limit, .. }) => ApiError::too_large(limit),
        WriteError::Store(error @ StoreError::DiskFull { .. }) => {
            ApiError::plain(http::StatusCode::INSUFFICIENT_STORAGE, "InternalError", error.to_string())
        }
        WriteError::Store(error) => {
            tracing::error!(error = chain(&error), "the store refused a write");
            ApiError::internal(&error)
        }
    }
}
