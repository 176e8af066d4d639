//! What a Pod shares with the machine, and what its containers share with each other, when its manifest says so.

use e2e::TestNode;
use e2e::namespaces::namespace_of;
use e2e::node::container;
use e2e::patience::{eventually, limit};

tests! {
    the_network_of_the_machine_comes_with_its_names,
    processes_of_the_machine_are_seen_and_none_is_left,
    memory_of_the_machine_is_shared,
    containers_of_a_pod_share_their_processes,
    a_first_process_takes_its_children_along,
    the_pods_pid_1_is_no_way_out,
    a_lost_pid_1_means_a_new_sandbox,
    host_names_follow_their_fields,
}

pub(super) const SLEEPS: &str = "command: [sh, -c, 'trap \"exit 0\" TERM; sleep infinity & wait']";

/// A Pod with one container for each of `containers`: its name and more fields.
pub(super) fn manifest(name: &str, spec: &str, containers: &[(&str, &str)]) -> String {
    let containers: Vec<String> = containers
        .iter()
        .map(|(name, fields)| format!("{{name: {name}, image: 'busybox:stable', {fields}}}"))
        .collect();
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}, containers: [{}]}}}}",
        containers.join(", ")
    )
}

fn own_namespace(node: &TestNode, pod: &str, container: &str, kind: &str) -> String {
    let link = node.exec(pod, container, &["readlink", &format!("/proc/self/ns/{kind}")]);
    link.trim_end().to_owned()
}

fn of_machine(node: &TestNode, kind: &str) -> String {
    namespace_of(node.init(), kind).unwrap()
}

fn the_network_of_the_machine_comes_with_its_names(node: &mut TestNode) {
    let spec = "hostNetwork: true, hostAliases: [{ip: 192.0.2.7, hostnames: [added.example]}]";
    let pod = node.run_text(&manifest("host", spec, &[("main", SLEEPS)]), "host");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"], "{}", pod["status"]);
    assert_eq!(pod["status"]["podIPs"][0]["ip"], pod["status"]["hostIP"]);
    for (kind, shared) in [("net", true), ("uts", true), ("ipc", false), ("pid", false), ("mnt", false)] {
        let (own, of_node) = (own_namespace(node, "host", "main", kind), of_machine(node, kind));
        assert_eq!(own == of_node, shared, "{kind}: {own:?}, the machine has {of_node:?}");
    }
    let name = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(
        node.exec("host", "main", &["sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME"]),
        format!("{name}\n").repeat(3)
    );
    let hosts = node.exec("host", "main", &["cat", "/etc/hosts"]);
    let of_node = std::fs::read_to_string("/etc/hosts").unwrap();
    let api =
        "10.96.0.1\tkubernetes.default.svc.cluster.local\tkubernetes.default.svc\tkubernetes.default\tkubernetes\n";
    let wanted = format!(
        "# Kubernetes-managed hosts file (host network).\n{of_node}{api}\n# Entries added by HostAliases.\n192.0.2.7\tadded.example\n"
    );
    assert_eq!(hosts, wanted);
    // The machine's file stays as it is, whatever the container writes into its copy.
    node.exec("host", "main", &["sh", "-c", "echo '192.0.2.9 written' >> /etc/hosts"]);
    assert_eq!(std::fs::read_to_string("/etc/hosts").unwrap(), of_node);
    // Its network is the machine's to keep: nothing in it may be set (Pods get sysctls of their own namespace only).
    let error = node.try_exec("host", "main", &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    assert_ne!(error.code, 0, "{error}");
}

fn processes_of_the_machine_are_seen_and_none_is_left(node: &mut TestNode) {
    let script = "command: [sh, -c, 'setsid sleep 4321 & exec sleep infinity']";
    node.run_text(&manifest("host", "hostPID: true, restartPolicy: Never", &[("main", script)]), "host");
    assert_eq!(own_namespace(node, "host", "main", "pid"), of_machine(node, "pid"));
    let seen = node.exec("host", "main", &["ps", "-o", "args"]);
    assert!(seen.contains("serve --data-dir") && seen.contains("sleep 4321"), "{seen}");
    // Its first process ends, and takes the one with it that is nobody's child and of no session of its.
    let first = numbers_of(node, "host", "main", "sleep infinity");
    // The one that kills it is of the same container, and may be taken along before it has ended.
    node.try_exec("host", "main", &["kill", "-9", &first[0]]);
    let pod = node.wait_phase("host", "Failed");
    assert_eq!(container(&pod, "main")["state"]["terminated"]["exitCode"], 137);
    assert!(
        !node.processes().iter().any(|process| process.command_line.contains("sleep 4321")),
        "{:#?}",
        node.processes()
    );
}

fn memory_of_the_machine_is_shared(node: &mut TestNode) {
    node.run_text(&manifest("host", "hostIPC: true", &[("main", SLEEPS)]), "host");
    for (kind, shared) in [("ipc", true), ("net", false), ("uts", false)] {
        let same = own_namespace(node, "host", "main", kind) == of_machine(node, kind);
        assert_eq!(same, shared, "{kind}");
    }
    let file =
        format!("/dev/shm/{}", node.path("").parent().unwrap().join("shared").to_str().unwrap().replace('/', "-"));
    node.exec("host", "main", &["sh", "-c", &format!("echo here > {file}")]);
    let seen = node.inside("cat", &[&file]).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "here\n");
}

/// Numbers of the processes with exactly these arguments, as a container sees them.
fn numbers_of(node: &TestNode, pod: &str, container: &str, arguments: &str) -> Vec<String> {
    let list = node.exec(pod, container, &["ps", "-o", "pid,args"]);
    let lines = list.lines().filter_map(|line| line.trim().split_once(' '));
    lines.filter(|(_, shown)| shown.trim() == arguments).map(|(pid, _)| pid.to_owned()).collect()
}

const SHARED: &str = "shareProcessNamespace: true";

fn containers_of_a_pod_share_their_processes(node: &mut TestNode) {
    let app = "command: [sh, -c, 'sleep 1234 & exec sleep infinity']";
    node.run_text(&manifest("shared", SHARED, &[("app", app), ("sidecar", SLEEPS)]), "shared");
    assert_eq!(own_namespace(node, "shared", "app", "pid"), own_namespace(node, "shared", "sidecar", "pid"));
    assert_ne!(own_namespace(node, "shared", "app", "pid"), of_machine(node, "pid"));
    assert_eq!(node.exec("shared", "sidecar", &["cat", "/proc/1/comm"]), "pause\n");
    let seen = node.exec("shared", "sidecar", &["ps", "-o", "args"]);
    assert!(seen.contains("sleep 1234") && !seen.contains("serve"), "{seen}");
    // A container's file system is seen by its neighbour, which the documentation of Kubernetes promises.
    node.exec("shared", "app", &["sh", "-c", "echo mine > /tmp/file"]);
    let child = numbers_of(node, "shared", "sidecar", "sleep 1234");
    assert_eq!(node.exec("shared", "sidecar", &["cat", &format!("/proc/{}/root/tmp/file", child[0])]), "mine\n");
    // Orphans of all of them end at PID 1, and none stays a zombie.
    node.exec("shared", "sidecar", &["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done"]);
    eventually(limit(10), "no zombie is left", || {
        let states = node.exec("shared", "app", &["sh", "-c", "grep -h '^State' /proc/[0-9]*/status"]);
        if states.contains('Z') { Err(states) } else { Ok(()) }
    });
}

fn a_first_process_takes_its_children_along(node: &mut TestNode) {
    let script = "setsid sleep 1234 & sleep 5678; true";
    let app = format!("command: [sh, -c, '{script}']");
    node.run_text(&manifest("shared", SHARED, &[("app", &app), ("sidecar", SLEEPS)]), "shared");
    // The neighbour may signal it, which is what such Pods are for.
    let first = numbers_of(node, "shared", "sidecar", &format!("sh -c {script}"));
    node.exec("shared", "sidecar", &["kill", "-9", &first[0]]);
    node.wait_for("shared", "the app runs again", |pod| {
        let status = container(pod, "app");
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    });
    eventually(limit(10), "the second run has its child, and the first run's are gone", || {
        let (far, near) =
            (numbers_of(node, "shared", "sidecar", "sleep 1234"), numbers_of(node, "shared", "sidecar", "sleep 5678"));
        if far.len() == 1 && near.len() == 1 { Ok(()) } else { Err(format!("{far:?} {near:?}")) }
    });
    // And a stop leaves nothing either: the leak check sees to it.
}

fn the_pods_pid_1_is_no_way_out(node: &mut TestNode) {
    let privileged = format!("securityContext: {{privileged: true}}, {SLEEPS}");
    let fields = [("main", SLEEPS), ("privileged", privileged.as_str())];
    node.run_text(&manifest("shared", SHARED, &fields), "shared");
    // Its root would be the machine's: here it is empty, and read-only, also for who may look through it.
    let look = "ls -A /proc/1/root; ls -A /proc/1/fd; cat /proc/1/root/etc/hostname; cat /proc/1/environ";
    assert_eq!(node.try_exec("shared", "main", &["sh", "-c", look]).stdout, "");
    assert_eq!(node.try_exec("shared", "privileged", &["sh", "-c", look]).stdout, "");
    assert_eq!(node.exec("shared", "privileged", &["readlink", "/proc/1/root"]), "/\n", "it may look");
    let write =
        node.try_exec("shared", "privileged", &["sh", "-c", "echo x > /proc/1/root/x || echo x >> /proc/1/exe"]);
    assert_ne!(write.code, 0, "{write}");
    let status = node.exec("shared", "main", &["grep", "-E", "^(Cap(Prm|Eff)|NoNewPrivs)", "/proc/1/status"]);
    assert_eq!(status, "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
    // No signal from inside ends it.
    node.try_exec("shared", "privileged", &["kill", "-9", "1"]);
    assert_eq!(node.exec("shared", "main", &["cat", "/proc/1/comm"]), "pause\n");
    // Neither infra nor the daemon is in sight.
    assert!(!node.exec("shared", "privileged", &["sh", "-c", "cat /proc/[0-9]*/comm"]).contains("serve"));
}

fn a_lost_pid_1_means_a_new_sandbox(node: &mut TestNode) {
    let pod = node.run_text(&manifest("shared", SHARED, &[("app", SLEEPS)]), "shared");
    let first = container(&pod, "app")["containerID"].clone();
    let infra = node.infra_processes();
    let pause = e2e::namespaces::children_of(infra[0].pid)
        .into_iter()
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "pause\n"));
    let pause = rustix::process::Pid::from_raw(i32::try_from(pause.unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pause, rustix::process::Signal::KILL).unwrap();
    node.wait_for("shared", "it runs anew", |pod| {
        let status = container(pod, "app");
        status["state"]["running"].is_object() && status["containerID"] != first
    });
    assert_eq!(node.exec("shared", "app", &["cat", "/proc/1/comm"]), "pause\n");
}

fn host_names_follow_their_fields(node: &mut TestNode) {
    for (name, spec, wanted) in [
        ("full", "subdomain: sub, setHostnameAsFQDN: true", "full.sub.default.svc.cluster.local"),
        ("short", "subdomain: sub", "short"),
        ("override", "hostname: other, subdomain: sub, hostnameOverride: shown.example", "shown.example"),
    ] {
        node.run_text(&manifest(name, spec, &[("main", SLEEPS)]), name);
        let shown = node.exec(name, "main", &["sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME"]);
        assert_eq!(shown, format!("{wanted}\n").repeat(3), "{name}");
    }
    // A name that the kernel does not take keeps the Pod from starting, and says so.
    let long = format!("subdomain: {}, setHostnameAsFQDN: true", "a".repeat(60));
    node.apply_text(&manifest("long", &long, &[("main", SLEEPS)])).ok();
    eventually(limit(20), "the event", || {
        let events = node.monopod(&["events"]).ok();
        if events.contains("FQDN long.aaa") && events.contains("is too long (64 characters is the max") {
            Ok(())
        } else {
            Err(events)
        }
    });
}
