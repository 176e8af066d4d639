//! Secrets lie in the store and in memory, and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::TestNode;

tests! { a_secret_is_in_the_store_and_in_memory_only }

/// And as base64, the way objects carry it.
const WORDS: [&str; 2] = ["correct-horse-battery", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"];

fn a_secret_is_in_the_store_and_in_memory_only(node: &mut TestNode) {
    let [secret, encoded] = WORDS;
    let text = format!(
        "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, stringData: {{key: {secret}}}}}
---\n{{apiVersion: v1, kind: Pod, metadata: {{name: knows}}, spec: {{terminationGracePeriodSeconds: 0,
        volumes: [{{name: v, secret: {{secretName: s}}}}, {{name: p, projected: {{sources: [{{secret: {{name: s}}}}]}}}}],
        containers: [{{name: main, image: 'busybox:stable', command: [sleep, '1000'], volumeMounts: [
        {{name: v, mountPath: /v}}, {{name: p, mountPath: /p}}, {{name: v, mountPath: /part, subPath: key}}],
        env: [{{name: S, valueFrom: {{secretKeyRef: {{name: s, key: key}}}}}}]}}]}}}}
---\n{{apiVersion: v1, kind: Pod, metadata: {{name: fails}}, spec: {{restartPolicy: Never,
        containers: [{{name: main, image: 'busybox:stable', command: [/no/such/program],
        env: [{{name: S, valueFrom: {{secretKeyRef: {{name: s, key: key}}}}}}]}}]}}}}"
    );
    node.apply_text(&text).ok();
    node.wait_ready("knows");
    node.wait_phase("fails", "Failed");
    for path in ["/v/key", "/p/key", "/part"] {
        assert_eq!(node.exec("knows", "main", &["cat", path]), secret, "{path}");
    }
    node.exec("knows", "main", &["true"]);
    node.kill_daemon();
    node.start_daemon();
    node.wait_ready("knows");
    let found = files_with(&node.path(""), &node.data_dir().join("store"));
    assert_eq!(found, Vec::<PathBuf>::new(), "the secret is on the disk");
    for process in node.processes() {
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        assert!(!WORDS.iter().any(|word| arguments.contains(word)), "{arguments}");
    }
    for command in [&["describe", "pods"][..], &["get", "events"], &["describe", "secret", "s"], &["get", "secrets"]] {
        let shown = node.monopod(command).ok();
        assert!(!shown.contains(secret) && !shown.contains(encoded), "{command:?}: {shown}");
    }
}

/// Regular files below `directory`, but for `except`, with one of the words in them.
fn files_with(directory: &Path, except: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if path == except {
            continue;
        }
        if kind.is_dir() {
            found.extend(files_with(&path, except));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            let holds = |word: &str| content.windows(word.len()).any(|window| window == word.as_bytes());
            if WORDS.iter().any(|word| holds(word)) {
                found.push(path);
            }
        }
    }
    found
}
