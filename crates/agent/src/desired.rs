//! A Pod as the store holds it, with what the agent reads in every pass taken out once.

use spec::decode::{DecodeError, read};
use spec::ephemeral::as_container;
use spec::k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use spec::{ContainerName, PodRef, PodUid};
use store::StoredObject;

/// What a pod object asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredPod {
    /// Namespace and name.
    pub pod: PodRef,
    /// Key of all that belongs to it.
    pub uid: PodUid,
    /// The object, all but its status.
    pub object: Pod,
    /// Its spec once more, to be read without asking whether there is one.
    pub spec: PodSpec,
    /// Its ephemeral containers, as containers.
    pub ephemeral: Vec<Container>,
    /// `status`, as the agent wrote it last.
    pub status: PodStatus,
    /// Revision of the store that it was read at.
    pub revision: u64,
}

/// Which of a Pod's lists a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// Stands among the init containers, and runs beside all that comes after it (`restartPolicy: Always`, KEP-753).
    Sidecar,
    /// Runs beside the others.
    App,
    /// Was added to look into the running pod; never restarted, and nothing depends on it.
    Ephemeral,
}

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code is.
    Always,
    /// After a non-zero exit code.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Reads the word of a spec.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// Why a stored object cannot be read as a Pod.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the stored pod {namespace}/{name}")]
pub struct UnreadablePod {
    namespace: String,
    name: String,
    #[source]
    source: DecodeError,
}

impl DesiredPod {
    /// Reads a stored object.
    pub fn read(stored: &StoredObject) -> Result<Self, UnreadablePod> {
        let value = stored.value.tree();
        let object = read::<Pod>(&value).map_err(|source| UnreadablePod {
            namespace: stored.key.namespace.clone().unwrap_or_default(),
            name: stored.key.name.clone(),
            source,
        })?;
        let uid = PodUid::new(spec::mirror::pod_uid(&value).unwrap_or_default());
        Ok(Self::new(object, uid, stored.revision))
    }

    /// The same from a new pod as it was admitted, which has not got its UID and its revision yet.
    pub fn of_admitted(mut object: Pod, uid: PodUid, revision: u64) -> Self {
        object.metadata.resource_version = Some(revision.to_string());
        Self::new(object, uid, revision)
    }

    fn new(mut object: Pod, uid: PodUid, revision: u64) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.take().unwrap_or_default();
        object.metadata.uid = Some(uid.as_str().to_owned());
        let metadata = &object.metadata;
        Self {
            pod: PodRef::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default()),
            uid,
            object,
            ephemeral: spec.ephemeral_containers.iter().flatten().map(as_container).collect(),
            spec,
            status,
            revision,
        }
    }

    /// Init containers in their order.
    pub fn init_containers(&self) -> &[Container] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// App containers in their order.
    pub fn app_containers(&self) -> &[Container] {
        &self.spec.containers
    }

    /// What the stored status says of each container.
    pub fn stored_statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        let status = &self.status;
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten()
    }

    /// Ephemeral containers in their order.
    pub fn ephemeral_containers(&self) -> &[Container] {
        &self.ephemeral
    }

    /// The container whose processes an ephemeral one sees.
    pub fn target_of(&self, name: &ContainerName) -> Option<ContainerName> {
        let own = self.spec.ephemeral_containers.iter().flatten().find(|own| own.name == name.as_str())?;
        own.target_container_name.as_deref().filter(|target| !target.is_empty()).map(ContainerName::new)
    }

    /// All containers, init containers first.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerKind, &Container)> {
        let init = self.init_containers().iter().map(|container| (kind_of_init(container), container));
        let apps = self.app_containers().iter().map(|container| (ContainerKind::App, container));
        init.chain(apps).chain(self.ephemeral.iter().map(|container| (ContainerKind::Ephemeral, container)))
    }

    /// The container of that name.
    pub fn container(&self, name: &ContainerName) -> Option<&Container> {
        self.containers().map(|(_, container)| container).find(|container| container.name == name.as_str())
    }

    /// What the container of that name is.
    pub fn kind_of(&self, name: &ContainerName) -> Option<ContainerKind> {
        self.containers().find(|(_, container)| container.name == name.as_str()).map(|(kind, _)| kind)
    }

    /// What to do when a container without a policy of its own ends.
    pub fn restart_policy(&self) -> RestartPolicy {
        // The default; validation lets nothing else through.
        self.spec.restart_policy.as_deref().and_then(RestartPolicy::parse).unwrap_or(RestartPolicy::Always)
    }

    /// Whether its containers use the machine's network.
    pub fn host_network(&self) -> bool {
        self.spec.host_network.unwrap_or(false)
    }

    /// Whether something still keeps it from being placed on the node (`spec.schedulingGates`).
    pub fn is_gated(&self) -> bool {
        spec::gates::is_gated(&self.spec)
    }

    /// `metadata.generation`.
    pub fn generation(&self) -> Option<i64> {
        self.object.metadata.generation
    }

    /// Whether its stored phase is `Succeeded` or `Failed`, which it never leaves.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// `name_namespace(uid)`, as the kubelet prints a Pod in messages.
    pub fn kubelet_name(&self) -> String {
        format!("{}_{}({})", self.pod.name, self.pod.pod_namespace, self.uid)
    }
}

/// What a container among the init containers is.
pub fn kind_of_init(container: &Container) -> ContainerKind {
    match container.restart_policy.as_deref() {
        Some("Always") => ContainerKind::Sidecar,
        Some(_) | None => ContainerKind::Init,
    }
}

/// The image of a container as its Pod writes it.
pub fn image_of(container: &Container) -> &str {
    container.image.as_deref().unwrap_or_default()
}
