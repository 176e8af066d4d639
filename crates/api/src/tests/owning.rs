//! Owners and what they own.

use super::*;

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut map = config_map(name);
    let metadata = &owner["metadata"];
    map["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"],
        "blockOwnerDeletion": blocks,
    }]);
    map
}

/// Waits until the store has this object no more.
async fn gone(server: &TestServer, name: &str) {
    let key = ObjectKey::namespaced("configmaps", "default", name);
    let mut changes = server.context.store.watch("configmaps", None).unwrap();
    let wait = async {
        while server.context.store.get(&key).is_some() {
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

async fn delete_with(server: &TestServer, name: &str, policy: &str) -> Answer {
    let body = json!({"propagationPolicy": policy}).to_string();
    server.ask(request(Method::DELETE, &format!("{MAPS}/{name}"), "application/json", body)).await
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let server = TestServer::start().await;
    crate::owned::keep_owned(&server.context);
    let owner = server.post(MAPS, &config_map("owner")).await.json();
    let middle = server.post(MAPS, &owned("middle", &owner, false)).await.json();
    server.post(MAPS, &owned("last", &middle, false)).await;
    assert_eq!(server.delete(&format!("{MAPS}/owner")).await.json()["status"], "Success");
    gone(&server, "middle").await;
    gone(&server, "last").await;
    // One whose owner was never there goes, too; one whose owner is of an unknown kind stays.
    server.post(MAPS, &owned("stray", &json!({"metadata": {"name": "x", "uid": "no"}}), false)).await;
    gone(&server, "stray").await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let server = TestServer::start().await;
    crate::owned::keep_owned(&server.context);
    let owner = server.post(MAPS, &config_map("owner")).await.json();
    let mut held = owned("held", &owner, true);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &held).await;
    let marked = delete_with(&server, "owner", "Foreground").await.json();
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let mut changes = server
        .context
        .store
        .watch("configmaps", Some(marked["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()))
        .unwrap();
    let ending = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert_eq!((ending.object.key.name.as_str(), ending.kind), ("held", store::WatchKind::Modified));
    assert_eq!(server.get(&format!("{MAPS}/owner")).await.code, StatusCode::OK, "waits for what it owns");
    server.patch(&format!("{MAPS}/held"), "merge-patch", &json!({"metadata": {"finalizers": null}})).await;
    gone(&server, "owner").await;
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let server = TestServer::start().await;
    crate::owned::keep_owned(&server.context);
    let owner = server.post(MAPS, &config_map("owner")).await.json();
    server.post(MAPS, &owned("orphan", &owner, true)).await;
    delete_with(&server, "owner", "Orphan").await;
    gone(&server, "owner").await;
    let orphan = server.get(&format!("{MAPS}/orphan")).await.json();
    assert!(orphan["metadata"].get("ownerReferences").is_none(), "{orphan}");
    let refused = delete_with(&server, "orphan", "Perhaps").await;
    assert!(refused.message().contains("propagationPolicy"), "{}", refused.message());
}
