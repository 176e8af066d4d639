//! list: pages, and states of the past.

use super::*;

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn with_maps(names: &[&str]) -> TestServer {
    let server = TestServer::start().await;
    for name in names {
        server.post(MAPS, &config_map(name)).await;
    }
    server
}

#[tokio::test]
async fn pages_show_one_state_whatever_changes_between() {
    let server = with_maps(&["a", "b", "c", "d", "e"]).await;
    let first = server.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"].as_str().unwrap();

    server.delete(&format!("{MAPS}/c")).await;
    server.post(MAPS, &config_map("bb")).await;
    server.patch(&format!("{MAPS}/d"), "merge-patch", &json!({"data": {"k": "later"}})).await;
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["items"][1]["data"]["k"], "v");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = server.get(&format!("/api/v1/namespaces/default/configmaps?limit=2&continue={token}")).await.json();
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"].get("continue").is_none());

    let chosen = server.get(&format!("{MAPS}?limit=1&labelSelector=!none")).await.json();
    assert!(chosen["metadata"].get("remainingItemCount").is_none(), "unknown with a selector");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut wanted = request(Method::GET, &format!("{MAPS}?limit=1"), "", Bytes::new());
    wanted.headers_mut().insert("accept", table.parse().unwrap());
    assert!(server.ask(wanted).await.json()["metadata"]["continue"].is_string());
}

#[tokio::test]
async fn a_lost_state_gives_a_token_for_the_rest() {
    let server = with_maps(&["a", "b", "c"]).await;
    let token =
        server.get(&format!("{MAPS}?limit=1")).await.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let writes = (0..store::HISTORY_EVENTS + 2).map(|index| {
        let key = ObjectKey::namespaced("configmaps", "default", "z");
        server.write(key, Change::Put(json!({"metadata": {"name": "z"}, "data": {"k": index.to_string()}})))
    });
    futures::future::join_all(writes).await;
    let lost = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((lost.code, lost.json()["reason"].as_str()), (StatusCode::GONE, Some("Expired")));
    assert!(lost.message().starts_with("The provided continue parameter is too old"), "{}", lost.message());
    let token = lost.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = server.get(&format!("{MAPS}?continue={token}")).await.json();
    assert_eq!(names(&rest), ["b", "c", "z"]);
    assert_eq!(server.get(&format!("{MAPS}?continue=nonsense")).await.code, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_revision_may_be_asked_for() {
    let server = with_maps(&["a"]).await;
    let then = server.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.post(MAPS, &config_map("b")).await;
    let exact = server.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.json();
    assert_eq!((names(&exact), exact["metadata"]["resourceVersion"].as_str()), (vec!["a"], Some(then.as_str())));
    for newer in
        [format!("resourceVersion={then}"), "resourceVersion=0".to_owned(), "resourceVersion=0&limit=500".to_owned()]
    {
        assert_eq!(names(&server.get(&format!("{MAPS}?{newer}")).await.json()), ["a", "b"], "{newer}");
    }
    let future = server.get(&format!("{MAPS}?resourceVersion=99999999&resourceVersionMatch=Exact")).await;
    assert_eq!(future.code, StatusCode::GATEWAY_TIMEOUT);
    for (query, why) in [
        (
            "resourceVersionMatch=Exact",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ("resourceVersion=x", "resourceVersion: Invalid value: \"x\": must be a whole number"),
    ] {
        let refused = server.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(refused.message(), format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"));
    }
}
