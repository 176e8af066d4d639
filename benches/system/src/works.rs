//! What is measured, as the table names it.

pub const START: &str = "apply to exec of a Pod with one container";
pub const START_COLD: &str = "apply to exec, nothing made ahead";
pub const START_AHEAD: &str = "apply to exec, all made ahead";
pub const SEEN: &str = "apply to running, as a watcher sees it";
pub const RUN: &str = "run until Ready, whole command";
pub const EXEC: &str = "exec of true";
pub const EXEC_BEGUN: &str = "exec: request until the program runs";
pub const EXEC_COMMAND: &str = "exec of true, whole command";
pub const GONE: &str = "delete to gone";
pub const DELETE_COMMAND: &str = "delete until gone, whole command";
pub const MEMORY: &str = "memory beside the workload, one idle Pod";
pub const LOGS_MEMORY: &str = "memory of infra at most while it logs that";
pub const STALLED: &str = "memory of the daemon for a stream nobody reads";

/// Works on so many megabytes of lines.
pub fn logs(megabytes: usize) -> String {
    format!("{megabytes} MB of log lines")
}

pub fn exec_output(megabytes: usize) -> String {
    format!("{megabytes} MB of exec's output")
}

pub fn copy_out(megabytes: usize) -> String {
    format!("{megabytes} MB copied out, tar by exec")
}

pub fn copy_in(megabytes: usize) -> String {
    format!("{megabytes} MB copied in, tar by exec")
}

pub fn forward(megabytes: usize) -> String {
    format!("{megabytes} MB by port-forward")
}

/// Works on an image whose files have so many megabytes.
pub fn load(megabytes: usize) -> String {
    format!("load and unpack an image of {megabytes} MB")
}

pub fn pull(megabytes: usize) -> String {
    format!("pull and unpack an image of {megabytes} MB")
}

/// Works beside so many Pods.
pub fn beside(pods: usize) -> String {
    format!("apply to exec beside {pods} Pods")
}

pub fn at_once(more: usize, present: usize) -> String {
    format!("{more} Pods applied at once beside {present}, until all run")
}

pub fn take_over(pods: usize) -> String {
    format!("daemon start to serving with {pods} Pods to take over")
}
