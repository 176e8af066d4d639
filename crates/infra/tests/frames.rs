//! The protocol only grows: every message of every earlier version, as recorded then, is understood now.
//!
//! `frames/vN.txt` holds one message of each kind with all fields set, as version N encodes it. Older files are never
//! changed. A change of the protocol fails here until `VERSION` is raised and the new frames are recorded with
//! `UPDATE_FRAMES=1 cargo test -p monopod-infra --test frames`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::missing_docs_in_private_items,
    reason = "tests"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use infra::protocol::{
    AssignPlan, BootPlan, CgroupMount, ContainerPlan, ContainerReport, End, Event, ExecPlan, ExitReport, Failure,
    MountPlan, MountSource, PidPlan, PreparePlan, ProcessPlan, Reply, Request, StartTimes, SysctlPlan, TmpfsPlan,
    UserNamespacePlan, VERSION,
};
use minicbor::Encode;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames")
}

fn hex(value: &impl Encode<()>) -> String {
    minicbor::to_vec(value).unwrap().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap()).collect()
}

fn process() -> ProcessPlan {
    ProcessPlan {
        command: vec!["/bin/app".into(), "--serve".into()],
        env: vec!["PATH=/bin".into()],
        working_dir: "/srv".into(),
        uid: 33,
        gid: 34,
        groups: vec![33, 4],
        capabilities: 0x0000_0000_a804_25fb,
        no_new_privileges: true,
        tty: true,
        seccomp: Some(vec![6, 0, 0, 0, 0, 0, 255, 127].into()),
        apparmor: Some("app-profile".into()),
    }
}

fn container(source: MountSource, pid: PidPlan) -> ContainerPlan {
    let mount = MountPlan {
        target: "/data".into(),
        source,
        read_only: true,
        volume: "data".into(),
        sub_path: Some("below".into()),
    };
    ContainerPlan {
        id: "c1".into(),
        process: process(),
        cgroup_v2: true,
        cgroup_v1: 5,
        mounts: vec![mount],
        read_only_rootfs: true,
        privileged: true,
        stdin: true,
        stdin_once: true,
        log_file: "0.log".into(),
        log_max_size: 10 << 20,
        log_max_files: 5,
        oom_score_adj: Some(-997),
        pid: Some(pid),
        unmasked: true,
        masked_paths: Some(vec!["/proc/keys".into()]),
        read_only_paths: Some(vec!["/proc/sys".into()]),
        cgroup_trees: vec!["memory".into()],
        held: true,
    }
}

fn tmpfs() -> TmpfsPlan {
    TmpfsPlan { volume: "mem".into(), size: Some(1 << 20), mode: 0o777, group: Some(2000), page_size: Some(2 << 20) }
}

fn requests() -> Vec<Request> {
    let boot = BootPlan {
        hostname: "web".into(),
        own_network: true,
        tmpfs: vec![tmpfs()],
        shm_size: 64 << 20,
        cgroup_mounts: vec![
            CgroupMount::V2 { directory: "unified".into() },
            CgroupMount::V1 { directory: "memory".into(), options: vec!["memory".into()] },
        ],
        host_ipc: true,
        shared_pid: true,
        user_namespace: Some(UserNamespacePlan { first_id: 0x7000_0000, count: 65_536 }),
        sysctls: vec![SysctlPlan { path: "net/core/somaxconn".into(), value: "1024".into() }],
        spare: true,
    };
    let exec = ExecPlan {
        id: "exec-1".into(),
        container: "c1".into(),
        process: process(),
        cgroup_v2: true,
        cgroup_v1: 5,
        stdin: true,
        stdout: true,
        stderr: true,
        oom_score_adj: Some(1000),
    };
    let target = PidPlan::Target { container: "c0".into() };
    vec![
        Request::Hello { version: 0 },
        Request::Boot(boot),
        Request::Start(Box::new(container(MountSource::Detached { directory: true }, PidPlan::Pod))),
        Request::Start(Box::new(container(MountSource::Tmpfs { volume: "mem".into() }, PidPlan::Host))),
        Request::Start(Box::new(container(MountSource::Image, target))),
        Request::Exec(Box::new(exec)),
        Request::Signal { id: "c1".into(), signal: 15 },
        Request::Attach { id: "c1".into(), stdin: true, stdout: true, stderr: true },
        Request::Forget { id: "c1".into() },
        Request::OpenTmpfs { volume: "mem".into() },
        Request::Shutdown,
        Request::MarkReady,
        Request::Hold,
        Request::OpenSocket { ipv6: true },
        Request::ReopenLog { id: "c1".into() },
        Request::Assign(AssignPlan {
            name: "default/web".into(),
            hostname: "web".into(),
            tmpfs: vec![tmpfs()],
            more: true,
            prepared: true,
        }),
        Request::Prepare(PreparePlan {
            id: "c1".into(),
            cgroup_v2: true,
            cgroup_v1: 5,
            cgroup_trees: vec!["memory".into()],
        }),
        Request::Release { id: "c1".into() },
        Request::Discard,
    ]
}

fn report(end: End) -> ContainerReport {
    ContainerReport { id: "c1".into(), started_at: 5, exit: Some(ExitReport { finished_at: 6, end }) }
}

fn replies() -> Vec<Reply> {
    let failure = Failure { step: "execute".into(), path: Some("/bin/app".into()), errno: 2 };
    vec![
        Reply::Done,
        Reply::State { version: 0, booted: true, containers: vec![report(End::Code(3))], ready: true, spare: true },
        Reply::Started {
            started_at: 5,
            times: Some(StartTimes { received_at: 1, cloned_at: 2, assembled_at: 3, executing_at: 4 }),
        },
        Reply::Failed(failure),
        Reply::Unknown,
    ]
}

fn events() -> Vec<Event> {
    vec![
        Event::Exited(report(End::Signal(9))),
        Event::ExecExited { id: "exec-1".into(), end: End::Code(0) },
        Event::LogLost { id: "c1".into(), bytes: 4096, errno: 28 },
        Event::LogRotated { id: "c1".into() },
    ]
}

/// One line for each message: its kind and its bytes.
fn record() -> String {
    let requests = requests().into_iter().map(|message| format!("request {}\n", hex(&message)));
    let replies = replies().into_iter().map(|message| format!("reply {}\n", hex(&message)));
    let events = events().into_iter().map(|message| format!("event {}\n", hex(&message)));
    requests.chain(replies).chain(events).collect()
}

#[test]
fn a_change_of_the_protocol_is_a_new_version() {
    let path = directory().join(format!("v{VERSION}.txt"));
    if std::env::var_os("UPDATE_FRAMES").is_some() && !path.exists() {
        std::fs::write(&path, record()).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        record() == recorded,
        "the protocol is not that of version {VERSION} any more: raise it, see this file's head"
    );
}

#[test]
fn messages_of_all_versions_are_understood() {
    let mut versions = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let (kind, hex) = line.split_once(' ').unwrap();
            let message = bytes(hex);
            let understood = match kind {
                "request" => minicbor::decode::<Request>(&message).map(drop),
                "reply" => minicbor::decode::<Reply>(&message).map(drop),
                "event" => minicbor::decode::<Event>(&message).map(drop),
                other => panic!("{}: what is a {other}?", path.display()),
            };
            understood.unwrap_or_else(|error| panic!("{}: {line}: {error}", path.display()));
        }
        versions += 1;
    }
    assert!(versions > 1, "the frames of {versions} versions");
}
