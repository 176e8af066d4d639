//! Defaults of a Pod.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::container::{default_container, pull_policy};
use crate::ephemeral::{as_container, from_container};
use crate::quantity::Quantity;
use crate::requests::{containers_requests, is_pod_level, quantities};

/// Mode of files made from `ConfigMaps` and Secrets.
const FILE_MODE: i32 = 0o644;
/// How long a token is good where the Pod does not say.
const TOKEN_SECONDS: i64 = 3600;

/// Fills in all defaults of a Pod.
pub fn default_pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        default_pod_spec(spec);
    }
}

/// Taints that a Pod bears for a while, unless it says otherwise.
const BORNE_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// How long, in seconds.
const BEARING_SECONDS: i64 = 300;

/// What the API server's admission plug-in `DefaultTolerationSeconds` adds to a Pod that is made or changed.
pub fn add_default_tolerations(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    for taint in BORNE_TAINTS {
        let bears = |toleration: &Toleration| {
            let is_any = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
            (is_any(&toleration.key) || toleration.key.as_deref() == Some(taint))
                && (is_any(&toleration.effect) || toleration.effect.as_deref() == Some("NoExecute"))
        };
        if !spec.tolerations.iter().flatten().any(bears) {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some(taint.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(BEARING_SECONDS),
                value: None,
            });
        }
    }
}

/// Sets a text that is absent or empty.
pub(super) fn set_text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Writes a quantity in its canonical form; one that cannot be read is left for validation to refuse.
pub(super) fn canonicalize(quantity: &mut RawQuantity) {
    if let Ok(parsed) = Quantity::parse(&quantity.0) {
        quantity.0 = parsed.to_string();
    }
}

pub(super) fn default_pod_spec(spec: &mut PodSpec) {
    set_text(&mut spec.dns_policy, "ClusterFirst");
    set_text(&mut spec.restart_policy, "Always");
    set_text(&mut spec.scheduler_name, "default-scheduler");
    default_service_account(spec);
    spec.security_context.get_or_insert_default();
    // Less than none is the least (upstream: `podStrategy`).
    let grace = spec.termination_grace_period_seconds.get_or_insert(30);
    if *grace < 0 {
        *grace = 1;
    }
    spec.enable_service_links.get_or_insert(true);
    spec.volumes.iter_mut().flatten().for_each(default_volume);
    spec.containers.iter_mut().for_each(default_container);
    spec.init_containers.iter_mut().flatten().for_each(default_container);
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        let mut container = as_container(ephemeral);
        default_container(&mut container);
        *ephemeral = from_container(container, ephemeral.target_container_name.take());
    }
    default_resources(spec);
    if spec.host_network == Some(true) {
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        containers.for_each(publish_all_ports);
    }
}

/// A Pod with limits of its own asks for what its containers ask for, and where they ask for nothing, for its limits
/// (KEP-2837, `defaultPodRequests`).
fn default_resources(spec: &mut PodSpec) {
    let sums = spec.resources.as_ref().map(|_| quantities(&containers_requests(spec))).unwrap_or_default();
    let Some(own) = &mut spec.resources else { return };
    for list in [&mut own.limits, &mut own.requests] {
        list.iter_mut().flat_map(|list| list.values_mut()).for_each(canonicalize);
    }
    let limits = own.limits.clone().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let requests = own.requests.get_or_insert_default();
    for (name, amount) in sums.into_iter().chain(limits).filter(|(name, _)| is_pod_level(name)) {
        requests.entry(name).or_insert(amount);
    }
}

/// With the node's network a container's ports are the node's.
fn publish_all_ports(container: &mut Container) {
    for port in container.ports.iter_mut().flatten() {
        if port.host_port.unwrap_or_default() == 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn default_service_account(spec: &mut PodSpec) {
    let old_name = spec.service_account.as_deref().filter(|name| !name.is_empty()).unwrap_or("default").to_owned();
    set_text(&mut spec.service_account_name, &old_name);
    spec.service_account.clone_from(&spec.service_account_name);
}

fn default_volume(volume: &mut Volume) {
    let is_bare = Volume { name: volume.name.clone(), ..Volume::default() } == *volume;
    if is_bare {
        volume.empty_dir = Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|empty_dir| empty_dir.size_limit.as_mut()) {
        canonicalize(limit);
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(image) = &mut volume.image {
        set_text(&mut image.pull_policy, pull_policy(image.reference.as_deref().unwrap_or_default()));
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
        let fields = downward.items.iter_mut().flatten().filter_map(|item| item.field_ref.as_mut());
        fields.for_each(|field| set_text(&mut field.api_version, "v1"));
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
            }
            let fields = source.downward_api.iter_mut().flat_map(|downward| downward.items.iter_mut().flatten());
            let fields = fields.filter_map(|item| item.field_ref.as_mut());
            fields.for_each(|field| set_text(&mut field.api_version, "v1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn defaulted(pod: serde_json::Value) -> serde_json::Value {
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        default_pod(&mut pod);
        let once = serde_json::to_value(&pod).unwrap();
        default_pod(&mut pod);
        assert_eq!(serde_json::to_value(&pod).unwrap(), once, "a second time changes nothing");
        once
    }

    #[test]
    fn a_minimal_pod_reads_as_the_api_server_shows_it() {
        let pod =
            defaulted(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}));
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "spec": {
                    "containers": [{
                        "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    }],
                    "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                    "schedulerName": "default-scheduler", "securityContext": {}, "serviceAccount": "default",
                    "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
                },
            })
        );
    }

    #[test]
    fn a_node_that_fails_is_borne_for_a_while() {
        let own =
            |taint: &str| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let [not_ready, unreachable] = BORNE_TAINTS;
        let short = json!({"key": unreachable, "operator": "Exists", "tolerationSeconds": 1, "effect": "NoExecute"});
        let other = json!({"key": not_ready, "operator": "Exists", "effect": "NoSchedule"});
        let table = [
            (json!([]), json!([own(not_ready), own(unreachable)])),
            (json!([short]), json!([short, own(not_ready)])),
            (json!([other]), json!([other, own(not_ready), own(unreachable)])),
            (json!([{"operator": "Exists"}]), json!([{"operator": "Exists"}])),
        ];
        for (given, expected) in table {
            let mut pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": [], "tolerations": given}})).unwrap();
            add_default_tolerations(&mut pod);
            assert_eq!(serde_json::to_value(pod).unwrap()["spec"]["tolerations"], expected);
        }
    }

    #[test]
    fn what_is_given_stays() {
        let spec = json!({
            "containers": [{
                "name": "c", "image": "a:1", "imagePullPolicy": "Never", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}},
                "terminationMessagePath": "/t", "terminationMessagePolicy": "FallbackToLogsOnError",
            }],
            "dnsPolicy": "None", "enableServiceLinks": false, "restartPolicy": "Never", "schedulerName": "mine",
            "securityContext": {"runAsUser": 1}, "serviceAccount": "a", "serviceAccountName": "a",
            "terminationGracePeriodSeconds": 0,
        });
        let pod = defaulted(json!({"spec": spec}));
        assert_eq!(pod["spec"], spec);
    }

    #[test]
    fn a_negative_grace_period_is_the_least() {
        let pod = defaulted(json!({"spec": {"containers": [], "terminationGracePeriodSeconds": -1}}));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 1);
    }

    #[test]
    fn a_pod_with_limits_of_its_own_asks_for_what_its_containers_do_or_for_its_limits() {
        let asks = json!({"name": "a", "image": "a:1", "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}}});
        let table = [
            (
                json!({"limits": {"cpu": "2000m"}}),
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "200m", "memory": "64Mi"}}),
            ),
            (
                json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "512Mi", "cpu": "1"}}),
                json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "512Mi", "cpu": "1"}}),
            ),
            (json!({"requests": {"cpu": "1"}}), json!({"requests": {"cpu": "1"}})),
            (json!({}), json!({})),
        ];
        for (given, expected) in table {
            let pod = defaulted(json!({"spec": {"containers": [asks, asks], "resources": given}}));
            assert_eq!(pod["spec"]["resources"], expected);
        }
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let pod = defaulted(json!({"spec": {"containers": [{"name": "a", "image": "a:1"}], "resources": limits}}));
        assert_eq!(pod["spec"]["resources"]["requests"], limits["limits"]);
    }

    #[test]
    fn volumes_say_their_modes_and_types() {
        let table = [
            (json!({"name": "v"}), json!({"name": "v", "emptyDir": {}})),
            (
                json!({"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}),
                json!({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}),
            ),
            (
                json!({"name": "v", "hostPath": {"path": "/x"}}),
                json!({"name": "v", "hostPath": {"path": "/x", "type": ""}}),
            ),
            (
                json!({"name": "v", "secret": {"secretName": "s"}}),
                json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}),
            ),
            (
                json!({"name": "v", "configMap": {"name": "s", "defaultMode": 0}}),
                json!({"name": "v", "configMap": {"name": "s", "defaultMode": 0}}),
            ),
        ];
        for (given, expected) in table {
            let pod = defaulted(json!({"spec": {"containers": [], "volumes": [given]}}));
            assert_eq!(pod["spec"]["volumes"][0], expected);
        }
    }
}
