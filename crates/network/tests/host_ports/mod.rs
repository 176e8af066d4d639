//! Host ports on a real kernel: who reaches them, who does not, and what is left of them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use network::{HoldPortError, Network, PortMapping, PortProtocol, hold_ports};
use spec::ContainerName;

use crate::support::{Machine, Sandbox, ask_at, ip, nft, on_a_machine};
use crate::{POD_CIDR, outside};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);

fn mapping(protocol: PortProtocol, host_ip: Ipv4Addr, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { container: ContainerName::new("web"), protocol, host_ip, host_port, container_port }
}

fn tcp(host_ip: Ipv4Addr, host_port: u16) -> PortMapping {
    mapping(PortProtocol::Tcp, host_ip, host_port, 80)
}

/// What a client hears that asks `address` while the Pod serves one connection.
fn answer(server: &Sandbox, client: impl FnOnce() -> std::io::Result<String>) -> String {
    let serving = server.serve_once();
    let heard = client().unwrap();
    serving.join().unwrap();
    heard
}

fn elements(map: &str) -> usize {
    nft(&format!("list map inet monopod {map}")).matches(" : 10.85.").count()
}

#[test]
fn a_host_port_is_reached_from_everywhere() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let world = outside();
        let (pod, other) = (Sandbox::new(), Sandbox::new());
        let own = pod.attach_with(&network, &[tcp(Ipv4Addr::UNSPECIFIED, 8080)]).await.unwrap();
        let neighbour = other.attach(&network).await.unwrap();
        let at = |address| SocketAddr::from((address, 8080));
        let localhost = Ipv4Addr::LOCALHOST;

        assert_eq!(answer(&pod, || world.inside(|| ask_at(at(HOST)))), "192.0.2.2", "the client's own address");
        assert_eq!(answer(&pod, || ask_at(at(HOST))), HOST.to_string(), "the host by its address");
        assert_eq!(answer(&pod, || ask_at(at(localhost))), GATEWAY.to_string(), "the host by its loopback");
        assert_eq!(answer(&pod, || ask_at(at(GATEWAY))), GATEWAY.to_string(), "the host by the gateway");
        for address in [HOST, GATEWAY] {
            assert_eq!(answer(&pod, || other.inside(|| ask_at(at(address)))), neighbour.to_string(), "a neighbour");
            assert_eq!(answer(&pod, || pod.inside(|| ask_at(at(address)))), GATEWAY.to_string(), "the pod itself");
        }
        assert_eq!(answer(&pod, || pod.inside(|| ask_at((own, 80).into()))), own.to_string(), "without the host port");

        network.detach(&pod.id).await.unwrap();
        let gone = ask_at(at(localhost)).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::ConnectionRefused, "nobody is there, and nobody waits");
        assert_eq!(elements("host_ports"), 0);
        assert!(!nft("list set inet monopod hairpins").contains("elements"));
    });
}

#[test]
fn a_host_address_is_kept_to() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let world = outside();
        let (local, public) = (Sandbox::new(), Sandbox::new());
        local.attach_with(&network, &[tcp(Ipv4Addr::LOCALHOST, 8080)]).await.unwrap();
        public.attach_with(&network, &[tcp(HOST, 8080)]).await.unwrap();
        let at = |address| SocketAddr::from((address, 8080));
        assert_eq!(answer(&local, || ask_at(at(Ipv4Addr::LOCALHOST))), GATEWAY.to_string());
        assert_eq!(answer(&public, || ask_at(at(HOST))), HOST.to_string());
        assert_eq!(answer(&public, || world.inside(|| ask_at(at(HOST)))), "192.0.2.2");

        // A neighbour that sends to the loopback address, by a route of its own making.
        world.inside(misroute_loopback("192.0.2.1", "world0"));
        let _server = local.inside(|| std::net::TcpListener::bind("0.0.0.0:80").unwrap());
        let heard = world.inside(|| ask_at(at(Ipv4Addr::LOCALHOST))).unwrap_err();
        assert_eq!(heard.kind(), std::io::ErrorKind::TimedOut, "what is published on the loopback stays there");
    });
}

/// Makes packets to 127.0.0.1 leave by `device`, as only an attacker wants it.
fn misroute_loopback(gateway: &'static str, device: &'static str) -> impl FnOnce() + Send {
    move || {
        ip("addr flush dev lo");
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/route_localnet"), "1").unwrap();
        ip(&format!("route add 127.0.0.1/32 via {gateway} dev {device} onlink"));
    }
}

#[test]
fn a_pod_with_host_ports_cannot_reach_the_hosts_loopback() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let attacker = Sandbox::new();
        let own = attacker.attach_with(&network, &[tcp(Ipv4Addr::UNSPECIFIED, 8080)]).await.unwrap();
        attacker.inside(misroute_loopback("10.85.0.1", "eth0"));
        let secret = UdpSocket::bind("127.0.0.1:5353").unwrap();
        let allowed = UdpSocket::bind("10.85.0.1:5353").unwrap();
        let send = |to: &str| attacker.inside(|| UdpSocket::bind((own, 0)).unwrap().send_to(b"?", to).unwrap());
        for socket in [&secret, &allowed] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        send("127.0.0.1:5353");
        send("10.85.0.1:5353");
        allowed.recv_from(&mut [0; 8]).unwrap();
        secret.set_nonblocking(true).unwrap();
        let heard = secret.recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(
            heard.kind(),
            std::io::ErrorKind::WouldBlock,
            "packets come in order, so it was dropped (CVE-2020-8558)"
        );
        // The rule did it: without it the packet arrives.
        nft("flush chain inet monopod prerouting");
        secret.set_nonblocking(false).unwrap();
        send("127.0.0.1:5353");
        secret.recv_from(&mut [0; 8]).unwrap();
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    on_a_machine(async |_machine: Machine| {
        let everywhere = Ipv4Addr::UNSPECIFIED;
        let taken = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
        let error = hold_ports(&[tcp(everywhere, 8080)]).unwrap_err().to_string();
        assert_eq!(
            error,
            "host port 0.0.0.0:8080/TCP of container \"web\" is taken by another program; `ss -tlnp 'sport = :8080'` shows which"
        );
        // A server that has closed a connection leaves it to wait; its port is free all the same.
        let client = std::net::TcpStream::connect("127.0.0.1:8080").unwrap();
        drop(taken.accept().unwrap());
        drop((client, taken));
        let udp = mapping(PortProtocol::Udp, everywhere, 8080, 53);
        let held = hold_ports(&[tcp(everywhere, 8080), udp]).unwrap();
        assert!(std::net::TcpListener::bind("127.0.0.1:8080").is_err(), "held");
        let refused = std::net::TcpStream::connect("127.0.0.1:8080").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "nobody waits for an answer");
        assert!(UdpSocket::bind("0.0.0.0:8080").is_err(), "held");
        drop(held);
        std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
        let error = hold_ports(&[tcp(Ipv4Addr::new(198, 51, 100, 1), 80)]).unwrap_err();
        assert!(matches!(error, HoldPortError::NoSuchAddress { .. }), "{error}");
    });
}

/// A UDP server in the Pod that answers with `name`, for as long as the test runs.
fn serve_udp(pod: &Sandbox, name: &'static str) {
    let socket = pod.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    std::thread::spawn(move || {
        while let Ok((_, client)) = socket.recv_from(&mut [0; 8]) {
            // A client that is gone does not matter.
            socket.send_to(name.as_bytes(), client).ok();
        }
    });
}

/// Sends from the same socket until somebody answers.
fn ask_udp(client: &UdpSocket) -> String {
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for _attempt in 0..25 {
        // Nobody listens yet: the kernel says so by an error of the next call.
        client.send(b"?").ok();
        let mut answer = [0; 16];
        if let Ok(length) = client.recv(&mut answer) {
            return String::from_utf8_lossy(answer.get(..length).unwrap()).into_owned();
        }
    }
    panic!("no answer");
}

#[test]
fn udp_clients_that_keep_their_port_follow_the_pod() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let world = outside();
        let ports = [mapping(PortProtocol::Udp, Ipv4Addr::UNSPECIFIED, 5300, 53)];
        let clients =
            [world.inside(|| UdpSocket::bind("192.0.2.2:0").unwrap()), UdpSocket::bind("127.0.0.1:0").unwrap()];
        clients[0].connect((HOST, 5300)).unwrap();
        clients[1].connect((Ipv4Addr::LOCALHOST, 5300)).unwrap();
        for client in &clients {
            // A flow to nobody, which connection tracking remembers.
            client.send(b"?").ok();
        }
        for name in ["first", "second"] {
            let pod = Sandbox::new();
            serve_udp(&pod, name);
            pod.attach_with(&network, &ports).await.unwrap();
            for client in &clients {
                assert_eq!(ask_udp(client), name);
            }
            network.detach(&pod.id).await.unwrap();
        }
    });
}

#[test]
fn host_ports_outlive_the_daemon_and_a_flush() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let (pod, dead) = (Sandbox::new(), Sandbox::new());
        pod.attach_with(&network, &[tcp(Ipv4Addr::UNSPECIFIED, 8080)]).await.unwrap();
        dead.attach_with(&network, &[tcp(Ipv4Addr::LOCALHOST, 8081)]).await.unwrap();
        let before = nft("list ruleset");
        let (_machine, network) = machine.restart(network, POD_CIDR).await;
        assert_eq!(nft("list ruleset"), before);
        network.retain(&std::collections::HashSet::from([pod.id.clone()])).await.unwrap();
        assert_eq!((elements("host_ports"), elements("host_ports_at")), (1, 0));
        let before = nft("list ruleset");
        nft("flush ruleset");
        let back = async {
            while nft("list ruleset") != before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
        assert_eq!(answer(&pod, || ask_at((Ipv4Addr::LOCALHOST, 8080).into())), GATEWAY.to_string());
        // A map that somebody emptied does not keep a Pod from ending, nor another from starting.
        nft("flush map inet monopod host_ports");
        network.detach(&pod.id).await.unwrap();
        let next = Sandbox::new();
        next.attach_with(&network, &[tcp(Ipv4Addr::UNSPECIFIED, 8080)]).await.unwrap();
        assert_eq!(elements("host_ports"), 1);
        remove(network).await;
    });
}

/// A daemon that was killed while the link of a dead sandbox was still going, and the next one of the same Pod was there.
#[test]
fn ports_of_a_dead_sandbox_and_of_the_next_one_keep_no_daemon_from_starting() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let (pod, dead) = (Sandbox::new(), Sandbox::new());
        let ports = [tcp(Ipv4Addr::UNSPECIFIED, 8080)];
        pod.attach_with(&network, &ports).await.unwrap();
        dead.attach_with(&network, &[]).await.unwrap();
        let record = |sandbox: &Sandbox| {
            let found = machine.store.record::<serde_json::Value>("network-addresses", sandbox.id.as_str());
            found.unwrap().unwrap()
        };
        let mut both = record(&dead);
        both["ports"] = record(&pod)["ports"].clone();
        machine.store.put_record("network-addresses", dead.id.as_str(), &both).await.unwrap();
        let (_machine, network) = machine.restart(network, POD_CIDR).await;
        assert_eq!(elements("host_ports"), 1);
        network.retain(&std::collections::HashSet::from([pod.id.clone()])).await.unwrap();
        assert_eq!(answer(&pod, || ask_at((Ipv4Addr::LOCALHOST, 8080).into())), GATEWAY.to_string());
        // Among the living a port has one owner.
        Sandbox::new().attach_with(&network, &ports).await.unwrap_err();
        assert_eq!(answer(&pod, || ask_at((Ipv4Addr::LOCALHOST, 8080).into())), GATEWAY.to_string());
        remove(network).await;
    });
}

async fn remove(network: Network) {
    network.remove().await.unwrap();
    assert_eq!(nft("list ruleset"), "");
}
