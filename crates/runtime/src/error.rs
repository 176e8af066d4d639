//! Why a verb of the runtime failed. The agent maps each to a waiting reason and an event.

use std::io;
use std::path::PathBuf;

use spec::{ContainerId, ContainerName, PodRef, SandboxId};

/// Why a verb failed. `source` chains carry the kernel's own word.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The sandbox is not recorded.
    #[error("no pod sandbox {0}")]
    NoSuchSandbox(SandboxId),
    /// The container is not recorded.
    #[error("no container {0}")]
    NoSuchContainer(ContainerId),
    /// The verb needs a running container.
    #[error("container {name:?} is not running")]
    NotRunning {
        /// The container.
        name: ContainerName,
    },
    /// The verb needs a living sandbox.
    #[error("pod {pod}: its sandbox is not ready")]
    SandboxNotReady {
        /// The Pod.
        pod: PodRef,
    },
    /// Nobody knows yet what the sandbox holds.
    #[error("pod {pod}: its infra process does not answer: it is stopped, or the machine is starved")]
    SandboxSilent {
        /// The Pod.
        pod: PodRef,
    },
    /// The sandbox could not be made.
    #[error("pod {pod}: cannot {step}")]
    RunSandbox {
        /// The Pod.
        pod: PodRef,
        /// What was being done, such as `make its network`.
        step: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The container's config cannot be honoured (`CreateContainerConfigError`).
    #[error("{message}")]
    ContainerConfig {
        /// The whole message, as Kubernetes words it.
        message: String,
    },
    /// The container could not be prepared (`CreateContainerError`).
    #[error("container {name:?}: cannot {step}")]
    CreateContainer {
        /// The container.
        name: ContainerName,
        /// What was being done.
        step: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The container's first process could not be started (`RunContainerError`, `StartError`).
    #[error("container {name:?}: cannot {step}{}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    StartContainer {
        /// The container.
        name: ContainerName,
        /// What was being done, such as `execute` or `mount volume "config" at`.
        step: String,
        /// The path it was done to.
        path: Option<PathBuf>,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A process could not be started in a running container.
    #[error("container {name:?}: cannot {step}")]
    Exec {
        /// The container.
        name: ContainerName,
        /// What was being done, such as `execute "/bin/bash"`.
        step: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// Nobody takes connections at a port of the Pod.
    #[error("pod {pod}: cannot connect to port {port} inside")]
    Connect {
        /// The Pod.
        pod: PodRef,
        /// The port.
        port: u16,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// Something could not be stopped or removed; a later call tries again.
    #[error("cannot {step}")]
    Remove {
        /// What was being done.
        step: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store did not take a record.
    #[error("cannot record what runs on this machine")]
    Store(#[from] store::StoreError),
}

impl RuntimeError {
    /// The error and its causes in one line, for a container's status and its events.
    pub fn in_words(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&word_of(error));
            cause = error.source();
        }
        text
    }
}

/// std adds the number to the kernel's word; a person needs only the word.
pub(crate) fn word_of(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    if let Some(end) = message.find(" (os error ") {
        message.truncate(end);
    }
    message
}
