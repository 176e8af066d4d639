//! Sandboxes made ahead: they become a Pod's, outlive a crash of the daemon, and leave nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::{PodTmpfs, Runtime as _};
use spec::VolumeName;

use super::{Node, chain, open, pids_of_infra};

/// Process ids and command lines of infra processes that are nobody's.
fn spares(node: &Node) -> Vec<(String, String)> {
    let with_line = |pid: String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    let all = pids_of_infra(&node.directory).into_iter().map(with_line);
    all.filter(|(_, line)| line.contains("(spare)")).collect()
}

/// Waits until at least so many are ready: they listen, and infra answers as soon as it does, so a take is answered or refused.
async fn ready(node: &Node, count: usize) -> Vec<(String, String)> {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let found = spares(node);
        if found.len() >= count && links() >= count {
            return found;
        }
        assert!(Instant::now() < limit, "{count} spare sandboxes: {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The host's ends of links that exist.
fn links() -> usize {
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    interfaces.lines().filter(|line| line.trim_start().starts_with("mp")).count()
}

/// The usual sandbox of a Pod: with Kubernetes' `/dev/shm`, and a memory volume.
fn usual(node: &Node) -> runtime::PodSandboxConfig {
    let secret = PodTmpfs { volume: VolumeName::new("secret"), size: None, mode: 0o755, group: None, page_size: None };
    runtime::PodSandboxConfig { shm_size: 64 << 20, tmpfs: vec![secret], ..node.sandbox_config() }
}

/// A spare sandbox that can be taken: what is being made may not be among them yet.
async fn take(node: &Node) -> (runtime::PodSandboxStatus, bool) {
    let before = spares(node);
    let sandbox = node.runtime.run_pod_sandbox(usual(node)).await.map_err(chain).unwrap();
    (sandbox.clone(), before.iter().any(|(_, line)| line.contains(sandbox.id.as_str())))
}

async fn take_one_made_ahead(node: &Node) -> runtime::PodSandboxStatus {
    for attempt in 0.. {
        assert!(attempt < 50, "no sandbox was made ahead");
        let (sandbox, made_ahead) = take(node).await;
        if made_ahead {
            return sandbox;
        }
        node.runtime.remove_pod_sandbox(&sandbox.id).await.map_err(chain).unwrap();
    }
    unreachable!("it asks without end");
}

pub async fn become_a_pods() {
    let node = Node::new().await;
    node.runtime.keep_spare_sandboxes();
    ready(&node, 2).await;
    assert!(node.runtime.list_pod_sandboxes().await.is_empty(), "nobody hears of them");
    let sandbox = take_one_made_ahead(&node).await;
    assert_eq!(sandbox.pod.to_string(), "default/web");
    assert_eq!(sandbox.addresses.len(), 1);
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000; exit")).await;
    let address = sandbox.addresses[0].to_string();
    assert_eq!(node.run(&id, "hostname").await.1, "web\n");
    assert!(node.run(&id, "ip -4 addr show eth0").await.1.contains(&address));
    assert!(node.run(&id, "df -k /dev/shm").await.1.contains("65536"));
    let names = pids_of_infra(&node.directory).into_iter().map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8(line).unwrap().trim_end_matches('\0').replace('\0', " ")
    });
    assert!(names.into_iter().any(|line| line.ends_with("infra default/web")), "ps shows the Pod");
    let secret = node.runtime.open_pod_tmpfs(&sandbox.id, &VolumeName::new("secret")).await.map_err(chain).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&secret, "token", flags, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    // Others are made in its place, and go when nobody keeps them any more.
    ready(&node, 2).await;
    node.runtime.end_spare_sandboxes().await;
    assert!(spares(&node).is_empty());
    assert_eq!(links(), 1, "the Pod's");
    node.finish(&sandbox.id).await;
}

pub fn outlive_a_crash() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (node, before) = event_loop().block_on(async {
        let node = Node::new().await;
        node.runtime.keep_spare_sandboxes();
        // Taken once: then those that are there were all made to the end.
        let sandbox = take_one_made_ahead(&node).await;
        node.runtime.remove_pod_sandbox(&sandbox.id).await.map_err(chain).unwrap();
        let before = ready(&node, 2).await;
        (node, before)
    });
    // The first event loop is gone, as is all that a killed daemon had in memory.
    let Node { directory, runtime, image } = node;
    drop(runtime);
    event_loop().block_on(async {
        let (runtime, _images) = open(directory.path()).await;
        let node = Node { directory, runtime, image };
        let after = spares(&node);
        assert!(after.iter().all(|spare| before.contains(spare)), "{after:?} after {before:?}");
        node.runtime.keep_spare_sandboxes();
        let sandbox = take_one_made_ahead(&node).await;
        node.runtime.end_spare_sandboxes().await;
        assert!(spares(&node).is_empty());
        node.finish(&sandbox.id).await;
    });
}

/// A daemon may die between infra's word that it is a Pod's and the Pod's cgroup, or its limits.
pub fn get_their_pods_cgroup_after_a_crash() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (node, sandbox) = event_loop().block_on(async {
        let node = Node::new().await;
        node.runtime.keep_spare_sandboxes();
        ready(&node, 2).await;
        let resources = runtime::LinuxResources { pids_limit: Some(77), ..runtime::LinuxResources::default() };
        let config = runtime::PodSandboxConfig { resources, ..usual(&node) };
        let sandbox = node.runtime.run_pod_sandbox(config).await.map_err(chain).unwrap();
        (node, sandbox)
    });
    let pod = Path::new(&Node::parent(node.directory.path())).join(format!("besteffort/pod{}", sandbox.uid));
    let cgroup = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(cgroup).unwrap().map(|entry| entry.unwrap().path());
    let cgroups = hierarchies.chain([cgroup.to_owned()]).map(|hierarchy| hierarchy.join(&pod));
    let made: Vec<_> = cgroups.filter(|path| path.exists()).collect();
    assert!(!made.is_empty());
    for path in &made {
        std::fs::remove_dir(path).unwrap();
    }
    let Node { directory, runtime, image } = node;
    drop(runtime);
    event_loop().block_on(async {
        let (runtime, _images) = open(directory.path()).await;
        let limits = made.iter().filter_map(|path| std::fs::read_to_string(path.join("pids.max")).ok());
        assert_eq!(limits.collect::<Vec<_>>(), ["77\n"]);
        let node = Node { directory, runtime, image };
        node.runtime.end_spare_sandboxes().await;
        node.finish(&sandbox.id).await;
    });
}

pub async fn dead_ones_serve_nobody() {
    let node = Node::new().await;
    node.runtime.keep_spare_sandboxes();
    let killed = ready(&node, 2).await;
    for (pid, _) in &killed {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    // One that dies while it is being taken is the caller's to replace.
    let lives = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while killed.iter().any(|(pid, _)| lives(pid)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let sandbox = node.runtime.run_pod_sandbox(usual(&node)).await.map_err(chain).unwrap();
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000; exit")).await;
    assert_eq!(node.run(&id, "hostname").await.1, "web\n");
    node.runtime.end_spare_sandboxes().await;
    node.finish(&sandbox.id).await;
}

/// Root file systems that nobody has yet.
fn rootfs_ahead(node: &Node) -> Vec<String> {
    let entries = std::fs::read_dir(node.directory.path().join("data/containers-ahead")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

async fn wait_for_rootfs_ahead(node: &Node) -> String {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        if let [one] = rootfs_ahead(node).as_slice() {
            return one.clone();
        }
        assert!(Instant::now() < limit, "no root file system was mounted ahead");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn come_with_root_file_systems() {
    let node = Node::new().await;
    node.runtime.keep_spare_sandboxes();
    let sandbox = take(&node).await.0;
    assert!(rootfs_ahead(&node).is_empty(), "nobody knows which image comes");
    let first = node.start(&sandbox.id, node.container("first", "echo first > /mark; sleep 1000; exit")).await;
    // One whose directory is there may not be mounted yet.
    let mut second = first.clone();
    for attempt in 0.. {
        assert!(attempt < 20, "nobody takes what is mounted ahead");
        let ahead = wait_for_rootfs_ahead(&node).await;
        let name = format!("second-{attempt}");
        second = node.start(&sandbox.id, node.container(&name, "sleep 1000; exit")).await;
        if !rootfs_ahead(&node).contains(&ahead) {
            break;
        }
    }
    assert!(node.run(&second, "ls /mark").await.1.contains("No such file"), "it is new");
    assert_eq!(node.run(&second, "echo second > /mark; cat /mark").await.1, "second\n");
    assert_eq!(node.run(&first, "cat /mark").await.1, "first\n");
    let layer = node.directory.path().join("data/containers").join(second.as_str()).join("rootfs/upper/mark");
    assert_eq!(std::fs::read_to_string(layer).unwrap(), "second\n", "what it writes is in its own directory");
    node.runtime.end_spare_sandboxes().await;
    assert!(rootfs_ahead(&node).is_empty());
    node.finish(&sandbox.id).await;
}

/// The inodes of directories for logs that nobody has yet.
fn logs_ahead(node: &Node) -> Vec<u64> {
    let entries = std::fs::read_dir(node.directory.path().join("data/logs-ahead")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().metadata().unwrap().ino()).collect()
}

pub async fn come_with_directories_for_logs() {
    let node = Node::new().await;
    node.runtime.keep_spare_sandboxes();
    let sandbox = take(&node).await.0;
    let limit = Instant::now() + Duration::from_secs(20);
    while logs_ahead(&node).len() < 4 {
        assert!(Instant::now() < limit, "directories for logs are not made ahead");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ahead = logs_ahead(&node);
    let first = node.start(&sandbox.id, node.container("first", "echo told; sleep 1000; exit")).await;
    let logs = node.sandbox_config().log_directory;
    let pod = std::fs::metadata(&logs).unwrap().ino();
    assert!(ahead.contains(&pod), "it has one of those");
    node.start(&sandbox.id, node.container("second", "sleep 1000; exit")).await;
    assert_eq!(std::fs::metadata(&logs).unwrap().ino(), pod);
    let mut names: Vec<_> = std::fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
    while !std::fs::read_to_string(logs.join("first/0.log")).unwrap().ends_with("stdout F told\n") {
        assert!(Instant::now() < limit, "nothing is in the log of {first}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.runtime.end_spare_sandboxes().await;
    assert_eq!(logs_ahead(&node), [0; 0]);
    node.finish(&sandbox.id).await;
}
