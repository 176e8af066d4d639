//! Does what the agent decides: pod sandboxes and containers on the kernel's namespaces and cgroups.
//!
//! The surface is the trait [`Runtime`], with the verbs of CRI. It never sees a Pod object and decides nothing about
//! restarts or order. [`FakeRuntime`] stands in for the kernel where the agent is tested.
//! Start reading at [`verbs`], then `kernel` for the real thing.
#![forbid(unsafe_code)]

pub mod config;
mod disk;
pub mod error;
pub mod fake;
pub mod kernel;
pub mod status;
mod usage;
pub mod verbs;

pub use config::{
    AppArmorProfile, ContainerConfig, LinuxResources, Mount, MountSource, NetworkMode, PidMode, PodNamespaces,
    PodSandboxConfig, PodTmpfs, Propagation, QosClass, SeccompProfile, SecurityConfig,
};
pub use disk::{DiskUsage, keep_apart, measure_tree};
pub use error::RuntimeError;
pub use fake::OnSignal;
pub use kernel::{
    KernelRuntime, KernelRuntimeConfig, OpenRuntimeError, SubordinateIdsError, apparmor_is_enabled, subordinate_ids,
    try_device_program,
};
pub use network::{PortMapping, PortProtocol};
pub use status::{
    ContainerExit, ContainerState, ContainerStatus, ExitReason, LostOutput, PodSandboxState, PodSandboxStatus,
    ResolvedUser, RuntimeEvent,
};
pub use usage::{CgroupUsage, ContainerUsage, PodUsage};
pub use verbs::{ExecOutput, ExecRequest, Runtime, SandboxRest, Session, SessionEnd, TerminalSize};
