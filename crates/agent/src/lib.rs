//! Decides: one worker per pod compares what the store wants with what the runtime has, and closes the gap.
//!
//! It serves no protocol and makes no system call for containers: the API writes objects and asks [`Agent`], and the
//! [`runtime::Runtime`] does. Start reading at `worker.rs` (one pass), then `actions.rs` (the pure decision) and
//! `status.rs` (what is published).
#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod actions;
mod admission;
mod agent;
mod api_service;
mod atomic_writer;
mod backoff;
mod capacity;
mod claims;
mod clock;
mod conditions;
mod config;
mod config_objects;
mod container_config;
mod desired;
mod directories;
mod directories_ahead;
mod ending;
#[cfg(test)]
mod ending_tests;
mod endings;
mod environment;
#[cfg(test)]
mod ephemeral_tests;
mod events;
mod eviction;
mod expected;
mod handlers;
mod health;
mod hooks;
mod housekeeping;
mod images;
mod immutable;
mod kills;
#[cfg(test)]
mod life_tests;
mod logs;
mod machine_needs;
mod node;
mod node_lease;
mod node_shutdown;
mod node_status;
mod observation;
mod on_disk;
mod pod_files;
mod pod_tokens;
mod probes;
mod publish;
mod pulls;
mod records;
mod resize;
mod restart_all;
#[cfg(test)]
mod restart_all_tests;
mod restart_rules;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod sidecar_tests;
#[cfg(test)]
mod silence_tests;
#[cfg(test)]
mod simulation;
mod start;
mod static_pods;
mod status;
#[cfg(test)]
mod stream_tests;
mod streams;
mod terminate;
#[cfg(test)]
mod testing;
mod timeline;
mod tokens;
mod usage;
mod volumes;
mod watches;
mod worker;

pub use agent::{Agent, PullRefused};
pub use clock::{BootTime, Clock, Now, SystemClock};
pub use config::{AgentConfig, EvictionConfig, HARD_THRESHOLDS, ServicePlace, StartAgentError};
pub use eviction::thresholds::{InvalidThreshold, Least, Signal, Threshold, parse_thresholds};
pub use expected::ExpectedPod;
pub use handlers::secure_unverified;
pub use housekeeping::ImageGcConfig;
pub use logs::{LogError, LogOptions, LogStream, Since, StreamFilter};
pub use node_shutdown::{ShutdownBand, shutdown_bands};
pub use tokens::{
    AUTOMATIC_SECONDS, ISSUER, Named, ServiceAccountTokens, TokenError, TokenKeyError, TokenRequest, TokenUser,
};
// The API may name neither `image` nor `runtime`.
pub use image::{LayerStage, Pull, PullProgress, SaveError, SavedImages};
pub use runtime::{ExecRequest, Session, SessionEnd, TerminalSize};
pub use streams::StreamError;
pub use timeline::{ContainerTurn, Happening, Moment, TimelineError};
pub use usage::{PodResourceUsage, ProcessUsage, ResourceUsage, Usage, own_process};
pub use volumes::{make_local_volume, remove_local_volume};
