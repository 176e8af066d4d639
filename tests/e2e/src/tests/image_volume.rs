//! Images as volumes: their layers merged, read-only, held while a Pod mounts them.

use e2e::TestNode;
use e2e::node::container;

tests! {
    an_image_is_a_read_only_volume,
    a_part_of_an_image_is_mounted,
    an_image_volume_waits_for_its_image_and_holds_it,
}

fn pod(name: &str, mount: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: main\n    \
         image: busybox:stable\n    command: [sh, -c, 'trap \"exit 0\" TERM; sleep infinity & wait']\n    \
         volumeMounts: [{mount}]\n  volumes:\n  - name: data\n    image: {{reference: 'layered:stable'{policy}}}\n"
    )
}

fn an_image_is_a_read_only_volume(node: &mut TestNode) {
    node.load_image("layered");
    node.load_image("entry");
    node.run_text(&pod("whole", "{name: data, mountPath: /data}", ""), "whole");
    assert_eq!(node.pod("whole")["spec"]["volumes"][0]["image"]["pullPolicy"], "IfNotPresent");
    // What the upper layer hides is hidden here too.
    let inside = node.exec("whole", "main", &["sh", "-c", "cd /data/opt && find . | sort"]);
    assert!(inside.contains("./replaced/new") && !inside.contains("old"), "{inside}");
    let failed = node.try_exec("whole", "main", &["touch", "/data/new"]).fails();
    assert!(failed.contains("Read-only file system"), "{failed}");
    let failed = node.try_exec("whole", "main", &["mount", "-o", "remount,rw", "/data"]).fails();
    assert!(failed.contains("denied") || failed.contains("not permitted"), "{failed}");
    // An image of one layer.
    let single = pod("single", "{name: data, mountPath: /data}", "").replace("layered:stable", "busybox:stable");
    node.run_text(&single, "single");
    assert!(node.exec("single", "main", &["ls", "/data/bin"]).contains("busybox"));
    // The next start mounts it anew.
    node.kill_daemon();
    node.start_daemon();
    node.try_exec("whole", "main", &["kill", "1"]);
    node.wait_for("whole", "restarted", |pod| {
        container(pod, "main")["restartCount"] == 1 && container(pod, "main")["ready"] == true
    });
    assert_eq!(node.exec("whole", "main", &["sh", "-c", "cd /data/opt && find . | sort"]), inside);
    node.delete_pod("whole");
    node.delete_pod("single");
}

fn a_part_of_an_image_is_mounted(node: &mut TestNode) {
    node.load_image("layered");
    node.run_text(&pod("part", "{name: data, mountPath: /etc/part, subPath: opt/kept}", ""), "part");
    assert!(node.exec("part", "main", &["ls", "/etc/part"]).contains("setuid"));
    node.try_exec("part", "main", &["touch", "/etc/part/new"]).fails();
    node.run_text(&pod("file", "{name: data, mountPath: /etc/one, subPath: opt/kept/file}", ""), "file");
    assert_eq!(node.exec("file", "main", &["cat", "/etc/one"]), "lower\n");
    // Nothing is made in an image, and nothing leads out of it.
    node.apply_text(&pod("none", "{name: data, mountPath: /x, subPath: no/such}", "")).ok();
    let reason = "CreateContainerError";
    let seen = node.wait_for("none", "told", |pod| container(pod, "main")["state"]["waiting"]["reason"] == reason);
    assert_eq!(
        container(&seen, "main")["state"]["waiting"]["message"],
        "container \"main\": cannot find in volume \"data\" the subPath no/such: No such file or directory"
    );
    for name in ["part", "file", "none"] {
        node.delete_pod(name);
    }
}

fn an_image_volume_waits_for_its_image_and_holds_it(node: &mut TestNode) {
    let missing = pod("waits", "{name: data, mountPath: /data}", ", pullPolicy: Never");
    node.apply_text(&missing).ok();
    let seen = node
        .wait_for("waits", "told", |pod| container(pod, "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull");
    let message = container(&seen, "main")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("layered:stable"), "{message}");
    node.load_image("layered");
    node.wait_ready("waits");
    let error = node.monopod(&["image", "remove", "layered:stable"]).fails();
    assert!(error.contains("waits"), "{error}");
    // Also after a restart of the daemon.
    node.kill_daemon();
    node.start_daemon();
    node.monopod(&["image", "remove", "layered:stable"]).fails();
    node.delete_pod("waits");
    node.monopod(&["image", "remove", "layered:stable"]).ok();
    // Of the manifest, what is wrong is named.
    let error = node.apply_text(&missing.replace("Never", "Sometimes")).fails();
    assert!(error.contains("spec.volumes[0].image.pullPolicy") && error.contains("Sometimes"), "{error}");
    let error = node.apply_text(&missing.replace("reference: 'layered:stable', ", "")).fails();
    assert!(error.contains("spec.volumes[0].image.reference") && error.contains("Required"), "{error}");
}
