//! Services on a real kernel: who is led where, and what is left of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use network::{Entrance, Network, ServiceForward, ServiceProtocol, WithoutServers};

use crate::support::{Machine, Sandbox, ask_at, ip, nft, on_a_machine};
use crate::{POD_CIDR, outside};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 80);
const EXTERNAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), 80);
const NODE_PORT: u16 = 30_080;
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn forward(entrance: Entrance, servers: &[Ipv4Addr]) -> ServiceForward {
    ServiceForward {
        entrance,
        protocol: ServiceProtocol::Tcp,
        to: servers.iter().map(|server| SocketAddrV4::new(*server, 8080)).collect(),
        affinity_seconds: None,
        without_servers: WithoutServers::Refuse,
    }
}

fn cluster(servers: &[Ipv4Addr]) -> ServiceForward {
    forward(Entrance::Cluster(SERVICE), servers)
}

/// A server in the Pod that tells each client its own name and whom it sees, for as long as the test runs.
fn serve(pod: &Sandbox, name: &'static str) {
    let listener = pod.inside(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let peer = client.peer_addr().unwrap().ip();
            // A client that is gone does not matter.
            write!(client, "{name} {peer}").ok();
        }
    });
}

/// Pods with servers named `a`, `b`, ….
async fn pods<const N: usize>(network: &Network, names: [&'static str; N]) -> ([Sandbox; N], [Ipv4Addr; N]) {
    let pods = names.map(|_| Sandbox::new());
    let mut addresses = [GATEWAY; N];
    for ((pod, name), address) in pods.iter().zip(names).zip(&mut addresses) {
        *address = pod.attach(network).await.unwrap();
        serve(pod, name);
    }
    (pods, addresses)
}

fn ask(at: impl Into<SocketAddr>) -> String {
    ask_at(at.into()).unwrap_or_else(|error| error.kind().to_string())
}

/// Who answered how often.
fn shares(times: usize, ask: impl Fn() -> String) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..times {
        let answer = ask();
        *shares.entry(answer.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    shares
}

#[test]
fn pods_and_the_host_are_spread_over_the_servers() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let ([one, _two, client], [a, b, own]) = pods(&network, ["a", "b", "client"]).await;
        network.forward_services(vec![cluster(&[a, b])]).await.unwrap();
        for shares in [shares(60, || client.inside(|| ask(SERVICE))), shares(60, || ask(SERVICE))] {
            assert_eq!(shares.keys().collect::<Vec<_>>(), ["a", "b"], "{shares:?}");
            // By chance alone one of them has fewer than ten of sixty once in ten million times.
            assert!(shares.values().all(|count| *count >= 10), "{shares:?}");
        }
        network.forward_services(vec![cluster(&[a])]).await.unwrap();
        assert_eq!(client.inside(|| ask(SERVICE)), format!("a {own}"), "under its own address");
        assert_eq!(ask(SERVICE), format!("a {GATEWAY}"), "the host, without any route to the outside");
        assert_eq!(one.inside(|| ask(SERVICE)), format!("a {GATEWAY}"), "a pod that asks itself");
        assert_eq!(one.inside(|| ask((a, 8080))), format!("a {a}"), "and without the service");
    });
}

#[test]
fn nobody_waits_for_a_service_that_nobody_serves() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let _world = outside();
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        let ([client], _) = pods(&network, ["client"]).await;
        let external = forward(Entrance::External(EXTERNAL), &[]);
        let node_port = forward(Entrance::NodePort(NODE_PORT), &[]);
        // Somebody else's server on the port of the node must not be taken for the service.
        let _other = TcpListener::bind(("0.0.0.0", NODE_PORT)).unwrap();
        network.forward_services(vec![cluster(&[]), external, node_port]).await.unwrap();
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(10, 96, 9, 9), 80);
        for at in [SERVICE, EXTERNAL, SocketAddrV4::new(GATEWAY, NODE_PORT), elsewhere] {
            assert_eq!(client.inside(|| ask(at)), "connection refused", "a pod at {at}");
            assert_eq!(ask(at), "connection refused", "the host at {at}");
        }
        let mut local = cluster(&[]);
        local.without_servers = WithoutServers::Drop;
        network.forward_services(vec![local]).await.unwrap();
        assert_eq!(client.inside(|| ask(SERVICE)), "timed out");
    });
}

#[test]
fn from_outside_only_what_is_meant_for_it_is_reached() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let world = outside();
        world.inside(|| ip("route add 198.51.100.0/24 via 192.0.2.1"));
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        world.inside(|| ip("route add 10.96.0.0/16 via 192.0.2.1"));
        let ([pod], [own]) = pods(&network, ["a"]).await;
        let forwards = [Entrance::Cluster(SERVICE), Entrance::External(EXTERNAL), Entrance::NodePort(NODE_PORT)];
        network.forward_services(forwards.map(|entrance| forward(entrance, &[own])).to_vec()).await.unwrap();
        assert_eq!(world.inside(|| ask((HOST, NODE_PORT))), "a 192.0.2.2", "the client's own address");
        assert_eq!(world.inside(|| ask(EXTERNAL)), "a 192.0.2.2");
        assert_eq!(world.inside(|| ask(SERVICE)), "connection refused");
        for address in [HOST, GATEWAY] {
            assert_eq!(ask((address, NODE_PORT)), format!("a {address}"), "the host by its own address");
            assert_eq!(pod.inside(|| ask((address, NODE_PORT))), format!("a {GATEWAY}"), "the pod itself");
        }
        assert_eq!(ask(EXTERNAL), "a 192.0.2.1");
        assert_eq!(ask((Ipv4Addr::LOCALHOST, NODE_PORT)), "connection refused", "not on the loopback");
    });
}

#[test]
fn a_client_is_remembered_while_its_server_serves() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let ([_one, _two, _three, client], [a, b, c, _]) = pods(&network, ["a", "b", "c", "client"]).await;
        let sticky = |servers: &[Ipv4Addr]| {
            let both = [Entrance::Cluster(SERVICE), Entrance::NodePort(NODE_PORT)];
            both.map(|at| ServiceForward { affinity_seconds: Some(600), ..forward(at, servers) }).to_vec()
        };
        network.forward_services(sticky(&[a, b])).await.unwrap();
        for at in [SERVICE, SocketAddrV4::new(GATEWAY, NODE_PORT)] {
            network.forward_services(sticky(&[a, b])).await.unwrap();
            let first = shares(20, || client.inside(|| ask(at)));
            assert_eq!(first.len(), 1, "{first:?}");
            let name = first.keys().next().unwrap().clone();
            // More servers change nothing for it.
            network.forward_services(sticky(&[a, b, c])).await.unwrap();
            assert_eq!(shares(20, || client.inside(|| ask(at))).keys().collect::<Vec<_>>(), [&name]);
            // Without its server it goes to one of the others, and stays there.
            let others: Vec<Ipv4Addr> =
                [("a", a), ("b", b), ("c", c)].iter().filter(|(other, _)| *other != name).map(|one| one.1).collect();
            network.forward_services(sticky(&others)).await.unwrap();
            let next = shares(20, || client.inside(|| ask(at)));
            assert!(next.len() == 1 && !next.contains_key(&name), "{next:?} after {name}");
        }
        network.forward_services(vec![cluster(&[a, b])]).await.unwrap();
        assert_eq!(shares(60, || client.inside(|| ask(SERVICE))).len(), 2, "no longer remembered");
    });
}

#[test]
fn a_forgotten_client_is_led_anew() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let ([_one, _two, client], [a, b, _]) = pods(&network, ["a", "b", "client"]).await;
        let sticky = ServiceForward { affinity_seconds: Some(1), ..cluster(&[a, b]) };
        network.forward_services(vec![sticky]).await.unwrap();
        let first = client.inside(|| ask(SERVICE));
        let remembers = || nft("list map inet monopod affinity").contains("10.96.0.7");
        assert!(remembers());
        while remembers() {
            std::thread::yield_now();
        }
        // Within a second of each other they go to one server; over many seconds, to both.
        let mut names = std::collections::BTreeSet::from([first]);
        while names.len() < 2 {
            names.insert(client.inside(|| ask(SERVICE)));
            while remembers() {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn udp_clients_follow_the_servers() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let pods = [Sandbox::new(), Sandbox::new()];
        let mut addresses = Vec::new();
        for (pod, name) in pods.iter().zip(["a", "b"]) {
            addresses.push(pod.attach(&network).await.unwrap());
            let socket = pod.inside(|| UdpSocket::bind("0.0.0.0:8080").unwrap());
            std::thread::spawn(move || {
                while let Ok((_, client)) = socket.recv_from(&mut [0; 8]) {
                    socket.send_to(name.as_bytes(), client).ok();
                }
            });
        }
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.connect(SERVICE).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // A flow to nobody, before there is the service.
        client.send(b"?").ok();
        let ask = || {
            for _attempt in 0..25 {
                client.send(b"?").ok();
                let mut answer = [0; 8];
                if let Ok(length) = client.recv(&mut answer) {
                    return String::from_utf8_lossy(answer.get(..length).unwrap()).into_owned();
                }
            }
            panic!("no answer");
        };
        for (server, name) in [(0, "a"), (1, "b"), (0, "a")] {
            let udp = ServiceForward { protocol: ServiceProtocol::Udp, ..cluster(&[addresses[server]]) };
            network.forward_services(vec![udp]).await.unwrap();
            assert_eq!(ask(), name);
        }
        // A server more does not move who has one.
        let both = ServiceForward { protocol: ServiceProtocol::Udp, ..cluster(&addresses) };
        network.forward_services(vec![both]).await.unwrap();
        assert_eq!([ask(), ask(), ask()], ["a", "a", "a"]);
    });
}

#[test]
fn services_outlive_the_daemon_and_a_flush_and_go_with_the_network() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let ([client, _pod], [own, a]) = pods(&network, ["client", "a"]).await;
        // A number of servers that no other service has, so that it needs a chain of its own.
        let many: Vec<Ipv4Addr> =
            std::iter::repeat_n(a, 1).chain((10..21).map(|last| [10, 85, 7, last].into())).collect();
        let forwards = vec![cluster(&[a]), forward(Entrance::NodePort(NODE_PORT), &many)];
        network.forward_services(forwards.clone()).await.unwrap();
        assert!(nft("list chain inet monopod node_spread_12").contains("mod 12"));
        let before = nft("list ruleset");
        let (_machine, network) = machine.restart(network, POD_CIDR).await;
        assert_eq!(nft("list ruleset"), before, "nothing changes before the daemon knows the services");
        assert_eq!(client.inside(|| ask(SERVICE)), format!("a {own}"));
        network.forward_services(forwards.clone()).await.unwrap();
        assert_eq!(nft("list ruleset"), before);
        nft("flush ruleset");
        let back = async {
            while nft("list ruleset").matches("spread_12").count() < before.matches("spread_12").count()
                || ask(SERVICE) != format!("a {GATEWAY}")
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
        // A map that somebody emptied is filled again with the next change.
        nft("flush map inet monopod services");
        network.forward_services(vec![cluster(&[])]).await.unwrap();
        network.forward_services(forwards).await.unwrap();
        assert_eq!(client.inside(|| ask(SERVICE)), format!("a {own}"));
        network.forward_services(Vec::new()).await.unwrap();
        for map in ["services", "service_endpoints", "node_ports", "node_port_endpoints"] {
            assert!(!nft(&format!("list map inet monopod {map}")).contains("elements"), "{map}");
        }
        network.remove().await.unwrap();
        assert_eq!((nft("list ruleset"), ip("route show")), (String::new(), String::new()));
    });
}
