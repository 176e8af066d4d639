//! What the containers of a Pod share, and what the kubelet puts into each of them.

use e2e::TestNode;

tests! {
    containers_share_localhost,
    containers_share_network_ipc_and_host_name_and_nothing_else,
    shared_memory_is_shared,
    every_container_is_its_own_pid_1,
    hosts_hostname_and_resolv_conf_are_the_kubelets,
    a_pod_has_one_address,
}

fn containers_share_localhost(node: &mut TestNode) {
    node.apply("localhost.yaml");
    node.wait_for("localhost", "the client has its page", |pod| {
        e2e::node::container(pod, "client")["state"]["terminated"]["exitCode"] == 0
    });
    assert_eq!(node.logs("localhost", "client").lines().last(), Some("hello from localhost"));
}

fn containers_share_network_ipc_and_host_name_and_nothing_else(node: &mut TestNode) {
    node.run_ready("two");
    let namespace =
        |container, kind: &str| node.exec("two", container, &["readlink", &format!("/proc/self/ns/{kind}")]);
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace("left", kind), namespace("right", kind), "{kind}");
    }
    for kind in ["pid", "mnt", "cgroup"] {
        assert_ne!(namespace("left", kind), namespace("right", kind), "{kind}");
    }
    for container in ["left", "right"] {
        assert_eq!(node.exec("two", container, &["hostname"]), "two\n");
    }
}

fn shared_memory_is_shared(node: &mut TestNode) {
    node.run_ready("two");
    node.exec("two", "left", &["sh", "-c", "echo shared > /dev/shm/segment"]);
    assert_eq!(node.exec("two", "right", &["cat", "/dev/shm/segment"]), "shared\n");
    let mounts = node.exec("two", "right", &["cat", "/proc/mounts"]);
    let shm = mounts.lines().find(|line| line.contains(" /dev/shm ")).unwrap_or_default();
    assert!(shm.contains("tmpfs") && shm.contains("size=65536k"), "64 MiB, as Kubernetes has it: {shm:?}");
}

fn every_container_is_its_own_pid_1(node: &mut TestNode) {
    node.run_ready("two");
    for container in ["left", "right"] {
        let first = node.exec("two", container, &["cat", "/proc/1/cmdline"]);
        assert!(first.starts_with("sh\0-c\0trap"), "{container}: {first:?}");
        let processes = node.exec("two", container, &["ps", "-o", "pid,args"]);
        // Its PID 1, the sleep of that, and ps itself.
        assert_eq!(processes.lines().count(), 1 + 3, "{container}:\n{processes}");
    }
}

fn hosts_hostname_and_resolv_conf_are_the_kubelets(node: &mut TestNode) {
    let pod = node.run_ready("two");
    let address = pod["status"]["podIP"].as_str().unwrap();
    let hosts = node.exec("two", "left", &["cat", "/etc/hosts"]);
    assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n"), "{hosts}");
    assert!(hosts.contains("127.0.0.1\tlocalhost\n"), "{hosts}");
    assert!(hosts.lines().any(|line| line == format!("{address}\ttwo")), "{hosts}");
    assert_eq!(node.exec("two", "left", &["cat", "/etc/hostname"]), "two\n");
    let resolver = node.exec("two", "left", &["cat", "/etc/resolv.conf"]);
    assert!(!resolver.contains("127.0.0.53"), "a Pod cannot reach the stub of systemd-resolved:\n{resolver}");
    // /etc/hosts is the Pod's: what one container adds, the other sees.
    node.exec("two", "left", &["sh", "-c", "echo '192.0.2.7 added' >> /etc/hosts"]);
    assert!(node.exec("two", "right", &["cat", "/etc/hosts"]).contains("192.0.2.7 added"));
}

fn a_pod_has_one_address(node: &mut TestNode) {
    let pod = node.run_ready("two");
    let address = pod["status"]["podIP"].as_str().unwrap();
    assert_eq!(pod["status"]["podIPs"][0]["ip"], address);
    assert!(address.starts_with("10.85."), "{address}");
    for container in ["left", "right"] {
        let shown = node.exec("two", container, &["ip", "-4", "-o", "addr", "show", "eth0"]);
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.contains(&format!(" {address}/")), "{shown}");
    }
}
