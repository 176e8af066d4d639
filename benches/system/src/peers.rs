//! The peers: podman, containerd and crun from Debian's packages, in a root directory and namespaces of their own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;

use crate::cri::Cri;
use crate::images::{REFERENCE, Storage};
use crate::material::{Image, Lines};
use crate::report::{Engine, Report};
use crate::{memory, works};

/// A namespace of containerd's of which its CRI knows nothing: that gives each image a second name, by which its content would still be
/// there when it is loaded again.
const OUTSIDE_CRI: &str = "bench";

/// Their machine. Dropping it ends all that runs there.
#[derive(Debug)]
pub struct Peers {
    unshare: Child,
    _alive: ChildStdin,
    init: u32,
    root: PathBuf,
    cri: Cri,
}

impl Peers {
    /// Installs them below `directory`, if they are not there yet, and starts them.
    pub fn start(directory: &Path) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        std::fs::create_dir_all(directory).unwrap();
        let images = e2e::images::archive("busybox").parent().unwrap().to_owned();
        let installed = Command::new(scripts.join("setup")).arg(directory).arg(images).status().unwrap();
        assert!(installed.success(), "the peers cannot be installed");
        let root = directory.join("root");
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--ipc", "--uts", "--kill-child=SIGKILL", "--mount-proc"])
            .arg(scripts.join("init"))
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let alive = unshare.stdin.take().unwrap();
        let mut ready = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "the peers did not start, see {}", root.join("var/bench/log").display());
        let init = e2e::namespaces::children_of(unshare.id()).first().copied().unwrap();
        // The socket lies on a file system that only they see.
        let socket = PathBuf::from(format!("/proc/{init}/root")).join(root.strip_prefix("/").unwrap());
        let cri = Cri::new(&socket.join("run/containerd/containerd.sock"));
        Self { unshare, _alive: alive, init, root, cri }
    }

    /// What they say of their versions.
    pub fn versions(&self) -> String {
        let word = |program: &str, arguments: &[&str]| {
            let output = self.inside(program, arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
        };
        [word("podman", &["--version"]), word("containerd", &["--version"]), word("crun", &["--version"])].join("; ")
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--net", "--mount", "--pid", "--ipc", "--uts", "--"]);
        command.arg("chroot").arg(&self.root).arg(program).args(arguments);
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1").stdin(Stdio::null());
        command
    }

    /// How long a program takes that ends well.
    fn timed(&self, program: &str, arguments: &[&str]) -> f64 {
        // A file, not a pipe: what it leaves running keeps its output open.
        let said = self.root.join("var/bench/said");
        let mut command = self.inside(program, arguments);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
        let begin = Instant::now();
        let status = command.status().unwrap();
        let time = begin.elapsed().as_secs_f64() * 1000.0;
        assert!(status.success(), "{program} {arguments:?}: {}", std::fs::read_to_string(said).unwrap_or_default());
        time
    }

    /// One Pod's life with each of them. What `nsenter` and `chroot` take is in the figures of podman and crun.
    pub fn measure(&self, report: &mut Report) {
        self.podman(report);
        self.containerd(report);
        report.add(
            works::START,
            "ms",
            Engine::Crun,
            self.timed("crun", &["run", "--detach", "-b", "/run/bundle", "idle"]),
        );
        report.add(works::EXEC, "ms", Engine::Crun, self.timed("crun", &["exec", "idle", "true"]));
        report.add(works::GONE, "ms", Engine::Crun, self.timed("crun", &["delete", "--force", "idle"]));
    }

    fn podman(&self, report: &mut Report) {
        let pod = "/var/bench/pod.yaml";
        report.add(works::START, "ms", Engine::Podman, self.timed("podman", &["kube", "play", pod]));
        report.add(works::EXEC_COMMAND, "ms", Engine::Podman, self.timed("podman", &["exec", "idle-main", "true"]));
        let conmon = self.processes("/conmon ");
        if !conmon.is_empty() {
            let all: u64 =
                conmon.iter().chain(&self.processes("catatonit -P")).map(|pid| memory::proportional(*pid)).sum();
            report.add(works::MEMORY, "kB", Engine::Podman, f64::from(u32::try_from(all).unwrap()));
        }
        report.add(works::GONE, "ms", Engine::Podman, self.timed("podman", &["kube", "down", pod]));
    }

    fn containerd(&self, report: &mut Report) {
        let begin = Instant::now();
        let sandbox = self.cri.run_pod_sandbox();
        let command = ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"];
        let container = self.cri.create_container(&sandbox, "docker.io/library/busybox:stable", &command);
        self.cri.start_container(&container);
        report.add_time(works::START, Engine::Containerd, begin.elapsed());
        let begin = Instant::now();
        self.cri.exec_sync(&container, &["true"]);
        report.add_time(works::EXEC, Engine::Containerd, begin.elapsed());
        let shims = self.processes("containerd-shim");
        let pauses = self.processes("/bin/sleep infinity");
        let all: u64 = shims.iter().chain(&pauses).map(|pid| memory::proportional(*pid)).sum();
        report.add(works::MEMORY, "kB", Engine::Containerd, f64::from(u32::try_from(all).unwrap()));
        let begin = Instant::now();
        self.cri.remove_pod_sandbox(&sandbox);
        report.add_time(works::GONE, Engine::Containerd, begin.elapsed());
    }

    /// Loads an image with each.
    pub fn load(&self, image: &Image, report: &mut Report) {
        let archive = self.root.join("var/bench/large.tar");
        std::fs::copy(&image.archive, &archive).unwrap();
        let large = "/var/bench/large.tar";
        let work = works::load(image.megabytes);
        let mut add = |engine, program, arguments: &[&str]| {
            report.add(&work, "ms", engine, self.timed_from_clean(program, arguments));
        };
        add(Engine::Podman, "podman", &["load", "-i", large]);
        add(Engine::Containerd, "ctr", &["-n", OUTSIDE_CRI, "images", "import", large]);
        add(Engine::SkopeoUmoci, "/var/bench/unpack", &[&format!("oci-archive:{large}")]);
        self.remove_large("docker.io/library/large:bench");
        std::fs::remove_file(archive).unwrap();
    }

    /// Pulls the image with each from a registry on their loopback.
    pub fn pull(&self, image: &Image, storage: &Storage, report: &mut Report) {
        let registry = storage.serve(self.init);
        let work = works::pull(image.megabytes);
        let mut add = |engine, program, arguments: &[&str]| {
            report.add(&work, "ms", engine, self.timed_from_clean(program, arguments));
        };
        add(Engine::Podman, "podman", &["pull", "--tls-verify=false", REFERENCE]);
        add(Engine::Containerd, "ctr", &["-n", OUTSIDE_CRI, "images", "pull", "--plain-http", REFERENCE]);
        add(Engine::SkopeoUmoci, "/var/bench/unpack", &[&format!("docker://{REFERENCE}"), "--src-tls-verify=false"]);
        self.remove_large(REFERENCE);
        drop(registry);
    }

    /// When nothing of what others did before is still to be written to the disk.
    fn timed_from_clean(&self, program: &str, arguments: &[&str]) -> f64 {
        rustix::fs::sync();
        self.timed(program, arguments)
    }

    fn remove_large(&self, name: &str) {
        self.timed("podman", &["rmi", name]);
        self.timed("ctr", &["-n", OUTSIDE_CRI, "images", "remove", "--sync", name]);
        self.timed("rm", &["-r", "/var/bench/layout", "/var/bench/bundle"]);
    }

    /// The output of a program with podman, which writes the log as it comes: the lines lie below `/var/bench`.
    pub fn logs(&self, lines: &Lines, report: &mut Report) {
        std::fs::copy(lines.file(), self.root.join("var/bench/lines")).unwrap();
        let volume = "/var/bench:/data:ro";
        let start = self.timed("podman", &["run", "--rm", "-v", volume, "localhost/busybox:stable", "true"]);
        // Attached it would also print them; detached and waited for it only logs.
        let detached = ["run", "-d", "--name", "lines", "-v", volume, "localhost/busybox:stable", "cat", "/data/lines"];
        let mut all = self.timed("podman", &detached);
        all += self.timed("podman", &["wait", "lines"]);
        self.timed("podman", &["rm", "lines"]);
        report.add(&works::logs(lines.megabytes), "ms", Engine::Podman, all - start);
        std::fs::remove_file(self.root.join("var/bench/lines")).unwrap();
    }

    /// Processes there with this in their command line.
    fn processes(&self, text: &str) -> Vec<u32> {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = e2e::namespaces::command_line(*pid);
            line.contains(text) && self.is_here(*pid)
        })
        .collect()
    }

    /// Whether it is in their PID namespace or one below it: by its ancestors.
    fn is_here(&self, pid: u32) -> bool {
        let mut at = pid;
        for _ in 0..64 {
            match e2e::namespaces::parent_of(at) {
                Some(parent) if parent == self.init => return true,
                Some(parent) if parent > 1 => at = parent,
                Some(_) | None => return false,
            }
        }
        false
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.init).unwrap()) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        self.unshare.wait().ok();
    }
}
