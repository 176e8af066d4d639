//! Client libraries: what their users write works as on a cluster.

use e2e::clients::Library;
use e2e::{Background, Finished, TestNode};
use serde_json::json;

tests! {
    informers_stay_in_sync_over_a_killed_daemon,
    libraries_follow_logs_and_run_commands,
    libraries_make_change_and_delete_objects,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn informers_stay_in_sync_over_a_killed_daemon(node: &mut TestNode) {
    let put = |node: &TestNode, name: &str, value: &str| {
        let map = json!({"metadata": {"name": name, "labels": {"seen": "yes"}}, "data": {"value": value}});
        let (path, one) = (MAPS.to_owned(), format!("{MAPS}/{name}"));
        let (method, path) =
            if node.api().request("GET", &one, None).code == 404 { ("POST", path) } else { ("PUT", one) };
        let answer = node.api().request(method, &path, Some(&map));
        assert!(answer.code < 300, "{}", answer.body);
    };
    put(node, "a", "1");
    let mut informers: Vec<Background> =
        Library::all().into_iter().map(|library| Background::start(&mut node.client(library, "informer"))).collect();
    let mut expect = |wanted: &str| {
        for informer in &mut informers {
            informer.expect(wanted);
        }
    };
    expect("begun");
    expect("sees a=1");
    put(node, "b", "1");
    expect("sees a=1 b=1");
    node.kill_daemon();
    node.start_daemon();
    // Both at once: an informer that reads only the newest state has missed nothing.
    put(node, "a", "2");
    put(node, "c", "1");
    expect("sees a=2 b=1 c=1");
    node.api().request("DELETE", &format!("{MAPS}/b"), None);
    expect("sees a=2 c=1");
    node.stop_daemon();
    node.start_daemon();
    node.api().request("DELETE", &format!("{MAPS}/c"), None);
    expect("sees a=2");
}

fn libraries_follow_logs_and_run_commands(node: &mut TestNode) {
    node.run_text(
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 0,
         containers: [{name: main, image: 'busybox:stable', command: [sh, -c, 'echo begun; sleep infinity']}]}}",
        "web",
    );
    for library in Library::all() {
        let told = Finished::run(&mut node.client(library, "streams"), b"").ok();
        assert_eq!(told, "log begun\nexec got word oops 7\n", "{library:?}");
    }
}

fn libraries_make_change_and_delete_objects(node: &mut TestNode) {
    for (library, name) in Library::all().into_iter().zip(["python", "rust", "node"]) {
        let told = Finished::run(&mut node.client(library, "objects"), b"").ok();
        assert_eq!(told, format!("made {name} yes\nrefused 409 Conflict\n"), "{library:?}");
        node.monopod(&["wait", "pod/made", "--for=delete", "--timeout=30s"]).ok();
    }
}
