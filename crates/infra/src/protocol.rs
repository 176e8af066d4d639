//! What the daemon and an infra process say to each other.
//!
//! Frames are CBOR arrays `[id, body]`, one per SOCK_SEQPACKET message, with descriptors beside them. A request has an
//! id above 0 and gets one reply of that id; id 0 is an event. The protocol only grows: fields and variants get new
//! numbers, none is ever used again, and what a side does not know it answers with [`Reply::Unknown`] or skips.

use minicbor::{Decode, Encode};

/// Version that this build speaks; `versions` says what each has brought.
pub const VERSION: u32 = 10;

/// What the daemon asks for.
#[derive(Debug, Clone, Encode, Decode)]
pub enum Request {
    /// First on each connection. Answer: [`Reply::State`], with infra's own pidfd, its network namespace and a netlink
    /// route socket opened inside it, when the sandbox is booted.
    #[n(0)]
    Hello {
        /// The daemon's [`VERSION`].
        #[n(0)]
        version: u32,
    },
    /// Makes the namespaces and mounts of the sandbox, once. Descriptor: directory for exit records.
    /// Answer as for `Hello`.
    #[n(1)]
    Boot(#[n(0)] BootPlan),
    /// Starts a container. Answer: [`Reply::Started`] or [`Reply::Failed`].
    #[n(2)]
    Start(#[n(0)] Box<ContainerPlan>),
    /// Starts a process in a running container. Answer: [`Reply::Started`] (with the terminal's master, if one was
    /// asked for) or [`Reply::Failed`]; its end is an event.
    #[n(3)]
    Exec(#[n(0)] Box<ExecPlan>),
    /// Sends a signal to the first process of a container or to a process started by `Exec`. Answer: [`Reply::Done`].
    #[n(4)]
    Signal {
        /// Id of the container or exec.
        #[n(0)]
        id: String,
        /// signal(7).
        #[n(1)]
        signal: i32,
    },
    /// Connects to a container's streams. Descriptors in this order, those asked for: one to read stdin from, ones to
    /// write stdout and stderr to. Answer: [`Reply::Done`], with the terminal's master if the container has one.
    #[n(5)]
    Attach {
        /// The container.
        #[n(0)]
        id: String,
        /// A stdin comes with it.
        #[n(1)]
        stdin: bool,
        /// A stdout comes with it.
        #[n(2)]
        stdout: bool,
        /// A stderr comes with it.
        #[n(3)]
        stderr: bool,
    },
    /// Forgets an exited container and its exit record; the daemon has stored both. Answer: [`Reply::Done`].
    #[n(6)]
    Forget {
        /// The container.
        #[n(0)]
        id: String,
    },
    /// Asks for a descriptor of the root directory of a tmpfs. Answer: [`Reply::Done`] with it.
    #[n(7)]
    OpenTmpfs {
        /// The volume.
        #[n(0)]
        volume: String,
    },
    /// Ends the sandbox: kills what still runs, and exits. Answer: none, the connection closes.
    #[n(8)]
    Shutdown,
    /// The daemon has given the sandbox its network: from now on [`Reply::State`] says that it is whole. Answer:
    /// [`Reply::Done`].
    #[n(9)]
    MarkReady,
    /// Keeps descriptors until the sandbox ends: sockets that hold the Pod's host ports on the machine. Descriptors:
    /// those. Answer: [`Reply::Done`].
    #[n(10)]
    Hold,
    /// Asks for a TCP socket in the sandbox's network, connected to nothing yet. Answer: [`Reply::Done`] with it.
    #[n(11)]
    OpenSocket {
        /// Of IPv6, else of IPv4.
        #[n(0)]
        ipv6: bool,
    },
    /// Goes on with the log of a running container in a new file of its name: the old one was renamed. Answer:
    /// [`Reply::Done`].
    #[n(12)]
    ReopenLog {
        /// The container.
        #[n(0)]
        id: String,
    },
    /// Makes a sandbox that was booted as a spare the sandbox of a Pod, once. Answer: [`Reply::Done`].
    #[n(13)]
    Assign(#[n(0)] AssignPlan),
    /// Makes the first process of a container that is still to come, in a spare sandbox. One that was made before ends.
    /// Answer: [`Reply::Done`].
    #[n(14)]
    Prepare(#[n(0)] PreparePlan),
    /// A container that is held, see [`ContainerPlan::held`], may execute its program. Answer: none but that of its `Start`.
    #[n(15)]
    Release {
        /// It.
        #[n(0)]
        id: String,
    },
    /// Ends what `Prepare` made, if it still waits for its container. Answer: [`Reply::Done`], once it is gone.
    #[n(16)]
    Discard,
}

/// Where the first process of a container is to wait for its plan. Descriptors as for [`ContainerPlan`], without its root file
/// system, logs and mounts. Of a [`ContainerPlan`] that is started in it those of its cgroups go unused.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PreparePlan {
    /// The container.
    #[n(0)]
    pub id: String,
    /// A cgroup v2 directory comes with it.
    #[n(1)]
    pub cgroup_v2: bool,
    /// How many v1 `tasks` files come with it.
    #[n(2)]
    pub cgroup_v1: u32,
    /// Names below `/sys/fs/cgroup` of the cgroup file systems that come with it.
    #[n(3)]
    pub cgroup_trees: Vec<String>,
}

/// What a Pod's sandbox has beside what every spare one has.
#[derive(Debug, Clone, Encode, Decode)]
pub struct AssignPlan {
    /// What ps(1) is to show of infra.
    #[n(0)]
    pub name: String,
    /// Host name of its UTS namespace.
    #[n(1)]
    pub hostname: String,
    /// Memory file systems that containers share.
    #[n(2)]
    pub tmpfs: Vec<TmpfsPlan>,
    /// It is not whole by this: another `MarkReady` will say when it is.
    #[n(3)]
    pub more: bool,
    /// What `Prepare` made is for a container of this Pod; else it ends.
    #[n(4)]
    #[cbor(default)]
    pub prepared: bool,
}

/// The sandbox to make.
#[derive(Debug, Clone, Encode, Decode)]
pub struct BootPlan {
    /// Host name of its UTS namespace.
    #[n(0)]
    pub hostname: String,
    /// Make a network namespace; else stay in the machine's.
    #[n(1)]
    pub own_network: bool,
    /// Memory file systems that containers share.
    #[n(2)]
    pub tmpfs: Vec<TmpfsPlan>,
    /// Bytes of `/dev/shm`.
    #[n(3)]
    pub shm_size: u64,
    /// Which cgroup file systems the machine has mounted, to show them to the containers.
    #[n(4)]
    pub cgroup_mounts: Vec<CgroupMount>,
    /// Stay in the machine's IPC namespace, with the machine's `/dev/shm`.
    #[n(5)]
    #[cbor(default)]
    pub host_ipc: bool,
    /// Make a PID namespace that containers may join, see [`PidPlan::Pod`].
    #[n(6)]
    #[cbor(default)]
    pub shared_pid: bool,
    /// Make a user namespace, and all other namespaces inside of it.
    #[n(7)]
    pub user_namespace: Option<UserNamespacePlan>,
    /// Parameters of the kernel to set in the sandbox's namespaces.
    #[n(8)]
    #[cbor(default)]
    pub sysctls: Vec<SysctlPlan>,
    /// It is nobody's yet: `Assign` will follow, and no container before it.
    #[n(9)]
    #[cbor(default)]
    pub spare: bool,
}

/// A user namespace to make: its ids from 0 on are these of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct UserNamespacePlan {
    /// The machine's id of its root.
    #[n(0)]
    pub first_id: u32,
    /// How many ids it has.
    #[n(1)]
    pub count: u32,
}

/// A parameter of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SysctlPlan {
    /// Its path below `/proc/sys`.
    #[n(0)]
    pub path: String,
    /// What to write.
    #[n(1)]
    pub value: String,
}

/// A tmpfs of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TmpfsPlan {
    /// The volume.
    #[n(0)]
    pub volume: String,
    /// Bytes; none leaves it to the kernel.
    #[n(1)]
    pub size: Option<u64>,
    /// Permission bits of its root.
    #[n(2)]
    pub mode: u32,
    /// Group of its root; none leaves it to root's.
    #[n(3)]
    pub group: Option<u32>,
    /// In huge pages of so many bytes: a hugetlbfs then.
    #[n(4)]
    pub page_size: Option<u64>,
}

/// A cgroup file system as containers see it below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CgroupMount {
    /// cgroup2, on `/sys/fs/cgroup` itself or (hybrid) on `unified` below it.
    #[n(0)]
    V2 {
        /// Name below `/sys/fs/cgroup`; empty for the directory itself.
        #[n(0)]
        directory: String,
    },
    /// A v1 hierarchy.
    #[n(1)]
    V1 {
        /// Name below `/sys/fs/cgroup`.
        #[n(0)]
        directory: String,
        /// Its controllers, or `name=systemd`: mount options of cgroups(7).
        #[n(1)]
        options: Vec<String>,
    },
}

/// A container to start. Descriptors in this order: its root file system (a detached mount), its log directory, its
/// cgroup v2 directory if `cgroup_v2`, `tasks` files of its v1 cgroups, a detached mount for each of `cgroup_trees`, then one for
/// each mount that says so.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ContainerPlan {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// What to run, and as whom.
    #[n(1)]
    pub process: ProcessPlan,
    /// A cgroup v2 directory comes with it.
    #[n(2)]
    pub cgroup_v2: bool,
    /// How many v1 `tasks` files come with it.
    #[n(3)]
    pub cgroup_v1: u32,
    /// Its mounts, in order.
    #[n(4)]
    pub mounts: Vec<MountPlan>,
    /// Make its root file system read-only.
    #[n(5)]
    pub read_only_rootfs: bool,
    /// Show it all of `/proc` and `/sys`, writable (`privileged`).
    #[n(6)]
    pub privileged: bool,
    /// Keep a stdin for `Attach`.
    #[n(7)]
    pub stdin: bool,
    /// Close that stdin after the first one attached has ended.
    #[n(8)]
    pub stdin_once: bool,
    /// File name in the log directory, such as `0.log`.
    #[n(9)]
    pub log_file: String,
    /// Size in bytes at which the log file is rotated.
    #[n(10)]
    pub log_max_size: u64,
    /// How many files of the log are kept, the present one included.
    #[n(11)]
    pub log_max_files: u32,
    /// proc_pid_oom_score_adj(5).
    #[n(12)]
    pub oom_score_adj: Option<i32>,
    /// Whose processes it sees; none means a PID namespace of its own.
    #[n(13)]
    pub pid: Option<PidPlan>,
    /// Show it all of `/proc`, writable, and all of `/sys`.
    #[n(14)]
    #[cbor(default)]
    pub unmasked: bool,
    /// What to hide in place of the usual paths, absolute.
    #[n(15)]
    pub masked_paths: Option<Vec<String>>,
    /// What to make read-only in place of the usual paths, absolute.
    #[n(16)]
    pub read_only_paths: Option<Vec<String>>,
    /// Names below `/sys/fs/cgroup` of the cgroup file systems that come with it. infra mounts the others of
    /// [`BootPlan::cgroup_mounts`] itself.
    #[n(17)]
    #[cbor(default)]
    pub cgroup_trees: Vec<String>,
    /// All is done but execve(2) until `Release` comes. Without a daemon it ends, as if it had never been started.
    #[n(18)]
    #[cbor(default)]
    pub held: bool,
}

/// The PID namespace that a container joins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PidPlan {
    /// The one that `BootPlan.shared_pid` made.
    #[n(0)]
    Pod,
    /// infra's own, which is the machine's.
    #[n(1)]
    Host,
    /// That of another container.
    #[n(2)]
    Target {
        /// Its id; it must run.
        #[n(0)]
        container: String,
    },
}

/// A process: the first of a container, or one more.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ProcessPlan {
    /// Program and arguments.
    #[n(0)]
    pub command: Vec<String>,
    /// `NAME=value` entries.
    #[n(1)]
    pub env: Vec<String>,
    /// Working directory; made (for containers) if it is missing.
    #[n(2)]
    pub working_dir: String,
    /// User.
    #[n(3)]
    pub uid: u32,
    /// Primary group.
    #[n(4)]
    pub gid: u32,
    /// All groups.
    #[n(5)]
    pub groups: Vec<u32>,
    /// Capabilities as bits of capabilities(7); intersected with those that infra has.
    #[n(6)]
    pub capabilities: u64,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    #[n(7)]
    pub no_new_privileges: bool,
    /// A terminal instead of pipes.
    #[n(8)]
    pub tty: bool,
    /// Filter of system calls, as instructions of classic BPF in the machine's byte order (seccomp(2)).
    #[n(9)]
    pub seccomp: Option<minicbor::bytes::ByteVec>,
    /// AppArmor profile that confines its program; the kernel must have it loaded.
    #[n(10)]
    pub apparmor: Option<String>,
}

/// One mount of a container.
#[derive(Debug, Clone, Encode, Decode)]
pub struct MountPlan {
    /// Absolute path in the container.
    #[n(0)]
    pub target: String,
    /// What is mounted.
    #[n(1)]
    pub source: MountSource,
    /// Mount it read-only.
    #[n(2)]
    pub read_only: bool,
    /// The volume it comes from, for messages.
    #[n(3)]
    pub volume: String,
    /// Of a tmpfs of the sandbox, or an image: the path in it to mount instead of its root; in a tmpfs, made if it is
    /// missing.
    #[n(4)]
    pub sub_path: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, Encode, Decode)]
pub enum MountSource {
    /// A detached mount that came as a descriptor; attributes and propagation are already set.
    #[n(0)]
    Detached {
        /// It is a directory, else a file: which kind of mount point to make.
        #[n(0)]
        directory: bool,
    },
    /// A tmpfs of the sandbox.
    #[n(1)]
    Tmpfs {
        /// The volume.
        #[n(0)]
        volume: String,
    },
    /// An image's layers, a detached mount that came as a descriptor; `sub_path` is a path in it.
    #[n(2)]
    Image,
}

/// A process to start in a running container. Descriptors in this order: cgroup v2 directory if `cgroup_v2`, v1
/// `tasks` files, then (without a terminal) those of stdin, stdout and stderr that are asked for.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ExecPlan {
    /// Id of this process.
    #[n(0)]
    pub id: String,
    /// The container.
    #[n(1)]
    pub container: String,
    /// What to run, and as whom.
    #[n(2)]
    pub process: ProcessPlan,
    /// A cgroup v2 directory comes with it.
    #[n(3)]
    pub cgroup_v2: bool,
    /// How many v1 `tasks` files come with it.
    #[n(4)]
    pub cgroup_v1: u32,
    /// A stdin comes with it; else `/dev/null`.
    #[n(5)]
    pub stdin: bool,
    /// A stdout comes with it; else `/dev/null`.
    #[n(6)]
    pub stdout: bool,
    /// A stderr comes with it; else `/dev/null`.
    #[n(7)]
    pub stderr: bool,
    /// proc_pid_oom_score_adj(5).
    #[n(8)]
    pub oom_score_adj: Option<i32>,
}

/// When what came before execve(2) was done, in wall time: nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct StartTimes {
    /// The request was read.
    #[n(0)]
    pub received_at: i64,
    /// The first process is there.
    #[n(1)]
    pub cloned_at: i64,
    /// It has mounted its root file system and its volumes.
    #[n(2)]
    pub assembled_at: i64,
    /// It is about to execute its program.
    #[n(3)]
    pub executing_at: i64,
}

/// What infra answers.
#[derive(Debug, Clone, Encode, Decode)]
pub enum Reply {
    /// It is done.
    #[n(0)]
    Done,
    /// What infra holds. Descriptors: its pidfd and, once booted, its network namespace, a route socket in it, and the
    /// user namespace if it made one.
    #[n(1)]
    State {
        /// Infra's [`VERSION`].
        #[n(0)]
        version: u32,
        /// `Boot` succeeded before.
        #[n(1)]
        booted: bool,
        /// Containers that were started and not forgotten.
        #[n(2)]
        containers: Vec<ContainerReport>,
        /// `MarkReady` came before.
        #[n(3)]
        ready: bool,
        /// It was booted as a spare, and `Assign` has not come yet.
        #[n(4)]
        #[cbor(default)]
        spare: bool,
    },
    /// The program is executed.
    #[n(2)]
    Started {
        /// Wall time, nanoseconds since 1970.
        #[n(0)]
        started_at: i64,
        /// How it came to that, of a container; since version 8.
        #[n(1)]
        times: Option<StartTimes>,
    },
    /// It failed.
    #[n(3)]
    Failed(#[n(0)] Failure),
    /// The request is of a later version.
    #[n(4)]
    Unknown,
}

/// Why something failed: data, so that the daemon can word it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What was being done, such as `execute`.
    #[n(0)]
    pub step: String,
    /// What it was done to.
    #[n(1)]
    pub path: Option<String>,
    /// errno(3).
    #[n(2)]
    pub errno: i32,
}

/// What infra says unasked.
#[derive(Debug, Clone, Encode, Decode)]
pub enum Event {
    /// A container's first process ended, its output is written and its exit is on disk.
    #[n(0)]
    Exited(#[n(0)] ContainerReport),
    /// A process started by `Exec` ended.
    #[n(1)]
    ExecExited {
        /// Its id.
        #[n(0)]
        id: String,
        /// How.
        #[n(1)]
        end: End,
    },
    /// Log lines could not be written (disk full or failing); the container was not held up.
    #[n(2)]
    LogLost {
        /// The container.
        #[n(0)]
        id: String,
        /// Bytes of its output lost until now.
        #[n(1)]
        bytes: u64,
        /// errno(3) of the last attempt.
        #[n(2)]
        errno: i32,
    },
    /// A container's log was rotated: what it had is in a file of another name now, and will not change any more.
    #[n(3)]
    LogRotated {
        /// The container.
        #[n(0)]
        id: String,
    },
}

/// A container as infra knows it; also the content of its exit record, `<id>.exit` in the directory for records.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ContainerReport {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// Wall time of its start, nanoseconds since 1970.
    #[n(1)]
    pub started_at: i64,
    /// How it ended; none while it runs.
    #[n(2)]
    pub exit: Option<ExitReport>,
}

/// The end of a container.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExitReport {
    /// Wall time, nanoseconds since 1970.
    #[n(0)]
    pub finished_at: i64,
    /// How.
    #[n(1)]
    pub end: End,
}

/// How a process ended (waitid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum End {
    /// It called exit with this code.
    #[n(0)]
    Code(#[n(0)] i32),
    /// This signal killed it.
    #[n(1)]
    Signal(#[n(0)] i32),
}

/// Name of a container's exit record in the directory for records.
pub fn exit_record_name(container: &str) -> String {
    format!("{container}.exit")
}
