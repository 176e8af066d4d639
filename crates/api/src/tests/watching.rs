//! watch.

use super::*;

/// Lines of a watch, as they come.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event as `TYPE name`, and the event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
                return Some((format!("{} {name}", event["type"].as_str().unwrap()), event));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.unwrap()?;
            self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    async fn expect(&mut self, want: &str) -> Value {
        let (found, event) = self.next().await.unwrap();
        assert_eq!(found, want, "{event}");
        event["object"].clone()
    }
}

async fn watch(server: &TestServer, path: &str, query: &str) -> Lines {
    watch_as(server, path, query, "application/json").await
}

async fn watch_as(server: &TestServer, path: &str, query: &str, accept: &str) -> Lines {
    let mut wanted = request(Method::GET, &format!("{path}?watch=true{query}"), "", Bytes::new());
    wanted.headers_mut().insert("accept", accept.parse().unwrap());
    let response = server.send(wanted).await;
    assert_eq!(response.status(), StatusCode::OK);
    Lines { body: response.into_body(), rest: Vec::new() }
}

#[tokio::test]
async fn a_watch_goes_on_from_its_revision() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await;
    let revision = server.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.post(MAPS, &config_map("b")).await;
    let mut lines = watch(&server, MAPS, &format!("&resourceVersion={revision}")).await;
    lines.expect("ADDED b").await;
    server.patch(&format!("{MAPS}/a"), "merge-patch", &json!({"data": {"x": "y"}})).await;
    let modified = lines.expect("MODIFIED a").await;
    assert_eq!(modified, server.get(&format!("{MAPS}/a")).await.json());
    server.delete(&format!("{MAPS}/a")).await;
    let deleted = lines.expect("DELETED a").await;
    let number = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&deleted) > number(&modified));
}

#[tokio::test]
async fn without_a_revision_the_present_comes_first() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await;
    for query in ["", "&resourceVersion=0", "&resourceVersion="] {
        let mut lines = watch(&server, MAPS, query).await;
        lines.expect("ADDED a").await;
        let name = format!("later{}", query.len());
        server.post(MAPS, &config_map(&name)).await;
        lines.expect(&format!("ADDED {name}")).await;
        server.delete(&format!("{MAPS}/{name}")).await;
    }
}

#[tokio::test]
async fn an_object_enters_and_leaves_by_its_labels() {
    let server = TestServer::start().await;
    let mut lines = watch(&server, MAPS, "&labelSelector=on%3Dyes").await;
    server.post(MAPS, &config_map("m")).await;
    let label = |value: Value| json!({"metadata": {"labels": {"on": value}}});
    let path = format!("{MAPS}/m");
    server.patch(&path, "merge-patch", &label(json!("yes"))).await;
    lines.expect("ADDED m").await;
    server.patch(&path, "merge-patch", &json!({"data": {"a": "b"}})).await;
    lines.expect("MODIFIED m").await;
    let left = server.patch(&path, "merge-patch", &label(json!(null))).await.json();
    let deleted = lines.expect("DELETED m").await;
    assert_eq!(deleted["metadata"]["labels"], json!({"on": "yes"}), "as the selector saw it last");
    assert_eq!(deleted["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    server.delete(&path).await;
    server
        .post(MAPS, &{
            let mut next = config_map("n");
            next["metadata"]["labels"] = json!({"on": "yes"});
            next
        })
        .await;
    lines.expect("ADDED n").await;
}

#[tokio::test]
async fn one_object_and_one_namespace_can_be_watched() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await;
    let mut one = watch(&server, MAPS, "&fieldSelector=metadata.name%3Db").await;
    let mut all = watch(&server, "/api/v1/configmaps", "").await;
    server.post("/api/v1/namespaces/other/configmaps", &config_map("b")).await;
    server.post(MAPS, &config_map("a")).await;
    server.post(MAPS, &config_map("b")).await;
    let found = one.expect("ADDED b").await;
    assert_eq!(found["metadata"]["namespace"], "default");
    for want in ["ADDED b", "ADDED a", "ADDED b"] {
        all.expect(want).await;
    }
}

#[tokio::test]
async fn a_watch_list_ends_its_list_with_a_bookmark() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await;
    let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = watch(&server, MAPS, query).await;
    lines.expect("ADDED a").await;
    let end = lines.expect("BOOKMARK -").await;
    assert_eq!(end["kind"], "ConfigMap");
    assert_eq!(end["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!(end["metadata"]["resourceVersion"], server.context.store.revision().to_string());
    server.post(MAPS, &config_map("b")).await;
    lines.expect("ADDED b").await;
    let wrong = server.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(wrong.code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_it_is() {
    let server = TestServer::start().await;
    let before = server.context.store.revision();
    server.post(PODS, &pod("p")).await;
    // Nothing of this watch has changed since, but the store has gone on. Time jumps to the first bookmark.
    let mut lines = watch(&server, MAPS, &format!("&allowWatchBookmarks=true&resourceVersion={before}")).await;
    lines.rest = lines.body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    let bookmark = lines.expect("BOOKMARK -").await;
    assert_eq!(bookmark["metadata"]["resourceVersion"], server.context.store.revision().to_string());
    assert!(bookmark["metadata"].get("annotations").is_none());
}

#[tokio::test]
async fn a_watch_ends_by_its_timeout_and_by_shutdown() {
    let server = TestServer::start().await;
    let mut timed = watch(&server, MAPS, "&timeoutSeconds=1").await;
    assert!(timed.next().await.is_none(), "a clean end");
    let mut lines = watch(&server, MAPS, "").await;
    server.context.shutdown.cancel();
    assert!(lines.next().await.is_none(), "a clean end");
}

#[tokio::test]
async fn a_revision_that_is_no_longer_kept_is_gone() {
    let server = TestServer::start().await;
    let changes = store::HISTORY_EVENTS + 2;
    let writes = (0..changes).map(|index| {
        let key = ObjectKey::namespaced("configmaps", "default", "m");
        server.write(key, Change::Put(json!({"metadata": {"name": "m"}, "data": {"k": index.to_string()}})))
    });
    futures::future::join_all(writes).await;
    // One that was never given out is of another store.
    for revision in ["1", "99999999"] {
        let mut lines = watch(&server, MAPS, &format!("&resourceVersion={revision}")).await;
        let status = lines.expect("ERROR -").await;
        assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("too old resource version: {revision} (")), "{message}");
        assert!(lines.next().await.is_none(), "nothing comes after it");
    }
    let query = "watch=true&resourceVersion=99999999&resourceVersionMatch=NotOlderThan&sendInitialEvents=true";
    let future = server.get(&format!("{MAPS}?{query}")).await;
    assert_eq!(future.code, StatusCode::GATEWAY_TIMEOUT);
    let exact = server.get(&format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    assert_eq!((exact.code, exact.json()["reason"].as_str()), (StatusCode::GONE, Some("Expired")));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_that_it_fell_behind() {
    let server = TestServer::start().await;
    let map = |index: usize| {
        let data = json!({"k": format!("{index}{}", "x".repeat(40_000))});
        json!({"metadata": {"name": "m", "namespace": "default"}, "data": data})
    };
    let key = || ObjectKey::namespaced("configmaps", "default", "m");
    server.write(key(), Change::Put(map(0))).await;
    let mut lines = watch(&server, MAPS, "").await;
    lines.expect("ADDED m").await;
    // Far more than the history keeps, and than the connection takes before the client reads.
    for index in 1..8 * store::HISTORY_BYTES / 40_000 {
        server.write(key(), Change::Put(map(index))).await;
    }
    let mut told = 0;
    let status = loop {
        let (found, event) = lines.next().await.unwrap();
        if found.starts_with("ERROR") {
            break event["object"].clone();
        }
        assert_eq!(found, "MODIFIED m");
        told += 1;
    };
    assert_eq!(status["code"], 410, "{status}");
    // What it was not told of was not kept for it.
    assert!(told < 2 * store::HISTORY_BYTES / 40_000, "{told} changes were held for one client");
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_watch_of_metadata_tells_metadata() {
    let server = TestServer::start().await;
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut lines = watch_as(&server, MAPS, "", accept).await;
    server.post(MAPS, &config_map("a")).await;
    let told = lines.expect("ADDED a").await;
    assert_eq!(told["kind"], "PartialObjectMetadata");
    assert!(told.get("data").is_none());
}

#[tokio::test]
async fn a_watch_of_tables_names_its_columns_once() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("a")).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut lines = watch_as(&server, PODS, "", accept).await;
    let first = lines.next().await.unwrap().1["object"].clone();
    assert_eq!(first["kind"], "Table");
    assert_eq!(first["columnDefinitions"].as_array().unwrap().len(), 9);
    assert_eq!(first["rows"][0]["cells"][0], "a");
    server.change(pod_key("a"), |pod| pod["status"]["phase"] = json!("Running")).await;
    let second = lines.next().await.unwrap().1;
    assert_eq!(second["type"], "MODIFIED");
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    assert_eq!(second["object"]["rows"][0]["cells"][2], "Running");
}
