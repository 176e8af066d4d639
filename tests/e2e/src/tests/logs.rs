//! Logs: the files that infra writes, and what readers get.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::TestNode;
use e2e::node::container;

tests! {
    logs_have_the_kubelets_format_and_place,
    logs_select_by_container_tail_and_time,
    logs_follow_until_the_container_ends,
    logs_of_the_previous_container_are_kept,
    logs_are_rotated_and_followed_across,
}

/// The directory of a Pod's logs: NAMESPACE_NAME_UID.
fn log_directory(node: &TestNode, name: &str) -> PathBuf {
    let pod = node.pod(name);
    node.log_dir().join(format!("default_{name}_{}", pod["metadata"]["uid"].as_str().unwrap()))
}

fn logs_have_the_kubelets_format_and_place(node: &mut TestNode) {
    node.apply("talks.yaml");
    node.wait_phase("talks", "Succeeded");
    let text = fs::read_to_string(log_directory(node, "talks").join("main/0.log")).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    assert_eq!(lines.len(), 7, "{text}");
    for line in &lines {
        // 2026-01-02T03:04:05.123456789Z or with an offset (KEP: CRI logging).
        assert!(line[0].len() >= 30 && line[0].contains('T') && line[0].contains('.'), "{line:?}");
    }
    let stdout: Vec<_> = lines.iter().filter(|line| line[1] == "stdout").map(|line| (line[2], line[3])).collect();
    let expected =
        [("F", "line 1"), ("F", "line 2"), ("F", "line 3"), ("F", "line 4"), ("F", "line 5"), ("P", "no line end")];
    assert_eq!(stdout, expected);
    let stderr: Vec<_> = lines.iter().filter(|line| line[1] == "stderr").map(|line| (line[2], line[3])).collect();
    assert_eq!(stderr, [("F", "to stderr")]);
}

fn logs_select_by_container_tail_and_time(node: &mut TestNode) {
    node.apply("talks.yaml");
    node.wait_phase("talks", "Succeeded");
    assert_eq!(node.logs("talks", "other"), "from the other\n");
    let error = node.monopod(&["logs", "talks", "-c", "nobody"]).fails();
    assert!(error.contains("nobody"), "{error}");
    let tail = node.monopod(&["logs", "talks", "-c", "main", "--tail", "2"]).ok();
    assert!(tail.ends_with("no line end") && tail.lines().count() == 2, "{tail:?}");
    assert_eq!(node.monopod(&["logs", "talks", "-c", "main", "--tail", "0"]).ok(), "");
    let stamped = node.monopod(&["logs", "talks", "-c", "other", "--timestamps"]).ok();
    let (stamp, rest) = stamped.split_once(' ').unwrap();
    assert!(stamp.starts_with("20") && rest == "from the other\n", "{stamped:?}");
    assert_eq!(node.monopod(&["logs", "talks", "-c", "other", "--since", "1h"]).ok(), "from the other\n");
    let since = format!("--since-time={stamp}");
    assert_eq!(node.monopod(&["logs", "talks", "-c", "other", &since]).ok(), "from the other\n");
    assert_eq!(node.monopod(&["logs", "talks", "-c", "other", "--since-time=2100-01-01T00:00:00Z"]).ok(), "");
}

fn logs_follow_until_the_container_ends(node: &mut TestNode) {
    node.apply("ends-when-told.yaml");
    node.wait_ready("ends-when-told");
    let mut log = node.background(&["logs", "-f", "ends-when-told"]);
    log.expect("waiting");
    fs::write(node.path("code"), "0").unwrap();
    log.expect("told");
    assert_eq!(log.finish().0, 0);
}

fn logs_of_the_previous_container_are_kept(node: &mut TestNode) {
    node.apply("restarts-when-told.yaml");
    let log = |arguments: &[&str]| {
        let mut all = vec!["logs", "restarts-when-told"];
        all.extend(arguments);
        node.monopod(&all)
    };
    node.wait_ready("restarts-when-told");
    let error = log(&["--previous"]).fails();
    assert!(
        error.contains("previous terminated container \"main\" in pod \"restarts-when-told\" not found"),
        "{error}"
    );
    fs::write(node.path("again"), "").unwrap();
    node.wait_for("restarts-when-told", "started again", |pod| {
        let status = container(pod, "main");
        status["restartCount"] == 1 && !status["state"]["running"].is_null()
    });
    assert_eq!(log(&["--previous"]).ok(), "start 1\n");
    let mut now = node.background(&["logs", "-f", "restarts-when-told"]);
    now.expect("start 2");
}

fn logs_are_rotated_and_followed_across(node: &mut TestNode) {
    node.run_ready("floods");
    let mut log = node.background(&["logs", "-f", "floods"]);
    // Every line once and in order, although the file under the reader is renamed again and again.
    log.expect("the end");
    let numbers: Vec<&str> = log.seen().iter().map(String::as_str).filter(|line| line.len() == 6).collect();
    assert_eq!(numbers.len(), 600_000);
    for (index, line) in numbers.iter().enumerate() {
        assert_eq!(line.parse(), Ok(index + 1), "a line is lost or doubled");
    }
    let directory = log_directory(node, "floods").join("main");
    let mut sizes = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        sizes.push((entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()));
    }
    sizes.sort();
    assert!(sizes.len() > 1, "nothing was rotated: {sizes:?}");
    // kubelet: containerLogMaxSize 10Mi, containerLogMaxFiles 5.
    assert!(sizes.len() <= 5, "{sizes:?}");
    // infra writes a batch at once: the prefixes of 512 KiB of such short lines come on top.
    assert!(sizes.iter().all(|(_, size)| *size <= 15 << 20), "{sizes:?}");
    // All rotations but the newest are packed after a while, as the kubelet does it, and are read as before.
    let (all, tail) = (node.logs("floods", "main"), node.monopod(&["logs", "floods", "--tail=400000"]).ok());
    assert!(all.lines().count() > 400_000 && all.ends_with(&tail), "{} lines", all.lines().count());
    e2e::eventually(e2e::limit(40), "older rotations are packed", || {
        let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut rotated: Vec<String> = names.filter(|name| name.starts_with("0.log.")).collect();
        rotated.sort();
        let newest = rotated.pop();
        let is_packed = |name: &String| Path::new(name).extension().is_some_and(|ending| ending == "gz");
        let packed = !rotated.is_empty() && rotated.iter().all(is_packed);
        if packed && newest.is_some_and(|name| !is_packed(&name)) { Ok(()) } else { Err(rotated.join(", ")) }
    });
    assert!(node.logs("floods", "main") == all, "the log is not what it was");
    assert!(node.monopod(&["logs", "floods", "--tail=400000"]).ok() == tail, "nor are its last lines");
}
