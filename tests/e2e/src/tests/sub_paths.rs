//! `subPath` and `subPathExpr`: parts of volumes, and that no link leads out of them.

use std::fs;

use e2e::TestNode;
use e2e::node::container;
use serde_json::json;

tests! {
    a_container_sees_its_part_of_a_volume,
    a_link_in_a_volume_leads_nowhere_else,
    a_single_file_of_a_config_map_never_changes,
    a_path_with_an_unset_variable_is_no_path,
}

fn a_container_sees_its_part_of_a_volume(node: &mut TestNode) {
    node.run_ready("sub-paths");
    let read = |path: &str| {
        let wait = format!("until cat {path} 2>/dev/null; do usleep 1000; done");
        node.exec("sub-paths", "whole", &["sh", "-c", &wait])
    };
    assert_eq!(read("/disk/logs/sub-paths/file"), "disk\n");
    assert_eq!(read("/memory/deep/er/file"), "memory\n");
    assert_eq!(fs::read_to_string(node.path("machine/part/file")).unwrap(), "machine\n");
    let exec = |command: &[&str]| node.exec("sub-paths", "main", command);
    assert_eq!(exec(&["cat", "/etc/a.conf", "/etc/token"]), "alphaword");
    assert_eq!(
        exec(&["stat", "-c", "%F %a", "/disk", "/memory", "/etc/a.conf"]),
        "directory 777\ndirectory 1777\nregular file 644\n",
        "a missing directory is made like the root of its volume"
    );
    for path in ["/etc/a.conf", "/etc/token"] {
        let error = node.try_exec("sub-paths", "main", &["sh", "-c", &format!("echo x > {path}")]).fails();
        assert!(error.contains("Read-only file system"), "{error}");
    }
}

fn a_link_in_a_volume_leads_nowhere_else(node: &mut TestNode) {
    node.apply("sub-path-escapes.yaml");
    let pod = node.wait_for("sub-path-escapes", "each container to have its word", |pod| {
        container(pod, "good")["state"]["terminated"]["exitCode"] == 0
            && ["root", "above", "memory"].iter().all(|name| {
                let waiting = &container(pod, name)["state"]["waiting"];
                waiting["reason"] == "CreateContainerConfigError"
                    && waiting["message"].to_string().contains("failed to prepare subPath for volumeMount")
                    && waiting["message"].to_string().contains("leads out of the volume")
            })
    });
    assert_eq!(pod["status"]["phase"], "Pending", "{pod}");
    assert_eq!(node.logs("sub-path-escapes", "good"), "inside\n", "{pod}");
}

fn a_single_file_of_a_config_map_never_changes(node: &mut TestNode) {
    node.run_ready("sub-paths");
    let changed = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "parts"}, "data": {"a.conf": "changed"},
    });
    let answer = node.api().request("PUT", "/api/v1/namespaces/default/configmaps/parts", Some(&changed));
    assert_eq!(answer.code, 200, "{}", answer.body);
    let wait = "until grep -q changed /parts/a.conf; do usleep 1000; done";
    node.exec("sub-paths", "main", &["sh", "-c", wait]);
    assert_eq!(node.exec("sub-paths", "main", &["cat", "/etc/a.conf"]), "alpha");
}

fn a_path_with_an_unset_variable_is_no_path(node: &mut TestNode) {
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: unset}\nspec:\n  volumes: [{name: v}]\n  containers:\n  - name: main\n    image: busybox:stable\n    volumeMounts: [{name: v, mountPath: /v, subPathExpr: 'a/$(NONE)'}]\n";
    node.apply_text(manifest).ok();
    let pod = node.wait_for("unset", "a reason", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    assert_eq!(container(&pod, "main")["state"]["waiting"]["message"], "missing value for NONE");
}
