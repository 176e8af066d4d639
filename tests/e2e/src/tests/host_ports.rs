//! Host ports: who reaches them, what they outlive, what they collide with, and that nothing is left of them.

use e2e::{Background, Finished, TestNode};
use serde_json::{Value, json};

tests! {
    a_host_port_leads_to_the_pod_from_everywhere,
    host_ports_outlive_the_daemon_and_a_flush_of_the_firewall,
    one_port_on_two_addresses_and_protocols,
    a_taken_host_port_is_named_and_waited_for,
    host_ports_survive_kills,
}

/// A web server that tells each client its address, with these ports.
#[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
fn server(name: &str, ports: Value) -> String {
    let script = format!(
        "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo {name} $REMOTE_ADDR' >/www/cgi-bin/peer; chmod +x \
         /www/cgi-bin/peer; exec httpd -f -p 80 -h /www"
    );
    let container = json!({"name": "main", "image": "busybox:stable", "ports": ports, "command": ["sh", "-c", script]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// The server's name and the address that it saw, for a client on the machine.
fn asked_by_the_machine(node: &TestNode, address: &str) -> Result<(String, String), String> {
    let asked = Finished::run(&mut node.role(&["fetch", address, "GET /cgi-bin/peer HTTP/1.0"]), b"");
    if asked.code == 0 { said(&asked.stdout) } else { Err(asked.to_string()) }
}

fn said(answer: &str) -> Result<(String, String), String> {
    let line = answer.trim_end().lines().last().unwrap_or_default();
    let (name, address) = line.split_once(' ').ok_or_else(|| format!("an answer of the server: {answer:?}"))?;
    Ok((name.to_owned(), address.trim_start_matches("[::ffff:").trim_end_matches(']').to_owned()))
}

/// httpd listens a moment after its container runs.
#[track_caller]
fn reached(node: &TestNode, address: &str) -> (String, String) {
    e2e::eventually(e2e::limit(20), "the server answers", || asked_by_the_machine(node, address))
}

#[track_caller]
fn run(node: &TestNode, name: &str, ports: Value) -> Value {
    node.run_text(&server(name, ports), name)
}

/// Without a grace period the object is gone before the processes are.
#[track_caller]
fn refused(node: &TestNode, address: &str) {
    e2e::eventually(e2e::limit(20), "nobody is there", || match asked_by_the_machine(node, address) {
        Err(why) if why.contains("Connection refused") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn a_host_port_leads_to_the_pod_from_everywhere(node: &mut TestNode) {
    run(node, "web", json!([{"containerPort": 80, "hostPort": 8080}]));
    let other = node.run_ready("idle")["status"]["podIP"].as_str().unwrap().to_owned();
    let web = |address: &str| ("web".to_owned(), address.to_owned());
    for address in ["127.0.0.1:8080", "10.85.0.1:8080"] {
        assert_eq!(reached(node, address), web("10.85.0.1"), "from the machine");
    }
    let url = "http://10.85.0.1:8080/cgi-bin/peer";
    let fetch = ["wget", "-qO-", url];
    assert_eq!(said(&node.exec("idle", "main", &fetch)), Ok(web(&other)), "from another Pod");
    assert_eq!(said(&node.exec("web", "main", &fetch)), Ok(web("10.85.0.1")), "from itself");
    assert_eq!(
        node.api().get("/api/v1/namespaces/default/pods/web")["spec"]["containers"][0]["ports"][0]["hostPort"],
        8080
    );
    let taken = Finished::run(&mut node.role(&["tell-peer", "0.0.0.0:8080"]), b"").fails();
    assert!(taken.contains("Address already in use"), "nobody takes it unseen: {taken}");
    node.delete_pod("web");
    refused(node, "127.0.0.1:8080");
}

fn host_ports_outlive_the_daemon_and_a_flush_of_the_firewall(node: &mut TestNode) {
    run(node, "web", json!([{"containerPort": 80, "hostPort": 8080}]));
    reached(node, "127.0.0.1:8080");
    node.kill_daemon();
    assert_eq!(asked_by_the_machine(node, "127.0.0.1:8080").unwrap().0, "web", "without a daemon");
    node.start_daemon();
    assert_eq!(asked_by_the_machine(node, "127.0.0.1:8080").unwrap().0, "web", "with the next one");
    Finished::run(&mut node.inside("nft", &["flush", "ruleset"]), b"").ok();
    assert_eq!(reached(node, "127.0.0.1:8080").0, "web", "after a flush by somebody");
    // And when that happens while no daemon is there.
    node.kill_daemon();
    Finished::run(&mut node.inside("nft", &["flush", "ruleset"]), b"").ok();
    node.start_daemon();
    assert_eq!(asked_by_the_machine(node, "127.0.0.1:8080").unwrap().0, "web");
    let pid = node.infra_processes()[0].pid;
    e2e::node::kill(pid, rustix::process::Signal::KILL);
    let pod = node.wait_for("web", "started again", |pod| {
        e2e::node::container(pod, "main")["restartCount"] == 1 && e2e::node::condition(pod, "Ready") == Some("True")
    });
    assert_eq!(reached(node, "127.0.0.1:8080").0, "web", "after its infra process died: {}", pod["status"]);
}

fn one_port_on_two_addresses_and_protocols(node: &mut TestNode) {
    run(node, "local", json!([{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}]));
    let tcp = json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.85.0.1"});
    run(node, "other", json!([tcp, {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]));
    assert_eq!(reached(node, "127.0.0.1:8080").0, "local");
    assert_eq!(reached(node, "10.85.0.1:8080").0, "other");
    refused(node, "127.0.0.2:8080");
    let elsewhere =
        node.apply_text(&server("nowhere", json!([{"containerPort": 80, "hostPort": 80, "protocol": "SCTP"}]))).fails();
    assert!(elsewhere.contains("only TCP and UDP ports are published"), "{elsewhere}");
}

fn a_taken_host_port_is_named_and_waited_for(node: &mut TestNode) {
    let mut taken = Background::start(&mut node.role(&["tell-peer", "0.0.0.0:8080"]));
    taken.expect("listening");
    node.apply_text(&server("web", json!([{"containerPort": 80, "hostPort": 8080}]))).ok();
    let said = e2e::eventually(e2e::limit(20), "an event tells it", || {
        let events = node.api().get("/api/v1/namespaces/default/events");
        let found =
            events["items"].as_array().unwrap().iter().find(|event| event["reason"] == "FailedCreatePodSandBox");
        found.map(|event| event["message"].as_str().unwrap().to_owned()).ok_or_else(|| events.to_string())
    });
    let expected = "host port 0.0.0.0:8080/TCP of container \"main\" is taken by another program; `ss -tlnp 'sport = :8080'` shows which";
    assert!(said.starts_with("Failed to create pod sandbox: pod default/web: ") && said.contains(expected), "{said}");
    let pod = node.pod("web");
    assert_eq!(pod["status"]["phase"], "Pending", "{}", pod["status"]);
    e2e::node::kill(node.process("tell-peer").pid, rustix::process::Signal::KILL);
    node.wait_ready("web");
    assert_eq!(reached(node, "127.0.0.1:8080").0, "web");
}

fn host_ports_survive_kills(node: &mut TestNode) {
    let text = server(
        "web",
        json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]),
    );
    for step in 0..8_u32 {
        // The fault's own time, not a wait for something: a start takes a few milliseconds.
        let moment = std::time::Duration::from_micros(1300) * step;
        node.apply_text(&text).ok();
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
        node.wait_ready("web");
        assert_eq!(reached(node, "127.0.0.1:8080").0, "web", "killed {moment:?} after it was made");
        let answer = node.api().request("DELETE", "/api/v1/namespaces/default/pods/web", None);
        assert!(matches!(answer.code, 200 | 202), "{}", answer.body);
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
        e2e::eventually(e2e::limit(20), "the Pod is gone", || {
            let left = node.api().names("/api/v1/pods");
            if left.is_empty() { Ok(()) } else { Err(format!("killed after {moment:?}: {left:?}")) }
        });
        refused(node, "127.0.0.1:8080");
    }
}
