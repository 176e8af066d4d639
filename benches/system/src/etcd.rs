//! etcd from Debian as the floor of an API server's store: what Kubernetes' own keeps its objects in. It answers on a unix socket
//! of its own, in namespaces of its own, and each client has a connection, as those of Monopod have.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::grpc::{self, Connection, Message};

/// A running etcd with an empty directory. Dropping it ends it.
#[derive(Debug)]
pub struct Etcd {
    unshare: Child,
    version: String,
    event_loop: tokio::runtime::Runtime,
    connections: Vec<Connection>,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// Fetches it below `directory` if it is not there, starts it, and connects `clients`.
    pub fn start(directory: &Path, clients: usize) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/etcd");
        let fetched = Command::new(script).arg(directory).output().unwrap();
        assert!(fetched.status.success(), "etcd: {}", String::from_utf8_lossy(&fetched.stderr));
        let program = PathBuf::from(String::from_utf8(fetched.stdout).unwrap().trim());
        let version = Command::new(&program).arg("--version").output().unwrap();
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        let home = tempfile::Builder::new().prefix("monopod-bench-etcd-").tempdir().unwrap();
        // A unix socket's URL holds no path: the socket is a file of that name where etcd runs.
        let socket = home.path().join("clients:1");
        let unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--ipc", "--uts", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .arg(program)
            .args(["--data-dir", "data", "--listen-client-urls", "unix://clients:1", "--log-level", "error"])
            .args(["--advertise-client-urls", "unix://clients:1", "--logger", "zap"])
            .current_dir(home.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        e2e::eventually(Duration::from_secs(20), "etcd listens", || {
            std::os::unix::net::UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string())
        });
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connections = event_loop.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..clients {
                connections.push(grpc::connect(&socket).await);
            }
            // It answers when it has become its own leader.
            grpc::call(&connections[0], "/etcdserverpb.KV/Put", &put("first", b"")).await;
            connections
        });
        Self { unshare, version, event_loop, connections, _directory: home }
    }

    /// What it says of its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Puts `value` at so many keys below `prefix`; every client has one put under way. The time of all of it.
    pub fn put_all(&self, prefix: &str, count: usize, value: &[u8]) -> Duration {
        let begin = Instant::now();
        self.event_loop.block_on(async {
            let clients = self.connections.len();
            let works = self.connections.iter().enumerate().map(|(first, connection)| async move {
                for number in (first..count).step_by(clients) {
                    grpc::call(connection, "/etcdserverpb.KV/Put", &put(&format!("{prefix}{number}"), value)).await;
                }
            });
            futures::future::join_all(works).await;
        });
        begin.elapsed()
    }

    /// Reads all keys below `prefix` with their values in one range; the bytes of the answer, and the time.
    pub fn range(&self, prefix: &str) -> (usize, Duration) {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().unwrap() += 1;
        let request = Message::default().text(1, prefix).bytes(2, &end);
        let begin = Instant::now();
        let answer = self.event_loop.block_on(grpc::call(&self.connections[0], "/etcdserverpb.KV/Range", &request));
        (answer.len(), begin.elapsed())
    }
}

fn put(key: &str, value: &[u8]) -> Message {
    Message::default().text(1, key).bytes(2, value)
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.unshare.kill().ok();
        self.unshare.wait().ok();
    }
}
