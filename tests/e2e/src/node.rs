//! `TestNode`: a machine of its own with a daemon on it, driven by the command line and the API.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::background::Background;
use crate::command::Finished;
use crate::kubectl::Release;
use crate::namespaces::{Namespaces, NodeProcess, children_of};
use crate::patience::{eventually, limit};
use crate::spares::{self, Spares};
use crate::terminal::Terminal;
use crate::{cgroups, images};

/// Namespaces, directories and a daemon. Dropping it ends all of them.
#[derive(Debug)]
pub struct TestNode {
    directory: TempDir,
    namespaces: Namespaces,
    daemon: Option<Daemon>,
    cgroup: Option<String>,
    /// More arguments of `monopod serve`.
    pub serve_arguments: Vec<String>,
    /// More environment variables of it.
    pub serve_environment: Vec<(String, String)>,
    /// Which kubectl is used.
    pub kubectl_release: Release,
    /// The daemon's program, where it is not the built one.
    pub binary: Option<PathBuf>,
    /// Address range of the node's Pods.
    pub pod_cidr: &'static str,
}

/// The process `monopod serve` and the nsenter(1) that waits for it.
#[derive(Debug)]
struct Daemon {
    nsenter: Child,
    pid: u32,
}

impl TestNode {
    /// A node whose daemon serves, with the image `busybox:stable`.
    #[track_caller]
    pub fn start() -> Self {
        let mut node = Self::bare();
        node.start_daemon();
        node.load_image("busybox");
        node
    }

    /// A node without a daemon.
    pub fn bare() -> Self {
        let directory = tempfile::Builder::new().prefix("monopod-e2e-").tempdir().unwrap();
        // Containers that are not root look through it (hostPath).
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let namespaces = Namespaces::create(&new_boot_id(directory.path()));
        Self {
            directory,
            namespaces,
            daemon: None,
            cgroup: None,
            serve_arguments: Vec::new(),
            serve_environment: Vec::new(),
            kubectl_release: Release::default(),
            binary: None,
            pod_cidr: "10.85.0.0/16",
        }
    }

    // --- the daemon ---------------------------------------------------------------------------------------------------

    /// Starts the daemon and waits until it serves.
    #[track_caller]
    pub fn start_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs");
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut command = self.namespaces.command(self.binary.clone().unwrap_or_else(binary));
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.run_dir())
            .arg("--log-dir")
            .arg(self.log_dir())
            .args(["--pod-cidr", self.pod_cidr])
            .args(self.own_limits())
            .args(&self.serve_arguments)
            .envs(self.serve_environment.iter().map(|(name, value)| (name, value)))
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("RUST_BACKTRACE", "1");
        let stderr = log.try_clone().unwrap();
        let mut nsenter = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn().unwrap();
        let pid = eventually(limit(10), "nsenter forks", || {
            // nsenter(1) forks once, to be in the PID namespace; the child becomes the daemon.
            children_of(nsenter.id()).first().copied().ok_or_else(|| "no child yet".to_owned())
        });
        let api = self.api();
        eventually(limit(20), "the daemon serves", || {
            if let Ok(Some(status)) = nsenter.try_wait() {
                panic!("the daemon ended: {status}\n{}", self.daemon_log());
            }
            api.try_request("GET", "/api/v1/namespaces/default", None)
                .map_err(|error| format!("{error:#}"))
                .and_then(|answer| if answer.code == 200 { Ok(()) } else { Err(answer.body.to_string()) })
        });
        self.daemon = Some(Daemon { nsenter, pid });
        self.cgroup = self.cgroup.take().or_else(|| cgroup_name(pid));
        let cgroup = self.cgroup.as_deref().expect("the daemon has a bridge");
        assert!(!cgroups::directories(cgroup).is_empty(), "the leak check finds no cgroup {cgroup}");
    }

    /// However full the machine's disk is, it is none of a test's business that says nothing about it.
    fn own_limits(&self) -> &[&str] {
        let said = self.serve_arguments.iter().any(|argument| argument == "--eviction-hard");
        if said { &[] } else { &["--eviction-hard", "", "--image-gc-high-threshold", "100"] }
    }

    /// Process id of the daemon.
    #[track_caller]
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").pid
    }

    /// Whether a daemon was started and not ended by the test.
    pub fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Ends the daemon at once, as a crash does, and waits until it is gone.
    #[track_caller]
    pub fn kill_daemon(&mut self) {
        self.end_daemon(Signal::KILL);
    }

    /// Asks the daemon to end, and waits until it has.
    #[track_caller]
    pub fn stop_daemon(&mut self) {
        let status = self.end_daemon(Signal::TERM);
        assert!(status.success(), "the daemon ended with {status} after SIGTERM\n{}", self.daemon_log());
    }

    #[track_caller]
    fn end_daemon(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        kill(daemon.pid, signal);
        eventually(limit(20), "the daemon ends", || match daemon.nsenter.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// What a reboot does: every process dies, memory and the run directory are empty, disks are kept.
    #[track_caller]
    pub fn reboot(&mut self) {
        self.namespaces.end();
        self.namespaces = Namespaces::create(&new_boot_id(self.directory.path()));
        if let Some(mut daemon) = self.daemon.take() {
            daemon.nsenter.wait().unwrap();
        }
        fs::remove_dir_all(self.run_dir()).unwrap();
        if let Some(name) = &self.cgroup {
            eventually(limit(10), "cgroups of the last boot are gone", || {
                cgroups::remove(name);
                if cgroups::directories(name).is_empty() { Ok(()) } else { Err("some are left".to_owned()) }
            });
        }
    }

    /// What the daemon logged.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    // --- places -------------------------------------------------------------------------------------------------------

    /// A path in the node's own directory, which containers may see by hostPath.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `--data-dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// `--log-dir`.
    pub fn log_dir(&self) -> PathBuf {
        self.path("logs")
    }

    /// Name of the cgroup above all of the node's, once the daemon ran.
    pub fn cgroup(&self) -> Option<&str> {
        self.cgroup.as_deref()
    }

    /// Everything that runs on the node but the daemon and what it has made ahead.
    pub fn processes(&self) -> Vec<NodeProcess> {
        let mut found = self.all_processes();
        found.retain(|process| !spares::is_spare(&process.command_line));
        found
    }

    /// Everything that runs on the node but the daemon.
    pub fn all_processes(&self) -> Vec<NodeProcess> {
        let daemon = self.daemon.as_ref().map(|daemon| daemon.pid);
        self.namespaces.processes().into_iter().filter(|process| Some(process.pid) != daemon).collect()
    }

    /// The sandboxes that are nobody's now.
    pub fn spares(&self) -> Spares {
        Spares::among(&self.all_processes())
    }

    /// The infra processes. One of a sandbox that is being made ahead has the daemon's arguments until it executes its program.
    pub fn infra_processes(&self) -> Vec<NodeProcess> {
        let mut found = self.processes();
        found.retain(|process| is_infra(process.pid) && !process.command_line.contains(" serve --data-dir "));
        found
    }

    /// The only process whose command line contains `text`, its children aside.
    #[track_caller]
    pub fn process(&self, text: &str) -> NodeProcess {
        let all = self.processes();
        let matching = |pid: u32| all.iter().any(|one| one.pid == pid && one.command_line.contains(text));
        // A shell's child has the shell's arguments until it executes its own program.
        let first = |process: &&NodeProcess| matching(process.pid) && !matching(process.parent);
        let mut found: Vec<_> = all.iter().filter(first).collect();
        assert_eq!(found.len(), 1, "processes with {text:?} among {all:#?}");
        found.remove(0).clone()
    }

    /// PID 1 of the node, as the machine numbers it.
    pub fn init(&self) -> u32 {
        self.namespaces.init()
    }

    // --- commands -----------------------------------------------------------------------------------------------------

    /// `monopod ARGUMENTS` against this node.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("MONOPOD_SOCKET", self.socket()).env_remove("RUST_LOG");
        command
    }

    /// Runs `monopod ARGUMENTS` to its end.
    #[track_caller]
    pub fn monopod(&self, arguments: &[&str]) -> Finished {
        Finished::run(&mut self.command(arguments), b"")
    }

    /// The same with a stdin.
    #[track_caller]
    pub fn monopod_with(&self, arguments: &[&str], stdin: &[u8]) -> Finished {
        Finished::run(&mut self.command(arguments), stdin)
    }

    /// Runs `monopod ARGUMENTS` beside the test.
    #[track_caller]
    pub fn background(&self, arguments: &[&str]) -> Background {
        Background::start(&mut self.command(arguments))
    }

    /// Runs `monopod ARGUMENTS` on a terminal of 100 columns and 30 rows.
    #[track_caller]
    pub fn terminal(&self, arguments: &[&str]) -> Terminal {
        Terminal::start(&self.command(arguments), 100, 30)
    }

    /// A command of the machine's on the node's network.
    pub fn on_network(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespaces.on_network(program)
    }

    /// A command inside the node's namespaces.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.namespaces.command(program);
        command.args(arguments);
        command
    }

    /// The test binary in one of its roles inside the node's namespaces.
    pub fn role(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespaces.command(std::env::current_exe().unwrap());
        command.args(arguments);
        command
    }

    /// Loads an image of `tests/images/build`.
    #[track_caller]
    pub fn load_image(&self, name: &str) {
        self.monopod(&["image", "load", images::archive(name).to_str().unwrap()]).ok();
    }

    /// Applies a manifest of `tests/manifests`; `@NODE@` in it becomes the node's directory.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let text = fs::read_to_string(images::manifest(manifest)).unwrap();
        self.apply_text(&text).ok();
    }

    /// Applies a manifest given as text.
    #[track_caller]
    pub fn apply_text(&self, text: &str) -> Finished {
        let text = text.replace("@NODE@", self.directory.path().to_str().unwrap());
        self.monopod_with(&["apply", "-f", "-"], text.as_bytes())
    }

    /// Stdout of a command in a container, which must end well.
    #[track_caller]
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> String {
        self.try_exec(pod, container, command).ok()
    }

    /// A command in a container.
    #[track_caller]
    pub fn try_exec(&self, pod: &str, container: &str, command: &[&str]) -> Finished {
        let mut arguments = vec!["exec", pod, "-c", container, "--"];
        arguments.extend(command);
        self.monopod(&arguments)
    }

    /// A container's whole log.
    #[track_caller]
    pub fn logs(&self, pod: &str, container: &str) -> String {
        self.monopod(&["logs", pod, "-c", container]).ok()
    }

    /// Deletes a Pod and waits until it is gone.
    #[track_caller]
    pub fn delete_pod(&self, name: &str) {
        self.monopod(&["delete", "pod", name]).ok();
    }

    // --- the API ------------------------------------------------------------------------------------------------------

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("monopod.sock")
    }

    /// The API.
    pub fn api(&self) -> Api {
        Api::new(self.socket())
    }

    /// A Pod as it is now.
    #[track_caller]
    pub fn pod(&self, name: &str) -> Value {
        self.api().get(&format!("/api/v1/namespaces/default/pods/{name}"))
    }

    /// Watches the Pod `name` until `wanted` says yes, and gives it as it was then.
    #[track_caller]
    pub fn wait_for(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + limit(40);
        let path = format!("/api/v1/namespaces/default/pods?watch=true&fieldSelector=metadata.name%3D{name}");
        let mut last = Value::Null;
        while Instant::now() < deadline {
            // A watch ends when the daemon does; then the next one begins with what exists.
            let Ok(watch) = self.api().watch(&path, deadline.saturating_duration_since(Instant::now())) else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            for (kind, object) in watch {
                last = object;
                if kind != "DELETED" && wanted(&last) {
                    return last;
                }
            }
        }
        let status = serde_json::to_string_pretty(&last["status"]).unwrap();
        panic!("pod {name}: {what}: not in time; its status: {status}");
    }

    /// Waits until the condition Ready is True.
    #[track_caller]
    pub fn wait_ready(&self, name: &str) -> Value {
        self.wait_for(name, "ready", |pod| condition(pod, "Ready") == Some("True"))
    }

    /// Waits for a phase.
    #[track_caller]
    pub fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_for(name, phase, |pod| pod["status"]["phase"] == phase)
    }

    /// Applies a manifest of one Pod, whose name is the file's, and waits until it is ready.
    #[track_caller]
    pub fn run_ready(&self, name: &str) -> Value {
        self.apply(&format!("{name}.yaml"));
        self.wait_ready(name)
    }

    /// Applies the text of a manifest of one Pod, and waits until it is ready.
    #[track_caller]
    pub fn run_text(&self, text: &str, name: &str) -> Value {
        self.apply_text(text).ok();
        self.wait_ready(name)
    }

    /// Applies a manifest of one Pod, whose name is the file's, and waits until it has succeeded.
    #[track_caller]
    pub fn run_to_end(&self, name: &str) -> Value {
        self.apply(&format!("{name}.yaml"));
        self.wait_for(name, "succeeded", |pod| {
            assert_ne!(pod["status"]["phase"], "Failed", "pod {name}: {}", pod["status"]);
            pod["status"]["phase"] == "Succeeded"
        })
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        // PID 1 takes the daemon, every infra and every container with it.
        let init = self.namespaces.init();
        kill(init, Signal::KILL);
        if let Some(mut daemon) = self.daemon.take() {
            daemon.nsenter.wait().ok();
        }
        let Some(name) = self.cgroup.clone() else { return };
        let deadline = Instant::now() + limit(5);
        while !cgroups::directories(&name).is_empty() && Instant::now() < deadline {
            cgroups::remove(&name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The status of the container `name`, of any kind.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    for kind in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        let statuses = pod["status"][kind].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(found) = statuses.iter().find(|status| status["name"] == name) {
            return found;
        }
    }
    &Value::Null
}

/// The status of a condition.
pub fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Whether `pid` is an infra process: our binary, started with the hidden verb.
fn is_infra(pid: u32) -> bool {
    // PID 1 of shared processes has infra's arguments, and a name of its own.
    if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "pause") {
        return false;
    }
    let arguments = crate::namespaces::command_line(pid);
    arguments.split(' ').next().is_some_and(|program| program.ends_with("infra") || program.ends_with("monopod"))
        && arguments.contains("infra")
}

/// The name of the cgroup above all of the node's. It has the digits of the node's bridge, which is in the daemon's
/// network namespace (proc_pid_net(5)); the daemon itself is in another cgroup.
fn cgroup_name(daemon: u32) -> Option<String> {
    let links = fs::read_to_string(format!("/proc/{daemon}/net/dev")).ok()?;
    let digits = links.lines().find_map(|line| line.trim().strip_prefix("mono-")?.split(':').next())?;
    Some(format!("monopod-{digits}"))
}

/// Sends a signal to a process that may be gone.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    if let Err(error) = rustix::process::kill_process(pid, signal) {
        assert_eq!(error, rustix::io::Errno::SRCH, "kill {pid:?}");
    }
}

/// The file with the boot id of a new boot.
fn new_boot_id(directory: &Path) -> PathBuf {
    static BOOTS: AtomicU64 = AtomicU64::new(0);
    let boot = BOOTS.fetch_add(1, Ordering::Relaxed);
    let path = directory.join("boot-id");
    fs::write(&path, format!("{:08x}-0000-4000-8000-{:012x}\n", std::process::id(), boot)).unwrap();
    path
}

/// The built program: beside this one, or `MONOPOD_BIN`.
pub fn binary() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().with_file_name("monopod");
    let path = std::env::var_os("MONOPOD_BIN").map_or_else(beside, PathBuf::from);
    assert!(path.exists(), "no {}: build it first (`cargo build --workspace`)", path.display());
    path
}
