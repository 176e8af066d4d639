//! A machine for a test: network and mount namespaces of its own on a fresh thread, and pod sandboxes in it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use network::{AttachError, Network, NetworkConfig, PortMapping};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use spec::ids::SandboxId;
use store::Store;
use tempfile::TempDir;

/// A store in a directory of its own, and the namespaces that this thread has moved into.
pub struct Machine {
    directory: TempDir,
    pub store: Store,
}

/// Runs a test on a machine of its own. Not root means skipped, and says so.
pub fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce(Machine) -> F + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    // Namespaces belong to a thread: the runtime's blocking threads are this one's children, and inherit them.
    thread::scope(|scope| {
        let body = || {
            sys::process::unshare(sys::process::Unshare { network: true, mount: true, ..Default::default() }).unwrap();
            ip("link set lo up");
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&directory.path().join("store")).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(Machine { directory, store }));
        };
        if let Err(panic) = scope.spawn(body).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Machine {
    /// A network with this pod network.
    pub async fn open(&self, pod_cidr: &str) -> Network {
        Network::open(config(pod_cidr), self.store.clone()).await.unwrap()
    }

    /// The daemon is killed and starts again: nothing but the store's files and the kernel remember.
    pub async fn restart(self, network: Network, pod_cidr: &str) -> (Self, Network) {
        drop(network);
        let Self { directory, store } = self;
        drop(store);
        // The store's lock is free when its writer thread has ended.
        let store = loop {
            match Store::open(&directory.path().join("store")) {
                Err(store::OpenStoreError::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        let machine = Self { directory, store };
        let network = machine.open(pod_cidr).await;
        (machine, network)
    }

    /// The records of the addresses that Pods have, and after all that was put off.
    pub async fn recorded_sandboxes(&self) -> Vec<String> {
        self.store.flush().await.unwrap();
        let records = self.store.records::<serde_json::Value>("network-addresses").unwrap();
        records.into_iter().map(|(sandbox, _)| sandbox).collect()
    }
}

/// The names that tests use.
pub fn config(pod_cidr: &str) -> NetworkConfig {
    NetworkConfig {
        bridge: "mono0".into(),
        nft_table: "monopod".into(),
        pod_cidr: pod_cidr.into(),
        service_cidr: Some("10.96.0.0/16".into()),
    }
}

/// A network namespace, as infra makes it for a pod sandbox.
pub struct Sandbox {
    pub id: SandboxId,
    pub namespace: OwnedFd,
    pub route_socket: OwnedFd,
}

impl Sandbox {
    /// Where `ip link set … netns` finds the namespace.
    pub fn namespace_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    pub fn new() -> Self {
        let (namespace, route_socket) = thread::spawn(|| {
            sys::process::unshare(sys::process::Unshare { network: true, ..Default::default() }).unwrap();
            let namespace = File::open("/proc/thread-self/ns/net").unwrap();
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
            (OwnedFd::from(namespace), socket)
        })
        .join()
        .unwrap();
        Self { id: SandboxId::random(), namespace, route_socket }
    }

    /// Attaches it, and gives its address.
    pub async fn attach(&self, network: &Network) -> Result<Ipv4Addr, AttachError> {
        self.attach_with(network, &[]).await
    }

    /// The same, with host ports.
    pub async fn attach_with(&self, network: &Network, ports: &[PortMapping]) -> Result<Ipv4Addr, AttachError> {
        let (namespace, socket) = (self.namespace.try_clone().unwrap(), self.route_socket.try_clone().unwrap());
        let addresses = network.attach(&self.id, namespace, socket, ports.to_vec()).await?;
        assert_eq!(addresses, network.addresses(&self.id));
        match addresses[..] {
            [IpAddr::V4(address)] => Ok(address),
            _ => panic!("one IPv4 address, not {addresses:?}"),
        }
    }

    /// Runs a function on a thread inside the namespace.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.namespace.as_fd(), kind).unwrap();
                body()
            };
            scope.spawn(entered).join().unwrap()
        })
    }

    /// A server in the namespace that answers one connection with the address that it sees.
    pub fn serve_once(&self) -> thread::JoinHandle<()> {
        self.inside(|| serve_once(SocketAddr::from(([0, 0, 0, 0], 80))))
    }

    /// Asks such a server from inside the namespace.
    pub fn ask(&self, server: Ipv4Addr) -> std::io::Result<String> {
        self.inside(|| ask(server))
    }
}

/// The host's end of a sandbox's link.
pub fn host_interface(id: &SandboxId) -> String {
    format!("mp{}", &id.as_str()[..12])
}

/// Answers one connection with the address that it comes from.
pub fn serve_once(address: SocketAddr) -> thread::JoinHandle<()> {
    // A program that another test starts holds a copy of a former listener until it runs exec(2).
    let listener = loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => thread::yield_now(),
            bound => break bound.unwrap(),
        }
    };
    thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

/// Connects to port 80, and reads what the server says.
pub fn ask(server: Ipv4Addr) -> std::io::Result<String> {
    ask_at(SocketAddr::from((server, 80)))
}

/// Connects, and reads what the server says.
pub fn ask_at(server: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Runs `ip` (package iproute2), and gives its output.
pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// Runs `nft` (package nftables), and gives its output.
pub fn nft(arguments: &str) -> String {
    run("nft", arguments)
}

#[expect(clippy::disallowed_methods, reason = "a test looks at the kernel with the tools that people use")]
fn run(program: &str, arguments: &str) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: install iproute2 and nftables"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
