//! Paths that people look at: health, what there is, and what a kubelet would answer.

use super::*;

async fn text(server: &TestServer, path: &str) -> (u16, String) {
    let answer = server.get(path).await;
    (answer.code.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap())
}

#[tokio::test]
async fn health_is_told_as_a_whole_and_by_each_check() {
    let server = TestServer::start().await;
    for door in ["healthz", "livez", "readyz"] {
        assert_eq!(text(&server, &format!("/{door}")).await, (200, "ok".to_owned()));
        let whole = format!("[+]ping ok\n[+]store ok\n{door} check passed\n");
        assert_eq!(text(&server, &format!("/{door}?verbose")).await, (200, whole));
        assert_eq!(text(&server, &format!("/{door}/store")).await, (200, "ok".to_owned()));
        assert_eq!(text(&server, &format!("/{door}/nothing")).await.0, 404);
    }
    let wanted = "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"etcd\"\nlivez check passed\n";
    assert_eq!(text(&server, "/livez?verbose&exclude=store&exclude=etcd").await, (200, wanted.to_owned()));
}

#[tokio::test]
async fn the_root_lists_what_there_is() {
    let server = TestServer::start().await;
    let paths = server.get("/").await.json()["paths"].clone();
    for path in ["/api/v1", "/apis/rbac.authorization.k8s.io/v1", "/healthz/store", "/metrics"] {
        assert!(paths.as_array().unwrap().contains(&json!(path)), "{path}: {paths}");
    }
}

#[tokio::test]
async fn the_node_answers_as_a_kubelet() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("here")).await;
    let mut waiting = pod("waiting");
    waiting["spec"].as_object_mut().unwrap().remove("nodeName");
    server.post(PODS, &waiting).await;
    let door = "/api/v1/nodes/n1/proxy";
    assert_eq!(text(&server, &format!("{door}/healthz")).await, (200, "ok".to_owned()));
    assert!(text(&server, &format!("{door}/metrics")).await.1.contains("# TYPE"));
    let pods = server.get(&format!("{door}/pods")).await.json();
    assert_eq!((pods["kind"].as_str(), pods["items"].as_array().unwrap().len()), (Some("PodList"), 1));
    assert_eq!(pods["items"][0]["metadata"]["name"], "here");
    assert_eq!(text(&server, "/api/v1/nodes/https:n1:10250/proxy/healthz").await.0, 200);
    assert_eq!(text(&server, &format!("{door}/nothing")).await.0, 404);
    assert_eq!(text(&server, "/api/v1/nodes/n2/proxy/healthz").await.0, 404);
    assert_eq!(server.post(&format!("{door}/run/x"), &json!({})).await.code, StatusCode::METHOD_NOT_ALLOWED);
}
