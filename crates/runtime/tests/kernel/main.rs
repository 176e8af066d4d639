//! The runtime on the real kernel: a sandbox and containers in namespaces that the test makes for itself. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    reason = "tests"
)]

mod cgroups_ahead;
mod held;
mod kernel_files;
mod processes_ahead;
mod protocol_v1;
mod relay;
mod spares;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use image::{Image, ImageStore, ImportConfig};
use infra::protocol::{Reply, Request, VERSION};
use libtest_mimic::{Arguments, Failed, Trial};
use network::{Network, NetworkConfig};
use runtime::{
    ContainerConfig, ContainerState, ExecRequest, ExitReason, KernelRuntime, KernelRuntimeConfig, LinuxResources,
    Mount, MountSource, NetworkMode, OpenRuntimeError, PidMode, PodSandboxConfig, PodSandboxState, PodTmpfs,
    Propagation, QosClass, Runtime, RuntimeError, SecurityConfig, SessionEnd, TerminalSize,
};
use spec::{ContainerId, ContainerName, PodRef, PodUid, SandboxId, VolumeName};
use store::Store;

use relay::{Peer, Relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// In which process of the test we are.
const INSIDE: &str = "MONOPOD_TEST_INSIDE";

fn main() {
    // The runtime starts its own binary as infra: here that is this test.
    if std::env::args().nth(1).as_deref() == Some("infra") {
        infra::run("monopod-infra").unwrap();
        return;
    }
    let arguments = Arguments::from_args();
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: needs root and busybox-static");
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    let mut trials = Vec::new();
    for (name, test) in TESTS {
        trials.push(Trial::test(*name, move || run_inside(name, *test)));
    }
    libtest_mimic::run(&Arguments { test_threads: Some(2), ..arguments }, trials).exit();
}

/// Runs a test in a process with network, mount and PID namespaces of its own, made before it is executed: the binary
/// must lie in the mount namespace that it runs in. Whatever happens, all that it started ends with it.
fn run_inside(name: &str, test: fn()) -> Result<(), Failed> {
    if std::env::var_os(INSIDE).is_some() {
        test();
        return Ok(());
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Failed::from(text))
}

const TESTS: &[(&str, fn())] = &[
    ("a_container_runs_prints_and_ends", || block_on(prints_and_ends())),
    ("exec_has_streams_exit_codes_and_terminals", || block_on(execs())),
    ("volumes_are_shared_and_protected", || block_on(volumes())),
    ("a_program_that_does_not_exist_is_a_start_failure", || block_on(start_failure())),
    ("stop_signals_then_kills", || block_on(stops())),
    ("attach_reaches_stdin_and_output", || block_on(attaches())),
    ("a_new_runtime_takes_over", takes_over),
    ("an_infra_of_the_first_version_is_taken_over", an_older_infra),
    ("an_infra_of_a_later_version_is_left_alone", a_newer_infra),
    ("a_dead_infra_takes_its_containers_along", || block_on(loses_infra())),
    ("a_spare_sandbox_becomes_a_pods", || block_on(spares::become_a_pods())),
    ("spare_sandboxes_outlive_a_crash_and_are_found", spares::outlive_a_crash),
    ("a_pod_gets_the_cgroup_that_a_crash_has_kept_from_it", spares::get_their_pods_cgroup_after_a_crash),
    ("a_dead_spare_sandbox_serves_nobody", || block_on(spares::dead_ones_serve_nobody())),
    ("directories_for_logs_are_made_ahead", || block_on(spares::come_with_directories_for_logs())),
    ("root_file_systems_are_mounted_ahead", || block_on(spares::come_with_root_file_systems())),
    ("a_pod_finds_its_cgroup_under_the_uid_that_it_was_given", || {
        block_on(cgroups_ahead::are_there_before_their_pod());
    }),
    ("a_held_container_waits_to_be_released", held::wait_to_be_released),
    ("processes_made_ahead_become_their_containers", || block_on(processes_ahead::become_their_containers())),
    ("a_process_made_ahead_ends_where_it_does_not_serve", || block_on(processes_ahead::end_where_they_do_not_serve())),
    ("a_process_made_ahead_ends_where_its_sandbox_does_not_serve", || {
        block_on(processes_ahead::end_where_their_sandbox_does_not_serve());
    }),
    ("a_process_made_ahead_is_done_without", || block_on(processes_ahead::are_done_without())),
    ("a_process_made_ahead_tells_what_hinders_it", || block_on(processes_ahead::tell_what_hinders_them())),
    ("processes_made_ahead_end_with_their_daemon", processes_ahead::end_with_their_daemon),
    ("a_pod_in_its_callers_cgroup_is_counted_there", || block_on(counted_elsewhere())),
    ("the_container_sees_what_it_may", || block_on(confinement())),
    ("kernel_file_systems_are_each_containers_own", || block_on(kernel_files::are_each_containers_own())),
    ("usual_mount_points_are_not_made_in_the_writable_layer", || {
        block_on(kernel_files::usual_mount_points_are_not_made_in_the_writable_layer());
    }),
    ("those_of_a_privileged_container_are_writable", || {
        block_on(kernel_files::of_a_privileged_container_are_writable());
    }),
];

fn block_on(test: impl Future<Output = ()>) {
    // One thread, so that every part of the test is in the namespaces that it made.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

struct Node {
    directory: tempfile::TempDir,
    runtime: KernelRuntime,
    image: Image,
}

impl Node {
    async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("monopod-runtime-").tempdir().unwrap();
        let (runtime, images) = open(directory.path()).await;
        let rootfs = directory.path().join("busybox");
        make_busybox(&rootfs);
        let image = images.import_rootfs(&rootfs, "busybox:test", ImportConfig::default()).await.unwrap();
        Self { directory, runtime, image }
    }

    fn parent(directory: &Path) -> String {
        format!(
            "monopod-test-{}",
            directory.file_name().unwrap().to_str().unwrap().trim_start_matches("monopod-runtime-")
        )
    }

    fn sandbox_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            ports: Vec::new(),
            pod: PodRef::new("default", "web"),
            uid: PodUid::new("11111111-2222-3333-4444-555555555555"),
            attempt: 0,
            hostname: "web".into(),
            network: NetworkMode::Pod,
            qos: QosClass::BestEffort,
            resources: LinuxResources::default(),
            log_directory: self.directory.path().join("logs/default_web_uid"),
            tmpfs: vec![PodTmpfs {
                volume: VolumeName::new("mem"),
                size: Some(1 << 20),
                mode: 0o777,
                group: None,
                page_size: None,
            }],
            shm_size: 1 << 20,
            namespaces: runtime::PodNamespaces::default(),
            cgroup: None,
            labels: BTreeMap::new(),
        }
    }

    fn container(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: ContainerName::new(name),
            attempt: 0,
            image_ref: "busybox:test".into(),
            image_id: self.image.id.clone(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            env: vec![("PATH".into(), "/bin".into())],
            working_dir: PathBuf::from("/"),
            mounts: Vec::new(),
            stdin: false,
            stdin_once: false,
            tty: false,
            resources: LinuxResources::default(),
            security: SecurityConfig::default(),
            pid: runtime::PidMode::Container,
            stop_signal: None,
            labels: BTreeMap::new(),
            log_path: None,
        }
    }

    async fn start(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        let id = self.runtime.create_container(sandbox, config).await.unwrap();
        self.runtime.start_container(&id).await.map_err(chain).unwrap();
        id
    }

    async fn state(&self, id: &ContainerId) -> ContainerState {
        self.runtime.list_containers().await.into_iter().find(|c| c.id == *id).unwrap().state
    }

    /// Waits for the runtime's own announcements.
    async fn exit(&self, id: &ContainerId) -> runtime::ContainerExit {
        let mut events = self.runtime.events();
        loop {
            if let ContainerState::Exited(exit) = self.state(id).await {
                return exit;
            }
            tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("an event").unwrap();
        }
    }

    fn log(&self, container: &str) -> Vec<String> {
        let path = self.directory.path().join("logs/default_web_uid").join(container).join("0.log");
        std::fs::read_to_string(path).unwrap().lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    async fn run(&self, id: &ContainerId, script: &str) -> (Option<i32>, String) {
        let command = vec!["sh".into(), "-c".into(), script.into()];
        let output = self.runtime.exec_sync(id, command, Duration::from_secs(20), 65536).await.map_err(chain).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.exit_code, String::from_utf8(text).unwrap())
    }

    /// Removes the sandbox, and finds nothing left of it.
    async fn finish(self, sandbox: &SandboxId) {
        self.runtime.remove_pod_sandbox(sandbox).await.map_err(chain).unwrap();
        assert!(self.runtime.list_containers().await.is_empty());
        self.runtime.remove_all().await.map_err(chain).unwrap();
        for below in ["data/sandboxes", "data/containers", "run/sandboxes"] {
            let left: Vec<_> = std::fs::read_dir(self.directory.path().join(below)).unwrap().collect();
            assert!(left.is_empty(), "{below}: {left:?}");
        }
        let name = Self::parent(self.directory.path());
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = hierarchy.unwrap().path().join(&name);
            assert!(!path.exists(), "{} is left", path.display());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.directory.path().to_str().unwrap()), "a mount is left:\n{mounts}");
    }
}

fn chain(error: RuntimeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn open(directory: &Path) -> (KernelRuntime, ImageStore) {
    let (runtime, images) = try_open(directory).await;
    (runtime.unwrap(), images)
}

async fn try_open(directory: &Path) -> (Result<KernelRuntime, OpenRuntimeError>, ImageStore) {
    let data = directory.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let store = Store::open(&data.join("store")).unwrap();
    let images = ImageStore::open(&data.join("images"), store.clone()).unwrap();
    let config = NetworkConfig {
        bridge: "mono0".into(),
        nft_table: "monopod".into(),
        pod_cidr: "10.85.0.0/16".into(),
        service_cidr: None,
    };
    let network = Network::open(config, store.clone()).await.unwrap();
    let config =
        KernelRuntimeConfig { data_dir: data, run_dir: directory.join("run"), cgroup_parent: Node::parent(directory) };
    let runtime = KernelRuntime::open(config, store, images.clone(), network).await;
    (runtime, images)
}

fn make_busybox(rootfs: &Path) {
    for below in ["bin", "etc", "tmp"] {
        std::fs::create_dir_all(rootfs.join(below)).unwrap();
    }
    std::fs::set_permissions(rootfs.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n").unwrap();
    std::fs::write(rootfs.join("etc/group"), "root:x:0:\nweb:x:33:\nlogs:x:4:web\n").unwrap();
}

async fn prints_and_ends() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    assert_eq!(sandbox.addresses.len(), 1);
    let id = node.start(&sandbox.id, node.container("app", "echo hello; echo oops >&2; hostname; exit 3")).await;
    let exit = node.exit(&id).await;
    assert_eq!((exit.exit_code, exit.reason), (3, ExitReason::Exited));
    let mut log = node.log("app");
    log.sort();
    assert_eq!(log, ["stderr F oops", "stdout F hello", "stdout F web"]);
    node.finish(&sandbox.id).await;
}

async fn execs() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    // Two commands: a shell with one becomes that program itself, a moment after it was started.
    let mut config = node.container("app", "sleep 1000; exit");
    config.security.run_as_user = Some(33);
    let id = node.start(&sandbox.id, config).await;
    assert_eq!(node.run(&id, "echo out; echo err >&2; exit 7").await, (Some(7), "out\nerr\n".into()));
    assert_eq!(node.run(&id, "id -u; id -g; id -G; echo $HOME; cat /proc/1/comm").await.1, "33\n33\n33 4\n/srv\nsh\n");
    assert_eq!(node.run(&id, "echo x > /dev/stdout").await.1, "x\n");
    let request = |command: &[&str], tty: bool| ExecRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
    };
    let mut session = node.runtime.exec(&id, request(&["cat"], false)).await.map_err(chain).unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through cat").await.unwrap();
    drop(stdin);
    let mut text = String::new();
    session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), session.end.await), ("through cat", SessionEnd::Exited(0)));
    let mut session = node.runtime.exec(&id, request(&["sh"], true)).await.map_err(chain).unwrap();
    session.resize.as_ref().unwrap()(TerminalSize { width: 91, height: 17 }).unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"stty size; tty; exit 5\n").await.unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("17 91") && text.contains("/dev/pts/"), "{text}");
    assert_eq!(session.end.await, SessionEnd::Exited(5));
    let missing = node.runtime.exec(&id, request(&["/bin/nothing"], false)).await.unwrap_err();
    assert!(chain(missing).contains("No such file"));
    let slow =
        node.runtime.exec_sync(&id, vec!["sleep".into(), "100".into()], Duration::from_millis(100), 10).await.unwrap();
    assert_eq!(slow.exit_code, None);
    node.finish(&sandbox.id).await;
}

async fn volumes() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let host = node.directory.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("seen"), "by all").unwrap();
    let mount = |name: &str, source: MountSource, target: &str, read_only| Mount {
        source,
        target: PathBuf::from(target),
        read_only,
        recursive_read_only: false,
        propagation: Propagation::Private,
        volume: VolumeName::new(name),
        sub_path: None,
    };
    let mem = || MountSource::PodTmpfs(VolumeName::new("mem"));
    let mut writer = node.container("writer", "echo shared > /mem/file; sleep 1000");
    writer.mounts = vec![
        mount("disk", MountSource::HostPath(host.clone()), "/a/new/place", true),
        mount("file", MountSource::HostPath(host.join("seen")), "/etc/single", false),
        mount("mem", mem(), "/mem", false),
    ];
    let writer = node.start(&sandbox.id, writer).await;
    let mut reader = node.container("reader", "sleep 1000");
    reader.mounts = vec![mount("mem", mem(), "/other", true)];
    let reader = node.start(&sandbox.id, reader).await;
    let (_, text) = node
        .run(&writer, "cat /a/new/place/seen /etc/single; touch /a/new/place/x 2>&1; echo more > /etc/single")
        .await;
    assert!(text.starts_with("by allby all") && text.contains("Read-only file system"), "{text}");
    assert_eq!(std::fs::read_to_string(host.join("seen")).unwrap(), "more\n");
    let (_, text) = node.run(&reader, "cat /other/file; touch /other/x 2>&1; echo one > /dev/shm/s").await;
    assert!(text.starts_with("shared\n") && text.contains("Read-only file system"), "{text}");
    assert_eq!(node.run(&writer, "cat /dev/shm/s").await.1, "one\n", "/dev/shm is the Pod's");
    sub_paths(&node, &sandbox.id, mount("v", mem(), "/part", false), &host).await;
    let directory = node.runtime.open_pod_tmpfs(&sandbox.id, &VolumeName::new("mem")).await.map_err(chain).unwrap();
    let path = format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&directory));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "shared\n");
    node.finish(&sandbox.id).await;
}

/// What is wrong with a path is said before anything is made of the container; it heals with the volume.
async fn sub_paths(node: &Node, sandbox: &SandboxId, mount: Mount, host: &Path) {
    let writer = node.container("links", "ln -s / /mem/out; sleep 1000");
    let writer = node
        .start(sandbox, ContainerConfig { mounts: vec![Mount { target: "/mem".into(), ..mount.clone() }], ..writer });
    node.run(&writer.await, "until test -L /mem/out; do sleep 0.01; done").await;
    std::os::unix::fs::symlink("/", host.join("out")).unwrap();
    std::fs::write(host.join("plain"), "").unwrap();
    let disk = || MountSource::HostPath(host.to_owned());
    let create = async |source: MountSource, path: &str| {
        let config = node.container("part", "ls -d /part");
        let mounts = vec![Mount { source, sub_path: Some(path.into()), ..mount.clone() }];
        node.runtime.create_container(sandbox, ContainerConfig { mounts, ..config }).await
    };
    for (source, path, why) in [
        (disk(), "out/etc", "a symbolic link in it leads out of the volume"),
        (mount.source.clone(), "out/etc", "a symbolic link in it leads out of the volume"),
        (disk(), "plain/x", "Not a directory"),
    ] {
        let error = create(source, path).await.unwrap_err();
        assert!(matches!(error, RuntimeError::ContainerConfig { .. }), "{error:?}");
        let wanted = format!("failed to prepare subPath for volumeMount \"v\" of container \"part\": {why}");
        assert_eq!(error.to_string(), wanted, "{path}");
    }
    let image = || MountSource::Image(node.image.id.clone());
    let error = create(image(), "no/such").await.unwrap_err();
    assert_eq!(
        error.in_words(),
        "container \"part\": cannot find in volume \"v\" the subPath no/such: No such file or directory"
    );
    std::fs::remove_file(host.join("out")).unwrap();
    for (source, path) in [(disk(), "out/etc"), (mount.source.clone(), "new"), (image(), "bin")] {
        let id = create(source, path).await.map_err(chain).unwrap();
        node.runtime.start_container(&id).await.map_err(chain).unwrap();
        assert_eq!(node.exit(&id).await.exit_code, 0);
        node.runtime.remove_container(&id).await.map_err(chain).unwrap();
    }
}

async fn start_failure() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    for (command, errno) in
        [("/no/such", "No such file"), ("/etc/passwd", "Permission denied"), ("nosuch", "No such file")]
    {
        let mut config = node.container("app", "");
        config.command = vec![command.into()];
        let id = node.runtime.create_container(&sandbox.id, config).await.unwrap();
        let error = chain(node.runtime.start_container(&id).await.unwrap_err());
        assert!(error.contains(command) && error.contains(errno), "{error}");
        let exit = node.exit(&id).await;
        assert_eq!(exit.exit_code, 128);
        assert!(matches!(exit.reason, ExitReason::StartFailed { .. }));
        node.runtime.remove_container(&id).await.unwrap();
    }
    // The log is opened while the first process is on its way already: it must not become the program.
    let logs = node.directory.path().join("logs/default_web_uid/unlogged");
    std::fs::create_dir_all(&logs).unwrap();
    std::os::unix::fs::symlink("/proc/sysrq-trigger", logs.join("0.log")).unwrap();
    let mut config = node.container("unlogged", "echo ran > /volume/ran");
    config.mounts = vec![Mount {
        source: MountSource::HostPath(node.directory.path().to_owned()),
        target: "/volume".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        volume: VolumeName::new("volume"),
        sub_path: None,
    }];
    let id = node.runtime.create_container(&sandbox.id, config).await.unwrap();
    let error = chain(node.runtime.start_container(&id).await.unwrap_err());
    assert!(error.contains("open the log") && error.contains("symbolic links"), "{error}");
    node.runtime.remove_container(&id).await.unwrap();
    assert!(!node.directory.path().join("ran").exists());
    let mut config = node.container("app", "true");
    config.security.run_as_user = Some(0);
    config.security.run_as_non_root = true;
    let refused = node.runtime.create_container(&sandbox.id, config).await.unwrap_err();
    assert_eq!(refused.to_string(), "container's runAsUser breaks non-root policy");
    node.finish(&sandbox.id).await;
}

async fn stops() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let polite = node
        .start(&sandbox.id, node.container("polite", "trap 'echo bye; exit 9' TERM; while :; do sleep 0.05; done"))
        .await;
    let stubborn =
        node.start(&sandbox.id, node.container("stubborn", "trap '' TERM; sleep 1000 & sleep 1000 & wait")).await;
    // The shell has to have set its trap before it is signalled.
    assert_eq!(
        node.run(
            &polite,
            "until [ -d /proc/1 ] && grep -q SigCgt:.*4[0-9a-f][0-9a-f][0-9a-f]$ /proc/1/status; do :; done; echo ok"
        )
        .await
        .1,
        "ok\n"
    );
    node.runtime.stop_container(&polite, None, Duration::from_secs(20)).await.map_err(chain).unwrap();
    assert_eq!(node.exit(&polite).await.exit_code, 9);
    assert_eq!(node.log("polite"), ["stdout F bye"]);
    node.runtime.stop_container(&stubborn, None, Duration::from_millis(50)).await.map_err(chain).unwrap();
    let exit = node.exit(&stubborn).await;
    assert_eq!(exit.exit_code, 137);
    node.finish(&sandbox.id).await;
}

/// A kubelet makes the Pod's cgroup where it wants it, and removes it.
async fn counted_elsewhere() {
    let node = Node::new().await;
    let parent = format!("{}-caller", Node::parent(node.directory.path()));
    let config = PodSandboxConfig { cgroup: Some(format!("/{parent}/pod1").into()), ..node.sandbox_config() };
    let sandbox = node.runtime.run_pod_sandbox(config).await.map_err(chain).unwrap();
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000")).await;
    let usage = node.runtime.pod_usage(&sandbox.uid).await;
    let app = usage.containers.first().unwrap();
    assert_eq!(app.id, id);
    for counted in [app.cgroup, usage.cgroup] {
        assert!(counted.processes > 0 && counted.memory > 0, "{usage:?}");
    }
    node.finish(&sandbox.id).await;
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let pod = hierarchy.unwrap().path().join(&parent).join("pod1");
        if pod.exists() {
            std::fs::remove_dir(&pod).expect("no container is left in it");
            std::fs::remove_dir(pod.parent().unwrap()).unwrap();
        }
    }
}

async fn attaches() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let mut config = node.container("app", "while read line; do echo got $line; done; echo end");
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.start(&sandbox.id, config).await;
    let mut first = node.runtime.attach(&id, true, true, true).await.map_err(chain).unwrap();
    let mut second = node.runtime.attach(&id, false, true, false).await.map_err(chain).unwrap();
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    drop(stdin);
    for session in [&mut first, &mut second] {
        let mut text = String::new();
        session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "got one\ngot two\nend\n");
    }
    assert_eq!(first.end.await, SessionEnd::Exited(0));
    assert_eq!(node.log("app"), ["stdout F got one", "stdout F got two", "stdout F end"]);
    node.finish(&sandbox.id).await;
}

/// What the first daemon leaves to the second.
struct Left {
    directory: tempfile::TempDir,
    image: Image,
    sandbox: SandboxId,
    addresses: Vec<std::net::IpAddr>,
    infra: Vec<String>,
    gate: PathBuf,
    stays: ContainerId,
    created: ContainerId,
    ends: ContainerId,
}

/// A daemon that is gone: its event loop is dropped with all its tasks, and the store's lock with them.
fn takes_over() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = event_loop().block_on(first_daemon());
    // The container ends while nobody listens; its record tells.
    std::fs::write(left.gate.join("go"), "").unwrap();
    let record = left.directory.path().join(format!("data/sandboxes/{}/{}.exit", left.sandbox, left.ends));
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    while !record.exists() {
        assert!(std::time::Instant::now() < limit, "no exit record");
        std::thread::yield_now();
    }
    event_loop().block_on(second_daemon(left));
}

async fn first_daemon() -> Left {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let stays = node.start(&sandbox.id, node.container("stays", "while :; do echo tick; sleep 0.05; done")).await;
    let created =
        node.runtime.create_container(&sandbox.id, node.container("created", "echo started late")).await.unwrap();
    let gate = node.directory.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let mut ends = node.container("ends", "until [ -e /gate/go ]; do sleep 0.02; done; exit 4");
    ends.mounts = vec![Mount {
        source: MountSource::HostPath(gate.clone()),
        target: "/gate".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        volume: VolumeName::new("gate"),
        sub_path: None,
    }];
    let ends = node.start(&sandbox.id, ends).await;
    let infra = pids_of_infra(&node.directory);
    let Node { directory, image, .. } = node;
    Left { directory, image, addresses: sandbox.addresses, sandbox: sandbox.id, infra, gate, stays, created, ends }
}

async fn second_daemon(left: Left) {
    let (runtime, _images) = open(left.directory.path()).await;
    let node = Node { directory: left.directory, runtime, image: left.image };
    let status = node.runtime.list_pod_sandboxes().await.remove(0);
    assert_eq!((status.state, status.addresses), (PodSandboxState::Ready, left.addresses));
    assert_eq!(pids_of_infra(&node.directory), left.infra);
    assert!(matches!(node.state(&left.stays).await, ContainerState::Running { .. }));
    assert_eq!(node.exit(&left.ends).await.exit_code, 4);
    assert_eq!(node.state(&left.created).await, ContainerState::Created);
    node.runtime.start_container(&left.created).await.map_err(chain).unwrap();
    assert_eq!(node.exit(&left.created).await.exit_code, 0);
    assert_eq!(node.log("created"), ["stdout F started late"]);
    assert_eq!(node.run(&left.stays, "echo still here").await.1, "still here\n");
    node.finish(&left.sandbox).await;
}

/// Where infra listens, and where its socket goes when a relay is before it.
fn sockets(left: &Left) -> (PathBuf, PathBuf) {
    let directory = left.directory.path();
    (directory.join(format!("run/sandboxes/{}.sock", left.sandbox)), directory.join("real.sock"))
}

fn an_older_infra() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = event_loop().block_on(first_daemon());
    let (socket, real) = sockets(&left);
    drop(Relay::before(&socket, &real, Peer::First));
    event_loop().block_on(after_an_older_one(left));
}

/// All that the first version could do is done; the rest is refused by name, and nothing is done in silence.
async fn after_an_older_one(left: Left) {
    let (runtime, _images) = open(left.directory.path()).await;
    let node = Node { directory: left.directory, runtime, image: left.image };
    assert_eq!(node.runtime.list_pod_sandboxes().await.remove(0).state, PodSandboxState::Ready);
    assert_eq!(node.run(&left.stays, "echo still here").await.1, "still here\n");
    node.runtime.start_container(&left.created).await.map_err(chain).unwrap();
    assert_eq!(node.exit(&left.created).await.exit_code, 0);
    let mut attached = node.runtime.attach(&left.stays, false, true, false).await.map_err(chain).unwrap();
    let mut tick = [0; 5];
    attached.stdout.as_mut().unwrap().read_exact(&mut tick).await.unwrap();
    assert_eq!(&tick, b"tick\n");
    let refused = |error: RuntimeError, what: &str| {
        let text = chain(error);
        assert!(text.contains("earlier version of the engine") && text.contains(what), "{text}");
    };
    let mut shares = node.container("shares", "true");
    shares.pid = PidMode::Pod;
    let mut part = node.container("part", "true");
    part.mounts = vec![Mount {
        source: MountSource::PodTmpfs(VolumeName::new("mem")),
        target: "/part".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        volume: VolumeName::new("mem"),
        sub_path: Some("part".into()),
    }];
    for (config, what) in [(shares, "processes shared"), (part, "subPath in memory volumes")] {
        let id = node.runtime.create_container(&left.sandbox, config).await.map_err(chain).unwrap();
        refused(node.runtime.start_container(&id).await.unwrap_err(), what);
        node.runtime.remove_container(&id).await.map_err(chain).unwrap();
    }
    let text = chain(node.runtime.connect(&left.sandbox, 80).await.unwrap_err());
    assert!(text.contains("started by an older monopod that cannot do this"), "{text}");
    let stopped = node.runtime.stop_container(&left.stays, None, Duration::from_millis(100)).await;
    stopped.map_err(chain).unwrap();
    node.finish(&left.sandbox).await;
}

fn a_newer_infra() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = event_loop().block_on(first_daemon());
    let (socket, real) = sockets(&left);
    for (peer, speaks) in [(Peer::Next, format!("version {}", VERSION + 1)), (Peer::Far, "a later version".into())] {
        let relay = Relay::before(&socket, &real, peer);
        let refused = event_loop().block_on(async { try_open(left.directory.path()).await.0.map(drop) });
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("pod default/web was started by a newer monopod") && text.contains(&speaks), "{text}");
        relay.take_away();
    }
    // Who is asked something unknown says so, and goes on.
    let infra = relay::dial(&socket);
    infra::wire::send(&infra, &infra::wire::encode(7, &9999_u32), &[]).unwrap();
    infra::wire::send(&infra, &infra::wire::encode(8, &Request::Hello { version: VERSION + 1 }), &[]).unwrap();
    let replies = [(), ()].map(|()| infra::wire::receive(&infra).unwrap().unwrap());
    assert!(matches!(replies[0].body(), Some(Reply::Unknown)) && replies[0].id == 7);
    assert!(matches!(replies[1].body(), Some(Reply::State { ready: true, .. })) && replies[1].id == 8);
    // Nothing was changed: the daemon that can finds all.
    std::fs::write(left.gate.join("go"), "").unwrap();
    event_loop().block_on(second_daemon(left));
}

fn pids_of_infra(directory: &tempfile::TempDir) -> Vec<String> {
    let name = Node::parent(directory.path());
    ["unified", ""]
        .iter()
        .find_map(|mount| {
            std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(mount).join(&name).join("infra/cgroup.procs")).ok()
        })
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

async fn loses_infra() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000")).await;
    for pid in pids_of_infra(&node.directory) {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    assert_eq!(node.exit(&id).await.reason, ExitReason::Unknown);
    let status = node.runtime.list_pod_sandboxes().await.remove(0);
    assert_eq!(status.state, PodSandboxState::NotReady);
    let again = PodSandboxConfig { attempt: 1, ..node.sandbox_config() };
    let again = node.runtime.run_pod_sandbox(again).await.map_err(chain).unwrap();
    node.runtime.remove_pod_sandbox(&sandbox.id).await.map_err(chain).unwrap();
    let id = node.start(&again.id, node.container("app", "sleep 1000")).await;
    assert_eq!(node.run(&id, "echo back").await.1, "back\n");
    node.finish(&again.id).await;
}

async fn confinement() {
    let node = Node::new().await;
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await.map_err(chain).unwrap();
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000")).await;
    let script = "echo pids $(ls /proc | grep -c '^[0-9]');
        grep -E 'Cap(Inh|Amb)|NoNewPrivs|SigIgn' /proc/self/status | tr -s '\\t\\n' '  '; echo;
        ls /dev | tr '\\n' ' '; echo;
        wc -c < /proc/keys; find /proc/acpi /sys/firmware -mindepth 1 2>/dev/null | wc -l;
        echo 1 > /proc/sys/kernel/domainname 2>/dev/null || echo refused; echo 1 > /proc/sysrq-trigger 2>/dev/null || echo refused;
        ls /proc/self/fd | tr '\\n' ' '; ulimit -Sn; umask; cat /proc/self/cgroup | head -n1 | cut -d: -f3;
        awk '$5==\"/\"' /proc/self/mountinfo | grep -c overlay";
    let (_, text) = node.run(&id, script).await;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].contains("CapInh: 0000000000000000") && lines[1].contains("CapAmb: 0000000000000000"), "{text}");
    assert!(lines[1].contains("SigIgn: 0000000000000000"), "{text}");
    assert_eq!(
        lines[2].trim(),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "{text}"
    );
    assert_eq!(&lines[3..=6], ["0", "0", "refused", "refused"], "{text}");
    assert!(lines[7].ends_with("1024"), "{text}");
    assert_eq!(lines[8], "0022", "{text}");
    assert_eq!(&lines[9..=10], ["/", "1"], "{text}");
    node.finish(&sandbox.id).await;
}
