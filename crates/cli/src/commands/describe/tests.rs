//! Pages of whole and of odd objects.

use serde_json::{Value, json};

use super::*;

fn shown(kind: &str, object: &Value, events: &[Value]) -> String {
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    page(crate::catalog::Catalog::built_in().by_name(kind).unwrap(), object, &[], Some(events), now)
}

#[test]
fn a_pod_is_described_with_its_events() {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"},
            "annotations": {LAST_APPLIED: "{}", "note": "a\nb"}},
        "spec": {"nodeName": "n1", "serviceAccountName": "default",
            "initContainers": [{"name": "setup", "image": "busybox", "command": ["sh", "-c", "true"]}],
            "containers": [{"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80, "name": "http"}],
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "env": [{"name": "A", "value": "1"}, {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                    {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}}],
                "envFrom": [{"configMapRef": {"name": "cm", "optional": true}}],
                "volumeMounts": [{"name": "pages", "mountPath": "/usr/share/nginx/html", "readOnly": true}]}],
            "volumes": [{"name": "pages", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "conf", "configMap": {"name": "cm", "items": [{"key": "a", "path": "b"}]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "podIP": "10.85.0.2", "podIPs": [{"ip": "10.85.0.2"}], "hostIP": "10.85.0.1",
            "qosClass": "Burstable", "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "nginx"}],
            "initContainerStatuses": [{"name": "setup", "ready": true, "state": {"terminated": {"exitCode": 0, "reason": "Completed",
                "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:02Z"}}}],
            "containerStatuses": [{"name": "nginx", "containerID": "monopod://abc", "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 137, "signal": 9}}}]}
    });
    let event = json!({"type": "Warning", "reason": "BackOff", "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:09:00Z", "source": {"component": "monopod"}, "message": "Back-off restarting\n"});
    insta::assert_snapshot!("pod", shown("pod", &pod, &[event]));
}

#[test]
fn a_secret_shows_sizes_only() {
    let annotations = json!({LAST_APPLIED: r#"{"stringData":{"pw":"geheim"}}"#});
    let secret = json!({"metadata": {"name": "s", "namespace": "default", "annotations": annotations}, "type": "Opaque", "data": {"pw": "Z2VoZWlt"}});
    let page = shown("secret", &secret, &[]);
    assert!(!page.contains("geheim") && !page.contains("Z2VoZWlt"), "{page}");
    insta::assert_snapshot!("secret", page);
    let map = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a.conf": "x = 1\ny = 2\n", "b": "1"}, "binaryData": {"z": "AAAA"}});
    insta::assert_snapshot!("config_map", shown("cm", &map, &[]));
    insta::assert_snapshot!(
        "namespace",
        shown("ns", &json!({"metadata": {"name": "shop"}, "status": {"phase": "Active"}}), &[])
    );
}

#[test]
fn a_node_is_described_with_its_pods() {
    let node = json!({"metadata": {"name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"capacity": {"cpu": "2", "memory": "8Gi"}, "addresses": [{"type": "InternalIP", "address": "10.85.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "monopod is ready"}],
            "nodeInfo": {"kernelVersion": "6.12", "osImage": "Debian"}}});
    let pod = json!({"metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "500m"}}}]}});
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    insta::assert_snapshot!(
        "node",
        page(crate::catalog::Catalog::built_in().by_name("node").unwrap(), &node, &[pod], Some(&[]), now)
    );
}

#[test]
fn odd_objects_do_no_harm() {
    let odd = [
        json!(null),
        json!([1]),
        json!({"metadata": 3, "spec": "x", "status": []}),
        json!({"metadata": {"name": 5, "labels": ["a"], "annotations": {"\u{1b}[2J": {"a": "\u{7}"}}},
            "spec": {"containers": [null, {"name": [], "ports": [{}], "env": [{"valueFrom": 1}], "command": [{}], "resources": {"limits": 3}}],
                "volumes": [null, {"name": "v"}, {"name": "w", "emptyDir": null}], "tolerations": ["x"], "taints": [0]},
            "status": {"containerStatuses": "?", "conditions": [1, {"type": {}}], "podIPs": {}, "capacity": {"cpu": [1]}},
            "data": {"a": 1}}),
    ];
    for object in &odd {
        for resource in &crate::resources::RESOURCES {
            let page = shown(&resource.plural, object, &[json!({"message": "\u{1b}"}), json!(7)]);
            assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page:?}");
        }
    }
}
