//! Backup and restore, and a store that is damaged: Pods run on meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use e2e::TestNode;
use e2e::command::Finished;
use e2e::node::{binary, container, kill};
use rustix::process::Signal;
use serde_json::{Value, json};

tests! {
    a_backup_brings_everything_back,
    containers_that_were_restarted_after_the_backup_converge,
    a_backup_starts_a_new_machine,
    a_damaged_store_is_named_and_stops_no_pod,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn restore(node: &TestNode) -> Finished {
    let (file, data_dir) = (node.path("backup.tar"), node.data_dir());
    node.monopod(&["restore", file.to_str().unwrap(), "--data-dir", data_dir.to_str().unwrap()])
}

fn backup(node: &TestNode) {
    let file = node.path("backup.tar");
    let said = node.monopod(&["backup", file.to_str().unwrap()]).ok();
    assert!(said.contains("objects of node"), "{said}");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
}

fn revision(node: &TestNode) -> u64 {
    node.api().get(MAPS)["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn a_backup_brings_everything_back(node: &mut TestNode) {
    let before = node.run_ready("counts");
    let pid = node.process("echo \"count").pid;
    let idle = node.run_ready("idle");
    node.api().request("POST", MAPS, Some(&config_map("kept")));
    let kept = node.api().get(&format!("{MAPS}/kept"));
    backup(node);
    let refused = restore(node).fails();
    assert!(refused.contains("another monopod daemon holds the store directory"), "{refused}");
    assert!(refused.contains("hint: stop the daemon first"), "{refused}");

    // What comes after the backup is lost with the store.
    node.api().request("DELETE", &format!("{MAPS}/kept"), None);
    node.run_ready("two");
    let seen = revision(node);
    node.kill_daemon();
    // This Pod's processes do not live to see the new daemon.
    let infra = node.infra_processes();
    let of_idle = infra.iter().find(|process| process.command_line.contains("default/idle")).unwrap();
    kill(of_idle.pid, Signal::KILL);
    let refused = restore(node).fails();
    assert!(refused.contains("there is a store already"), "{refused}");
    assert!(refused.contains("hint: mv "), "{refused}");
    fs::rename(node.data_dir().join("store"), node.path("store.old")).unwrap();
    restore(node).ok();
    node.start_daemon();

    let after = node.wait_ready("counts");
    assert_eq!(node.process("echo \"count").pid, pid, "taken over");
    for field in ["containerID", "restartCount", "state"] {
        assert_eq!(container(&after, "main")[field], container(&before, "main")[field], "{field}");
    }
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let back = node.api().get(&format!("{MAPS}/kept"));
    assert_eq!((&back["metadata"]["uid"], &back["data"]), (&kept["metadata"]["uid"], &kept["data"]));
    assert_eq!(node.api().names("/api/v1/pods"), ["default/counts", "default/idle"]);
    // Its status of the backup says ready, too, so the new container is waited for.
    let anew = node.wait_for("idle", "started anew", |pod| {
        let id = &container(pod, "main")["containerID"];
        id.is_string()
            && *id != container(&idle, "main")["containerID"]
            && e2e::node::condition(pod, "Ready") == Some("True")
    });
    assert_eq!(anew["metadata"]["uid"], idle["metadata"]["uid"]);
    e2e::eventually(e2e::limit(10), "what the backup does not know has ended", || {
        let infra = node.infra_processes().len();
        if infra == 2 { Ok(()) } else { Err(format!("{infra} infra processes")) }
    });
    assert_eq!(node.exec("counts", "main", &["echo", "hello"]), "hello\n");

    // Its logs are all that is left of it, and stay for whoever wants to know.
    let logs = fs::read_dir(node.log_dir()).unwrap().map(|entry| entry.unwrap().path());
    let unknown: Vec<_> = logs.filter(|path| path.to_string_lossy().contains("default_two_")).collect();
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    fs::remove_dir_all(&unknown[0]).unwrap();

    // No revision is given twice, and whoever knows the time before lists anew.
    let number = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&back) > seen && number(&after) > seen && revision(node) > seen);
    let watch = node.api().watch(&format!("{MAPS}?watch=true&resourceVersion={seen}"), e2e::limit(10));
    let (kind, status) = watch.unwrap().next().unwrap();
    assert_eq!((kind.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
}

fn containers_that_were_restarted_after_the_backup_converge(node: &mut TestNode) {
    node.apply("restarts-when-told.yaml");
    let id = |pod: &Value| container(pod, "main")["containerID"].as_str().unwrap().to_owned();
    let first =
        node.wait_for("restarts-when-told", "running", |pod| !container(pod, "main")["state"]["running"].is_null());
    backup(node);
    fs::write(node.path("again"), "").unwrap();
    let second = node.wait_for("restarts-when-told", "restarted", |pod| {
        let status = container(pod, "main");
        status["restartCount"] == 1 && !status["state"]["running"].is_null()
    });
    let known = [id(&first), id(&second)];
    node.kill_daemon();
    fs::rename(node.data_dir().join("store"), node.path("store.old")).unwrap();
    restore(node).ok();
    node.start_daemon();
    // The run of the backup is gone and the one that goes on is unknown, so a new one takes its place.
    node.wait_for("restarts-when-told", "runs again", |pod| {
        let status = container(pod, "main");
        !status["state"]["running"].is_null()
            && status["containerID"].as_str().is_some_and(|id| !known.contains(&id.to_owned()))
    });
    e2e::eventually(e2e::limit(10), "one run is left", || {
        let runs = node.processes().iter().filter(|process| process.command_line.contains("until rm")).count();
        if runs == 1 { Ok(()) } else { Err(format!("{runs} run")) }
    });
}

fn a_backup_starts_a_new_machine(node: &mut TestNode) {
    let before = node.run_ready("idle");
    node.api().request("POST", MAPS, Some(&config_map("kept")));
    backup(node);
    let authority = fs::read(node.data_dir().join("authority/ca.crt")).unwrap();
    node.kill_daemon();
    // Nothing of it is left but the backup.
    node.reboot();
    fs::remove_dir_all(node.data_dir()).unwrap();
    restore(node).ok();
    assert_eq!(fs::metadata(node.data_dir()).unwrap().permissions().mode() & 0o7777, 0o700);
    for name in ["authority/ca.key", "service-accounts.key"] {
        assert_eq!(fs::metadata(node.data_dir().join(name)).unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
    }
    node.start_daemon();
    assert_eq!(fs::read(node.data_dir().join("authority/ca.crt")).unwrap(), authority);
    assert_eq!(node.api().get(&format!("{MAPS}/kept"))["data"]["k"], "v");
    // Images are no part of it.
    assert_eq!(node.api().names("/api/v1/pods"), ["default/idle"]);
    node.load_image("busybox");
    let after = node.wait_for("idle", "started anew", |pod| {
        let id = &container(pod, "main")["containerID"];
        id.is_string()
            && *id != container(&before, "main")["containerID"]
            && e2e::node::condition(pod, "Ready") == Some("True")
    });
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}

fn a_damaged_store_is_named_and_stops_no_pod(node: &mut TestNode) {
    let before = node.run_ready("counts");
    let pid = node.process("sh -c trap").pid;
    let objects = node.data_dir().join("store/objects.redb");
    let needle = b"\"counts\"";
    // The journal has it at once, the objects file soon.
    e2e::eventually(e2e::limit(10), "the objects file has the Pod", || {
        let has_it = fs::read(&objects).unwrap().windows(needle.len()).any(|window| window == needle);
        if has_it { Ok(()) } else { Err("it has not".to_owned()) }
    });
    node.kill_daemon();
    let whole = fs::read(&objects).unwrap();
    let mut spoilt = whole.clone();
    let found: Vec<usize> = (0..spoilt.len()).filter(|at| spoilt[*at..].starts_with(needle)).collect();
    assert!(!found.is_empty());
    for at in found {
        spoilt[at + 1] = b'C';
    }
    fs::write(&objects, spoilt).unwrap();
    // With its journal it might be caught up with from before the damage.
    let journal = node.data_dir().join("store/journal");
    let kept = node.data_dir().join("journal-kept");
    fs::rename(&journal, &kept).unwrap();

    let (data, run, logs) = (node.data_dir(), node.run_dir(), node.log_dir());
    let place = ["--data-dir", data.to_str().unwrap(), "--run-dir", run.to_str().unwrap()];
    let program = binary();
    let mut arguments = vec!["serve", "--log-dir", logs.to_str().unwrap()];
    arguments.extend(place);
    let said = Finished::run(&mut node.inside(program.to_str().unwrap(), &arguments), b"").fails();
    assert!(said.contains(&format!("the store file {} is damaged", objects.display())), "{said}");
    assert!(said.contains("monopod restore"), "{said}");
    assert!(!said.contains("panicked"), "{said}");

    let log = logs.join(format!("default_counts_{}", before["metadata"]["uid"].as_str().unwrap())).join("main/0.log");
    let lines = || fs::read_to_string(&log).unwrap().lines().count();
    let written = lines();
    e2e::eventually(e2e::limit(10), "its log goes on", || {
        if lines() > written + 3 { Ok(()) } else { Err(format!("{} lines", lines())) }
    });
    assert_eq!(node.process("sh -c trap").pid, pid);

    fs::write(&objects, whole).unwrap();
    fs::rename(&kept, &journal).unwrap();
    node.start_daemon();
    let after = node.wait_ready("counts");
    assert_eq!(container(&after, "main")["containerID"], container(&before, "main")["containerID"]);
}
