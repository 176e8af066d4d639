//! What the runtime says of itself, and what a kubelet tells it.

use tonic::Status;

use crate::errors::invalid;
use crate::proto::{self, CgroupDriver, RuntimeCondition, RuntimeHandler};
use crate::service::Cri;

/// Version of the protocol.
const API_VERSION: &str = "v1";

impl Cri {
    pub(crate) fn version(&self) -> proto::VersionResponse {
        proto::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "monopod".to_owned(),
            runtime_version: self.0.config.version.clone(),
            runtime_api_version: API_VERSION.to_owned(),
        }
    }

    /// Namespaces and network were there when the daemon began to serve, or it would not have.
    pub(crate) fn status() -> proto::StatusResponse {
        let met = |kind: &str| RuntimeCondition {
            r#type: kind.to_owned(),
            status: true,
            reason: String::new(),
            message: String::new(),
        };
        proto::StatusResponse {
            status: Some(proto::RuntimeStatus { conditions: vec![met("RuntimeReady"), met("NetworkReady")] }),
            info: [].into(),
            runtime_handlers: vec![RuntimeHandler {
                name: String::new(),
                features: Some(proto::RuntimeHandlerFeatures {
                    recursive_read_only_mounts: true,
                    user_namespaces: false,
                }),
            }],
            features: Some(proto::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
                mount_options: false,
            }),
        }
    }

    pub(crate) fn runtime_config() -> proto::RuntimeConfigResponse {
        let linux = proto::LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        proto::RuntimeConfigResponse { linux: Some(linux) }
    }

    /// The network is chosen at start, since Pods may run in it already.
    pub(crate) fn update_runtime_config(&self, request: proto::UpdateRuntimeConfigRequest) -> Result<(), Status> {
        let told = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default().pod_cidr;
        let ours = &self.0.config.pod_cidr;
        if told.is_empty() || told == *ours {
            return Ok(());
        }
        let why = format!("{told:?} is not the network of this runtime, {ours}; start it with --pod-cidr {told}");
        Err(invalid("runtime_config.network_config.pod_cidr", why))
    }
}
