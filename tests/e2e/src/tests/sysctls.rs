//! Parameters of the kernel that a Pod sets for itself.

use e2e::TestNode;

tests! {
    safe_ones_are_set_and_others_are_the_machines_to_allow,
    a_value_that_the_kernel_refuses_is_told,
}

fn manifest(name: &str, sysctls: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{securityContext: {{sysctls: [{sysctls}]}},
        containers: [{{name: main, image: 'busybox:stable', command: [sh, -c, 'trap \"exit 0\" TERM; sleep infinity & wait']}}]}}}}"
    )
}

fn safe_ones_are_set_and_others_are_the_machines_to_allow(node: &mut TestNode) {
    let safe = "{name: kernel.shm_rmid_forced, value: '1'}, {name: net/ipv4/ip_local_port_range, value: '40000 41000'},
        {name: net.ipv4.ip_unprivileged_port_start, value: '443'}";
    node.run_text(&manifest("safe", safe), "safe");
    node.run_text(&manifest("plain", ""), "plain");
    let files = ["kernel/shm_rmid_forced", "net/ipv4/ip_local_port_range", "net/ipv4/ip_unprivileged_port_start"];
    let read = |pod: &str| {
        files.map(|file| node.exec(pod, "main", &["cat", &format!("/proc/sys/{file}")]).trim_end().replace('\t', " "))
    };
    assert_eq!(read("safe"), ["1", "40000 41000", "443"]);
    assert_ne!(read("plain"), read("safe"), "no other Pod notices");
    let of_machine = String::from_utf8(
        node.inside("cat", &["/proc/sys/net/ipv4/ip_unprivileged_port_start"]).output().unwrap().stdout,
    );
    assert_ne!(of_machine.unwrap().trim_end(), "443");
    // What is not safe has failed before anything of it was made (the kubelet's words).
    let rejected =
        [("unsafe", "kernel.msgmax"), ("of-the-machine", "kernel.core_pattern"), ("nobodys", "vm.swappiness")];
    for (name, sysctl) in rejected {
        node.apply_text(&manifest(name, &format!("{{name: {sysctl}, value: '4096'}}"))).ok();
        let pod = node.wait_phase(name, "Failed");
        assert_eq!(pod["status"]["reason"], "SysctlForbidden");
        assert_eq!(
            pod["status"]["message"],
            format!("Pod was rejected: forbidden sysctl: \"{sysctl}\" not allowlisted")
        );
    }
    node.delete_pod("unsafe");
    node.stop_daemon();
    node.serve_arguments = vec!["--allowed-unsafe-sysctls=kernel.msg*".into()];
    node.start_daemon();
    let text = manifest("unsafe", "{name: kernel.msgmax, value: '4096'}");
    node.run_text(&text, "unsafe");
    assert_eq!(node.exec("unsafe", "main", &["cat", "/proc/sys/kernel/msgmax"]), "4096\n");
}

fn a_value_that_the_kernel_refuses_is_told(node: &mut TestNode) {
    for (name, value) in [("word", "seven"), ("trick", "\"1\\n2\"")] {
        node.apply_text(&manifest(name, &format!("{{name: net.ipv4.tcp_syncookies, value: {value}}}"))).ok();
        e2e::patience::eventually(e2e::patience::limit(20), "the event", || {
            let events = node.monopod(&["events"]).ok();
            if events.contains("set the sysctl") && events.contains("net/ipv4/tcp_syncookies") {
                Ok(())
            } else {
                Err(events)
            }
        });
    }
}
