//! The commands, one module each.

pub mod apply;
pub mod backup;
pub mod check;
pub mod cp;
pub mod cri;
pub mod debug;
pub mod delete;
pub mod describe;
pub mod events;
pub mod exec;
pub mod get;
pub mod image;
pub mod kubeconfig;
pub mod logs;
pub mod port_forward;
pub mod reset;
pub mod run;
pub mod serve;
pub mod shutdown;
pub mod timeline;
pub mod top;
pub mod version;
pub mod wait;
