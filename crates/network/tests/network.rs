//! The pod network on a real kernel, each test on a machine of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod host_ports;
mod services;
mod support;

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::task::{Poll, Waker};
use std::time::Duration;

use network::{AttachError, Network, OpenNetworkError};
use support::{Machine, Sandbox, ask, config, host_interface, ip, nft, on_a_machine, serve_once};

const POD_CIDR: &str = "10.85.0.0/16";

#[test]
fn pods_reach_each_other_the_gateway_and_the_host_reaches_them() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let (one, two) = (Sandbox::new(), Sandbox::new());
        let first = one.attach(&network).await.unwrap();
        let second = two.attach(&network).await.unwrap();
        assert_eq!([first.to_string(), second.to_string()], ["10.85.0.2", "10.85.0.3"]);

        let server = two.serve_once();
        assert_eq!(one.ask(second).unwrap(), first.to_string(), "pod to pod, under its own address");
        server.join().unwrap();
        let server = serve_once("10.85.0.1:80".parse().unwrap());
        assert_eq!(one.ask("10.85.0.1".parse().unwrap()).unwrap(), first.to_string(), "pod to the host");
        server.join().unwrap();
        let server = one.serve_once();
        assert_eq!(ask(first).unwrap(), "10.85.0.1", "the host to a pod");
        server.join().unwrap();
        let server = one.serve_once();
        assert_eq!(one.ask(first).unwrap(), first.to_string(), "a pod to itself");
        server.join().unwrap();
    });
}

#[test]
fn a_pod_has_lo_eth0_one_address_and_no_ipv6() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let sandbox = Sandbox::new();
        sandbox.attach(&network).await.unwrap();
        let [links, addresses, routes, neighbours] =
            ["link", "-4 -brief addr", "route", "neigh"].map(|what| sandbox.inside(|| ip(what)));
        assert!(links.contains("2: eth0@") && links.contains("0a:58:0a:55:00:02"), "{links}");
        assert!(links.lines().next().unwrap().contains("<LOOPBACK,UP,LOWER_UP>"), "{links}");
        assert!(addresses.contains("10.85.0.2/32"), "{addresses}");
        assert_eq!(routes.trim(), "default via 10.85.0.1 dev eth0 onlink");
        assert_eq!(neighbours.trim(), "10.85.0.1 dev eth0 lladdr 0a:58:0a:55:00:01 PERMANENT");
        assert_eq!(sandbox.inside(|| ip("-6 addr show dev eth0")), "", "no IPv6 address in the pod");
        assert_eq!(ip("-6 addr show scope link"), "", "nor on the host's ends and the gateway");
        assert_eq!(
            ip("neigh").trim(),
            "10.85.0.2 dev IF lladdr 0a:58:0a:55:00:02 PERMANENT".replace("IF", &host_interface(&sandbox.id))
        );
    });
}

/// A namespace that stands for the rest of the world, at 192.0.2.2 behind the host's 192.0.2.1.
fn outside() -> Sandbox {
    let world = Sandbox::new();
    ip("link add wan0 type veth peer name world0");
    ip("addr add 192.0.2.1/24 dev wan0");
    ip("link set wan0 up");
    let namespace = world.namespace_path();
    ip(&format!("link set world0 netns {namespace}"));
    world.inside(|| {
        ip("addr add 192.0.2.2/24 dev world0");
        ip("link set world0 up");
        ip("route add 10.85.0.0/16 via 192.0.2.1")
    });
    world
}

#[test]
fn the_outside_sees_the_hosts_address_and_cannot_reach_in() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let world = outside();
        let pod = Sandbox::new();
        let address = pod.attach(&network).await.unwrap();
        let server = world.serve_once();
        assert_eq!(pod.ask("192.0.2.2".parse().unwrap()).unwrap(), "192.0.2.1", "masqueraded");
        server.join().unwrap();

        let _server = pod.inside(|| std::net::TcpListener::bind("0.0.0.0:80").unwrap());
        let error = world.ask(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "a route to the pod network is not a way in");
    });
}

#[test]
fn a_pod_sends_under_its_own_address_only() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let (victim, attacker) = (Sandbox::new(), Sandbox::new());
        let stolen = victim.attach(&network).await.unwrap();
        let own = attacker.attach(&network).await.unwrap();
        // The kernel's filter is on; but systemd-udevd sets anew what sysctl.d says, also on a new interface.
        let filter = format!("/proc/sys/net/ipv4/conf/{}/rp_filter", host_interface(&attacker.id));
        assert_eq!(std::fs::read_to_string(&filter).unwrap(), "1\n");
        std::fs::write(&filter, "0").unwrap();
        attacker.inside(|| ip(&format!("addr add {stolen}/32 dev eth0")));
        let host = UdpSocket::bind("10.85.0.1:5353").unwrap();
        host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for source in [stolen, own] {
            attacker.inside(|| UdpSocket::bind((source, 0)).unwrap().send_to(b"?", "10.85.0.1:5353").unwrap());
        }
        let (_, sender) = host.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(sender.ip(), own, "the packets come in order, so the first was dropped");
    });
}

#[test]
fn an_address_that_no_pod_has_fails_at_once() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let pod = Sandbox::new();
        pod.attach(&network).await.unwrap();
        for error in
            [pod.ask("10.85.9.9".parse().unwrap()).unwrap_err(), ask("10.85.9.9".parse().unwrap()).unwrap_err()]
        {
            assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
        }
    });
}

#[test]
fn an_overlap_is_refused_before_anything_is_made() {
    on_a_machine(async |machine: Machine| {
        let open = async |pod_cidr: &str| Network::open(config(pod_cidr), machine.store.clone()).await.err().unwrap();
        let _world = outside();
        ip("route add 10.80.0.0/12 via 192.0.2.2");
        let before = (ip("link"), ip("route"), nft("list ruleset"));
        let error = open(POD_CIDR).await.to_string();
        assert!(error.contains("\"10.80.0.0/12 via 192.0.2.2 dev wan0\"") && error.contains("--pod-cidr"), "{error}");
        let error = open("192.0.2.0/25").await.to_string();
        assert!(error.contains("192.0.2.1/24 of the interface \"wan0\""), "{error}");
        assert!(matches!(open("10.85.0.0/31").await, OpenNetworkError::InvalidPodCidr { .. }));
        assert_eq!((ip("link"), ip("route"), nft("list ruleset")), before);
        ip("link add mono0 type veth peer name other0");
        assert!(matches!(open("10.99.0.0/16").await, OpenNetworkError::ForeignInterface { .. }));
    });
}

#[test]
fn a_restart_takes_over_and_disturbs_no_connection() {
    on_a_machine(async |machine: Machine| {
        nft("add table inet others");
        let network = machine.open(POD_CIDR).await;
        let world = outside();
        let (pod, orphan) = (Sandbox::new(), Sandbox::new());
        let address = pod.attach(&network).await.unwrap();
        orphan.attach(&network).await.unwrap();
        // With `-a` the handles of the rules show that they are the same ones.
        let before = (nft("-a list ruleset"), ip("addr show mono0"), ip("route"));

        let listener = world.inside(|| std::net::TcpListener::bind("0.0.0.0:80").unwrap());
        let client = pod.inside(|| std::net::TcpStream::connect("192.0.2.2:80").unwrap());
        let (server, _) = listener.accept().unwrap();
        let (machine, network) = machine.restart(network, POD_CIDR).await;
        (&server).write_all(b"x").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (&client).read_exact(&mut [0]).unwrap();

        assert_eq!((nft("-a list ruleset"), ip("addr show mono0"), ip("route")), before);
        assert_eq!(network.addresses(&pod.id), [address]);
        assert_eq!(pod.attach(&network).await.unwrap(), address);
        network.retain(&HashSet::from([pod.id.clone()])).await.unwrap();
        assert_eq!(machine.recorded_sandboxes().await, [pod.id.as_str()]);
        assert!(!ip("link").contains(&host_interface(&orphan.id)));
        assert!(ip("link").contains(&host_interface(&pod.id)));
        assert!(network.addresses(&orphan.id).is_empty());
        let (_machine, network) = machine.restart(network, "10.99.0.0/16").await;
        assert_eq!(network.gateway().to_string(), "10.99.0.1");
        assert_eq!(ip("-4 -brief addr show mono0").split_whitespace().last(), Some("10.99.0.1/32"));
        assert!(!ip("route").contains("unreachable 10.85.0.0/16"));
        assert_eq!(network.addresses(&pod.id), [address], "a pod that runs keeps its address of the former network");
    });
}

#[test]
fn a_link_without_a_record_goes_at_the_next_start() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let sandbox = Sandbox::new();
        sandbox.attach(&network).await.unwrap();
        machine.store.delete_record("network-addresses", sandbox.id.as_str()).await.unwrap();
        let (_machine, network) = machine.restart(network, POD_CIDR).await;
        assert!(!ip("link").contains(&host_interface(&sandbox.id)));
        assert!(network.addresses(&sandbox.id).is_empty());
    });
}

#[test]
fn attaching_again_mends_the_link() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let (pod, other) = (Sandbox::new(), Sandbox::new());
        let address = pod.attach(&network).await.unwrap();
        let other_address = other.attach(&network).await.unwrap();
        let breakages: [&dyn Fn(); 4] = [
            &|| (),
            &|| drop(ip(&format!("link del {}", host_interface(&pod.id)))),
            &|| drop(ip(&format!("route del {address}"))),
            &|| {
                pod.inside(|| {
                    ip("route del default");
                    ip("addr flush dev eth0");
                    ip("link set eth0 down");
                });
            },
        ];
        for breakage in breakages {
            breakage();
            assert_eq!(pod.attach(&network).await.unwrap(), address);
            let server = other.serve_once();
            assert_eq!(pod.ask(other_address).unwrap(), address.to_string());
            server.join().unwrap();
        }
        // The sandbox's infra process died and it was made anew under its identifier.
        let anew = Sandbox { id: pod.id.clone(), ..Sandbox::new() };
        assert_eq!(anew.attach(&network).await.unwrap(), address);
        let server = other.serve_once();
        assert_eq!(anew.ask(other_address).unwrap(), address.to_string());
        server.join().unwrap();
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let sandbox = Sandbox::new();
        sandbox.inside(|| ip("link add eth0 type bridge"));
        let error = sandbox.attach(&network).await.unwrap_err();
        assert!(matches!(error, AttachError::Link { .. }), "{error}");
        assert!(!ip("link").contains(&host_interface(&sandbox.id)));
        assert!(machine.recorded_sandboxes().await.is_empty());
        assert!(network.addresses(&sandbox.id).is_empty());
        sandbox.inside(|| ip("link del eth0"));
        assert_eq!(sandbox.attach(&network).await.unwrap().to_string(), "10.85.0.3", "the next one, not the same");
    });
}

#[test]
fn a_caller_that_gives_up_leaves_nothing_behind_its_detach() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        for _attempt in 0..20 {
            let sandbox = Sandbox::new();
            {
                let mut attach = std::pin::pin!(sandbox.attach(&network));
                std::future::poll_fn(|context| {
                    assert!(attach.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            network.detach_and_wait(&sandbox.id).await.unwrap();
            assert!(!ip("link").contains(&host_interface(&sandbox.id)));
            assert!(network.addresses(&sandbox.id).is_empty());
        }
        assert!(machine.recorded_sandboxes().await.is_empty());
    });
}

#[test]
fn who_detaches_again_does_not_wait_for_the_link() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open(POD_CIDR).await;
        let sandbox = Sandbox::new();
        sandbox.attach(&network).await.unwrap();
        network.detach(&sandbox.id).await.unwrap();
        let again =
            std::pin::pin!(network.detach(&sandbox.id)).poll(&mut std::task::Context::from_waker(Waker::noop()));
        assert!(again.is_ready(), "it waits");
        network.detach_and_wait(&sandbox.id).await.unwrap();
        assert!(!ip("link").contains(&host_interface(&sandbox.id)));
    });
}

#[test]
fn when_all_addresses_are_given_the_error_says_so() {
    on_a_machine(async |machine: Machine| {
        let network = machine.open("10.85.0.0/30").await;
        let (one, two) = (Sandbox::new(), Sandbox::new());
        one.attach(&network).await.unwrap();
        let error = two.attach(&network).await.unwrap_err().to_string();
        assert!(error.contains("all 1 addresses of the pod network 10.85.0.0/30 are in use"), "{error}");
        network.detach_and_wait(&one.id).await.unwrap();
        two.attach(&network).await.unwrap();
    });
}

#[test]
fn without_nft_the_error_names_the_package() {
    on_a_machine(async |machine: Machine| {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        for directory in directories.map(std::path::Path::new) {
            if directory.join("nft").exists() {
                mount("none", directory, "tmpfs", MountFlags::empty(), None).unwrap();
            }
        }
        let error = Network::open(config(POD_CIDR), machine.store.clone()).await.err().unwrap();
        let OpenNetworkError::Firewall(cause) = error else { panic!("{error}") };
        assert_eq!(cause.to_string(), "the program `nft` is not installed; install the package nftables");
    });
}

#[test]
fn a_deleted_table_is_set_anew() {
    on_a_machine(async |machine: Machine| {
        let _network = machine.open(POD_CIDR).await;
        nft("add table inet others");
        let before = nft("list table inet monopod");
        nft("flush ruleset");
        let back = async {
            while !nft("list ruleset").contains("masquerade") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
        assert_eq!(nft("list ruleset"), before, "ours is back, and nothing else was touched");
    });
}

#[test]
fn two_hundred_cycles_and_a_removal_leave_nothing() {
    on_a_machine(async |machine: Machine| {
        nft("add table inet others");
        let start = (ip("link"), ip("route"), nft("list ruleset"));
        let network = machine.open(POD_CIDR).await;
        let before = (ip("link").lines().count(), ip("route show table all"), ip("neigh"), nft("list ruleset"));
        let mut seen = HashSet::new();
        for _batch in 0..20 {
            let sandboxes: Vec<_> = (0..10).map(|_| Sandbox::new()).collect();
            let mut tasks = tokio::task::JoinSet::new();
            for sandbox in &sandboxes {
                assert!(seen.insert(sandbox.attach(&network).await.unwrap()), "no address came twice");
            }
            for sandbox in &sandboxes {
                let (network, id) = (network.clone(), sandbox.id.clone());
                tasks.spawn(async move { network.detach_and_wait(&id).await });
            }
            tasks.join_all().await.into_iter().for_each(|detached| detached.unwrap());
            network.detach(&sandboxes[0].id).await.unwrap();
        }
        assert_eq!(seen.len(), 200);
        let after = (ip("link").lines().count(), ip("route show table all"), ip("neigh"), nft("list ruleset"));
        assert_eq!(after, before);
        assert!(machine.recorded_sandboxes().await.is_empty());

        let last = Sandbox::new();
        last.attach(&network).await.unwrap();
        network.remove().await.unwrap();
        assert_eq!((ip("link"), ip("route"), nft("list ruleset")), start);
        assert!(machine.recorded_sandboxes().await.is_empty());
        assert!(machine.store.records::<serde_json::Value>("network-ring").unwrap().is_empty());
        network.remove().await.unwrap();
    });
}

#[test]
fn two_daemons_live_side_by_side_but_not_on_one_network() {
    on_a_machine(async |machine: Machine| {
        let first = machine.open(POD_CIDR).await;
        let pod = Sandbox::new();
        let address = pod.attach(&first).await.unwrap();
        let mut other = config(POD_CIDR);
        (other.bridge, other.nft_table) = ("mono-0a1b2c".into(), "monopod_0a1b2c".into());
        let directory = tempfile::tempdir().unwrap();
        let store = store::Store::open(directory.path()).unwrap();
        let error = Network::open(other.clone(), store.clone()).await.err().unwrap().to_string();
        assert!(error.contains("10.85.0.1/32 of the interface \"mono0\""), "{error}");
        other.pod_cidr = "10.86.0.0/16".into();
        let second = Network::open(other, store).await.unwrap();
        let theirs = Sandbox::new();
        theirs.attach(&second).await.unwrap();
        second.retain(&HashSet::new()).await.unwrap();
        second.remove().await.unwrap();
        let server = pod.serve_once();
        assert_eq!(ask(address).unwrap(), "10.85.0.1", "the first is undisturbed");
        server.join().unwrap();
    });
}
