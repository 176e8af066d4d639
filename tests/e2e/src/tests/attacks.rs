//! What a hostile container tries. Each test fails without the rule that it is about.

use e2e::TestNode;
use e2e::node::container;

tests! { the_engine_cannot_be_overwritten, no_descriptor_of_the_engine_is_a_way_out, infra_cannot_be_read_from_a_container }

fn the_engine_cannot_be_overwritten(node: &mut TestNode) {
    let engine = std::fs::read(e2e::node::binary()).unwrap();
    // The program that execs the container's first process is /proc/self/exe at that moment (CVE-2019-5736).
    node.apply("overwrites-engine.yaml");
    node.wait_for("overwrites-engine", "an end", |pod| {
        matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
    });
    // And an exec of it, beside a program that tries to open it for writing again and again.
    node.run_ready("idle");
    let opener = "for i in 1 2 3 4 5 6 7 8 9; do
        for p in /proc/[0-9]*; do [ $p = /proc/1 ] || (exec 3<> $p/exe) 2>/dev/null && [ $p != /proc/$$ ] && readlink $p/exe; done; done; true";
    let mut attacker = node.background(&["exec", "idle", "--", "sh", "-c", opener]);
    for _ in 0..5 {
        node.try_exec("idle", "main", &["/proc/self/exe", "--help"]);
    }
    attacker.close_stdin();
    attacker.finish();
    assert!(std::fs::read(e2e::node::binary()).unwrap() == engine, "the engine's binary has changed");
}

fn no_descriptor_of_the_engine_is_a_way_out(node: &mut TestNode) {
    node.apply("leaks-descriptor.yaml");
    let pod = node.wait_for("leaks-descriptor", "an end", |pod| {
        matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
    });
    let end = &container(&pod, "main")["state"]["terminated"];
    assert_ne!(end["exitCode"], 0, "it found the machine's /etc/os-release: {end}");
    let log = node.logs("leaks-descriptor", "main");
    assert!(!log.contains("Debian") && !log.contains("ID="), "{log}");
}

fn infra_cannot_be_read_from_a_container(node: &mut TestNode) {
    node.run_ready("idle");
    let infra = node.infra_processes();
    assert_eq!(infra.len(), 1, "{infra:?}");
    // Non-dumpable (CVE-2016-9962): its files in /proc belong to root whatever it runs as, and its memory is closed.
    let status = std::fs::read_to_string(format!("/proc/{}/status", infra[0].pid)).unwrap();
    assert!(status.contains("Seccomp"), "{status}");
    // No process of another namespace is visible in the container.
    let seen = node.exec("idle", "main", &["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]);
    assert!(seen.trim().parse::<u32>().unwrap() <= 5, "{seen}");
}
