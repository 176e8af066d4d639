//! What Monopod does not know or cannot do yet is refused by name, never ignored in silence.

use e2e::TestNode;
use serde_json::json;

tests! {
    unknown_fields_are_refused_by_name,
    unsupported_fields_are_refused_by_name,
    invalid_values_are_refused_with_their_path,
    a_running_pods_spec_does_not_change,
    errors_of_yaml_have_line_and_column,
}

fn pod(extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: refused\nspec:\n  containers:\n  - name: main\n    image: busybox:stable\n{extra}"
    )
}

#[track_caller]
fn refused(node: &TestNode, manifest: &str, wanted: &[&str]) {
    let error = node.apply_text(manifest).fails();
    for text in wanted {
        assert!(error.contains(text), "{text:?} is not in:\n{error}");
    }
    assert!(node.api().names("/api/v1/pods").is_empty(), "it was made all the same");
}

fn unknown_fields_are_refused_by_name(node: &mut TestNode) {
    refused(
        node,
        &pod("    comand: [sh]\n"),
        &["unknown field \"spec.containers[0].comand\"", "did you mean \"command\"?"],
    );
    refused(
        node,
        &pod("  restartpolicy: Never\n"),
        &["unknown field \"spec.restartpolicy\"", "did you mean \"restartPolicy\"?"],
    );
}

fn unsupported_fields_are_refused_by_name(node: &mut TestNode) {
    let table = [
        ("  volumes: [{name: v, nfs: {server: s, path: /p}}]\n", "spec.volumes[0].nfs"),
        ("  resourceClaims: [{name: gpu, resourceClaimName: gpu}]\n", "spec.resourceClaims"),
    ];
    for (field, path) in table {
        refused(node, &pod(field), &[path, "does not support"]);
    }
}

fn invalid_values_are_refused_with_their_path(node: &mut TestNode) {
    refused(node, &pod("  restartPolicy: Sometimes\n"), &["spec.restartPolicy", "Sometimes", "Always", "Never"]);
    refused(node, &pod("    resources: {limits: {memory: 12Zi}}\n"), &["spec.containers[0].resources", "memory"]);
    refused(
        node,
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: Not_A_Name}, spec: {containers: [{name: main, image: x}]}}",
        &["metadata.name", "Not_A_Name"],
    );
    refused(
        node,
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: none}, spec: {containers: []}}",
        &["spec.containers", "Required"],
    );
    refused(node, "---\n{apiVersion: v9, kind: Dragon, metadata: {name: x}}", &["Dragon"]);
}

fn a_running_pods_spec_does_not_change(node: &mut TestNode) {
    let mut changed = node.run_ready("idle");
    changed["spec"]["containers"][0]["command"] = json!(["other"]);
    let answer = node.api().request("PUT", "/api/v1/namespaces/default/pods/idle", Some(&changed));
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert_eq!(answer.body["reason"], "Invalid");
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert!(message.contains("spec: Forbidden: pod updates may not change fields other than"), "{message}");
}

fn errors_of_yaml_have_line_and_column(node: &mut TestNode) {
    let error = node.apply_text("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n bad: indent\n").fails();
    assert!(error.contains("line 5") || error.contains(":5:"), "{error}");
}
