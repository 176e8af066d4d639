//! Each rule with a document that breaks it, and the sentence that a user reads.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use serde_json::{Value, json};

use super::*;
use crate::defaults;

/// A Pod that uses most of what can be checked, and breaks no rule.
fn good() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "web"}, "annotations": {"Example.com/note": "x"}},
        "spec": {
            "terminationGracePeriodSeconds": 10,
            "containers": [{
                "name": "a", "image": "nginx",
                "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                ],
                "envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "h", "mountPath": "/h", "mountPropagation": "HostToContainer"}],
                "livenessProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "X-A", "value": "1"}]}},
                "readinessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2},
                "startupProbe": {"grpc": {"port": 80}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 10}}, "postStart": {"exec": {"command": ["true"]}}},
                "securityContext": {"runAsUser": 0, "allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_ADMIN"]}},
            }],
            "initContainers": [{"name": "i", "image": "busybox"}],
            "volumes": [
                {"name": "v"}, {"name": "h", "hostPath": {"path": "/srv", "type": "Directory"}},
                {"name": "c", "configMap": {"name": "c", "items": [{"key": "k", "path": "a/b", "mode": 0o400}]}},
                {"name": "s", "secret": {"secretName": "s"}},
                {"name": "d", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "p", "projected": {"sources": [
                    {"configMap": {"name": "c", "items": [{"key": "k", "path": "a"}]}},
                    {"downwardAPI": {"items": [
                        {"path": "b", "resourceFieldRef": {"containerName": "a", "resource": "limits.cpu"}},
                    ]}},
                    {"serviceAccountToken": {"path": "t", "audience": "vault"}},
                ]}},
            ],
            "hostname": "h", "subdomain": "s", "nodeName": "node.example.com",
            "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["a.b"]}],
            "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["_tcp.example.com."], "options": [{"name": "ndots", "value": "2"}]},
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            "securityContext": {"supplementalGroups": [1, 2]},
        },
    })
}

fn decoded(document: &Value) -> Pod {
    let mut pod = serde_json::from_value(document.clone()).unwrap();
    defaults::default_pod(&mut pod);
    pod
}

/// `good` with the value at `pointer` (RFC 6901) replaced or added; `null` removes a field.
fn with(pointer: &str, value: Value) -> Value {
    replaced(good(), pointer, value)
}

fn replaced(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(items) if name == "-" => items.push(value),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        Value::Object(fields) => {
            fields.insert(name.to_owned(), value);
        }
        other => panic!("{pointer}: {other}"),
    }
    document
}

fn messages(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_pod_has_no_fault() {
    assert_eq!(messages(&validate_pod(&decoded(&good()))), Vec::<String>::new());
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of all rules")]
fn each_broken_rule_has_its_sentence() {
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let name_of_a = format!("spec.containers[0].name: Invalid value: \"A\": {label}");
    let sum = r#"{"add":["CAP_SYS_ADMIN"]}"#;
    let no_sys_admin = format!(
        "spec.containers[0].securityContext: Invalid value: {{\"allowPrivilegeEscalation\":false,\"capabilities\":{sum}}}: cannot \
         set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
    );
    let table: Vec<(&str, Value, &str)> = vec![
        ("/metadata/name", json!(null), "metadata.name: Required value: name or generateName is required"),
        ("/metadata/namespace", json!(null), "metadata.namespace: Required value"),
        (
            "/metadata/labels/app",
            json!("a b"),
            "metadata.labels: Invalid value: \"a b\": a valid label must be an empty string or consist of alphanumeric \
             characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
             'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            "/metadata/annotations/big",
            json!("a".repeat(256 * 1024)),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        ("/spec/containers/0/name", json!(""), "spec.containers[0].name: Required value"),
        ("/spec/containers/0/name", json!("A"), &name_of_a),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        (
            "/spec/containers/0/image",
            json!(" a"),
            "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ),
        ("/spec/initContainers/0/name", json!("a"), "spec.initContainers[0].name: Duplicate value: \"a\""),
        ("/spec/containers/-", json!({"name": "a", "image": "x"}), "spec.containers[1].name: Duplicate value: \"a\""),
        (
            "/spec/initContainers/0/livenessProbe",
            json!({"exec": {"command": ["x"]}}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "/spec/initContainers/0/lifecycle",
            json!({"preStop": {"sleep": {"seconds": 1}}}),
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "/spec/restartPolicy",
            json!("always"),
            "spec.restartPolicy: Unsupported value: \"always\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Sometimes"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "/spec/containers/0/terminationMessagePolicy",
            json!("x"),
            "spec.containers[0].terminationMessagePolicy: Unsupported value: \"x\": supported values: \"File\", \"FallbackToLogsOnError\"",
        ),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(0),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(70000),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports/1/name",
            json!("http"),
            "spec.containers[0].ports[1].name: Duplicate value: \"http\"",
        ),
        (
            "/spec/containers/0/ports/1/protocol",
            json!("ICMP"),
            "spec.containers[0].ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        ("/spec/containers/0/env/0/name", json!(""), "spec.containers[0].env[0].name: Required value"),
        (
            "/spec/containers/0/env/0/name",
            json!("A=B"),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of \
             printable ASCII characters other than '='",
        ),
        (
            "/spec/containers/0/env/1/value",
            json!("x"),
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "/spec/containers/0/env/1/valueFrom",
            json!({}),
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
             `configMapKeyRef` or `secretKeyRef`",
        ),
        (
            "/spec/containers/0/env/1/valueFrom/fieldRef/fieldPath",
            json!("spec.hostname"),
            "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.hostname\": error converting \
             fieldPath: field label not supported: spec.hostname",
        ),
        (
            "/spec/containers/0/env/1/valueFrom/fieldRef/fieldPath",
            json!("metadata.labels"),
            "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \
             \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
             \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            "/spec/containers/0/env/2/valueFrom/resourceFieldRef/divisor",
            json!("2"),
            "spec.containers[0].env[2].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's \
             values 1m and 1 are supported with the cpu resource",
        ),
        (
            "/spec/containers/0/env/3/valueFrom/configMapKeyRef/key",
            json!(""),
            "spec.containers[0].env[3].valueFrom.configMapKeyRef.key: Required value",
        ),
        (
            "/spec/containers/0/envFrom/0",
            json!({}),
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            "/spec/containers/0/envFrom/0/secretRef/name",
            json!(""),
            "spec.containers[0].envFrom[0].secretRef.name: Required value",
        ),
        (
            "/spec/containers/0/resources/requests/cpu",
            json!("2"),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"hugepages-2Mi": "4Mi"}}),
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"hugepages-2Mi": "4Mi", "memory": "1"}, "requests": {"hugepages-2Mi": "2Mi"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2Mi\": must be equal to hugepages-2Mi limit of 4Mi",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"memory": "1"}, "requests": {"example.com/gpu": "1"}}),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            "/spec/containers/0/resources/limits/hugepages-2Mi",
            json!("3Mi"),
            "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer \
             multiple of hugepages-2Mi",
        ),
        (
            "/spec/containers/0/resources/limits/memory",
            json!("-1"),
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/resources/requests/cpu",
            json!("lots"),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"lots\": quantities must match the regular \
             expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "/spec/containers/0/resources/requests/disk",
            json!("1"),
            "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
        ),
        (
            "/spec/containers/0/volumeMounts/0/name",
            json!("no"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"no\"",
        ),
        (
            "/spec/containers/0/volumeMounts/0/mountPath",
            json!(""),
            "spec.containers[0].volumeMounts[0].mountPath: Required value",
        ),
        (
            "/spec/containers/0/volumeMounts/1/mountPath",
            json!("/v"),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique",
        ),
        (
            "/spec/containers/0/volumeMounts/0/subPath",
            json!("/a"),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"/a\": must be a relative path",
        ),
        (
            "/spec/containers/0/volumeMounts/0/subPathExpr",
            json!("$(A)/../b"),
            "spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"$(A)/../b\": must not contain '..'",
        ),
        (
            "/spec/containers/0/volumeMounts/0",
            json!({"name": "v", "mountPath": "/v", "subPath": "a", "subPathExpr": "b"}),
            "spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
        ),
        (
            "/spec/containers/0/volumeMounts/1/mountPropagation",
            json!("Bidirectional"),
            "spec.containers[0].volumeMounts[1].mountPropagation: Forbidden: Bidirectional mount propagation is available only \
             to privileged containers",
        ),
        (
            "/spec/containers/0/livenessProbe/successThreshold",
            json!(2),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/containers/0/livenessProbe/periodSeconds",
            json!(-1),
            "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/livenessProbe/exec",
            json!({"command": ["x"]}),
            "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "/spec/containers/0/lifecycle/stopSignal",
            json!("SIGUSR1"),
            "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({}),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/readinessProbe/terminationGracePeriodSeconds",
            json!(1),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        (
            "/spec/containers/0/readinessProbe/tcpSocket/port",
            json!("Http"),
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: \"Http\": must contain only alpha-numeric \
             characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            "/spec/containers/0/startupProbe/grpc/port",
            json!(0),
            "spec.containers[0].startupProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/lifecycle/preStop/sleep/seconds",
            json!(11),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 11: must be non-negative and less than \
             terminationGracePeriodSeconds (10)",
        ),
        (
            "/spec/containers/0/lifecycle/postStart/exec/command",
            json!([]),
            "spec.containers[0].lifecycle.postStart.exec.command: Required value",
        ),
        (
            "/spec/containers/0/securityContext/runAsUser",
            json!(-1),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}),
            &no_sys_admin,
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"allowPrivilegeEscalation": false, "privileged": true}),
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot \
             set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            "/spec/securityContext/seccompProfile",
            json!({"type": "Localhost"}),
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (
            "/spec/containers/0/securityContext/seccompProfile",
            json!({"type": "RuntimeDefault", "localhostProfile": "a.json"}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"a.json\": can only be set \
             when seccomp type is Localhost",
        ),
        (
            "/spec/containers/0/securityContext/seccompProfile",
            json!({"type": "Localhost", "localhostProfile": "/etc/shadow"}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"/etc/shadow\": must be a \
             relative path",
        ),
        (
            "/spec/containers/0/securityContext/seccompProfile",
            json!({"type": "Localhost", "localhostProfile": "a/../../b"}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"a/../../b\": must not \
             contain '..'",
        ),
        (
            "/spec/securityContext/seccompProfile",
            json!({"type": "Default"}),
            "spec.securityContext.seccompProfile.type: Unsupported value: \"Default\": supported values: \"Localhost\", \
             \"RuntimeDefault\", \"Unconfined\"",
        ),
        (
            "/spec/securityContext/fsGroup",
            json!(-1),
            "spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/spec/securityContext/fsGroupChangePolicy",
            json!("Never"),
            "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
        ),
        (
            "/spec/securityContext/supplementalGroups/1",
            json!(4_294_967_296_i64),
            "spec.securityContext.supplementalGroups[1]: Invalid value: 4294967296: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/spec/containers/0/volumeMounts/0/recursiveReadOnly",
            json!("Enabled"),
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
        ("/spec/volumes/1/name", json!("v"), "spec.volumes[1].name: Duplicate value: \"v\""),
        ("/spec/volumes/1/hostPath/path", json!(""), "spec.volumes[1].hostPath.path: Required value"),
        (
            "/spec/volumes/1/hostPath/path",
            json!("/a/../b"),
            "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            "/spec/volumes/1/hostPath/type",
            json!("Dir"),
            "spec.volumes[1].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
             \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ),
        (
            "/spec/volumes/1/emptyDir",
            json!({}),
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        ("/spec/volumes/2/configMap/name", json!(""), "spec.volumes[2].configMap.name: Required value"),
        (
            "/spec/volumes/2/configMap/items/0/path",
            json!("/a"),
            "spec.volumes[2].configMap.items[0].path: Invalid value: \"/a\": must be a relative path",
        ),
        (
            "/spec/volumes/2/configMap/items/0/path",
            json!("..a"),
            "spec.volumes[2].configMap.items[0].path: Invalid value: \"..a\": must not start with '..'",
        ),
        (
            "/spec/volumes/2/configMap/items/0/mode",
            json!(0o1000),
            "spec.volumes[2].configMap.items[0].mode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            "/spec/volumes/4/downwardAPI/items/0/fieldRef/fieldPath",
            json!("status.podIP"),
            "spec.volumes[4].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \
             \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
        ),
        (
            "/spec/volumes/4/downwardAPI/items/0/fieldRef",
            Value::Null,
            "spec.volumes[4].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            "/spec/volumes/5/projected/sources/1/downwardAPI/items/0/path",
            json!("a"),
            "spec.volumes[5].projected: Invalid value: \"a\": conflicting duplicate paths",
        ),
        (
            "/spec/volumes/5/projected/sources/1/downwardAPI/items/0/resourceFieldRef/containerName",
            json!(""),
            "spec.volumes[5].projected.sources[1].downwardAPI.items[0].resourceFieldRef.containerName: Required value",
        ),
        (
            "/spec/volumes/5/projected/sources/0/secret",
            json!({"name": "s"}),
            "spec.volumes[5].projected.sources[0]: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes/5/projected/sources/2/serviceAccountToken/expirationSeconds",
            json!(599),
            "spec.volumes[5].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 599: may not \
             specify a duration less than 10 minutes",
        ),
        (
            "/spec/volumes/5/projected/sources/2/serviceAccountToken/expirationSeconds",
            json!(4_294_967_297_i64),
            "spec.volumes[5].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 4294967297: may \
             not specify a duration larger than 2^32 seconds",
        ),
        (
            "/spec/volumes/5/projected/sources/2/serviceAccountToken/path",
            json!("../t"),
            "spec.volumes[5].projected.path: Invalid value: \"../t\": must not contain '..'",
        ),
        ("/spec/volumes/3/secret/secretName", json!(""), "spec.volumes[3].secret.secretName: Required value"),
        (
            "/spec/volumes/0/emptyDir",
            json!({"medium": "Memory", "sizeLimit": "-1"}),
            "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        ),
        (
            "/spec/hostAliases/0/hostnames",
            json!(["a", "_"]),
            "spec.hostAliases[0].hostnames[1]: Invalid value: \"_\": a lowercase RFC 1123 subdomain must consist of \
             lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            "/spec/containers/0/env/0",
            json!({"name": "E", "valueFrom": {"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}}),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name\": error converting \
             fieldPath: unsupported pod version: v2",
        ),
        ("/spec/os", json!({"name": ""}), "spec.os.name: Required value: cannot be empty"),
        (
            "/spec/os",
            json!({"name": "x"}),
            "spec.os: Unsupported value: \"x\": supported values: \"linux\", \"windows\"",
        ),
        ("/spec/hostname", json!("a.b"), "spec.hostname: Invalid value: \"a.b\": must not contain dots"),
        (
            "/spec/hostAliases/0/ip",
            json!("10.1.2"),
            "spec.hostAliases[0].ip: Invalid value: \"10.1.2\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "/spec/dnsConfig/nameservers",
            json!(["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]),
            "spec.dnsConfig.nameservers: Invalid value: [\"192.0.2.1\",\"192.0.2.2\",\"192.0.2.3\",\"192.0.2.4\"]: must not have \
             more than 3 nameservers",
        ),
        ("/spec/dnsConfig/options/0/name", json!(""), "spec.dnsConfig.options[0]: Required value: must not be empty"),
        (
            "/spec/tolerations/0/effect",
            json!("NoSchedule"),
            "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            "/spec/ephemeralContainers",
            json!([{"name": "e"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ];
    for (pointer, value, sentence) in table {
        let found = messages(&validate_pod(&decoded(&with(pointer, value.clone()))));
        assert!(
            found.iter().any(|message| message == sentence),
            "{pointer} = {value}\nfound: {found:#?}\nwanted: {sentence}"
        );
    }
}

#[test]
fn dns_policy_none_needs_a_server() {
    let mut document = with("/spec/dnsPolicy", json!("None"));
    assert_eq!(messages(&validate_pod(&decoded(&document))), Vec::<String>::new());
    document["spec"]["dnsConfig"] = json!({});
    assert_eq!(
        messages(&validate_pod(&decoded(&document))),
        [
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"
        ]
    );
    document["spec"]["dnsConfig"] = json!(null);
    assert_eq!(
        messages(&validate_pod(&decoded(&document))),
        ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]
    );
}

#[test]
fn of_a_pod_only_a_few_fields_may_change() {
    let may_not = |changed: &str| {
        format!(
            "spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
             additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)\nchanged: {changed}"
        )
    };
    let table: Vec<(&str, Value, Vec<String>)> = vec![
        ("/metadata/labels/new", json!("1"), vec![]),
        ("/metadata/annotations/new", json!("1"), vec![]),
        ("/spec/containers/0/image", json!("nginx:2"), vec![]),
        ("/spec/initContainers/0/image", json!("busybox:2"), vec![]),
        ("/spec/activeDeadlineSeconds", json!(5), vec![]),
        ("/spec/tolerations/-", json!({"operator": "Exists"}), vec![]),
        ("/spec/tolerations/0/tolerationSeconds", json!(9), vec![]),
        ("/spec/imagePullSecrets", json!([]), vec![]),
        ("/metadata/name", json!("q"), vec!["metadata.name: Invalid value: \"q\": field is immutable".to_owned()]),
        ("/spec/containers/0/image", json!(""), vec!["spec.containers[0].image: Required value".to_owned()]),
        ("/spec/hostname", json!("x"), vec![may_not("spec.hostname")]),
        ("/spec/containers/0/env/0/value", json!("2"), vec![may_not("spec.containers[0].env[0].value")]),
        ("/spec/terminationGracePeriodSeconds", json!(1), vec![may_not("spec.terminationGracePeriodSeconds")]),
        ("/spec/containers/0/workingDir", json!("/w"), vec![may_not("spec.containers[0].workingDir")]),
        (
            "/spec/containers/-",
            json!({"name": "b", "image": "b"}),
            vec!["spec.containers: Forbidden: pod updates may not add or remove containers".to_owned()],
        ),
        (
            "/spec/tolerations",
            json!([]),
            vec![
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
                    .to_owned(),
            ],
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            vec![
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive".to_owned(),
            ],
        ),
    ];
    let old = decoded(&good());
    assert_eq!(validate_pod_update(&old, &old), []);
    for (pointer, value, sentences) in table {
        // What is changed is the stored Pod: its defaults were filled in when it was created.
        let new = decoded(&replaced(serde_json::to_value(&old).unwrap(), pointer, value.clone()));
        assert_eq!(messages(&validate_pod_update(&new, &old)), sentences, "{pointer} = {value}");
    }
}

#[test]
fn restart_rules_gates_finalizers_and_owners_have_their_sentences() {
    let container = |field: &str, value: Value| replaced(good(), &format!("/spec/containers/0/{field}"), value);
    let rule = |rule: Value| {
        replaced(container("restartPolicy", json!("Never")), "/spec/containers/0/restartPolicyRules", json!([rule]))
    };
    let in_42 = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
    let owner = |uid: &str| json!({"apiVersion": "v1", "controller": true, "kind": "Job", "name": "j", "uid": uid});
    let event = json!({"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "1"});
    let rules = "spec.containers[0].restartPolicyRules";
    let table = [
        (container("restartPolicy", json!("OnFailure")), String::new()),
        (rule(in_42.clone()), String::new()),
        (
            container("restartPolicy", json!("Sometimes")),
            "spec.containers[0].restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \
             \"OnFailure\""
                .to_owned(),
        ),
        (
            container("restartPolicyRules", json!([in_42])),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"
                .to_owned(),
        ),
        (rule(json!({"action": "Restart"})), format!("{rules}[0].exitCodes: Required value: must be specified")),
        (
            rule(json!({"action": "Stop", "exitCodes": {"operator": "In"}})),
            format!("{rules}[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\""),
        ),
        (
            rule(json!({"action": "Restart", "exitCodes": {"operator": "Is"}})),
            format!("{rules}[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\""),
        ),
        (
            replaced(rule(json!(null)), "/spec/containers/0/restartPolicyRules", vec![in_42.clone(); 21].into()),
            format!("{rules}: Invalid value: 21: must have at most 20 items"),
        ),
        (
            with("/spec/schedulingGates", json!([{"name": "a.b/c"}])),
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared".to_owned(),
        ),
        (
            replaced(with("/spec/schedulingGates", json!([{"name": "g"}, {"name": "g"}])), "/spec/nodeName", json!("")),
            "spec.schedulingGates[1]: Duplicate value: \"g\"".to_owned(),
        ),
        (with("/spec/readinessGates", json!([{"conditionType": "a.b/c"}])), String::new()),
        (with("/metadata/finalizers", json!(["a.b/c"])), String::new()),
        (with("/metadata/ownerReferences", json!([owner("1")])), String::new()),
        (
            with("/metadata/ownerReferences", json!([owner("")])),
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty".to_owned(),
        ),
        (
            with("/metadata/ownerReferences", json!([owner("1"), owner("2")])),
            format!(
                "metadata.ownerReferences: Invalid value: {}: Only one reference can have Controller set to true. Found \"true\" \
                 in references for Job/j and Job/j",
                json!([owner("1"), owner("2")])
            ),
        ),
        (
            with("/metadata/ownerReferences", json!([event])),
            format!("metadata.ownerReferences: Invalid value: {event}: /v1, Kind=Event is disallowed from being an owner"),
        ),
        (
            with("/metadata/ownerReferences", json!([{"apiVersion": "apps/", "kind": "", "name": "n", "uid": "1"}])),
            "metadata.ownerReferences.apiVersion: Invalid value: \"apps/\": version must not be empty\n\
             metadata.ownerReferences.kind: Invalid value: \"\": must not be empty"
                .to_owned(),
        ),
        (
            with("/metadata/finalizers", json!(["orphan", "hold"])),
            "metadata.finalizers[1]: Invalid value: \"hold\": name is neither a standard finalizer name nor is it fully \
             qualified"
                .to_owned(),
        ),
        (
            with("/metadata/finalizers", json!(["orphan", "foregroundDeletion"])),
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer foregroundDeletion and orphan \
             cannot be both set"
                .to_owned(),
        ),
    ];
    for (document, sentence) in table {
        assert_eq!(messages(&validate_pod(&decoded(&document))).join("\n"), sentence, "{document}");
    }
    for pointer in ["/spec/readinessGates", "/metadata/finalizers"] {
        let value = if pointer.starts_with("/spec") { json!([{"conditionType": "a b"}]) } else { json!(["a b/c"]) };
        assert_eq!(validate_pod(&decoded(&with(pointer, value))).len(), 1, "{pointer}");
    }
}

#[test]
fn ephemeral_containers_are_only_added_and_have_their_rules() {
    let with_list = |list: Value| decoded(&with("/spec/ephemeralContainers", list));
    let debug = json!({"name": "d", "image": "busybox", "targetContainerName": "a"});
    let old = with_list(json!([debug]));
    let more = |fields: Value| {
        let mut added = json!({"name": "e", "image": "busybox"});
        added.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!([debug, added])
    };
    let at = "spec.ephemeralContainers";
    let here = "cannot be set for an Ephemeral Container";
    let table = [
        (json!([debug]), String::new()),
        (more(json!({})), String::new()),
        (json!([]), format!("{at}: Forbidden: existing ephemeral containers \"d\" may not be removed\n")),
        (
            json!([{"name": "d", "image": "other"}]),
            format!("{at}: Forbidden: existing ephemeral containers \"d\" may not be changed\n"),
        ),
        (more(json!({"name": "a"})), format!("{at}[1].name: Duplicate value: \"a\"")),
        (more(json!({"targetContainerName": "x"})), format!("{at}[1].targetContainerName: Not found: \"x\"")),
        (more(json!({"ports": [{"containerPort": 80}]})), format!("{at}[1].ports: Forbidden: {here}")),
        (more(json!({"resources": {"limits": {"cpu": "1"}}})), format!("{at}[1].resources: Forbidden: {here}")),
        (more(json!({"restartPolicy": "Always"})), format!("{at}[1].restartPolicy: Forbidden: {here}")),
        (
            more(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a"}]})),
            format!("{at}[1].volumeMounts[0].subPath: Forbidden: {here}"),
        ),
        (more(json!({"image": ""})), format!("{at}[1].image: Required value")),
    ];
    for (list, sentence) in table {
        let new = with_list(list.clone());
        let found = validate_ephemeral_containers_update(&new, &old);
        assert_eq!(messages(&found).join("\n"), sentence, "{list}");
        assert!(new == old || !validate_pod_update(&new, &old).is_empty(), "not through the main door: {list}");
    }
    assert!(
        messages(&validate_pod(&old))
            .contains(&"spec.ephemeralContainers: Forbidden: cannot be set on create".to_owned())
    );
}

#[test]
fn gates_and_finalizers_may_only_go() {
    let gated =
        |gates: Value, node: Value| decoded(&replaced(with("/spec/schedulingGates", gates), "/spec/nodeName", node));
    let old = gated(json!([{"name": "a"}, {"name": "b"}]), json!(""));
    assert_eq!(validate_pod_update(&gated(json!([{"name": "b"}]), json!("")), &old), []);
    assert_eq!(validate_pod_update(&gated(json!([]), json!("")), &old), []);
    let other = gated(json!([{"name": "c"}]), json!(""));
    let sentence = |gate: &str| {
        format!(
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate '{gate}'"
        )
    };
    assert_eq!(messages(&validate_pod_update(&other, &old)), [sentence("c")]);
    let free = gated(json!([]), json!("here"));
    assert_eq!(messages(&validate_pod_update(&gated(json!([{"name": "a"}]), json!("here")), &free)), [sentence("a")]);
    let mut going = decoded(&with("/metadata/finalizers", json!(["a/b"])));
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let mut more = going.clone();
    more.metadata.finalizers = Some(vec!["a/b".to_owned(), "c/d".to_owned()]);
    assert_eq!(
        messages(&validate_pod_update(&more, &going)),
        ["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers [\"c/d\"]"]
    );
}

#[test]
fn while_it_is_gated_a_pod_may_be_bound_to_fewer_nodes() {
    let pod = |gates: &Value, labels: Value, affinity: Value| {
        let pod = replaced(with("/spec/schedulingGates", gates.clone()), "/spec/nodeName", json!(""));
        decoded(&replaced(replaced(pod, "/spec/nodeSelector", labels), "/spec/affinity", affinity))
    };
    let on = |keys: &[&[&str]]| {
        let one = |key: &&str| json!({"key": key, "operator": "Exists"});
        let term = |keys: &&[&str]| json!({"matchExpressions": keys.iter().map(one).collect::<Vec<_>>()});
        let terms: Vec<_> = keys.iter().map(term).collect();
        let wish = json!([{"weight": terms.len(), "preference": {}}]);
        json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            "preferredDuringSchedulingIgnoredDuringExecution": wish,
        }})
    };
    let (a, ab) = (json!({"a": "1"}), json!({"a": "1", "b": "2"}));
    let terms = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let other = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
    let table = [
        (json!(null), json!(null), a.clone(), on(&[&["a"]]), ""),
        (a.clone(), on(&[&["a"]]), ab.clone(), on(&[&["a", "b"]]), ""),
        (a.clone(), json!({"nodeAffinity": {}}), a.clone(), on(&[&["a"], &["b"]]), ""),
        (
            ab,
            json!(null),
            a.clone(),
            json!(null),
            "spec.nodeSelector: Invalid value: {\"a\":\"1\"}: only additions to spec.",
        ),
        (a.clone(), on(&[&["a"]]), a.clone(), on(&[&["b"]]), &format!("{terms}[0]: Invalid value: ")),
        (a.clone(), on(&[&["a"]]), a.clone(), on(&[&["a"], &["b"]]), &format!("{terms}: Invalid value: ")),
        (
            a.clone(),
            on(&[&["a"]]),
            a.clone(),
            json!(null),
            &format!("{terms}: Invalid value: []: no additions/deletions"),
        ),
        (a.clone(), json!(null), a.clone(), json!({"podAffinity": {}}), "spec: Forbidden: pod updates may not change"),
        (a.clone(), other.clone(), a.clone(), json!(null), "spec: Forbidden: pod updates may not change"),
    ];
    for (old_labels, old_affinity, labels, affinity, fault) in table {
        let gates = json!([{"name": "g"}]);
        let old = pod(&gates, old_labels, old_affinity);
        let found = messages(&validate_pod_update(&pod(&gates, labels.clone(), affinity.clone()), &old)).join("\n");
        assert!(if fault.is_empty() { found.is_empty() } else { found.starts_with(fault) }, "{found}");
    }
    let free = json!([]);
    let found = validate_pod_update(&pod(&free, a.clone(), json!(null)), &pod(&free, json!({}), json!(null)));
    assert!(messages(&found).join("").starts_with("spec: Forbidden: "), "{found:?}");
}

#[test]
fn a_pod_for_windows_has_nothing_of_linux() {
    let pod = decoded(&json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "os": {"name": "windows"}, "hostPID": false, "hostUsers": true,
            "securityContext": {"runAsUser": 1, "runAsNonRoot": true, "sysctls": []},
            "containers": [{"name": "a", "image": "a", "securityContext": {"privileged": false, "runAsNonRoot": true}}],
        },
    }));
    let found = messages(&validate_pod(&pod));
    let fields = ["hostUsers", "securityContext.runAsUser", "containers[0].securityContext.privileged"];
    assert_eq!(found, fields.map(|field| format!("spec.{field}: Forbidden: cannot be set for a windows pod")));
}

#[test]
fn a_status_that_a_client_writes_has_its_rules() {
    let pod = |status: Value| decoded(&replaced(good(), "/status", status));
    let old = pod(json!({"nominatedNodeName": "n_1"}));
    let table = [
        (json!({"nominatedNodeName": "n_1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}), ""),
        (json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "a.b/c", "status": "True"}]}), ""),
        (json!({"nominatedNodeName": "n_2"}), "status.nominatedNodeName: Invalid value: \"n_2\": "),
        (
            json!({"podIPs": [{"ip": "10.0.0"}]}),
            "status.podIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address",
        ),
        (
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]}),
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.1\"}]: may specify no more than one IP for each \
             IP family\nstatus.podIPs[1]: Duplicate value: {\"ip\":\"10.0.0.1\"}",
        ),
        (
            json!({"conditions": [{"type": "a b", "status": "True"}]}),
            "status.conditions[0].type: Invalid value: \"a b\": name part",
        ),
    ];
    for (status, fault) in table {
        let found = messages(&validate_pod_status_update(&pod(status), &old)).join("\n");
        assert!(if fault.is_empty() { found.is_empty() } else { found.starts_with(fault) }, "{found}");
    }
}

#[test]
fn a_deadline_may_only_be_lowered() {
    let with_deadline = |seconds: Value| decoded(&with("/spec/activeDeadlineSeconds", seconds));
    let old = with_deadline(json!(10));
    assert_eq!(validate_pod_update(&with_deadline(json!(5)), &old), []);
    for (seconds, sentence) in [
        (json!(11), "spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"),
        (
            json!(null),
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
        ),
    ] {
        assert_eq!(messages(&validate_pod_update(&with_deadline(seconds), &old)), [sentence]);
    }
}

#[test]
fn config_maps_and_secrets_have_their_rules() {
    let object = |fields: Value| {
        let mut document = json!({"metadata": {"name": "c", "namespace": "n"}});
        document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        document
    };
    let config_map = |fields: Value| -> ConfigMap { serde_json::from_value(object(fields)).unwrap() };
    let secret = |fields: Value| -> Secret { serde_json::from_value(object(fields)).unwrap() };
    let key_rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                    'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let of_config_maps = [
        (json!({"data": {"a": "1"}, "binaryData": {"b": ""}}), vec![]),
        (json!({"data": {"a/b": "1"}}), vec![format!("data[a/b]: Invalid value: \"a/b\": {key_rule}")]),
        (
            json!({"data": {"a": "1"}, "binaryData": {"a": ""}}),
            vec!["data[a]: Invalid value: \"a\": duplicate of key present in binaryData".to_owned()],
        ),
        (json!({"data": {"a": "x".repeat(1 << 20)}}), vec![]),
        (
            json!({"data": {"a": "x".repeat((1 << 20) + 1)}}),
            vec![": Too long: may not be more than 1048576 bytes".to_owned()],
        ),
    ];
    for (fields, sentences) in of_config_maps {
        assert_eq!(messages(&validate_config_map(&config_map(fields))), sentences);
    }
    let of_secrets = [
        (json!({"type": "Opaque", "data": {"a": "MQ=="}}), vec![]),
        (json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), vec!["data[tls.key]: Required value"]),
        (json!({"type": "kubernetes.io/basic-auth", "data": {"password": ""}}), vec![]),
        (
            json!({"type": "kubernetes.io/basic-auth"}),
            vec!["data[username]: Required value", "data[password]: Required value"],
        ),
        (json!({"type": "kubernetes.io/dockerconfigjson"}), vec!["data[.dockerconfigjson]: Required value"]),
        (json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}), vec![]),
        (
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "c2VjcmV0"}}),
            vec![
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": expected value at line 1 column 1",
            ],
        ),
    ];
    for (fields, sentences) in of_secrets {
        assert_eq!(messages(&validate_secret(&secret(fields))), sentences);
    }
    let frozen = "field is immutable when `immutable` is set";
    let old = config_map(json!({"immutable": true, "data": {"a": "1"}}));
    let changed = config_map(json!({"data": {"a": "2"}}));
    assert_eq!(
        messages(&validate_config_map_update(&changed, &old)),
        [format!("immutable: Forbidden: {frozen}"), format!("data: Forbidden: {frozen}")]
    );
    assert_eq!(validate_config_map_update(&old, &old), []);
    let old = secret(json!({"type": "a", "data": {}}));
    assert_eq!(
        messages(&validate_secret_update(&secret(json!({"type": "b"})), &old)),
        ["type: Invalid value: \"b\": field is immutable"]
    );
}

#[test]
fn names_of_namespaces_are_labels_and_prefixes_may_end_in_a_dash() {
    let namespace = |metadata: Value| -> Namespace { serde_json::from_value(json!({"metadata": metadata})).unwrap() };
    assert_eq!(validate_namespace(&namespace(json!({"name": "a-b", "generateName": "a-"}))), []);
    assert_eq!(
        messages(&validate_namespace(&namespace(json!({"name": "a.b"})))),
        ["metadata.name: Invalid value: \"a.b\": must not contain dots"]
    );
    assert_eq!(
        messages(&validate_namespace(&namespace(json!({"name": "a", "namespace": "b"})))),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    let old = namespace(json!({"name": "a", "uid": "1"}));
    assert_eq!(
        messages(&validate_namespace_update(&namespace(json!({"name": "a", "uid": "2"})), &old)),
        ["metadata.uid: Invalid value: \"2\": field is immutable"]
    );
}

#[test]
fn where_a_pod_wants_to_be_is_said_in_known_words() {
    let requirement = |operator: &str, values: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]},
        ]}}})
    };
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]";
    let table = [
        (requirement("In", json!(["v"])), vec![]),
        (
            requirement("In", json!([])),
            vec![format!("{at}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'")],
        ),
        (
            requirement("Like", json!(["v"])),
            vec![format!("{at}.operator: Invalid value: \"Like\": not a valid selector operator")],
        ),
    ];
    for (affinity, expected) in table {
        let pod = decoded(&with("/spec/affinity", affinity));
        let said: Vec<String> = validate_pod(&pod).iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }
}
