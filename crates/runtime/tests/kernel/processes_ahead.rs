//! First processes of containers made ahead: they become what their containers are, or end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{ContainerConfig, Mount, MountSource, PodSandboxConfig, PodSandboxStatus, PodTmpfs, Propagation};
use runtime::{QosClass, Runtime as _, SecurityConfig};
use spec::{PodUid, VolumeName};

use super::{Node, chain, open};

/// The UID of a Pod in whose cgroup a process waits, and that process.
async fn waiting(node: &Node) -> (PodUid, i32) {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        // One that has a process is given rather than one that has none.
        if !all_waiting(node).is_empty()
            && let Some(uid) = node.runtime.prepared_uid(QosClass::BestEffort)
            && let Some(found) = all_waiting(node).into_iter().find(|(pod, _)| *pod == uid)
        {
            return found;
        }
        assert!(Instant::now() < limit, "no process was made ahead");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Those whose Pods have no limits yet: nobody's.
fn all_waiting(node: &Node) -> Vec<(PodUid, i32)> {
    let pods = hierarchy(node).join("besteffort");
    let names = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let found: Vec<_> = entries.filter(|entry| entry.path().is_dir()).collect();
        found
    };
    let mut found = Vec::new();
    for pod in names(&pods) {
        let uid = PodUid::new(pod.file_name().to_str().unwrap().trim_start_matches("pod"));
        for container in names(&pod.path()) {
            let pids = std::fs::read_to_string(container.path().join("cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().map(|pid| (uid.clone(), pid.parse().unwrap())));
        }
    }
    found
}

/// Where all of a container's processes are listed.
fn hierarchy(node: &Node) -> PathBuf {
    let name = Node::parent(node.directory.path());
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|mount| Path::new(mount).join(&name));
    mounts.into_iter().find(|path| path.exists()).unwrap()
}

fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until_ended(pid: i32) {
    let limit = Instant::now() + Duration::from_secs(20);
    while lives(pid) {
        assert!(Instant::now() < limit, "{pid} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn keep(node: &Node) -> (PodUid, i32) {
    node.runtime.keep_spare_sandboxes();
    node.runtime.keep_control_groups_ahead();
    waiting(node).await
}

async fn sandbox(node: &Node, uid: &PodUid) -> PodSandboxStatus {
    let memory = PodTmpfs { volume: VolumeName::new("mem"), size: None, mode: 0o755, group: None, page_size: None };
    let config =
        PodSandboxConfig { uid: uid.clone(), shm_size: 64 << 20, tmpfs: vec![memory], ..node.sandbox_config() };
    node.runtime.run_pod_sandbox(config).await.map_err(chain).unwrap()
}

fn memory(target: &str, sub_path: Option<&str>) -> Mount {
    Mount {
        target: PathBuf::from(target),
        source: MountSource::PodTmpfs(VolumeName::new("mem")),
        sub_path: sub_path.map(Into::into),
        read_only: target == "/read-only",
        recursive_read_only: false,
        propagation: Propagation::Private,
        volume: VolumeName::new("mem"),
    }
}

fn with_volumes(node: &Node, script: &str) -> ContainerConfig {
    let mounts = vec![memory("/memory", None), memory("/read-only", None), memory("/part", Some("below"))];
    ContainerConfig { mounts, ..node.container("app", script) }
}

pub async fn become_their_containers() {
    let node = Node::new().await;
    let (uid, pid) = keep(&node).await;
    // ps tells what it is, as soon as it runs.
    while !std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("(container)") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:"));
    assert_eq!(sockets.count(), 1, "nobody could take it for infra: it has the one to infra alone");
    let sandbox = sandbox(&node, &uid).await;
    let mut config = with_volumes(&node, "echo told; sleep 1000; exit 3");
    config.security.run_as_user = Some(33);
    config.env.push(("GREETING".into(), "hello".into()));
    let id = node.start(&sandbox.id, config).await;
    assert!(all_waiting(&node).contains(&(uid, pid)), "it is the same process");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), Path::new("/bin/busybox"));
    assert_eq!(node.run(&id, "hostname; echo $$; cat /proc/1/comm; id -u").await.1.lines().next(), Some("web"));
    assert!(node.run(&id, "tr '\\0' '\\n' < /proc/1/environ").await.1.contains("GREETING=hello"));
    assert_eq!(node.run(&id, "readlink /proc/1/cwd; ls /proc/1/fd").await.1, "/\n0\n1\n2\n", "nothing of infra's");
    let mapping = node.run(&id, "cat /proc/1/cgroup").await.1;
    assert!(mapping.lines().all(|line| line.ends_with(":/")), "a cgroup namespace of its own: {mapping}");
    // What is hidden from others is hidden here.
    assert_eq!(node.run(&id, "cat /proc/keys /proc/timer_list 2>/dev/null; ls /sys/firmware").await.1, "");
    assert_ne!(node.run(&id, "echo 1 > /proc/sys/kernel/panic").await.0, Some(0));
    assert_ne!(node.run(&id, "echo x > /sys/kernel/mm/ksm/run").await.0, Some(0));
    // The Pod's memory, which is younger than the process.
    let memory = node.runtime.open_pod_tmpfs(&sandbox.id, &VolumeName::new("mem")).await.map_err(chain).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&memory, "below/token", flags, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(node.run(&id, "ls /memory/below /read-only/below /part").await.1.matches("token").count(), 3);
    assert!(node.run(&id, "touch /read-only/x").await.1.contains("Read-only"));
    while node.log("app") != ["stdout F told"] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its end is told as any other's.
    node.runtime.stop_container(&id, None, Duration::ZERO).await.map_err(chain).unwrap();
    assert_eq!(node.exit(&id).await.exit_code, 137);
    node.runtime.end_spare_sandboxes().await;
    assert!(all_waiting(&node).is_empty());
    node.finish(&sandbox.id).await;
}

/// Another container of the Pod may be the first, such as a privileged one.
pub async fn end_where_they_do_not_serve() {
    let node = Node::new().await;
    let (uid, pid) = keep(&node).await;
    let sandbox = sandbox(&node, &uid).await;
    let security = SecurityConfig { privileged: true, ..SecurityConfig::default() };
    let privileged = ContainerConfig { security, ..node.container("first", "sleep 1000; exit") };
    let first = node.start(&sandbox.id, privileged).await;
    assert_eq!(node.run(&first, "hostname").await.1, "web\n");
    until_ended(pid).await;
    // The next one has its cgroup, and a process of its own.
    let second = node.start(&sandbox.id, with_volumes(&node, "sleep 1000; exit")).await;
    assert_eq!(node.run(&second, "ls -d /sys/fs/cgroup/*; cat /proc/1/cgroup").await.0, Some(0));
    node.runtime.end_spare_sandboxes().await;
    node.finish(&sandbox.id).await;
}

/// A Pod that takes no spare sandbox, such as one on the machine's network, has its control group to itself.
pub async fn end_where_their_sandbox_does_not_serve() {
    let node = Node::new().await;
    let (uid, pid) = keep(&node).await;
    let network = runtime::NetworkMode::Host;
    let config = PodSandboxConfig { uid: uid.clone(), network, tmpfs: Vec::new(), ..node.sandbox_config() };
    let sandbox = node.runtime.run_pod_sandbox(config).await.map_err(chain).unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is gone, and reaped");
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000; exit")).await;
    let its_own = |(pod, pid): &(PodUid, i32)| {
        *pod != uid || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new("/bin/busybox"))
    };
    assert!(all_waiting(&node).iter().all(its_own), "nothing else is in its control group");
    assert!(node.run(&id, "cat /proc/1/cgroup").await.1.lines().all(|line| line.ends_with(":/")));
    // The spare sandbox has another one made.
    let (other, _) = waiting(&node).await;
    assert_ne!(other, uid);
    node.runtime.end_spare_sandboxes().await;
    node.finish(&sandbox.id).await;
}

pub async fn are_done_without() {
    let node = Node::new().await;
    let (uid, pid) = keep(&node).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    until_ended(pid).await;
    let sandbox = sandbox(&node, &uid).await;
    let id = node.start(&sandbox.id, with_volumes(&node, "sleep 1000; exit")).await;
    assert_eq!(node.run(&id, "hostname; ls /part").await.1, "web\n");
    let mapping = node.run(&id, "cat /proc/1/cgroup").await.1;
    assert!(mapping.lines().all(|line| line.ends_with(":/")), "{mapping}");
    node.runtime.end_spare_sandboxes().await;
    node.finish(&sandbox.id).await;
}

/// A program that is not there, or a volume's part that leads out, is told as ever, and the next attempt runs.
pub async fn tell_what_hinders_them() {
    let node = Node::new().await;
    let (uid, _) = keep(&node).await;
    let sandbox = sandbox(&node, &uid).await;
    let missing = ContainerConfig { command: vec!["/missing".into()], ..node.container("app", "") };
    let id = node.runtime.create_container(&sandbox.id, missing).await.map_err(chain).unwrap();
    let error = node.runtime.start_container(&id).await.map_err(chain).unwrap_err();
    assert!(error.contains("/missing") && error.contains("No such file"), "{error}");
    let id = node.start(&sandbox.id, ContainerConfig { attempt: 1, ..with_volumes(&node, "sleep 1000; exit") }).await;
    assert_eq!(node.run(&id, "hostname").await.1, "web\n");
    node.runtime.end_spare_sandboxes().await;
    node.finish(&sandbox.id).await;
}

/// The next daemon knows nothing of their cgroups, and has others made.
pub fn end_with_their_daemon() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (node, pids) = event_loop().block_on(async {
        let node = Node::new().await;
        let (_, pid) = keep(&node).await;
        let others = all_waiting(&node).into_iter().map(|(_, pid)| pid);
        let pids: Vec<i32> = others.chain([pid]).collect();
        (node, pids)
    });
    let Node { directory, runtime, image } = node;
    drop(runtime);
    event_loop().block_on(async {
        for pid in pids {
            until_ended(pid).await;
        }
        let (runtime, _images) = open(directory.path()).await;
        let node = Node { directory, runtime, image };
        let (uid, pid) = keep(&node).await;
        let sandbox = sandbox(&node, &uid).await;
        let id = node.start(&sandbox.id, with_volumes(&node, "sleep 1000; exit")).await;
        assert!(lives(pid) && all_waiting(&node).contains(&(uid, pid)));
        assert_eq!(node.run(&id, "hostname").await.1, "web\n");
        node.runtime.end_spare_sandboxes().await;
        node.finish(&sandbox.id).await;
    });
}
