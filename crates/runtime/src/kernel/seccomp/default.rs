//! The profile `RuntimeDefault`: what programs of an ordinary container need, as Docker and containerd draw the line.
//!
//! Beside what is allowed to all, a capability brings the calls that are of no use without it. New namespaces need
//! CAP_SYS_ADMIN (CVE-2022-0492), and so does clone3, whose flags a filter cannot see: ENOSYS makes C libraries fall
//! back to clone. Programs of foreign architectures end at once: their calls would go around all of this.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::filter::{Action, Condition, Filter, Operator, Rule};

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET` (clone(2)).
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Families of socket(2) that reach the kernel's crypto and the hypervisor: `AF_ALG`, `AF_VSOCK`.
const REFUSED_FAMILIES: [u64; 2] = [38, 40];
/// personality(2): `PER_LINUX`, `PER_LINUX32`, each with and without `UNAME26`, and the question what it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// These arguments are ints: the kernel does not look at the upper half, so neither may a comparison.
const INT: u64 = 0xffff_ffff;

/// The filter for a container with these capabilities (bits of capabilities(7)).
pub(super) fn runtime_default(capabilities: u64) -> Filter {
    let capabilities = CapabilitySet::from_bits_retain(capabilities);
    let refused = Action::Errno(errno(Errno::PERM));
    let mut rules = Vec::new();
    let mut add = |name: &str, conditions: Vec<Condition>, action: Action| {
        if let Some(call) = sys::syscalls::number(name) {
            rules.push(Rule { call, conditions, action });
        }
    };
    for name in ALLOWED {
        add(name, Vec::new(), Action::Allow);
    }
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(*capability) {
            names.iter().for_each(|name| add(name, Vec::new(), Action::Allow));
        }
    }
    if capabilities.contains(CapabilitySet::SYS_ADMIN) {
        add("clone", Vec::new(), Action::Allow);
    } else {
        add("clone", vec![masked(NEW_NAMESPACES, 0)], Action::Allow);
        add("clone3", Vec::new(), Action::Errno(errno(Errno::NOSYS)));
    }
    for family in REFUSED_FAMILIES {
        add("socket", vec![masked(INT, family)], refused);
    }
    add("socket", Vec::new(), Action::Allow);
    for personality in PERSONALITIES {
        add("personality", vec![masked(INT, personality)], Action::Allow);
    }
    Filter { default: refused, rules }
}

/// A condition on the first argument.
fn masked(mask: u64, value: u64) -> Condition {
    Condition { argument: 0, operator: Operator::MaskedEqual { mask }, value }
}

fn errno(errno: Errno) -> u16 {
    u16::try_from(errno.raw_os_error()).unwrap_or(1)
}

const WITH_CAPABILITY: &[(CapabilitySet, &[&str])] = &[
    (CapabilitySet::DAC_READ_SEARCH, &["open_by_handle_at"]),
    (
        CapabilitySet::SYS_ADMIN,
        &[
            "bpf",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount2",
            "unshare",
        ],
    ),
    (CapabilitySet::BPF, &["bpf"]),
    (CapabilitySet::PERFMON, &["perf_event_open"]),
    (CapabilitySet::SYSLOG, &["syslog"]),
    (CapabilitySet::SYS_BOOT, &["reboot"]),
    (CapabilitySet::SYS_CHROOT, &["chroot"]),
    (CapabilitySet::SYS_MODULE, &["delete_module", "finit_module", "init_module"]),
    (CapabilitySet::SYS_NICE, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (CapabilitySet::SYS_PACCT, &["acct"]),
    (CapabilitySet::SYS_PTRACE, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (CapabilitySet::SYS_RAWIO, &["ioperm", "iopl"]),
    (CapabilitySet::SYS_TIME, &["clock_settime", "settimeofday"]),
    (CapabilitySet::SYS_TTY_CONFIG, &["vhangup"]),
];

#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl", "bind", "brk", "cachestat", "capget",
    "capset", "chdir", "chmod", "chown", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "execve",
    "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fanotify_mark",
    "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr",
    "file_getattr", "file_setattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstatfs",
    "fsync", "ftruncate", "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "futimesat",
    "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "geteuid",
    "getgid", "getgroups", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt",
    "gettid", "gettimeofday", "getuid", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_setup", "io_submit",
    "ioctl", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr",
    "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock",
    "mlock2", "mlockall", "mmap", "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd",
    "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat",
    "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease",
    "process_vm_readv", "process_vm_writev", "pselect6", "ptrace", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg", "remap_file_pages",
    "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget",
    "semop", "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_thread_area",
    "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setitimer", "setpgid", "setpriority",
    "setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid", "setsockopt", "setuid", "setxattr",
    "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4",
    "socketpair", "splice", "stat", "statfs", "statmount", "statx", "symlink", "symlinkat", "sync",
    "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime",
    "times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat", "utimes", "vfork",
    "vmsplice", "wait4", "waitid", "write", "writev",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What nobody gets, whatever the capabilities are: obsolete, or of the machine and not of a container.
    #[rustfmt::skip]
    const REFUSED: &[&str] = &[
        "_sysctl", "add_key", "afs_syscall", "epoll_ctl_old", "epoll_wait_old", "getpmsg", "io_uring_enter",
        "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load", "keyctl", "lsm_get_self_attr",
        "lsm_list_modules", "lsm_set_self_attr", "migrate_pages", "move_pages", "nfsservctl", "pivot_root", "putpmsg",
        "request_key", "security", "swapoff", "swapon", "sysfs", "tuxcall", "userfaultfd", "uselib", "ustat", "vserver",
    ];
    const CONDITIONAL: &[&str] = &["clone", "personality", "socket"];

    #[test]
    fn each_call_of_the_kernel_was_decided_once() {
        let gated: BTreeSet<&str> = WITH_CAPABILITY.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for name in sys::syscalls::names() {
            let places =
                [ALLOWED.contains(&name), gated.contains(name), REFUSED.contains(&name), CONDITIONAL.contains(&name)];
            assert_eq!(places.iter().filter(|listed| **listed).count(), 1, "{name}: {places:?}");
        }
        for name in ALLOWED.iter().chain(REFUSED).chain(&gated) {
            let known = sys::syscalls::number(name).is_some();
            assert!(known || cfg!(not(target_arch = "x86_64")), "{name} is no call");
        }
    }
}
