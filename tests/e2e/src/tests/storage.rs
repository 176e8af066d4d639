//! Volumes: shared between containers, from the machine, and from objects of the API.

use std::fs;

use e2e::TestNode;
use e2e::node::container;
use serde_json::{Value, json};

tests! {
    an_empty_dir_is_shared_on_disk_and_in_memory,
    a_restart_keeps_volumes_and_drops_the_writable_layer,
    host_paths_are_the_machines,
    a_host_path_of_the_wrong_type_is_named,
    config_maps_and_secrets_become_files,
    a_missing_config_map_is_waited_for,
    a_group_owns_the_volumes_of_its_pod,
    several_objects_share_a_projected_volume,
    files_follow_their_objects,
    later_mounts_travel_as_the_pod_says,
}

fn an_empty_dir_is_shared_on_disk_and_in_memory(node: &mut TestNode) {
    node.run_ready("empty-dir");
    let read = |path: &str| {
        node.exec("empty-dir", "reader", &["sh", "-c", &format!("until cat {path} 2>/dev/null; do usleep 1000; done")])
    };
    assert_eq!(read("/data/disk/file"), "1\n");
    assert_eq!(read("/data/memory/file"), "2\n");
    for path in ["/data/disk/new", "/data/memory/new"] {
        let error = node.try_exec("empty-dir", "reader", &["touch", path]).fails();
        assert!(error.contains("Read-only file system"), "{error}");
    }
    let mounts = node.exec("empty-dir", "writer", &["cat", "/proc/mounts"]);
    let memory = mounts.lines().find(|line| line.contains(" /memory ")).unwrap();
    assert!(memory.contains("tmpfs") && memory.contains("size=4096k"), "{memory}");
    assert!(!mounts.lines().any(|line| line.contains(" /disk ") && line.contains("tmpfs")), "{mounts}");
    let error =
        node.try_exec("empty-dir", "writer", &["dd", "if=/dev/zero", "of=/memory/big", "bs=1M", "count=8"]).fails();
    assert!(error.contains("No space left"), "{error}");
    // Others may write too: the mode is 0777 whatever the umask of the daemon, and in memory tmpfs' own sticky bit is kept.
    assert_eq!(node.exec("empty-dir", "writer", &["stat", "-c", "%a", "/disk", "/memory"]), "777\n1777\n");
}

fn a_restart_keeps_volumes_and_drops_the_writable_layer(node: &mut TestNode) {
    node.apply("restarts-keep-volume.yaml");
    let before = node.wait_for("restarts-keep-volume", "started again", |pod| {
        let status = container(pod, "main");
        status["restartCount"] == 1 && !status["state"]["running"].is_null()
    });
    let last = &container(&before, "main")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 3, "{last}");
    let log = "until [ $(grep -c start /disk/log) = 2 ]; do usleep 1000; done; cat /disk/log";
    assert_eq!(node.exec("restarts-keep-volume", "main", &["sh", "-c", log]), "start\nstart\n");
}

fn host_paths_are_the_machines(node: &mut TestNode) {
    fs::create_dir(node.path("shared")).unwrap();
    fs::write(node.path("shared/file"), "from the machine\n").unwrap();
    node.run_to_end("host-path");
    let log = node.logs("host-path", "main");
    assert!(log.starts_with("from the machine\nfrom the machine\n") && log.ends_with("read-only\n"), "{log}");
    assert_eq!(fs::read_to_string(node.path("made/result")).unwrap(), "written\n");
    node.delete_pod("host-path");
    assert_eq!(
        fs::read_to_string(node.path("shared/file")).unwrap(),
        "from the machine\n",
        "never removed with the Pod"
    );
}

fn a_host_path_of_the_wrong_type_is_named(node: &mut TestNode) {
    fs::write(node.path("shared"), "a file, not a directory").unwrap();
    node.apply("host-path.yaml");
    let path = node.path("shared").display().to_string();
    let mut events = node.background(&["get", "events", "-w"]);
    let line = events.expect("FailedMount");
    assert!(line.contains("directory") && line.contains(&path), "{line}");
    assert_eq!(node.pod("host-path")["status"]["phase"], "Pending");
}

fn config_maps_and_secrets_become_files(node: &mut TestNode) {
    node.apply("objects-as-files.yaml");
    node.wait_ready("objects-as-files");
    let exec = |command: &[&str]| node.exec("objects-as-files", "main", command);
    assert_eq!(exec(&["ls", "/all"]), "a.conf\nb.conf\n");
    assert_eq!(exec(&["cat", "/all/a.conf", "/all/b.conf"]), "alphabeta");
    assert_eq!(exec(&["ls", "/some", "/some/deep"]), "/some:\ndeep\n\n/some/deep:\nrenamed.conf\n");
    assert_eq!(exec(&["cat", "/some/deep/renamed.conf"]), "beta");
    assert_eq!(
        exec(&["stat", "-L", "-c", "%a", "/all/a.conf", "/some/deep/renamed.conf", "/keys/token"]),
        "644\n600\n400\n"
    );
    assert_eq!(exec(&["cat", "/keys/token"]), "secret-word");
    let mounts = exec(&["cat", "/proc/mounts"]);
    assert!(mounts.lines().any(|line| line.contains(" /keys tmpfs ")), "secrets stay in memory:\n{mounts}");
    let error = node.try_exec("objects-as-files", "main", &["touch", "/all/new"]).fails();
    assert!(error.contains("Read-only file system"), "{error}");
    // Nowhere on the disk but in the store.
    let found = std::process::Command::new("grep")
        .args(["-rl", "--exclude-dir=store", "secret-word"])
        .args([node.data_dir(), node.run_dir(), node.log_dir(), node.path("daemon.log")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

fn a_group_owns_the_volumes_of_its_pod(node: &mut TestNode) {
    node.run_ready("fs-group");
    let exec = |command: &[&str]| node.exec("fs-group", "main", command);
    assert_eq!(exec(&["id"]), "uid=1234 gid=3000 groups=3000,4242\n");
    assert_eq!(
        exec(&["stat", "-c", "%a %u %g", "/disk", "/memory", "/machine"]),
        "2777 0 4242\n3777 0 4242\n755 0 0\n",
        "the machine's own directories stay as they are"
    );
    // 0400 alone would be root's: the group may read, and nobody else.
    assert_eq!(exec(&["stat", "-L", "-c", "%a %u %g", "/files/a.conf", "/keys/token"]), "440 0 4242\n440 0 4242\n");
    assert_eq!(exec(&["cat", "/files/a.conf", "/keys/token"]), "alphaword");
    assert_eq!(
        exec(&["sh", "-c", "umask 007; mkdir /disk/new; touch /disk/new/file; stat -c %g /disk/new/file"]),
        "4242\n",
        "what is made in the volume goes to its group"
    );
}

fn several_objects_share_a_projected_volume(node: &mut TestNode) {
    node.run_ready("projected");
    let exec = |command: &[&str]| node.exec("projected", "main", command);
    assert_eq!(exec(&["ls", "/all"]), "conf\nname\ntoken\n");
    assert_eq!(exec(&["stat", "-L", "-c", "%a", "/all/conf/a.conf", "/all/token", "/all/name"]), "644\n440\n440\n");
    assert_eq!(exec(&["cat", "/all/conf/a.conf", "/all/token", "/all/name"]), "alphahidden-wordprojected");
    assert_eq!(exec(&["cat", "/self/labels"]), "app=\"web\"");
    assert_eq!(exec(&["cat", "/self/memory"]), "32");
    let mounts = exec(&["cat", "/proc/mounts"]);
    for target in [" /all tmpfs ", " /self tmpfs "] {
        assert!(mounts.lines().any(|line| line.contains(target)), "{target} is not in memory:\n{mounts}");
    }
    let error = node.try_exec("projected", "main", &["touch", "/all/new"]).fails();
    assert!(error.contains("Read-only file system"), "{error}");
}

fn files_follow_their_objects(node: &mut TestNode) {
    let mut pod = node.run_ready("projected");
    let put = |path: &str, object: &Value| {
        let answer = node.api().request("PUT", &format!("/api/v1/namespaces/default/{path}"), Some(object));
        assert_eq!(answer.code, 200, "{}", answer.body);
    };
    let becomes = |path: &str, text: &str| {
        let wait = format!("until grep -qF '{text}' {path}; do usleep 1000; done");
        node.exec("projected", "main", &["sh", "-c", &wait]);
    };
    let object = |kind: &str, field: &str, data: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "projected"}, field: data});
    put("configmaps/projected", &object("ConfigMap", "data", json!({"a.conf": "omega"})));
    becomes("/all/conf/a.conf", "omega");
    put("secrets/projected", &object("Secret", "stringData", json!({"token": "other-word"})));
    becomes("/all/token", "other-word");
    pod["metadata"]["labels"]["app"] = json!("changed");
    pod["metadata"]["resourceVersion"] = Value::Null;
    put("pods/projected", &pod);
    becomes("/self/labels", "app=\"changed\"");
}

fn later_mounts_travel_as_the_pod_says(node: &mut TestNode) {
    let shared = node.path("shared").display().to_string();
    let machine = |program: &str, arguments: &[&str]| {
        let output = node.inside(program, arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let below = |name: &str| format!("{shared}/{name}");
    for name in ["host", "none", "from-host", "both-ways"] {
        fs::create_dir_all(below(name)).unwrap();
    }
    machine("mount", &["--bind", &shared, &shared]);
    machine("mount", &["--make-shared", &shared]);
    node.run_ready("propagation");
    machine("mount", &["-t", "tmpfs", "later", &below("host")]);
    let sees = |name: &str, mount: &str| {
        let mounts = node.exec("propagation", name, &["cat", "/proc/mounts"]);
        mounts.lines().any(|line| line.contains(&format!(" /shared/{mount} tmpfs ")))
    };
    assert!(!sees("none", "host"));
    assert!(sees("from-host", "host"));
    assert!(sees("both-ways", "host"));
    for name in ["from-host", "both-ways"] {
        node.exec("propagation", name, &["mount", "-t", "tmpfs", "mine", &format!("/shared/{name}")]);
    }
    let mounts = machine("cat", &["/proc/mounts"]);
    let on_machine = |name: &str| mounts.lines().any(|line| line.contains(&format!(" {} tmpfs ", below(name))));
    assert!(!on_machine("from-host"), "{mounts}");
    assert!(on_machine("both-ways"), "{mounts}");
    assert!(sees("both-ways", "both-ways") && sees("from-host", "both-ways") && !sees("none", "both-ways"));
    for name in ["host", "both-ways"] {
        machine("umount", &[&below(name)]);
        assert!(!sees("both-ways", name), "its end travels too");
    }
    node.delete_pod("propagation");
    machine("umount", &[&shared]);
}

fn a_missing_config_map_is_waited_for(node: &mut TestNode) {
    node.apply("waits-for-config.yaml");
    let pod = node.wait_for("waits-for-config", "a reason", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    let message = &container(&pod, "main")["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"late\" not found");
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"colour": "blue"}});
    let answer = node.api().request("POST", "/api/v1/namespaces/default/configmaps", Some(&config));
    assert_eq!(answer.code, 201, "{}", answer.body);
    node.wait_phase("waits-for-config", "Succeeded");
    assert_eq!(node.logs("waits-for-config", "main"), "blue\n");
}
