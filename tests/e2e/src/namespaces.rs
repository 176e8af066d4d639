//! The namespaces of a node, held by a process of ours that is PID 1 in them and reaps what is orphaned there.
//!
//! unshare(1) and nsenter(1) of util-linux do the system calls, so that no process with threads changes namespaces.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use anyhow::Context as _;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};

/// Network, mount, PID, IPC and UTS namespaces. Dropping kills every process in them.
#[derive(Debug)]
pub struct Namespaces {
    unshare: Child,
    /// While it is open, the namespaces live: they end also when the test itself is killed.
    _alive: ChildStdin,
    init: u32,
}

/// A process inside, as the machine numbers it.
#[derive(Debug, Clone)]
pub struct NodeProcess {
    /// Outside.
    pub pid: u32,
    /// Its parent, outside.
    pub parent: u32,
    /// Its arguments, or its name in brackets when it has none.
    pub command_line: String,
}

impl Namespaces {
    /// Makes them. `boot_id` becomes the machine's boot id as the inside sees it (random(4)).
    pub fn create(boot_id: &Path) -> Self {
        let log = boot_id.with_extension("log");
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--ipc", "--uts", "--kill-child=SIGKILL", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .arg("node-init")
            .arg(boot_id)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("unshare(1) of util-linux starts");
        let alive = unshare.stdin.take().unwrap();
        let mut ready = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let complaint = fs::read_to_string(&log).unwrap();
        assert_eq!(ready, "ready\n", "the node's init could not set up its namespaces: {complaint}");
        let init = children_of(unshare.id()).first().copied().expect("unshare has forked");
        Self { unshare, _alive: alive, init }
    }

    /// PID 1 of the namespaces, as the machine numbers it.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--net", "--mount", "--pid", "--ipc", "--uts", "--"]);
        command.arg(program);
        command
    }

    /// A command of the machine's that uses the network inside.
    pub fn on_network(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--net", "--"]).arg(program);
        command
    }

    /// All processes inside but PID 1 and the one that keeps it waiting.
    pub fn processes(&self) -> Vec<NodeProcess> {
        let ours = namespace_of(self.init, "pid");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if pid == self.init || !is_inside(pid, self.init, ours.as_deref()) {
                continue;
            }
            let command_line = command_line(pid);
            // Without a parent it is gone by now.
            let Some(parent) = parent_of(pid) else { continue };
            // A zombie has neither arguments nor a file; it counts until it is reaped.
            if command_line != KEEPER {
                found.push(NodeProcess { pid, parent, command_line });
            }
        }
        found.sort_by(|a, b| a.command_line.cmp(&b.command_line).then(a.pid.cmp(&b.pid)));
        found
    }
}

impl Namespaces {
    /// Kills every process inside, and waits until PID 1 is gone.
    pub fn end(&mut self) {
        // With PID 1 the kernel kills all others (pid_namespaces(7)); unshare ends when PID 1 has.
        if let Some(pid) = Pid::from_raw(i32::try_from(self.init).unwrap()) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        self.unshare.wait().ok();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.end();
    }
}

/// magic.h, as statfs(2) says it.
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;

/// What init waits for; it ends with the test's end of the pipe.
const KEEPER: &str = "cat -";

/// Whether `pid` lives in the PID namespace of `init` or in one made below it (each container has its own).
fn is_inside(pid: u32, init: u32, ours: Option<&str>) -> bool {
    let namespace = namespace_of(pid, "pid");
    if namespace.is_some() && namespace.as_deref() == ours {
        return true;
    }
    // A container's process descends from its infra process, which is in the node's own namespace.
    let mut at = pid;
    for _ in 0..64 {
        match parent_of(at) {
            Some(parent) if parent == init => return true,
            Some(parent) if parent > 1 => {
                if namespace_of(parent, "pid").as_deref() == ours && ours.is_some() {
                    return true;
                }
                at = parent;
            }
            _ => return false,
        }
    }
    false
}

/// Such as `pid:[4026531836]`; `None` when the process is gone.
pub fn namespace_of(pid: u32, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// The arguments of `pid`, or its name in brackets.
pub fn command_line(pid: u32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if arguments.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim_end());
    }
    String::from_utf8_lossy(&arguments).trim_end_matches('\0').replace('\0', " ")
}

/// The children of the single-threaded process `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    children
}

/// The parent of `pid`.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// `node-init`: what runs as PID 1 of a node's namespaces.
pub(crate) fn node_init(boot_id: &Path) -> anyhow::Result<ExitCode> {
    own_sysfs().context("cannot mount the node's own sysfs")?;
    rustix::mount::mount_bind(boot_id, "/proc/sys/kernel/random/boot_id").context("cannot set the boot id")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip(8)")?;
    anyhow::ensure!(up.success(), "ip link set lo up: {up}");
    // A child that ends when the test closes its end of our stdin; as long as it runs, wait() waits.
    let keeper = Command::new("cat").arg("-").stdout(Stdio::null()).spawn().context("cannot run cat(1)")?;
    let keeper = Pid::from_raw(i32::try_from(keeper.id())?);
    let mut stdout = std::io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::empty()) {
        if Some(pid) == keeper {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A sysfs that shows the new network namespace, with what the machine has mounted on the old one where it was (sysfs(5)).
fn own_sysfs() -> anyhow::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let is_mounted = |place: &&str| rustix::fs::statfs(*place).is_ok_and(|found| found.f_type != SYSFS_MAGIC);
    let places = ["/sys/fs/cgroup", "/sys/kernel/security"].into_iter().filter(is_mounted);
    let trees = places.map(|place| Ok((place, rustix::mount::open_tree(rustix::fs::CWD, place, flags)?)));
    let trees = trees.collect::<anyhow::Result<Vec<_>>>()?;
    // Hidden mounts would still stand in the mount table, and each cgroup hierarchy twice.
    rustix::mount::unmount("/sys", UnmountFlags::DETACH)?;
    rustix::mount::mount("sysfs", "/sys", "sysfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    for (place, tree) in trees {
        rustix::mount::move_mount(tree, "", rustix::fs::CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    Ok(())
}
