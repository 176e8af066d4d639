//! Pods reach each other, the machine, and what is outside of it.

use std::process::Command;

use e2e::{Background, Finished, TestNode};

tests! { pods_reach_each_other, the_machine_and_its_pods_reach_each_other, pods_reach_out_by_masquerade }

fn pods_reach_each_other(node: &mut TestNode) {
    node.apply("server.yaml");
    let server = node.wait_ready("server")["status"]["podIP"].as_str().unwrap().to_owned();
    let client = node.run_ready("idle")["status"]["podIP"].as_str().unwrap().to_owned();
    assert_ne!(server, client);
    let url = format!("http://{server}/cgi-bin/peer");
    assert_eq!(
        plain(&node.exec("idle", "main", &["wget", "-qO-", &url])),
        client,
        "nothing is translated between Pods"
    );
}

fn the_machine_and_its_pods_reach_each_other(node: &mut TestNode) {
    node.apply("server.yaml");
    let server = node.wait_ready("server")["status"]["podIP"].as_str().unwrap().to_owned();
    let mut fetch = node.role(&["fetch", &format!("{server}:80"), "GET /cgi-bin/peer HTTP/1.0"]);
    let answer = Finished::run(&mut fetch, b"").ok();
    let gateway = gateway(node);
    let seen = plain(answer.rsplit("\r\n").next().unwrap_or(""));
    assert_eq!(seen, gateway, "the machine comes from the gateway");

    let mut listener = Background::start(&mut node.role(&["tell-peer", &format!("{gateway}:7000")]));
    listener.expect("listening");
    let url = format!("http://{gateway}:7000/");
    assert_eq!(node.exec("server", "httpd", &["wget", "-qO-", &url]), server, "the machine sees the Pod's address");
    kill_inside(node, "tell-peer");
}

fn pods_reach_out_by_masquerade(node: &mut TestNode) {
    node.run_ready("idle");
    // A network namespace that knows no way back to the Pods, behind a link to the machine.
    let mut outside = Background::start(&mut node.inside("unshare", &["--net", "sh", "-c", "echo made; exec cat"]));
    outside.expect("made");
    let pid = node.process("cat").pid.to_string();
    let enter = ["--target", &pid, "--net"];
    let run = |command: &mut Command| Finished::run(command, b"").ok();
    run(&mut node.inside("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "far"]));
    // The number counts in the namespace of the caller, so this is said from outside of the node's PID namespace.
    let init = node.init().to_string();
    run(Command::new("nsenter").args(["--target", &init, "--net", "ip", "link", "set", "far", "netns", &pid]));
    run(&mut node.inside("ip", &["address", "add", "192.0.2.1/24", "dev", "uplink"]));
    run(&mut node.inside("ip", &["link", "set", "uplink", "up"]));
    run(Command::new("nsenter").args(enter).args(["ip", "address", "add", "192.0.2.2/24", "dev", "far"]));
    run(Command::new("nsenter").args(enter).args(["ip", "link", "set", "far", "up"]));

    let mut listener = Background::start(
        Command::new("nsenter").args(enter).arg(std::env::current_exe().unwrap()).args(["tell-peer", "192.0.2.2:80"]),
    );
    listener.expect("listening");
    let seen = node.exec("idle", "main", &["wget", "-qO-", "http://192.0.2.2/"]);
    assert_eq!(seen, "192.0.2.1", "outside sees the machine's address");
    drop(listener);
    outside.close_stdin();
    outside.finish();
}

/// An address as a socket of both families writes it, such as `[::ffff:10.85.0.3]`.
fn plain(address: &str) -> &str {
    address.trim_start_matches("[::ffff:").trim_end_matches(']')
}

/// The Pods' default route.
fn gateway(node: &TestNode) -> String {
    let routes = node.exec("server", "httpd", &["ip", "route"]);
    let route = routes.lines().find_map(|line| line.strip_prefix("default via ")).expect("a default route");
    route.split(' ').next().unwrap().to_owned()
}

/// nsenter(1) does not hand on SIGKILL, so the process inside is killed itself.
fn kill_inside(node: &TestNode, text: &str) {
    e2e::node::kill(node.process(text).pid, rustix::process::Signal::KILL);
}
