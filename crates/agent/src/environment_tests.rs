//! Tests of what a container's environment and command line are made of.

use serde_json::{Value, json};
use spec::k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Secret, Service, ServiceAccountTokenProjection};

use super::*;
use crate::testing::{desired_pod, pod};

struct Objects;

impl ConfigObjects for Objects {
    fn config_map(&self, name: &str) -> Option<ConfigMap> {
        (name == "map").then(|| {
            serde_json::from_value(json!({ "metadata": {}, "data": { "a": "1", "b c": "2", "x=y": "3" } })).unwrap()
        })
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        (name == "keys")
            .then(|| serde_json::from_value(json!({ "metadata": {}, "data": { "k": "c2VjcmV0" } })).unwrap())
    }

    fn services(&self, all: bool) -> Vec<Service> {
        let service = |name: &str, address: &str| {
            let ports = json!([{ "port": 80 }]);
            let service = json!({ "metadata": { "name": name }, "spec": { "clusterIP": address, "ports": ports } });
            serde_json::from_value(service).unwrap()
        };
        if all { vec![service("db", "10.0.0.7")] } else { Vec::new() }
    }

    fn volume_of_claim(&self, name: &str, _: bool) -> Result<PersistentVolume, String> {
        Err(crate::claims::not_found(name))
    }

    fn token(&self, _: &ServiceAccountTokenProjection) -> Result<String, String> {
        Err("no variable comes from a token".to_owned())
    }
}

fn environment(container: Value) -> Result<String, String> {
    environment_with(&json!({ "enableServiceLinks": false }), container)
}

fn environment_with(spec: &Value, container: Value) -> Result<String, String> {
    let mut spec = spec.clone();
    let mut container = container;
    container["name"] = "app".into();
    container["image"] = "app:1".into();
    let limits = json!({ "limits": { "cpu": "1500m", "memory": "64Mi" } });
    spec["containers"] = json!([container, { "name": "other", "image": "app:1", "resources": limits }]);
    let mut object = pod(&spec);
    object["metadata"]["labels"] = json!({ "tier": "web" });
    let desired = desired_pod(&object);
    let sources = EnvironmentSources {
        desired: &desired,
        objects: &Objects,
        pod_addresses: &["10.85.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
        node_addresses: &["192.0.2.1".parse().unwrap()],
        node_name: "edge",
        hostname: "web",
        allocatable: Amounts { cpu_millis: Some(2000), memory_bytes: Some(1 << 30) },
    };
    let (_, container) = desired.containers().next().unwrap();
    let variables = pod_environment(container, &sources).map_err(|error| error.to_string())?;
    Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
}

fn value_from(source: &Value) -> Value {
    json!({ "env": [{ "name": "V", "valueFrom": source }] })
}

#[test]
fn services_are_told_by_variables_that_the_pod_may_overrule() {
    let container = json!({ "env": [
        { "name": "URL", "value": "$(DB_PORT_80_TCP)/x" }, { "name": "DB_SERVICE_HOST", "value": "mine" },
    ] });
    let found = environment_with(&json!({}), container.clone()).unwrap();
    assert!(found.starts_with("DB_SERVICE_HOST=10.0.0.7 DB_SERVICE_PORT=80 DB_PORT=tcp://10.0.0.7:80 "), "{found}");
    assert!(found.ends_with(" URL=tcp://10.0.0.7:80/x DB_SERVICE_HOST=mine"), "{found}");
    assert_eq!(environment(container).unwrap(), "URL=$(DB_PORT_80_TCP)/x DB_SERVICE_HOST=mine");
}

#[test]
fn variables_come_from_where_the_pod_says() {
    let field = |path: &str| value_from(&json!({ "fieldRef": { "fieldPath": path } }));
    let resource = |field: Value| value_from(&json!({ "resourceFieldRef": field }));
    let key = |kind: &str, name: &str, key: &str, optional: bool| {
        value_from(&json!({ kind: { "name": name, "key": key, "optional": optional } }))
    };
    let cases = [
        (field("metadata.name"), Ok("V=web")),
        (field("metadata.uid"), Ok("V=u-web")),
        (field("metadata.labels['tier']"), Ok("V=web")),
        (field("metadata.labels['none']"), Ok("V=")),
        (field("spec.nodeName"), Ok("V=edge")),
        (field("status.podIP"), Ok("V=10.85.0.9")),
        (field("status.podIPs"), Ok("V=10.85.0.9,fd00::9")),
        (field("status.hostIP"), Ok("V=192.0.2.1")),
        (field("metadata.labels"), Err("unsupported fieldPath: metadata.labels")),
        (field("spec.color"), Err("unsupported fieldPath: spec.color")),
        (resource(json!({ "resource": "limits.cpu" })), Ok("V=2")),
        (resource(json!({ "resource": "limits.memory", "divisor": "1Mi" })), Ok("V=1024")),
        (resource(json!({ "resource": "requests.memory" })), Ok("V=0")),
        (resource(json!({ "resource": "limits.cpu", "containerName": "other" })), Ok("V=2")),
        (resource(json!({ "resource": "limits.cpu", "containerName": "other", "divisor": "1m" })), Ok("V=1500")),
        (resource(json!({ "resource": "requests.memory", "containerName": "other", "divisor": "1Mi" })), Ok("V=64")),
        (resource(json!({ "resource": "limits.cpu", "containerName": "none" })), Err("container none not found")),
        (key("configMapKeyRef", "map", "a", false), Ok("V=1")),
        (key("configMapKeyRef", "map", "z", false), Err("couldn't find key z in ConfigMap default/map")),
        (key("configMapKeyRef", "map", "z", true), Ok("")),
        (key("configMapKeyRef", "none", "a", false), Err("configmap \"none\" not found")),
        (key("configMapKeyRef", "none", "a", true), Ok("")),
        (key("secretKeyRef", "keys", "k", false), Ok("V=secret")),
        (key("secretKeyRef", "keys", "z", false), Err("couldn't find key z in Secret default/keys")),
        (key("secretKeyRef", "none", "k", false), Err("secret \"none\" not found")),
        (json!({ "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "map" } }] }), Ok("P_a=1 P_b c=2")),
        (json!({ "envFrom": [{ "secretRef": { "name": "keys" } }] }), Ok("k=secret")),
        (json!({ "envFrom": [{ "secretRef": { "name": "none" } }] }), Err("secret \"none\" not found")),
        (json!({ "envFrom": [{ "configMapRef": { "name": "none", "optional": true } }] }), Ok("")),
        (
            // Only earlier variables are seen, and those of `envFrom` are not.
            json!({
                "envFrom": [{ "configMapRef": { "name": "map" } }],
                "env": [
                    { "name": "LATE", "value": "$(A) $(a)" },
                    { "name": "A", "value": "1" },
                    { "name": "B", "value": "$(A)+$$(A)" },
                ],
            }),
            Ok("a=1 b c=2 LATE=$(A) $(a) A=1 B=1+$(A)"),
        ),
    ];
    for (container, wanted) in cases {
        let got = environment(container.clone());
        assert_eq!(got, wanted.map(str::to_owned).map_err(str::to_owned), "{container}");
    }
}

fn image(config: &Value) -> Image {
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] }, "config": config });
    Image {
        id: spec::Digest::sha256([0; 32]),
        references: Vec::new(),
        repo_digests: Vec::new(),
        size: 0,
        config: serde_json::from_value(config).unwrap(),
        layers: Vec::new(),
        pulled: false,
        created: None,
    }
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd() {
    let both = json!({ "Entrypoint": ["entry"], "Cmd": ["cmd"] });
    let cases = [
        (both.clone(), json!({}), "entry cmd"),
        (both.clone(), json!({ "command": ["mine"] }), "mine"),
        (both.clone(), json!({ "args": ["arg"] }), "entry arg"),
        (both.clone(), json!({ "command": ["mine"], "args": ["arg"] }), "mine arg"),
        (both, json!({ "command": [], "args": [] }), "entry cmd"),
        (json!({ "Cmd": ["cmd"] }), json!({}), "cmd"),
        (json!({ "Cmd": ["cmd"] }), json!({ "command": ["$(X)"], "args": ["$(Y)", "$$(X)"] }), "1 $(Y) $(X)"),
        (json!({}), json!({}), "no command specified"),
    ];
    for (config, mut container, wanted) in cases {
        container["name"] = "app".into();
        let container: Container = serde_json::from_value(container).unwrap();
        let variables = [("X".to_owned(), "0".to_owned()), ("X".to_owned(), "1".to_owned())];
        let line = command_line(&image(&config), &container, &variables);
        assert_eq!(line.map_or_else(|error| error.to_string(), |line| line.join(" ")), wanted);
    }
}

#[test]
fn the_pod_overrules_the_image_and_what_a_runtime_adds() {
    let show = |config: Value, container: Value, variables: &[(&str, &str)]| {
        let mut container = container;
        container["name"] = "app".into();
        let container: Container = serde_json::from_value(container).unwrap();
        let variables: Vec<_> = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let env = whole_environment(&image(&config), &container, "web", &variables);
        env.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(
        show(json!({ "Env": ["A=image", "B=x=y"] }), json!({ "tty": true }), &[("A", "pod"), ("A", "last")]),
        ["A=last", "B=x=y", &format!("PATH={DEFAULT_PATH}"), "HOSTNAME=web", "TERM=xterm"]
    );
    assert_eq!(
        show(json!({ "Env": ["PATH=/bin", "HOSTNAME=image"] }), json!({}), &[("HOSTNAME", "mine")]),
        ["PATH=/bin", "HOSTNAME=mine"]
    );
}
