//! patch, in its three languages.

use super::*;

#[tokio::test]
async fn three_languages_say_the_same() {
    let server = TestServer::start().await;
    let path = format!("{PODS}/p");
    server.post(PODS, &pod("p")).await;
    let merge = json!({"metadata": {"labels": {"a": "1", "app": null}}});
    let one = server.patch(&path, "merge-patch", &merge).await;
    assert_eq!(one.code, StatusCode::OK, "{:?}", one.body);
    assert_eq!(one.json()["metadata"]["labels"], json!({"a": "1"}));
    let operations = json!([
        {"op": "test", "path": "/metadata/labels/a", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/a", "value": "2"},
    ]);
    assert_eq!(server.patch(&path, "json-patch", &operations).await.json()["metadata"]["labels"], json!({"a": "2"}));
    let failed = server.patch(&path, "json-patch", &operations).await;
    assert_eq!(failed.code, StatusCode::UNPROCESSABLE_ENTITY);
    let strategic = json!({"spec": {"$setElementOrder/containers": [{"name": "main"}], "containers": [{"name": "main", "image": "debian:12"}]}});
    let two = server.patch(&path, "strategic-merge-patch", &strategic).await.json();
    let container = &two["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["command"]), (&json!("debian:12"), &json!(["sleep", "1"])));
    assert_eq!(two["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_patch_obeys_the_rules_of_an_update() {
    let server = TestServer::start().await;
    let path = format!("{PODS}/p");
    let created = server.post(PODS, &pod("p")).await.json();
    let nothing = server.patch(&path, "strategic-merge-patch", &json!({"metadata": {"labels": {"app": "p"}}})).await;
    assert_eq!(nothing.json(), created, "an empty change makes no new version");
    let stale = server.patch(&path, "merge-patch", &json!({"metadata": {"resourceVersion": "1"}})).await;
    assert_eq!(stale.code, StatusCode::CONFLICT);
    let status = server.patch(&path, "merge-patch", &json!({"status": {"phase": "Failed"}})).await;
    assert_eq!(status.json(), created, "status is not this door's");
    let status = server.patch(&format!("{path}/status"), "merge-patch", &json!({"status": {"phase": "Failed"}})).await;
    assert_eq!(status.json()["status"]["phase"], "Failed");
    let spec = server.patch(&path, "merge-patch", &json!({"spec": {"hostname": "x"}})).await;
    assert_eq!(spec.code, StatusCode::UNPROCESSABLE_ENTITY);
    let unknown =
        server.patch(&format!("{path}?fieldValidation=Strict"), "merge-patch", &json!({"spec": {"foo": 1}})).await;
    assert_eq!(unknown.code, StatusCode::BAD_REQUEST);
    let missing = server.patch(&format!("{PODS}/none"), "merge-patch", &json!({})).await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND);
    let cbor = server.ask(request(Method::PATCH, &path, "application/apply-patch+cbor", "{}")).await;
    assert_eq!(cbor.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(cbor.message().ends_with("application/apply-patch+yaml"), "{}", cbor.message());
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("m")).await;
    let path = format!("{MAPS}/m");
    let patches = (0..6).map(|index| {
        let one_key = json!({"data": {format!("key-{index}"): "x"}});
        let (server, path) = (&server, &path);
        async move { server.patch(path, "merge-patch", &one_key).await.code }
    });
    for code in futures::future::join_all(patches).await {
        assert_eq!(code, StatusCode::OK);
    }
    assert_eq!(server.get(&path).await.json()["data"].as_object().unwrap().len(), 7);
}
