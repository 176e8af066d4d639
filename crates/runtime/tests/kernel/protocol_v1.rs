//! The protocol as version 1 spoke it, kept as it was but for its comments.

#![allow(dead_code, reason = "the whole protocol, of which a test uses a part")]

use minicbor::{Decode, Encode};

pub const VERSION: u32 = 1;

#[derive(Debug, Clone, Encode, Decode)]
pub enum Request {
    #[n(0)]
    Hello {
        #[n(0)]
        version: u32,
    },
    #[n(1)]
    Boot(#[n(0)] BootPlan),
    #[n(2)]
    Start(#[n(0)] Box<ContainerPlan>),
    #[n(3)]
    Exec(#[n(0)] Box<ExecPlan>),
    #[n(4)]
    Signal {
        #[n(0)]
        id: String,
        #[n(1)]
        signal: i32,
    },
    #[n(5)]
    Attach {
        #[n(0)]
        id: String,
        #[n(1)]
        stdin: bool,
        #[n(2)]
        stdout: bool,
        #[n(3)]
        stderr: bool,
    },
    #[n(6)]
    Forget {
        #[n(0)]
        id: String,
    },
    #[n(7)]
    OpenTmpfs {
        #[n(0)]
        volume: String,
    },
    #[n(8)]
    Shutdown,
    #[n(9)]
    MarkReady,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct BootPlan {
    #[n(0)]
    pub hostname: String,
    #[n(1)]
    pub own_network: bool,
    #[n(2)]
    pub tmpfs: Vec<TmpfsPlan>,
    #[n(3)]
    pub shm_size: u64,
    #[n(4)]
    pub cgroup_mounts: Vec<CgroupMount>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct TmpfsPlan {
    #[n(0)]
    pub volume: String,
    #[n(1)]
    pub size: Option<u64>,
    #[n(2)]
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CgroupMount {
    #[n(0)]
    V2 {
        #[n(0)]
        directory: String,
    },
    #[n(1)]
    V1 {
        #[n(0)]
        directory: String,
        #[n(1)]
        options: Vec<String>,
    },
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct ContainerPlan {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub process: ProcessPlan,
    #[n(2)]
    pub cgroup_v2: bool,
    #[n(3)]
    pub cgroup_v1: u32,
    #[n(4)]
    pub mounts: Vec<MountPlan>,
    #[n(5)]
    pub read_only_rootfs: bool,
    #[n(6)]
    pub privileged: bool,
    #[n(7)]
    pub stdin: bool,
    #[n(8)]
    pub stdin_once: bool,
    #[n(9)]
    pub log_file: String,
    #[n(10)]
    pub log_max_size: u64,
    #[n(11)]
    pub log_max_files: u32,
    #[n(12)]
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct ProcessPlan {
    #[n(0)]
    pub command: Vec<String>,
    #[n(1)]
    pub env: Vec<String>,
    #[n(2)]
    pub working_dir: String,
    #[n(3)]
    pub uid: u32,
    #[n(4)]
    pub gid: u32,
    #[n(5)]
    pub groups: Vec<u32>,
    #[n(6)]
    pub capabilities: u64,
    #[n(7)]
    pub no_new_privileges: bool,
    #[n(8)]
    pub tty: bool,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct MountPlan {
    #[n(0)]
    pub target: String,
    #[n(1)]
    pub source: MountSource,
    #[n(2)]
    pub read_only: bool,
    #[n(3)]
    pub volume: String,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum MountSource {
    #[n(0)]
    Detached {
        #[n(0)]
        directory: bool,
    },
    #[n(1)]
    Tmpfs {
        #[n(0)]
        volume: String,
    },
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct ExecPlan {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub container: String,
    #[n(2)]
    pub process: ProcessPlan,
    #[n(3)]
    pub cgroup_v2: bool,
    #[n(4)]
    pub cgroup_v1: u32,
    #[n(5)]
    pub stdin: bool,
    #[n(6)]
    pub stdout: bool,
    #[n(7)]
    pub stderr: bool,
    #[n(8)]
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum Reply {
    #[n(0)]
    Done,
    #[n(1)]
    State {
        #[n(0)]
        version: u32,
        #[n(1)]
        booted: bool,
        #[n(2)]
        containers: Vec<ContainerReport>,
        #[n(3)]
        ready: bool,
    },
    #[n(2)]
    Started {
        #[n(0)]
        started_at: i64,
    },
    #[n(3)]
    Failed(#[n(0)] Failure),
    #[n(4)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    #[n(0)]
    pub step: String,
    #[n(1)]
    pub path: Option<String>,
    #[n(2)]
    pub errno: i32,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum Event {
    #[n(0)]
    Exited(#[n(0)] ContainerReport),
    #[n(1)]
    ExecExited {
        #[n(0)]
        id: String,
        #[n(1)]
        end: End,
    },
    #[n(2)]
    LogLost {
        #[n(0)]
        id: String,
        #[n(1)]
        bytes: u64,
        #[n(2)]
        errno: i32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ContainerReport {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub started_at: i64,
    #[n(2)]
    pub exit: Option<ExitReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExitReport {
    #[n(0)]
    pub finished_at: i64,
    #[n(1)]
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum End {
    #[n(0)]
    Code(#[n(0)] i32),
    #[n(1)]
    Signal(#[n(0)] i32),
}
