//! AppArmor: what a Pod gets on a machine that has it (the long ones, for `tests/vm/run apparmor`), and on one that has not.

use std::path::Path;
use std::process::Command;

use e2e::TestNode;
use e2e::node::container;
use serde_json::{Value, json};

tests! {
    a_pod_that_asks_for_a_profile_gets_it_or_fails;
    long:
    the_default_profile_confines_each_process,
    profiles_of_the_machine_confine_and_are_waited_for,
}

const LABEL: &[&str] = &["cat", "/proc/1/attr/apparmor/current", "/proc/self/attr/apparmor/current"];
const DEFAULT: &str = "monopod-default (enforce)\n";

/// A Pod whose one container runs `script` and then waits.
fn manifest(name: &str, of_pod: &str, security: &str, script: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{of_pod} terminationGracePeriodSeconds: 0,
        containers: [{{name: main, image: 'busybox:stable', securityContext: {{{security}}},
        command: [sh, -c, '{script}; exec sleep infinity']}}]}}}}"
    )
}

fn a_pod_that_asks_for_a_profile_gets_it_or_fails(node: &mut TestNode) {
    let has_apparmor = Path::new("/sys/kernel/security/apparmor").exists();
    let asking = "appArmorProfile: {type: RuntimeDefault}";
    node.apply_text(&manifest("asking", "", asking, "true")).ok();
    if has_apparmor {
        node.wait_ready("asking");
    } else {
        let failed = node.wait_phase("asking", "Failed");
        let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        assert_eq!(failed["status"]["reason"], "AppArmor");
        assert_eq!(failed["status"]["message"], format!("Pod was rejected: {why}"));
        let events = node.monopod(&["events", "--for", "pod/asking"]).ok();
        assert!(events.contains("AppArmor") && events.contains(why), "{events}");
    }
    // The form before Kubernetes 1.30 becomes the field, with a warning; where nobody asks, nothing is needed.
    let key = "container.apparmor.security.beta.kubernetes.io/main";
    let annotated = manifest("annotated", "", "", "true")
        .replace("name: annotated}", &format!("name: annotated, annotations: {{{key}: unconfined}}}}"));
    let warned = node.apply_text(&annotated);
    assert!(warned.stderr.contains("use the \"appArmorProfile\" field instead"), "{warned}");
    let pod = node.wait_ready("annotated");
    let field = &pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"];
    assert_eq!(field, &json!({"type": "Unconfined"}));
    node.run_text(&manifest("silent", "", "", "true"), "silent");
    for text in [
        annotated.replace("annotated", "other").replace("unconfined", "docker/default"),
        manifest("nameless", "", "appArmorProfile: {type: Localhost}", "true"),
    ] {
        let refused = node.apply_text(&text).fails();
        assert!(refused.contains("AppArmor"), "{refused}");
    }
}

#[track_caller]
fn labels(node: &TestNode, pod: &str, expected: &str) {
    assert_eq!(node.exec(pod, "main", LABEL), expected.repeat(2), "{pod}");
}

#[track_caller]
fn denied(node: &TestNode, pod: &str, script: &str) {
    let tried = node.try_exec(pod, "main", &["sh", "-c", script]);
    let refused = ["Permission denied", "Operation not permitted"].iter().any(|word| tried.stderr.contains(word));
    assert!(tried.code != 0 && refused, "{pod}: {script}: {tried}");
}

#[track_caller]
fn require_apparmor() {
    let there = Path::new("/sys/kernel/security/apparmor").exists();
    assert!(there, "needs a machine with AppArmor: run it with `tests/vm/run apparmor`");
}

fn the_default_profile_confines_each_process(node: &mut TestNode) {
    require_apparmor();
    let admin = "capabilities: {add: [SYS_ADMIN]}";
    let open = format!("{admin}, appArmorProfile: {{type: Unconfined}}");
    let inside = "hostUsers: false,";
    let unmasked = "procMount: Unmasked, capabilities: {add: [NET_ADMIN]}";
    let no_new = "runAsUser: 1000, allowPrivilegeEscalation: false, seccompProfile: {type: RuntimeDefault}";
    for (name, of_pod, security, label) in [
        ("silent", "", admin, DEFAULT),
        ("open", "", open.as_str(), "unconfined\n"),
        ("privileged", "", "privileged: true, appArmorProfile: {type: RuntimeDefault}", "unconfined\n"),
        ("no-new", "securityContext: {appArmorProfile: {type: RuntimeDefault}},", no_new, DEFAULT),
        ("inside", inside, unmasked, DEFAULT),
        ("inside-open", inside, &format!("{unmasked}, appArmorProfile: {{type: Unconfined}}"), "unconfined\n"),
    ] {
        let script = "cat /proc/self/attr/apparmor/current";
        node.run_text(&manifest(name, of_pod, security, script), name);
        let mut log = node.background(&["logs", "-f", name]);
        log.expect(label.trim_end());
        labels(node, name, label);
    }
    // The same calls with and without: what the other walls let through, the profile refuses.
    let mount = "mkdir -p /m && mount -t tmpfs none /m && umount /m";
    node.exec("open", "main", &["sh", "-c", mount]);
    denied(node, "silent", mount);
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    node.exec("inside-open", "main", &["sh", "-c", forward]);
    denied(node, "inside", forward);
    // What programs do every day goes on: files, sockets, signals to each other, and being stopped from outside.
    let work = "echo x >/f && cp /bin/busybox /tmp/b && /tmp/b true && { sleep 100 & } && kill $! && nc -h 2>&1 | head -n 1; \
                echo 0 >/proc/self/oom_score_adj || echo 1000 >/proc/self/oom_score_adj; ps >/dev/null && echo fine";
    assert!(node.exec("silent", "main", &["sh", "-c", work]).ends_with("fine\n"));
    let mut terminal = node.terminal(&["exec", "-it", "silent", "--", "sh"]);
    terminal.send("cat /proc/self/attr/apparmor/current\n");
    terminal.expect("monopod-default (enforce)");
    terminal.send("exit\n");
    terminal.finish();
    // One that is added later is confined alike.
    let door = "/api/v1/namespaces/default/pods/silent/ephemeralcontainers";
    let mut pod = node.api().get(door);
    let command = "cat /proc/self/attr/apparmor/current; exec sleep infinity";
    pod["spec"]["ephemeralContainers"] =
        json!([{"name": "added", "image": "busybox:stable", "command": ["sh", "-c", command]}]);
    let answer = node.api().request("PUT", door, Some(&pod));
    assert_eq!(answer.code, 200, "{}", answer.body);
    node.wait_for("silent", "the added container runs", |pod| container(pod, "added")["state"]["running"].is_object());
    assert_eq!(node.exec("silent", "added", LABEL), DEFAULT.repeat(2));
    node.delete_pod("silent");
}

/// Loads a profile that refuses to write one file.
fn load(name: &str) {
    let text = format!(
        "profile {name} flags=(attach_disconnected) {{\n  file,\n  capability,\n  network,\n  signal,\n  ptrace,\n  deny \
         /denied w,\n}}\n"
    );
    parser(&["--replace", "--skip-cache"], &text);
}

fn parser(arguments: &[&str], text: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let ran = Command::new("apparmor_parser").args(arguments).arg(file.path()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn profiles_of_the_machine_confine_and_are_waited_for(node: &mut TestNode) {
    require_apparmor();
    let name = format!("monopod-test-{}", std::process::id());
    let security = format!("appArmorProfile: {{type: Localhost, localhostProfile: {name}}}");
    let script = "cat /proc/self/attr/apparmor/current; echo x >/denied || echo refused; echo x >/allowed";
    node.apply_text(&manifest("named", "", &security, script)).ok();
    let waits = |pod: &Value| {
        let waiting = &container(pod, "main")["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        waiting["reason"] == "CreateContainerError" && message.contains(&name) && message.contains("apparmor_parser -r")
    };
    node.wait_for("named", "it says what is missing", waits);
    load(&name);
    node.wait_ready("named");
    let label = format!("{name} (enforce)");
    let mut log = node.background(&["logs", "-f", "named"]);
    log.expect(&label);
    log.expect("refused");
    labels(node, "named", &format!("{label}\n"));
    denied(node, "named", "echo x >/denied");
    assert_eq!(node.exec("named", "main", &["cat", "/allowed"]), "x\n");
    // A privileged container keeps what it names, and a daemon that starts anew confines alike.
    node.run_text(&manifest("strong", "", &format!("privileged: true, {security}"), "true"), "strong");
    labels(node, "strong", &format!("{label}\n"));
    node.kill_daemon();
    node.start_daemon();
    denied(node, "strong", "echo x >/denied");
    labels(node, "named", &format!("{label}\n"));
    node.delete_pod("named");
    node.delete_pod("strong");
    parser(&["--remove"], &format!("profile {name} {{\n}}\n"));
}
