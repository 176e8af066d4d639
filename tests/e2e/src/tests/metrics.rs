//! What Pods use of processor and memory, as kubectl, our own command and Prometheus ask for it.

use e2e::TestNode;

tests! { usage_is_told_to_who_asks }

fn usage_is_told_to_who_asks(node: &mut TestNode) {
    let pod = |name: &str, script: &str| {
        let text = format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}},
             spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: 'busybox:stable',
             command: [sh, -c, '{script}']}}]}}}}"
        );
        node.run_text(&text, name);
    };
    pod("busy", "while :; do :; done");
    pod("idle", "sleep infinity");
    let cell = |text: &str, line: &str, column: usize| -> u64 {
        let line =
            text.lines().find(|one| one.starts_with(line)).unwrap_or_else(|| panic!("{line:?} is not in:\n{text}"));
        let cell = line.split_whitespace().nth(column).unwrap();
        cell.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    };
    // The busy one has what the machine gives it: much more than nothing, on the slowest machine too.
    for told in [node.kubectl(&["top", "pods"]).ok(), node.monopod(&["top"]).ok()] {
        assert!(told.starts_with("NAME   CPU(cores)   MEMORY(bytes)"), "{told}");
        assert!(cell(&told, "busy", 1) > 50, "{told}");
        assert!(cell(&told, "idle", 1) < 50, "{told}");
    }
    let containers = node.kubectl(&["top", "pod", "busy", "--containers"]).ok();
    assert!(containers.lines().nth(1).unwrap().starts_with("busy   main   "), "{containers}");
    let chosen = node.monopod(&["top", "pods", "-A", "-l", "app=busy", "--no-headers"]).ok();
    assert!(chosen.starts_with("default") && chosen.lines().count() == 1, "{chosen}");
    for told in [node.kubectl(&["top", "nodes"]).ok(), node.monopod(&["top", "nodes"]).ok()] {
        assert!(told.starts_with("NAME") && told.contains("MEMORY(%)"), "{told}");
        assert!(told.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap() > "0m", "{told}");
    }
    assert!(node.kubectl(&["top", "pod", "nobody"]).fails().contains("NotFound"));

    let page = node.kubectl(&["get", "--raw", "/metrics/resource"]).ok();
    let of_busy = "container_memory_working_set_bytes{container=\"main\",namespace=\"default\",pod=\"busy\"} ";
    let bytes: u64 =
        page.lines().find_map(|line| line.strip_prefix(of_busy)).unwrap_or_else(|| panic!("{page}")).parse().unwrap();
    assert!((1 << 10..64 << 20).contains(&bytes), "{bytes}");
    let page = node.kubectl(&["get", "--raw", "/metrics"]).ok();
    assert!(page.contains("\nmonopod_pods{phase=\"Running\"} 2\n"), "{page}");
    assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
}
