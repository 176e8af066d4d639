//! Server-side apply over HTTP, and who is noted as an owner.

use super::*;

impl TestServer {
    async fn apply(&self, path: &str, manager: &str, query: &str, body: &Value) -> Answer {
        let path = format!("{path}?fieldManager={manager}{query}");
        self.ask(request(Method::PATCH, &path, "application/apply-patch+yaml", body.to_string())).await
    }
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn owners(object: &Value) -> Vec<(&str, &str, &Value)> {
    let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |entry: &'_ Value, field: &str| -> &'static str {
        Box::leak(entry[field].as_str().unwrap().to_owned().into_boxed_str())
    };
    entries.iter().map(|entry| (text(entry, "manager"), text(entry, "operation"), &entry["fieldsV1"])).collect()
}

#[tokio::test]
async fn what_is_applied_is_made_changed_and_given_up() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let made = server.apply(&path, "a", "", &map(&json!({"x": "1", "y": "2"}))).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    let fields = json!({"f:data": {"f:x": {}, "f:y": {}}});
    assert_eq!(owners(&made.json()), [("a", "Apply", &fields)]);
    let again = server.apply(&path, "a", "", &map(&json!({"x": "1", "y": "2"}))).await;
    assert_eq!((again.code, again.json()), (StatusCode::OK, made.json()), "no new version");

    let patched = server
        .patch(&format!("{path}?fieldManager=kubectl-edit"), "merge-patch", &json!({"data": {"x": "9", "z": "3"}}))
        .await
        .json();
    let (kept, edited) = (json!({"f:data": {"f:y": {}}}), json!({"f:data": {"f:x": {}, "f:z": {}}}));
    assert_eq!(owners(&patched), [("a", "Apply", &kept), ("kubectl-edit", "Update", &edited)]);

    let conflict = server.apply(&path, "a", "", &map(&json!({"x": "1"}))).await;
    assert_eq!((conflict.code, conflict.json()["reason"].as_str()), (StatusCode::CONFLICT, Some("Conflict")));
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.x");
    assert_eq!(
        conflict.json()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using v1", "field": ".data.x"}])
    );
    let dry = server.apply(&path, "a", "&force=true&dryRun=All", &map(&json!({"x": "1"}))).await.json();
    assert_eq!(dry["data"], json!({"x": "1", "z": "3"}));
    assert_eq!(server.get(&path).await.json(), patched);
    let forced = server.apply(&path, "a", "&force=true", &map(&json!({"x": "1"}))).await.json();
    assert_eq!(forced["data"], json!({"x": "1", "z": "3"}), "y is given up, z is another's");
}

#[tokio::test]
async fn a_pod_is_applied_by_the_keys_of_its_lists() {
    let server = TestServer::start().await;
    let path = format!("{PODS}/p");
    let mut wanted = pod("p");
    wanted["spec"]["containers"][0]["image"] = json!("debian:12");
    let made = server.apply(&path, "a", "", &wanted).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    let own =
        &made.json()["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"]
            .clone();
    assert_eq!(own, &json!({".": {}, "f:name": {}, "f:image": {}, "f:command": {}}), "defaults are nobody's");
    wanted["spec"]["containers"][0]["image"] = json!("debian:13");
    let changed = server.apply(&path, "a", "", &wanted).await;
    assert_eq!(changed.json()["spec"]["containers"][0]["image"], "debian:13", "{}", changed.message());
    wanted["spec"]["hostname"] = json!("h");
    let refused = server.apply(&path, "a", "", &wanted).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "what may not change stays so");

    let status = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"conditions": [{"type": "mine", "status": "True"}]}});
    let of_status = server.apply(&format!("{path}/status"), "c", "", &status).await.json();
    let entry = &of_status["metadata"]["managedFields"][1];
    assert_eq!((&entry["manager"], &entry["subresource"]), (&json!("c"), &json!("status")));
}

#[tokio::test]
async fn every_write_notes_its_owner() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let mut create = request(Method::POST, MAPS, "application/json", config_map("m").to_string());
    create.headers_mut().insert("user-agent", "kubectl/v1.36 (linux)".parse().unwrap());
    let made = server.ask(create).await.json();
    let own = json!({"f:data": {".": {}, "f:k": {}}});
    assert_eq!(owners(&made), [("kubectl", "Update", &own)]);
    // An update that changes nothing changes no owner either.
    assert_eq!(server.put(&path, &config_map("m")).await.json(), made);
    // A client may forget all owners; nobody is noted then before the next apply.
    let forget = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let forgotten = server.patch(&path, "json-patch", &forget).await.json();
    assert!(owners(&forgotten).is_empty());
    assert!(owners(&server.patch(&path, "merge-patch", &json!({"data": {"k": "w"}})).await.json()).is_empty());
    let applied = server.apply(&path, "a", "", &map(&json!({"n": "1"}))).await.json();
    assert_eq!(owners(&applied).iter().map(|owner| owner.0).collect::<Vec<_>>(), ["a", "before-first-apply"]);
}

#[tokio::test]
async fn kubectl_may_go_over_from_its_own_side_to_the_servers() {
    let server = TestServer::start().await;
    let mut by_client = map(&json!({"k": "1"}));
    by_client["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": map(&json!({"k": "1"})).to_string()});
    server.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &by_client).await;
    let path = format!("{MAPS}/m");
    let other = server.apply(&path, "other", "", &map(&json!({"k": "2"}))).await;
    assert_eq!(other.code, StatusCode::CONFLICT);
    let applied = server.apply(&path, "kubectl", "", &map(&json!({"k": "2"}))).await;
    assert_eq!(applied.code, StatusCode::OK, "{}", applied.message());
    let last = applied.json()["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["data"], json!({"k": "2"}));
}

#[tokio::test]
async fn what_cannot_be_applied_is_told() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let nobody =
        server.ask(request(Method::PATCH, &path, "application/apply-patch+yaml", map(&json!({})).to_string())).await;
    assert_eq!(
        nobody.message(),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let mut managed = map(&json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(server.apply(&path, "a", "", &managed).await.message(), "metadata.managedFields must be nil");
    let mut twice = pod("p");
    let container = twice["spec"]["containers"][0].clone();
    twice["spec"]["containers"].as_array_mut().unwrap().push(container);
    let refused = server.apply(&format!("{PODS}/p"), "a", "", &twice).await;
    assert!(refused.message().contains("duplicate entries for key [name=\"main\"]"), "{}", refused.message());
    server.post(MAPS, &config_map("m")).await;
    let forced = server.patch(&format!("{path}?force=true"), "merge-patch", &json!({})).await;
    assert!(
        forced.message().contains("force: Forbidden: may not be specified for non-apply patch"),
        "{}",
        forced.message()
    );
    let mut stale = map(&json!({"k": "w"}));
    stale["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(server.apply(&path, "a", "&force=true", &stale).await.code, StatusCode::CONFLICT);
}

#[tokio::test]
async fn nobody_owns_what_only_the_server_has_added() {
    let server = TestServer::start().await;
    let made = server.post(&format!("{PODS}?fieldManager=kubectl-client-side-apply"), &pod("p")).await.json();
    assert!(made["spec"]["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"), "{made}");
    let owned = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].clone();
    assert_eq!(owned.get("f:volumes"), None, "{owned}");
    assert_eq!(owned["f:containers"][r#"k:{"name":"main"}"#].get("f:volumeMounts"), None, "{owned}");
    assert!(owned.get("f:restartPolicy").is_some(), "defaults are: {owned}");
}

/// All that admission may complete is completed here; the owned fields are those that the client and the defaults have.
#[tokio::test]
async fn what_admission_completes_is_nobodys() {
    let server = TestServer::start().await;
    let made = [
        server
            .post(
                "/apis/node.k8s.io/v1/runtimeclasses",
                &json!({
                    "metadata": {"name": "heavy"}, "handler": "monopod", "overhead": {"podFixed": {"cpu": "10m"}},
                    "scheduling": {"nodeSelector": {"a": "1"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
                }),
            )
            .await,
        server
            .post(
                "/apis/scheduling.k8s.io/v1/priorityclasses",
                &json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true}),
            )
            .await,
        server
            .post(
                "/api/v1/namespaces/default/limitranges",
                &json!({"metadata": {"name": "l"}, "spec": {"limits": [
                    {"type": "Container", "default": {"memory": "64Mi"}, "defaultRequest": {"cpu": "5m"}},
                ]}}),
            )
            .await,
    ];
    assert!(made.iter().all(|made| made.code == StatusCode::CREATED), "{:?}", made.map(|made| made.message()));
    let accounts = "/api/v1/namespaces/default/serviceaccounts/default";
    let secrets = json!({"imagePullSecrets": [{"name": "pull"}]});
    assert_eq!(server.patch(accounts, "merge-patch", &secrets).await.code, StatusCode::OK);

    let profile = "container.apparmor.security.beta.kubernetes.io/main";
    let wanted = json!({
        "metadata": {"name": "p", "annotations": {(profile): "runtime/default"}},
        "spec": {
            "runtimeClassName": "heavy",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [{"name": "init", "image": "debian:13", "resources": {"limits": {"memory": "1Mi"}}}],
            "containers": [{"name": "main", "image": "debian:13", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        },
    });
    let made = server.post(&format!("{PODS}?fieldManager=me"), &wanted).await.json();
    let spec = &made["spec"];
    assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(7), &json!("usual")), "{made}");
    assert_eq!((&spec["overhead"]["cpu"], &spec["nodeSelector"]["a"]), (&json!("10m"), &json!("1")), "{made}");
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(3), "{made}");
    assert_eq!(spec["imagePullSecrets"], secrets["imagePullSecrets"], "{made}");
    let main = &spec["containers"][0];
    assert_eq!(main["resources"]["requests"], json!({"cpu": "5m", "memory": "64Mi"}), "{made}");
    assert_eq!(main["securityContext"]["appArmorProfile"]["type"], "RuntimeDefault", "{made}");
    assert_eq!(main["volumeMounts"].as_array().map(Vec::len), Some(2), "{made}");
    assert_eq!(made["metadata"]["annotations"].as_object().map(serde_json::Map::len), Some(2), "{made}");
    assert_eq!(made["status"]["phase"], "Pending", "{made}");

    let of_each = json!({
        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
    });
    let (mut init, mut main) = (of_each.clone(), of_each);
    init["f:resources"] =
        json!({".": {}, "f:limits": {".": {}, "f:memory": {}}, "f:requests": {".": {}, "f:memory": {}}});
    main["f:volumeMounts"] = json!({".": {}, r#"k:{"mountPath":"/v"}"#: {".": {}, "f:mountPath": {}, "f:name": {}}});
    let expected = json!({
        "f:metadata": {"f:annotations": {".": {}, (format!("f:{profile}")): {}}},
        "f:spec": {
            "f:containers": {r#"k:{"name":"main"}"#: main},
            "f:dnsPolicy": {},
            "f:enableServiceLinks": {},
            "f:initContainers": {".": {}, r#"k:{"name":"init"}"#: init},
            "f:restartPolicy": {},
            "f:runtimeClassName": {},
            "f:schedulerName": {},
            "f:securityContext": {},
            "f:serviceAccount": {},
            "f:serviceAccountName": {},
            "f:terminationGracePeriodSeconds": {},
            "f:volumes": {".": {}, r#"k:{"name":"v"}"#: {".": {}, "f:emptyDir": {}, "f:name": {}}},
        },
    });
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], expected);
}
