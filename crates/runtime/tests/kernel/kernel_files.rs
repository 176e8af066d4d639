//! `/dev`, `/proc` and `/sys`: those of the first container are assembled ahead, and nobody can tell.

use std::collections::BTreeMap;

use runtime::{MountSource, Propagation, Runtime};
use spec::{ContainerId, SandboxId, VolumeName};

use super::{Node, chain, pids_of_infra};

/// A mount as proc_pid_mountinfo(5) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    device: String,
    root: String,
    /// The mount's options, the file system, and its options.
    kind: [String; 3],
}

/// By mount point, the last one of each.
fn table(text: &str) -> BTreeMap<String, Mount> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ").unwrap();
        let place: Vec<&str> = place.split(' ').collect();
        let kind: Vec<&str> = kind.split(' ').collect();
        let words = [place[5], kind[0], kind[2]].map(str::to_owned);
        (place[4].to_owned(), Mount { device: place[2].into(), root: place[3].into(), kind: words })
    };
    text.lines().map(mount).collect()
}

async fn mounts(node: &Node, container: &ContainerId) -> BTreeMap<String, Mount> {
    table(&node.run(container, "cat /proc/self/mountinfo").await.1)
}

/// What there is of mounts, whoever's it is.
fn kinds(table: &BTreeMap<String, Mount>) -> BTreeMap<&str, &[String; 3]> {
    // The root's options name its own directories.
    table.iter().filter(|(point, _)| *point != "/").map(|(point, mount)| (point.as_str(), &mount.kind)).collect()
}

fn nothing_stays_in_infra(node: &Node) {
    for pid in pids_of_infra(&node.directory) {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(!mounts.contains(" /next"), "{mounts}");
    }
}

async fn start(node: &Node, sandbox: &SandboxId, name: &str, privileged: bool) -> ContainerId {
    let mut config = node.container(name, "sleep 1000");
    config.security.privileged = privileged;
    node.start(sandbox, config).await
}

pub async fn are_each_containers_own() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let first = start(&node, &sandbox.id, "first", false).await;
    node.run(&first, "true").await;
    nothing_stays_in_infra(&node);
    let second = start(&node, &sandbox.id, "second", false).await;
    let tables = [mounts(&node, &first).await, mounts(&node, &second).await];
    assert_eq!(kinds(&tables[0]), kinds(&tables[1]), "the first container is like any other");
    for own in ["/dev", "/dev/pts", "/proc"] {
        assert_ne!(tables[0][own].device, tables[1][own].device, "{own}");
    }
    for of_the_pod in ["/dev/shm", "/dev/mqueue", "/sys"] {
        assert_eq!(tables[0][of_the_pod].device, tables[1][of_the_pod].device, "{of_the_pod}");
    }
    assert!(tables[0]["/sys"].kind[0].starts_with("ro,") && tables[0]["/sys/firmware"].kind[1] == "tmpfs");
    // What hides a directory belongs to the whole Pod, so nothing can be put into it, even if it were writable.
    assert!(tables[0]["/sys/firmware"].kind[0].starts_with("ro,"), "{:?}", tables[0]["/sys/firmware"]);
    assert!(tables[0]["/sys/firmware"].kind[2].contains("nr_inodes=1"), "{:?}", tables[0]["/sys/firmware"]);
    let left = "touch /dev/mine; ls /dev/mine; ls -ln /dev/null /dev/tty | awk '{print $1, $3, $4, $5, $6}'";
    let devices = "crw-rw-rw- 0 0 1, 3\ncrw-rw-rw- 0 5 5, 0\n";
    assert_eq!(node.run(&first, left).await.1, format!("/dev/mine\n{devices}"));
    assert_eq!(node.run(&second, "ls /dev/mine").await.0, Some(1));
    node.finish(&sandbox.id).await;
}

pub async fn of_a_privileged_container_are_writable() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let first = start(&node, &sandbox.id, "first", true).await;
    let second = start(&node, &sandbox.id, "second", false).await;
    let tables = [mounts(&node, &first).await, mounts(&node, &second).await];
    assert!(tables[0]["/sys"].kind[0].starts_with("rw,") && tables[1]["/sys"].kind[0].starts_with("ro,"));
    assert!(!tables[0].contains_key("/sys/firmware") && tables[1].contains_key("/sys/firmware"));
    let cgroups = |table: &BTreeMap<String, Mount>, access: &str| {
        let mut of_cgroups = table.iter().filter(|(point, _)| point.starts_with("/sys/fs/cgroup")).peekable();
        assert!(of_cgroups.peek().is_some());
        assert!(of_cgroups.all(|(_, mount)| mount.kind[0].starts_with(access)), "{table:?}");
    };
    cgroups(&tables[0], "rw,");
    cgroups(&tables[1], "ro,");
    node.run(&first, "true").await;
    nothing_stays_in_infra(&node);
    node.finish(&sandbox.id).await;
}

pub async fn usual_mount_points_are_not_made_in_the_writable_layer() {
    let node = Node::new().await;
    let data = node.directory.path().join("data");
    std::fs::create_dir_all(data.join("pods")).unwrap();
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let mut config = node.container("app", "sleep 1000");
    for target in ["/etc/hosts", "/etc/unusual"] {
        let source = data.join("pods").join(target.replace('/', "-"));
        std::fs::write(&source, target).unwrap();
        config.mounts.push(runtime::Mount {
            source: MountSource::HostPath(source),
            target: target.into(),
            read_only: true,
            recursive_read_only: false,
            propagation: Propagation::Private,
            volume: VolumeName::new("files"),
            sub_path: None,
        });
    }
    let id = node.start(&sandbox.id, config).await;
    assert_eq!(node.run(&id, "cat /etc/hosts /etc/unusual").await.1, "/etc/hosts/etc/unusual");
    let upper = data.join("containers").join(id.as_str()).join("rootfs/upper/etc");
    assert!(upper.join("unusual").exists() && !upper.join("hosts").exists());
    node.finish(&sandbox.id).await;
}
