//! What is measured, as the table names it.

pub const START: &str = "apply to exec of a Pod with one container";
pub const START_COLD: &str = "apply to exec, nothing made ahead";
pub const START_AHEAD: &str = "apply to exec, all made ahead";
pub const SEEN: &str = "apply to running, as a watcher sees it";
pub const RUN: &str = "run until Ready, whole command";
pub const EXEC: &str = "exec of true";
pub const EXEC_COMMAND: &str = "exec of true, whole command";
pub const GONE: &str = "delete to gone";
pub const DELETE_COMMAND: &str = "delete until gone, whole command";
pub const LOGS: &str = "200 MB of log lines";
pub const LOAD: &str = "load and unpack an image of 500 MB";
pub const MEMORY: &str = "memory beside the workload, one idle Pod";
