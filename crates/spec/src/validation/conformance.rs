//! The cases that Kubernetes tests its own validation of Pods with, as fragments of ours: which fields are named, in
//! which order, and in which words.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::validate_pod;
use crate::defaults::default_pod;

/// A small Pod with its `spec` or `metadata` extended by the fragment.
fn said(fragment: &Value) -> Vec<String> {
    let mut document = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "default"},
    });
    for (part, fields) in fragment.as_object().unwrap() {
        for (name, value) in fields.as_object().unwrap() {
            document[part][name] = value.clone();
        }
    }
    let mut pod: Pod = serde_json::from_value(document).unwrap();
    default_pod(&mut pod);
    validate_pod(&pod).iter().map(ToString::to_string).collect()
}

fn check(table: Vec<(Value, &[&str])>) {
    for (fragment, wanted) in table {
        let found = said(&fragment);
        let fits =
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found.starts_with(wanted));
        assert!(fits, "{fragment}\n found: {found:#?}\nwanted: {wanted:#?}");
    }
}

fn container(fields: &Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    for (name, value) in fields.as_object().unwrap() {
        container[name] = value.clone();
    }
    json!({"spec": {"containers": [container]}})
}

fn init(fields: &Value) -> Value {
    let mut container = json!({"name": "init", "image": "i"});
    for (name, value) in fields.as_object().unwrap() {
        container[name] = value.clone();
    }
    json!({"spec": {"initContainers": [container]}})
}

const LABEL_KEY: &str = "name part must consist of alphanumeric characters";

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn containers() {
    let c = |fields: Value| container(&fields);
    check(vec![
        (c(json!({"name": ""})), &["spec.containers[0].name: Required value"]),
        (c(json!({"image": ""})), &["spec.containers[0].image: Required value"]),
        (c(json!({"name": "a".repeat(64)})), &["spec.containers[0].name: Invalid value: "]),
        (c(json!({"name": "a.b.c"})), &["spec.containers[0].name: Invalid value: \"a.b.c\": must not contain dots"]),
        (
            json!({"spec": {"containers": [
                {"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]},
                {"name": "b", "image": "i", "ports": [{"containerPort": 81, "hostPort": 80}]},
            ]}}),
            &["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""],
        ),
        (
            c(json!({"env": [{"name": "a=b"}]})),
            &["spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment"],
        ),
        (
            c(json!({"volumeMounts": [{"name": "anything", "mountPath": "/foo"}]})),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"anything\""],
        ),
        (
            c(json!({"terminationMessagePolicy": "Unknown"})),
            &["spec.containers[0].terminationMessagePolicy: Unsupported value"],
        ),
        (
            c(json!({"resources": {"limits": {"disk": "10G"}}})),
            &[
                "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully \
                 qualified",
                "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource for containers",
                "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource type or fully",
                "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for",
            ],
        ),
        (
            c(json!({"resources": {"limits": {"requests.example.com/a": "1"}}})),
            &[
                "spec.containers[0].resources.limits[requests.example.com/a]: Invalid value: \"requests.example.com/a\": doesn't \
                 follow extended resource name standard",
                "spec.containers[0].resources.requests[requests.example.com/a]: Invalid value",
            ],
        ),
        (
            c(json!({"resources": {"requests": {"example.com/a": "1"}, "limits": {"example.com/a": "2"}}})),
            &["spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/a limit of 2"],
        ),
        (
            c(json!({"resources": {"requests": {"example.com/a": "1"}}})),
            &[
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        ),
        (
            c(json!({"resources": {"requests": {"example.com/a": "500m"}, "limits": {"example.com/a": "500m"}}})),
            &[
                "spec.containers[0].resources.limits[example.com/a]: Invalid value: \"500m\": must be an integer",
                "spec.containers[0].resources.requests[example.com/a]: Invalid value: \"500m\": must be an integer",
            ],
        ),
        (
            c(json!({"resources": {"limits": {"cpu": "-10"}, "requests": {"cpu": "0"}}})),
            &[
                "spec.containers[0].resources.limits[cpu]: Invalid value: \"-10\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests: Invalid value: \"0\": must be less than or equal to cpu limit of -10",
            ],
        ),
        (
            c(json!({"envFrom": [{"configMapRef": {"name": "$%^&*#"}}]})),
            &["spec.containers[0].envFrom[0].configMapRef.name: Invalid value"],
        ),
        (
            c(json!({"envFrom": [{}]})),
            &["spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"],
        ),
        (
            c(json!({"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainerrrr"}]})),
            &[
                "spec.containers[0].resizePolicy: Unsupported value: \"RestartContainerrrr\": supported values: \"NotRequired\", \"RestartContainer\"",
            ],
        ),
        (
            c(json!({"resizePolicy": [{"resourceName": "storage", "restartPolicy": "NotRequired"}]})),
            &["spec.containers[0].resizePolicy: Unsupported value: \"storage\": supported values: \"cpu\", \"memory\""],
        ),
        (
            c(json!({"resizePolicy": [
                {"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            ]})),
            &["spec.containers[0].resizePolicy[1]: Duplicate value: \"cpu\""],
        ),
        (
            init(&json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]})),
            &[
                "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to \
                 'RestartContainer' for non-sidecar initContainers",
            ],
        ),
        (
            json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i",
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]}}),
            &["spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod \
                 `restartPolicy` is 'Never'"],
        ),
        (
            c(json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['a']"}}}]})),
            &[
                "spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: \"metadata.name\": does not support subscript",
            ],
        ),
        (
            c(json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['']"}}}]})),
            &[
                "spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: \"\": name part must be non-empty",
                "spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: \"\": name part must consist of",
            ],
        ),
        (
            c(
                json!({"env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "3"}}}]}),
            ),
            &[
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.memory\": only divisor's \
                 values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
            ],
        ),
    ]);
}

#[test]
fn probes_and_hooks() {
    let c = |fields: Value| container(&fields);
    let tcp = json!({"port": 80});
    let negative = json!({
        "tcpSocket": tcp, "initialDelaySeconds": -1, "timeoutSeconds": -1, "periodSeconds": -1, "successThreshold": -1,
        "failureThreshold": -1, "terminationGracePeriodSeconds": -1,
    });
    check(vec![
        (
            c(json!({"lifecycle": {"preStop": {"exec": {}}}})),
            &["spec.containers[0].lifecycle.preStop.exec.command: Required value"],
        ),
        (
            c(json!({"lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 0}}}})),
            &[
                "spec.containers[0].lifecycle.preStop.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            c(json!({"lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 80, "scheme": "FTP"}}}})),
            &["spec.containers[0].lifecycle.preStop.httpGet.scheme: Unsupported value: \"FTP\""],
        ),
        (
            c(json!({"lifecycle": {"preStop": {"tcpSocket": {"port": 0}}}})),
            &["spec.containers[0].lifecycle.preStop.tcpSocket.port: Invalid value: 0: must be between"],
        ),
        (
            c(json!({"lifecycle": {"preStop": {}}})),
            &["spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"],
        ),
        (
            c(json!({"readinessProbe": {"tcpSocket": tcp, "terminationGracePeriodSeconds": 10}})),
            &[
                "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 10: must not be set for readinessProbes",
            ],
        ),
        (
            c(json!({"livenessProbe": {"successThreshold": 1}})),
            &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            c(json!({"startupProbe": {"tcpSocket": tcp, "successThreshold": 2}})),
            &["spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        (
            c(json!({"livenessProbe": negative})),
            &[
                "spec.containers[0].livenessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].livenessProbe.timeoutSeconds: Invalid value: -1",
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].livenessProbe.failureThreshold: Invalid value: -1",
                "spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: -1: must be greater than 0",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: -1: must be 1",
            ],
        ),
        (
            init(&json!({"livenessProbe": {"tcpSocket": tcp}, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}})),
            &[
                "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without",
            ],
        ),
    ]);
}

#[test]
fn affinity_and_spread() {
    let near = |term: Value| json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    let wish = |term: Value, weight: i32| {
        let wish = json!({"weight": weight, "podAffinityTerm": term});
        json!({"spec": {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}}})
    };
    let nodes = |term: Value| {
        let terms = json!({"nodeSelectorTerms": [term]});
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
    };
    let wished = |weight: i32| {
        let wish = json!({"weight": weight, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["-1"]}]}});
        json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}}})
    };
    let spread = |fields: Value| {
        let mut one = json!({"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"});
        for (name, value) in fields.as_object().unwrap() {
            one[name] = value.clone();
        }
        json!({"spec": {"topologySpreadConstraints": [one]}})
    };
    let a = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    let b = "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]";
    let n = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let selector = json!({"matchExpressions": [{"key": "k", "operator": "Exists", "values": ["v"]}]});
    let exists = |field: &str| {
        format!(
            "{b}.podAffinityTerm.{field}.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        )
    };
    let twice =
        json!({"matchLabels": {"x": "1"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["1"]}]});
    let cases: Vec<(Value, Vec<String>)> = vec![
        (near(json!({"topologyKey": ""})), vec![format!("{a}.topologyKey: Required value: can not be empty"), format!("{a}.topologyKey: Invalid value: \"\": name part must be non-empty"), format!("{a}.topologyKey: Invalid value: \"\": {LABEL_KEY}")]),
        (near(json!({"topologyKey": "k", "namespaces": ["A"]})), vec![format!("{a}.namespace: Invalid value: \"A\": a lowercase RFC 1123 label")]),
        (wish(json!({"topologyKey": "k"}), 101), vec![format!("{b}.weight: Invalid value: 101: must be in the range 1-100")]),
        (wish(json!({"topologyKey": "k", "labelSelector": selector}), 1), vec![exists("labelSelector")]),
        (wish(json!({"topologyKey": "k", "namespaceSelector": selector}), 1), vec![exists("namespaceSelector")]),
        (
            near(json!({"topologyKey": "k", "labelSelector": {}, "matchLabelKeys": ["/a"]})),
            vec![format!("{a}.matchLabelKeys[0]: Invalid value: \"/a\": prefix part must be non-empty")],
        ),
        (
            near(json!({"topologyKey": "k", "matchLabelKeys": ["a"]})),
            vec![format!("{a}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set")],
        ),
        (
            near(json!({"topologyKey": "k", "labelSelector": twice, "matchLabelKeys": ["x"]})),
            vec![format!("{a}[0]: Invalid value: \"x\": exists in both matchLabelKeys and labelSelector")],
        ),
        (
            near(json!({"topologyKey": "k", "labelSelector": {}, "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"]})),
            vec![format!("{a}.matchLabelKeys[0]: Invalid value: \"x\": exists in both matchLabelKeys and mismatchLabelKeys")],
        ),
        (
            nodes(json!({"matchExpressions": [{"key": "k", "operator": "Odd"}]})),
            vec![format!("{n}.matchExpressions[0].operator: Invalid value: \"Odd\": not a valid selector operator")],
        ),
        (
            nodes(json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["-1"]}]})),
            vec![format!("{n}.matchExpressions[0].values[0]: Invalid value: \"-1\": a valid label must be an empty string or consist of")],
        ),
        (
            nodes(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]})),
            vec![format!("{n}.matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector")],
        ),
        (
            nodes(json!({"matchFields": [{"key": "metadata.name", "operator": "Exists"}]})),
            vec![format!("{n}.matchFields[0].operator: Invalid value: \"Exists\": not a valid selector operator")],
        ),
        (
            nodes(json!({"matchFields": [{"key": "metadata.namespace", "operator": "In", "values": ["a"]}]})),
            vec![format!("{n}.matchFields[0].key: Invalid value: \"metadata.namespace\": not a valid field selector key")],
        ),
        (wished(1), vec![]),
        (wished(199), vec!["spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 199: must be in the range 1-100".to_owned()]),
        (spread(json!({})), vec![]),
        (spread(json!({"maxSkew": 0})), vec!["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero".to_owned()]),
        (spread(json!({"whenUnsatisfiable": "N/A"})), vec!["spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"N/A\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"".to_owned()]),
        (spread(json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 3})), vec!["spec.topologySpreadConstraints[0].minDomains: Invalid value: 3: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway".to_owned()]),
        (spread(json!({"minDomains": -1})), vec!["spec.topologySpreadConstraints[0].minDomains: Invalid value: -1: must be greater than zero".to_owned()]),
        (spread(json!({"nodeAffinityPolicy": "Invalid"})), vec!["spec.topologySpreadConstraints[0].nodeAffinityPolicy: Unsupported value: \"Invalid\": supported values: \"Honor\", \"Ignore\"".to_owned()]),
        (
            json!({"spec": {"topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"},
                {"maxSkew": 2, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"},
            ]}}),
            vec!["spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{k, DoNotSchedule}\"".to_owned()],
        ),
        (spread(json!({"labelSelector": {"matchLabels": {"a": "-"}}})), vec!["spec.topologySpreadConstraints[0].labelSelector.matchLabels: Invalid value: \"-\": a valid label must be".to_owned()]),
    ];
    for (fragment, wanted) in &cases {
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let found = said(fragment);
        let fits =
            found.len() == wanted.len() && found.iter().zip(&wanted).all(|(found, wanted)| found.starts_with(wanted));
        assert!(fits, "{fragment}\n found: {found:#?}\nwanted: {wanted:#?}");
    }
}

#[test]
fn annotations() {
    let annotated = |name: &str, value: &str| json!({"metadata": {"annotations": {name: value}}});
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let of_pod = "seccomp.security.alpha.kubernetes.io/pod";
    let both = |annotation: &str, profile: Value| json!({"metadata": {"annotations": {of_pod: annotation}}, "spec": {"securityContext": {"seccompProfile": profile}}});
    check(vec![
        (annotated(cost, "-10"), &[]),
        (
            annotated(cost, "text"),
            &[
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"text\": must be a 32bit integer",
            ],
        ),
        (
            annotated(cost, "008"),
            &[
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"008\": must be a 32bit",
            ],
        ),
        (
            annotated(cost, "+10"),
            &[
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+10\": must be a 32bit",
            ],
        ),
        (annotated(of_pod, "runtime/default"), &[]),
        (
            annotated(of_pod, "foo"),
            &[
                "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"foo\": must be a valid seccomp profile",
            ],
        ),
        (
            annotated(of_pod, "localhost//foo"),
            &[
                "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"/foo\": must be a relative path",
            ],
        ),
        (
            annotated(of_pod, "localhost/../foo"),
            &[
                "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"../foo\": must not contain '..'",
            ],
        ),
        (both("unconfined", json!({"type": "Unconfined"})), &[]),
        (
            both("unconfined", json!({"type": "RuntimeDefault"})),
            &["spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"],
        ),
        (
            both("localhost/a", json!({"type": "Localhost", "localhostProfile": "b"})),
            &[
                "spec.securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match",
            ],
        ),
        (
            json!({"metadata": {"annotations": {"container.seccomp.security.alpha.kubernetes.io/c": "docker/default"}},
                "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}}),
            &[
                "spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
            ],
        ),
    ]);
}

#[test]
fn tolerations_names_and_dns() {
    let tolerates = |one: Value| json!({"spec": {"tolerations": [one]}});
    let dns = |config: Value| json!({"spec": {"dnsConfig": config}});
    check(vec![
        (
            tolerates(json!({"key": "nospecialchars^=@", "operator": "Equal", "value": "bar"})),
            &["spec.tolerations[0].key: Invalid value"],
        ),
        (
            tolerates(json!({"key": "foo", "operator": "In", "value": "bar"})),
            &["spec.tolerations[0].operator: Unsupported value: \"In\""],
        ),
        (
            tolerates(json!({"key": "foo", "operator": "Exists", "value": "bar"})),
            &["spec.tolerations[0].operator: Invalid value: \"bar\": value must be empty when `operator` is 'Exists'"],
        ),
        (
            tolerates(json!({"operator": "Equal", "value": "bar"})),
            &["spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty"],
        ),
        (
            tolerates(json!({"key": "k", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5})),
            &[
                "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            ],
        ),
        (
            tolerates(json!({"key": "k", "operator": "Lt", "value": "1"})),
            &["spec.tolerations[0].operator: Unsupported value: \"Lt\""],
        ),
        (
            json!({"metadata": {"labels": {"NoUppercaseOrSpecialCharsLike=Equals": "bar"}}}),
            &["metadata.labels: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\": name part must consist of"],
        ),
        (json!({"spec": {"hostname": "h".repeat(64)}}), &["spec.hostname: Invalid value: \"hhh"]),
        (json!({"spec": {"subdomain": "a.b"}}), &["spec.subdomain: Invalid value: \"a.b\": must not contain dots"]),
        (
            json!({"spec": {"serviceAccountName": "invalidName"}}),
            &["spec.serviceAccountName: Invalid value: \"invalidName\": a lowercase RFC 1123 subdomain"],
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": 0}}),
            &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": 2_147_483_648_i64}}),
            &["spec.activeDeadlineSeconds: Invalid value: 2147483648: must be between"],
        ),
        (
            json!({"spec": {"nodeName": "node name"}}),
            &["spec.nodeName: Invalid value: \"node name\": a lowercase RFC 1123"],
        ),
        (
            json!({"spec": {"securityContext": {"fsGroup": -1}}}),
            &["spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
        ),
        (
            json!({"spec": {"securityContext": {"supplementalGroups": [0, -5]}}}),
            &["spec.securityContext.supplementalGroups[1]: Invalid value: -5: must be between"],
        ),
        (
            json!({"spec": {"hostAliases": [{"ip": "999.999.999.999"}]}}),
            &["spec.hostAliases[0].ip: Invalid value: \"999.999.999.999\": must be a valid IP address"],
        ),
        (
            json!({"spec": {"readinessGates": [{"conditionType": "invalid/condition/type"}]}}),
            &["spec.readinessGates[0].conditionType: Invalid value"],
        ),
        (
            dns(json!({"nameservers": ["127.0.0.1", "10.10.0.1", "192.0.2.1", "192.0.2.2"]})),
            &[
                "spec.dnsConfig.nameservers: Invalid value: [\"127.0.0.1\",\"10.10.0.1\",\"192.0.2.1\",\"192.0.2.2\"]: must not have more than 3 nameservers",
            ],
        ),
        (
            dns(json!({"nameservers": ["invalid"]})),
            &["spec.dnsConfig.nameservers[0]: Invalid value: \"invalid\": must be a valid IP address"],
        ),
        (dns(json!({"options": [{"value": "x"}]})), &["spec.dnsConfig.options[0]: Required value: must not be empty"]),
        (
            json!({"spec": {"dnsPolicy": "None"}}),
            &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            json!({"spec": {"schedulingGates": [{"name": "a"}, {"name": "a"}]}}),
            &["spec.schedulingGates[1]: Duplicate value: \"a\""],
        ),
    ]);
}
