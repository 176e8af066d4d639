//! Measures an infra process alone, told what to do as the daemon would: starts of a container, step by step; the log of a
//! program that writes 200 MB; and the memory of an infra that idles. Prints min / median / p95.
//!
//! `cargo bench -p monopod-infra [-- starts|logs]`, as root, with busybox-static on the machine; the files lie in `TMPDIR`. Whatever it makes lies in a
//! mount and a network namespace of its own and goes with them.

#![expect(clippy::print_stdout, reason = "a benchmark reports to a person")]

use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use infra::protocol::{
    AssignPlan, BootPlan, CgroupMount, ContainerPlan, ContainerReport, End, Event, MountPlan, MountSource, PreparePlan,
    ProcessPlan, Reply, Request, StartTimes, TmpfsPlan, VERSION,
};
use infra::wire;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, open_tree,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use sys::process::Unshare;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 100;
const RUNS: usize = 7;
const LINES: usize = 2_000_000;
const SIGKILL: i32 = 9;
/// The files that every container of a Pod has, and where its token is.
const FILES: [&str; 4] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"];
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What containers have by default (OCI, "Default Capabilities" of most runtimes).
const CAPABILITIES: u64 = 0xa804_25fb;

fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some("infra") {
        return Ok(infra::run("bench")?);
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return Ok(());
    }
    sys::process::unshare(Unshare { mount: true, network: true, ..Unshare::default() })?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let base = tempfile::tempdir()?;
    make_image(&base.path().join("layer"))?;
    for target in FILES {
        let file = base.path().join("files").join(target.trim_start_matches('/'));
        fs::create_dir_all(file.parent().ok_or("no parent")?)?;
        fs::write(file, "")?;
    }
    // What the daemon puts below an image's layers.
    for target in FILES.iter().filter(|target| target.starts_with("/etc")) {
        let point = base.path().join("mount-points").join(target.trim_start_matches('/'));
        fs::create_dir_all(point.parent().ok_or("no parent")?)?;
        fs::write(point, "")?;
    }
    fs::create_dir_all(base.path().join("mount-points").join(TOKEN.trim_start_matches('/')))?;
    println!("{:<44} {:>9} {:>9} {:>9}", "ms", "min", "median", "p95");
    if only.as_deref() != Some("logs") {
        for work in STARTS {
            measure_starts(base.path(), work)?;
        }
    }
    if only.as_deref() != Some("starts") {
        measure_logs(base.path())?;
    }
    Ok(())
}

/// A start to measure.
#[derive(Debug, Clone, Copy)]
struct Start {
    name: &'static str,
    /// It is not the first one in its sandbox.
    later: bool,
    /// It has the files that every container of a Pod has.
    files: bool,
    /// Their mount points are there.
    points: bool,
    /// Its first process was made ahead.
    prepared: bool,
}

const FIRST: Start = Start { name: "the first container", later: false, files: true, points: true, prepared: false };
const STARTS: [Start; 5] = [
    Start { name: "the first container, its process made ahead", prepared: true, ..FIRST },
    FIRST,
    Start { name: "a later one", later: true, ..FIRST },
    Start { name: "the first, mount points to be made", points: false, ..FIRST },
    Start { name: "the first, without the Pod's files", files: false, points: false, ..FIRST },
];

fn measure_starts(base: &Path, work: Start) -> Outcome<()> {
    let mut steps: [Vec<Duration>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let mut pod = Pod::boot(base, work.prepared)?;
        if work.later {
            pod.start_and_kill(work)?;
        }
        let (whole, times, started_at) = pod.start_and_kill(work)?;
        pod.end()?;
        let StartTimes { received_at, cloned_at, assembled_at, executing_at } = times;
        let between = |from: i64, to: i64| Duration::from_nanos(u64::try_from(to - from).unwrap_or_default());
        let all = [
            whole,
            between(received_at, started_at),
            between(received_at, cloned_at),
            between(cloned_at, assembled_at),
            between(assembled_at, executing_at),
            between(executing_at, started_at),
        ];
        for (step, time) in steps.iter_mut().zip(all) {
            step.push(time);
        }
    }
    let names = ["request to answer", "inside", "  clone", "  mount", "  enter, become", "  execute"];
    println!("{}", work.name);
    for (name, times) in names.into_iter().zip(steps) {
        report(name, times);
    }
    Ok(())
}

fn measure_logs(base: &Path) -> Outcome<()> {
    let mut pod = Pod::boot(base, false)?;
    println!("anonymous memory of an infra: {} kB", pod.memory()?);
    let lines = base.join("lines");
    for (name, length) in [("lines of 100 bytes", 100), ("lines of 20 bytes", 20), ("lines of 2,000 bytes", 2000)] {
        write_lines(&lines, length)?;
        let times = (0..RUNS).map(|_| pod.log(&lines)).collect::<Outcome<Vec<_>>>()?;
        report(&format!("200 MB of output, {name}"), times);
    }
    println!("anonymous memory after logs: {} kB", pod.memory()?);
    std::thread::sleep(Duration::from_millis(1500));
    println!("and a second later: {} kB", pod.memory()?);
    pod.end()
}

/// An infra process, and where its containers' files are.
struct Pod {
    base: PathBuf,
    socket: OwnedFd,
    infra: sys::process::Child,
    requests: u64,
    containers: u64,
}

impl Pod {
    fn boot(base: &Path, prepared: bool) -> Outcome<Self> {
        for directory in ["records", "logs"] {
            fs::create_dir_all(base.join(directory))?;
        }
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&listener, &SocketAddrUnix::new(base.join("socket"))?)?;
        listen(&listener, 16)?;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let binary = File::open("/proc/self/exe")?;
        let infra = sys::spawn::spawn(&sys::spawn::SpawnOptions {
            program: binary.as_fd(),
            argv: ["bench", "infra"].into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?.into(),
            envp: Vec::new().into(),
            descriptors: vec![
                null.as_fd(),
                null.as_fd(),
                std::io::stderr().as_fd().try_clone_to_owned()?.as_fd(),
                listener.as_fd(),
                theirs.as_fd(),
            ],
            cgroup: None,
            cgroup_v1_tasks: Vec::new(),
        })?;
        let mut pod = Self { base: base.to_owned(), socket, infra, requests: 0, containers: 0 };
        pod.request(&Request::Hello { version: VERSION }, &[])?;
        let token = TmpfsPlan { volume: "token".into(), size: None, mode: 0o755, group: None, page_size: None };
        let plan = BootPlan {
            hostname: "bench".into(),
            own_network: true,
            tmpfs: if prepared { Vec::new() } else { vec![token.clone()] },
            shm_size: 64 << 20,
            cgroup_mounts: cgroup_mounts()?,
            host_ipc: false,
            shared_pid: false,
            user_namespace: None,
            sysctls: Vec::new(),
            spare: prepared,
        };
        let records = File::open(base.join("records"))?;
        pod.request(&Request::Boot(plan), &[records.as_fd()])?;
        if prepared {
            pod.prepare(token)?;
        }
        pod.request(&Request::MarkReady, &[])?;
        Ok(pod)
    }

    fn prepare(&mut self, token: TmpfsPlan) -> Outcome<()> {
        let id = "container-1".to_owned();
        let plan = PreparePlan { id, cgroup_v2: false, cgroup_v1: 0, cgroup_trees: Vec::new() };
        self.request(&Request::Prepare(plan), &[])?;
        // It is off the path of a start.
        std::thread::sleep(Duration::from_millis(10));
        let (name, hostname) = ("default/bench".to_owned(), "bench".to_owned());
        let plan = AssignPlan { name, hostname, tmpfs: vec![token], more: false, prepared: true };
        self.request(&Request::Assign(plan), &[]).map(drop)
    }

    fn request(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Outcome<Reply> {
        self.requests += 1;
        wire::send(&self.socket, &wire::encode(self.requests, request), descriptors)?;
        loop {
            let frame = wire::receive(&self.socket)?.ok_or("infra is gone")?;
            if frame.id == self.requests {
                return match frame.body().ok_or("no reply")? {
                    Reply::Failed(failure) => Err(format!("{failure:?}").into()),
                    reply => Ok(reply),
                };
            }
        }
    }

    /// Takes as long as the daemon waits for it; and as infra says.
    fn start_and_kill(&mut self, work: Start) -> Outcome<(Duration, StartTimes, i64)> {
        let root = self.root(work.points)?;
        let (mounts, trees) = if work.files { self.files()? } else { Default::default() };
        let begin = Instant::now();
        let (times, started_at) = self.start(&["sleep", "1000000"], &root, mounts, &trees)?;
        let took = begin.elapsed();
        let id = self.id();
        self.request(&Request::Signal { id, signal: SIGKILL }, &[])?;
        self.wait_for_end()?;
        self.clear()?;
        Ok((took, times, started_at))
    }

    /// From execve(2) to its exit, which infra reports when all its output is in the log.
    fn log(&mut self, lines: &Path) -> Outcome<Duration> {
        let root = self.root(false)?;
        let tree = clone(lines)?;
        let mounts = vec![mount("/lines", false, "lines")];
        let (_, started_at) = self.start(&["cat", "/lines"], &root, mounts, &[tree])?;
        let ended = self.wait_for_end()?.exit.ok_or("no exit")?;
        if ended.end != End::Code(0) {
            return Err(format!("{ended:?}").into());
        }
        self.clear()?;
        Ok(Duration::from_nanos(u64::try_from(ended.finished_at - started_at)?))
    }

    fn id(&self) -> String {
        format!("container-{}", self.containers)
    }

    fn directory(&self) -> PathBuf {
        self.base.join(self.id())
    }

    fn root(&mut self, points: bool) -> Outcome<OwnedFd> {
        self.containers += 1;
        let directory = self.directory();
        for name in ["", "upper", "work"] {
            fs::create_dir(directory.join(name))?;
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let layer = self.base.join("layer").display().to_string();
        let layers = if points { format!("{layer}:{}", self.base.join("mount-points").display()) } else { layer };
        fsconfig_set_string(&context, "lowerdir", layers)?;
        fsconfig_set_string(&context, "upperdir", directory.join("upper"))?;
        fsconfig_set_string(&context, "workdir", directory.join("work"))?;
        fsconfig_set_flag(&context, "volatile")?;
        fsconfig_create(&context)?;
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
    }

    fn files(&self) -> Outcome<(Vec<MountPlan>, Vec<OwnedFd>)> {
        let mut mounts = Vec::new();
        let mut trees = Vec::new();
        for target in FILES {
            trees.push(clone(&self.base.join("files").join(target.trim_start_matches('/')))?);
            mounts.push(mount(target, false, "files"));
        }
        let source = MountSource::Tmpfs { volume: "token".into() };
        mounts.push(MountPlan { source, read_only: true, ..mount(TOKEN, true, "token") });
        Ok((mounts, trees))
    }

    fn start(
        &mut self,
        command: &[&str],
        root: &OwnedFd,
        mounts: Vec<MountPlan>,
        trees: &[OwnedFd],
    ) -> Outcome<(StartTimes, i64)> {
        let process = ProcessPlan {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: vec!["PATH=/bin".into()],
            working_dir: "/".into(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            capabilities: CAPABILITIES,
            no_new_privileges: false,
            tty: false,
            seccomp: None,
            apparmor: None,
        };
        let plan = ContainerPlan {
            id: self.id(),
            process,
            cgroup_v2: false,
            cgroup_v1: 0,
            mounts,
            read_only_rootfs: false,
            privileged: false,
            stdin: false,
            stdin_once: false,
            log_file: "0.log".into(),
            log_max_size: 10 << 20,
            log_max_files: 5,
            oom_score_adj: Some(999),
            pid: None,
            unmasked: false,
            masked_paths: None,
            read_only_paths: None,
            cgroup_trees: Vec::new(),
            held: false,
        };
        let logs = File::open(self.base.join("logs"))?;
        let descriptors: Vec<BorrowedFd<'_>> =
            [root.as_fd(), logs.as_fd()].into_iter().chain(trees.iter().map(AsFd::as_fd)).collect();
        match self.request(&Request::Start(Box::new(plan)), &descriptors)? {
            Reply::Started { started_at, times } => Ok((times.ok_or("no times")?, started_at)),
            other => Err(format!("{other:?}").into()),
        }
    }

    fn wait_for_end(&mut self) -> Outcome<ContainerReport> {
        loop {
            let frame = wire::receive(&self.socket)?.ok_or("infra is gone")?;
            if let Some(Event::Exited(report)) = frame.body() {
                return Ok(report);
            }
        }
    }

    fn clear(&mut self) -> Outcome<()> {
        let id = self.id();
        self.request(&Request::Forget { id }, &[])?;
        fs::remove_dir_all(self.directory())?;
        fs::remove_dir_all(self.base.join("logs"))?;
        Ok(fs::create_dir(self.base.join("logs"))?)
    }

    fn memory(&self) -> Outcome<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.infra.pid))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).ok_or("no Pss_Anon")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn end(self) -> Outcome<()> {
        wire::send(&self.socket, &wire::encode(u64::MAX, &Request::Shutdown), &[])?;
        while wire::receive(&self.socket)?.is_some() {}
        waitid(WaitId::PidFd(self.infra.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        Ok(fs::remove_file(self.base.join("socket"))?)
    }
}

/// What the daemon tells of the machine's cgroup file systems.
fn cgroup_mounts() -> Outcome<Vec<CgroupMount>> {
    let mut mounts = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let (place, kind) = line.split_once(" - ").ok_or("no separator")?;
        let place = place.split(' ').nth(4).ok_or("no mount point")?;
        let Some(directory) = place.strip_prefix("/sys/fs/cgroup") else { continue };
        let directory = directory.trim_start_matches('/').to_owned();
        let mut kind = kind.split(' ');
        match kind.next() {
            Some("cgroup2") => mounts.push(CgroupMount::V2 { directory }),
            Some("cgroup") => {
                let options = kind.nth(1).ok_or("no options")?.split(',').filter(|option| *option != "rw");
                mounts.push(CgroupMount::V1 { directory, options: options.map(str::to_owned).collect() });
            }
            _ => {}
        }
    }
    Ok(mounts)
}

/// A busybox as small images have it.
fn make_image(layer: &Path) -> Outcome<()> {
    for directory in ["", "bin", "etc", "proc", "sys", "dev", "tmp", "var"] {
        fs::create_dir(layer.join(directory))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.ok_or("no busybox (package busybox-static)")?, layer.join("bin/busybox"))?;
    for applet in ["sleep", "cat"] {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet))?;
    }
    Ok(())
}

fn write_lines(path: &Path, length: usize) -> Outcome<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let line = [vec![b'x'; length - 1], b"\n".to_vec()].concat();
    for _ in 0..LINES * 100 / length {
        file.write_all(&line)?;
    }
    Ok(file.flush()?)
}

fn clone(path: &Path) -> Outcome<OwnedFd> {
    Ok(open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

fn mount(target: &str, directory: bool, volume: &str) -> MountPlan {
    let source = MountSource::Detached { directory };
    MountPlan { target: target.into(), source, read_only: false, volume: volume.into(), sub_path: None }
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times.get((times.len() - 1) * part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("{name:<44} {:>9.3} {:>9.3} {:>9.3}", at(0), at(50), at(95));
}
