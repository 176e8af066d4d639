//! Services: who is led to whom, as Pods come, get ready, and go; and what of it outlives the daemon.

use std::collections::BTreeSet;

use e2e::{Finished, TestNode};
use serde_json::{Value, json};

tests! {
    a_service_leads_to_its_ready_pods,
    node_ports_and_services_without_selector,
    services_outlive_the_daemon,
    names_are_found_as_in_a_cluster,
}

/// A web server that tells its name, ready while `/tmp/ready` is there.
fn server(name: &str) -> String {
    let script =
        format!("mkdir -p /www; echo {name} >/www/index.html; touch /tmp/ready; exec httpd -f -p 8080 -h /www");
    let probe = json!({"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = json!({
        "name": "main", "image": "busybox:stable", "command": ["sh", "-c", script], "readinessProbe": probe,
        "ports": [{"name": "http", "containerPort": 8080}],
    });
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": name, "labels": {"app": "web"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

/// Makes a Service in `default`, and gives its address.
#[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
fn service(node: &TestNode, name: &str, spec: Value) -> String {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let made = node.api().request("POST", "/api/v1/namespaces/default/services", Some(&service));
    assert_eq!(made.code, 201, "{}", made.body);
    made.body["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned()
}

/// What a client on the machine hears; a refusal is told in words.
fn asked_by_the_machine(node: &TestNode, address: &str) -> String {
    let asked = Finished::run(&mut node.role(&["fetch", address, "GET / HTTP/1.0"]), b"");
    let answer = if asked.code == 0 { asked.stdout } else { asked.stderr };
    answer.trim_end().lines().last().unwrap_or_default().to_owned()
}

/// What a client in the Pod `client` hears.
fn asked_by_a_pod(node: &TestNode, address: &str) -> String {
    let url = format!("http://{address}/");
    let asked = node.try_exec("client", "main", &["wget", "-qO-", &url]);
    let answer = if asked.code == 0 { asked.stdout } else { asked.stderr };
    answer.trim_end().lines().last().unwrap_or_default().to_owned()
}

/// Everybody who answers within some attempts, once it is as expected.
#[track_caller]
fn served_by(node: &TestNode, what: &str, ask: impl Fn(&TestNode) -> String, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    e2e::eventually(e2e::limit(20), what, || {
        // One of two is missed in twenty attempts once in half a million times.
        let heard: BTreeSet<String> = (0..20).map(|_| ask(node)).collect();
        if heard == expected { Ok(()) } else { Err(format!("{heard:?}")) }
    });
}

fn client(node: &TestNode) {
    let container = json!({"name": "main", "image": "busybox:stable", "command": ["sleep", "infinity"]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec});
    node.run_text(&pod.to_string(), "client");
}

fn a_service_leads_to_its_ready_pods(node: &mut TestNode) {
    client(node);
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let address = service(node, "web", json!({"selector": {"app": "web"}, "ports": ports}));
    let refused = asked_by_a_pod(node, &address);
    assert!(refused.contains("Connection refused"), "nobody serves yet, and nobody waits: {refused}");
    node.run_text(&server("one"), "one");
    node.run_text(&server("two"), "two");
    let by_pod = |node: &TestNode| asked_by_a_pod(node, &address);
    let by_machine = |node: &TestNode| asked_by_the_machine(node, &format!("{address}:80"));
    served_by(node, "both serve Pods", by_pod, &["one", "two"]);
    served_by(node, "both serve the machine", by_machine, &["one", "two"]);
    // A Pod that asks for itself is served by itself, too.
    let own =
        |node: &TestNode| node.exec("one", "main", &["wget", "-qO-", &format!("http://{address}/")]).trim().to_owned();
    served_by(node, "both serve one of them", own, &["one", "two"]);
    node.exec("one", "main", &["rm", "/tmp/ready"]);
    served_by(node, "who is not ready does not serve", by_pod, &["two"]);
    let slices = node.kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "--no-headers"]).ok();
    let columns: Vec<&str> = slices.split_whitespace().collect();
    assert!(columns[0].starts_with("web-") && columns[1..3] == ["IPv4", "8080"], "{slices}");
    node.exec("one", "main", &["touch", "/tmp/ready"]);
    served_by(node, "who is ready again does", by_pod, &["one", "two"]);
    node.delete_pod("two");
    served_by(node, "who is gone does not", by_pod, &["one"]);
    let deleted = node.api().request("DELETE", "/api/v1/namespaces/default/services/web", None);
    assert_eq!(deleted.code, 200);
    e2e::eventually(e2e::limit(20), "a deleted service refuses", || {
        let heard = asked_by_a_pod(node, &address);
        if heard.contains("Connection refused") { Ok(()) } else { Err(heard) }
    });
    e2e::eventually(e2e::limit(20), "its slices are gone with it", || {
        let left = node.api().names("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices");
        if left == ["default/kubernetes"] { Ok(()) } else { Err(left.join(" ")) }
    });
}

fn node_ports_and_services_without_selector(node: &mut TestNode) {
    client(node);
    let pod = node.run_text(&server("one"), "one");
    let pod_address = pod["status"]["podIP"].as_str().unwrap();
    let ports = json!([{"port": 80, "targetPort": 8080, "nodePort": 30080}]);
    service(node, "web", json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports}));
    served_by(node, "the machine by its own port", |node| asked_by_the_machine(node, "10.85.0.1:30080"), &["one"]);
    served_by(node, "a Pod by the machine's port", |node| asked_by_a_pod(node, "10.85.0.1:30080"), &["one"]);
    // Endpoints of a Service without selector are whatever a person writes.
    let address = service(node, "mine", json!({"ports": [{"name": "a", "port": 80}]}));
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "mine"}},
        "ports": [{"name": "a", "port": 8080}], "endpoints": [{"addresses": [pod_address]}],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert_eq!(node.api().request("POST", slices, Some(&slice)).code, 201);
    served_by(node, "a slice made by hand", |node| asked_by_a_pod(node, &address), &["one"]);
    assert_eq!(node.api().request("DELETE", &format!("{slices}/by-hand"), None).code, 200);
}

fn services_outlive_the_daemon(node: &mut TestNode) {
    client(node);
    node.run_text(&server("one"), "one");
    node.run_text(&server("two"), "two");
    let address =
        service(node, "web", json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}));
    let by_machine = |node: &TestNode| asked_by_the_machine(node, &format!("{address}:80"));
    served_by(node, "both serve", by_machine, &["one", "two"]);
    node.kill_daemon();
    served_by(node, "without a daemon", by_machine, &["one", "two"]);
    Finished::run(&mut node.inside("nft", &["flush", "ruleset"]), b"").ok();
    node.start_daemon();
    assert_ne!(by_machine(node), "", "all is there again when the API answers");
    served_by(node, "with the next one", by_machine, &["one", "two"]);
    node.delete_pod("one");
    served_by(node, "it follows Pods as before", by_machine, &["two"]);
}

/// What a Pod of glibc and one of busybox find by a name, one address a line.
fn looked_up(node: &TestNode, pod: &str, name: &str) -> String {
    let command: &[&str] = if pod == "glibc" { &["getent", "ahostsv4", name] } else { &["nslookup", name] };
    let found = node.try_exec(pod, "main", command);
    let text = format!("{}{}", found.stdout, found.stderr);
    let mut addresses: Vec<&str> = text
        .lines()
        .filter(|line| pod == "glibc" || (line.starts_with("Address") && !line.contains(":53")))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("10.")))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(" ")
}

#[track_caller]
fn found(node: &TestNode, pod: &str, name: &str, expected: &str) {
    e2e::eventually(e2e::limit(20), "a name", || {
        let found = looked_up(node, pod, name);
        if found == expected { Ok(()) } else { Err(format!("{pod}: {name}: {found:?} instead of {expected:?}")) }
    });
}

fn names_are_found_as_in_a_cluster(node: &mut TestNode) {
    node.load_image("debian");
    client(node);
    // The image has glibc, but not its program that looks names up.
    let mount = json!({"name": "getent", "mountPath": "/usr/bin/getent"});
    let volume = json!({"name": "getent", "hostPath": {"path": "/usr/bin/getent", "type": "File"}});
    let container =
        json!({"name": "main", "image": "debian:stable", "command": ["sleep", "infinity"], "volumeMounts": [mount]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]});
    let glibc = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "glibc"}, "spec": spec});
    node.run_text(&glibc.to_string(), "glibc");
    let conf = node.exec("client", "main", &["cat", "/etc/resolv.conf"]);
    assert!(conf.contains("nameserver 10.96.0.10\n") && conf.contains("options ndots:5\n"), "{conf}");
    assert!(conf.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"), "{conf}");
    let address =
        service(node, "web", json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}));
    let all = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080}]});
    service(node, "all", all);
    let [one, two] = ["one", "two"].map(|name| {
        let mut pod: Value = serde_json::from_str(&server(name)).unwrap();
        pod["spec"]["hostname"] = name.into();
        pod["spec"]["subdomain"] = "all".into();
        node.run_text(&pod.to_string(), name)["status"]["podIP"].as_str().unwrap().to_owned()
    });
    let mut both = [one.clone(), two.clone()];
    both.sort();
    for pod in ["glibc", "client"] {
        found(node, pod, "web.default.svc.cluster.local", &address);
        found(node, pod, "all.default.svc.cluster.local", &both.join(" "));
        found(node, pod, "one.all.default.svc.cluster.local", &one);
        found(node, pod, "kubernetes.default.svc.cluster.local", "10.96.0.1");
        found(node, pod, "nobody.default.svc.cluster.local", "");
    }
    for short in ["web", "web.default", "web.default.svc"] {
        found(node, "glibc", short, &address);
        assert_eq!(asked_by_a_pod(node, short).len(), 3, "{short} is an answer of one or two");
    }
    found(node, "glibc", "two.all", &two);
    let pointer = node.exec("glibc", "main", &["getent", "hosts", &address]);
    assert!(pointer.contains("web.default.svc.cluster.local"), "{pointer}");
    // A headless Service tells its ready Pods at once, and no others.
    node.exec("one", "main", &["rm", "/tmp/ready"]);
    found(node, "glibc", "all", &two);
    // The next daemon answers as this one does.
    node.kill_daemon();
    node.start_daemon();
    found(node, "glibc", "all", &two);
    found(node, "client", "web.default.svc.cluster.local", &address);
}
