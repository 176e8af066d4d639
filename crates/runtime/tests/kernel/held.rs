//! A container that is held has no program until it is released, and ends with those who could release it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use infra::protocol::{ContainerPlan, ProcessPlan, Reply, Request, VERSION};
use infra::wire;
use runtime::Runtime as _;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{Node, chain, open, pids_of_infra, relay};

fn plan(id: &str) -> ContainerPlan {
    let process = ProcessPlan {
        command: vec!["/bin/sleep".into(), "1000".into()],
        env: Vec::new(),
        working_dir: "/".into(),
        uid: 0,
        gid: 0,
        groups: vec![0],
        capabilities: 0,
        no_new_privileges: false,
        tty: false,
        seccomp: None,
        apparmor: None,
    };
    ContainerPlan {
        id: id.into(),
        process,
        cgroup_v2: false,
        cgroup_v1: 0,
        mounts: Vec::new(),
        read_only_rootfs: false,
        privileged: false,
        stdin: false,
        stdin_once: false,
        log_file: "0.log".into(),
        log_max_size: 1 << 20,
        log_max_files: 2,
        oom_score_adj: None,
        pid: None,
        unmasked: false,
        masked_paths: None,
        read_only_paths: None,
        cgroup_trees: Vec::new(),
        held: true,
    }
}

/// What infra says within half a second.
fn reply(socket: &OwnedFd) -> Option<Reply> {
    set_socket_timeout(socket, Timeout::Recv, Some(Duration::from_millis(500))).unwrap();
    wire::receive(socket).ok()?.unwrap().body()
}

fn begin(socket: &OwnedFd, directory: &Path, id: &str) {
    let rootfs = directory.join("busybox");
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, &rootfs, flags).unwrap();
    let logs = directory.join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let logs = File::open(logs).unwrap();
    let request = wire::encode(2, &Request::Start(Box::new(plan(id))));
    wire::send(socket, &request, &[tree.as_fd(), logs.as_fd()]).unwrap();
}

fn children(infra: &str) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{infra}/task/{infra}/children")).unwrap();
    list.split_whitespace().map(str::to_owned).collect()
}

fn runs_sleep(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/bin/sleep"))
}

pub fn wait_to_be_released() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (node, sandbox) = event_loop().block_on(async {
        let node = Node::new().await;
        let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
        (node, sandbox)
    });
    // The test is infra's only daemon from here on.
    let Node { directory, runtime, image } = node;
    drop(runtime);
    let path = directory.path().join("run/sandboxes").join(format!("{}.sock", sandbox.id));
    let infra = pids_of_infra(&directory).remove(0);
    let socket = relay::dial(&path);
    begin(&socket, directory.path(), "one");
    assert!(reply(&socket).is_none(), "it is held");
    let held = children(&infra);
    assert!(held.len() == 1 && !runs_sleep(&held[0]), "{held:?}");
    wire::send(&socket, &wire::encode(3, &Request::Release { id: "one".into() }), &[]).unwrap();
    assert!(matches!(reply(&socket), Some(Reply::Started { .. })));
    assert!(runs_sleep(&held[0]), "it is the same process");
    begin(&socket, directory.path(), "two");
    assert!(reply(&socket).is_none());
    assert_eq!(children(&infra).len(), 2);

    drop(socket);
    let limit = Instant::now() + Duration::from_secs(20);
    while children(&infra) != held {
        assert!(Instant::now() < limit, "what is held lives on without a daemon");
        std::thread::sleep(Duration::from_millis(5));
    }
    let socket = relay::dial(&path);
    wire::send(&socket, &wire::encode(1, &Request::Hello { version: VERSION }), &[]).unwrap();
    let state = reply(&socket);
    let ran = |state: &Reply| match state {
        Reply::State { containers, .. } => containers.iter().map(|container| container.id.clone()).collect(),
        _ => Vec::new(),
    };
    assert_eq!(state.as_ref().map(ran), Some(vec!["one".to_owned()]), "the other never ran");
    drop(socket);
    event_loop().block_on(async {
        let (runtime, _images) = open(directory.path()).await;
        let node = Node { directory, runtime, image };
        node.finish(&sandbox.id).await;
    });
}
