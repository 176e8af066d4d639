//! delete and deletecollection.

use super::*;

async fn delete_with(server: &TestServer, path: &str, options: &Value) -> Answer {
    server.ask(request(Method::DELETE, path, "application/json", options.to_string())).await
}

#[tokio::test]
async fn a_pod_is_marked_then_removed() {
    let server = TestServer::start().await;
    let path = format!("{PODS}/p");
    server.post(PODS, &pod("p")).await;
    let marked = delete_with(&server, &path, &json!({"propagationPolicy": "Background"})).await.json();
    assert_eq!(marked["kind"], "Pod");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["generation"], 2);
    let end = marked["metadata"]["deletionTimestamp"].clone();
    assert!(end.is_string());
    // Longer changes nothing, shorter does.
    let same = delete_with(&server, &path, &json!({"gracePeriodSeconds": 300})).await.json();
    assert_eq!(same, marked);
    let sooner = server.delete(&format!("{path}?gracePeriodSeconds=1")).await.json();
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 1);
    assert!(sooner["metadata"]["deletionTimestamp"].as_str() < end.as_str());
    let gone = server.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!((gone.code, &gone.json()["kind"]), (StatusCode::OK, &json!("Pod")));
    assert_eq!(server.get(&path).await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.delete(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_kinds_go_at_once() {
    let server = TestServer::start().await;
    let uid = server.post(MAPS, &config_map("m")).await.json()["metadata"]["uid"].clone();
    let status = server.delete(&format!("{MAPS}/m")).await.json();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"], json!({"name": "m", "kind": "configmaps", "uid": uid}));
    assert_eq!(server.get(&format!("{MAPS}/m")).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn preconditions_and_dry_runs_hold() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let created = server.post(MAPS, &config_map("m")).await.json();
    let wrong = delete_with(&server, &path, &json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(wrong.code, StatusCode::CONFLICT);
    assert!(wrong.message().contains("Precondition failed: UID in precondition: other, UID in object meta: "));
    let wrong = delete_with(&server, &path, &json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(wrong.code, StatusCode::CONFLICT);
    assert_eq!(delete_with(&server, &path, &json!({"dryRun": ["All"]})).await.code, StatusCode::OK);
    assert_eq!(server.delete(&format!("{path}?dryRun=All")).await.code, StatusCode::OK);
    assert_eq!(server.get(&path).await.json(), created);
    let right = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    assert_eq!(delete_with(&server, &path, &right).await.code, StatusCode::OK);
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_removed() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let mut map = config_map("m");
    map["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &map).await;
    let held = server.delete(&path).await.json();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let release = json!({"metadata": {"finalizers": null}});
    assert_eq!(server.patch(&path, "merge-patch", &release).await.code, StatusCode::OK);
    assert_eq!(server.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c"] {
        let mut map = config_map(name);
        map["metadata"]["labels"] = json!({"keep": if name == "b" { "yes" } else { "no" }});
        server.post(MAPS, &map).await;
    }
    let deleted = server.delete(&format!("{MAPS}?labelSelector=keep%3Dno")).await.json();
    assert_eq!(deleted["kind"], "ConfigMapList");
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.get(MAPS).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_waits_for_what_a_finalizer_holds_and_for_late_events() {
    let server = TestServer::start().await;
    let maps = "/api/v1/namespaces/team/configmaps";
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await;
    let mut held = config_map("m");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(maps, &held).await;
    let mut namespaces = server.context.store.watch("namespaces", None).unwrap();
    let mut events = server.context.store.watch(store::EVENTS, None).unwrap();
    server.delete("/api/v1/namespaces/team").await;
    // As the agent tells of the end of a Pod.
    let event = json!({"metadata": {"name": "e", "namespace": "team"}, "message": "Stopping container"});
    server.write(ObjectKey::namespaced(store::EVENTS, "team", "e"), Change::Put(event)).await;
    assert_eq!(events.next().await.unwrap().kind, store::WatchKind::Added);
    assert_eq!(events.next().await.unwrap().kind, store::WatchKind::Deleted);
    let said = async {
        loop {
            let event = namespaces.next().await.unwrap();
            let conditions = event.object.value["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let said: Vec<_> = conditions
                .iter()
                .map(|one| {
                    [&one["type"], &one["status"], &one["reason"], &one["message"]]
                        .map(|text| text.as_str().unwrap().to_owned())
                })
                .collect();
            if said.last().is_some_and(|last| last[1] == "True") && !said[3][3].contains("events") {
                return said;
            }
        }
    };
    let said = tokio::time::timeout(PATIENCE, said).await.unwrap();
    let expected = [
        ["NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", "All resources successfully discovered"],
        [
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ],
        [
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ],
        [
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: configmaps. has 1 resource instances",
        ],
        [
            "NamespaceFinalizersRemaining",
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        ],
    ];
    assert_eq!(said, expected);
    assert_eq!(server.get("/api/v1/namespaces/team").await.code, StatusCode::OK);
    server.patch(&format!("{maps}/m"), "merge-patch", &json!({"metadata": {"finalizers": null}})).await;
    let gone = async { while namespaces.next().await.unwrap().kind != store::WatchKind::Deleted {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_namespace_takes_its_objects_with_it() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await;
    server.post("/api/v1/namespaces/team/pods", &pod("p")).await;
    server.post("/api/v1/namespaces/team/configmaps", &config_map("m")).await;
    let list = server.get("/api/v1/pods").await.json()["metadata"]["resourceVersion"].clone();
    let mut pods = server.context.store.watch("pods", list.as_str().unwrap().parse().ok()).unwrap();
    let mut namespaces = server.context.store.watch("namespaces", list.as_str().unwrap().parse().ok()).unwrap();
    let marked = server.delete("/api/v1/namespaces/team").await.json();
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = server.post("/api/v1/namespaces/team/configmaps", &config_map("n")).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "configmaps \"n\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    // The pod is asked to end; its worker removes it, and only then the rest goes.
    let ending = pods.next().await.unwrap();
    assert!(ending.object.value["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.get("/api/v1/namespaces/team/configmaps/m").await.code, StatusCode::OK);
    server.write(ObjectKey::clone(&ending.object.key), Change::Delete).await;
    let gone = tokio::time::timeout(PATIENCE, async {
        loop {
            let event = namespaces.next().await.unwrap();
            if event.kind == store::WatchKind::Deleted {
                return event.object.key.name.clone();
            }
        }
    });
    assert_eq!(gone.await.unwrap(), "team");
    assert_eq!(server.get("/api/v1/configmaps").await.json()["items"], json!([]));
    let lasting = server.delete("/api/v1/namespaces/default").await;
    assert_eq!(lasting.message(), "namespaces \"default\" is forbidden: this namespace may not be deleted");
}
