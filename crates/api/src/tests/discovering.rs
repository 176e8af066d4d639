//! Discovery and the version.

use super::*;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[tokio::test]
async fn the_older_form_lists_every_kind() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/api").await.json()["versions"], json!(["v1"]));
    assert_eq!(server.get("/apis").await.json(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}));
    let list = server.get("/api/v1").await.json();
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    let want = "configmaps events namespaces namespaces/status nodes nodes/status pods pods/attach pods/exec pods/log pods/status secrets";
    assert_eq!(names.join(" "), want);
    let pods = list["resources"].as_array().unwrap().iter().find(|resource| resource["name"] == "pods").unwrap();
    assert_eq!(
        (&pods["namespaced"], &pods["shortNames"], &pods["categories"]),
        (&json!(true), &json!(["po"]), &json!(["all"]))
    );
    assert_eq!(server.get("/apis/apps").await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/apis/apps/v1").await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_aggregated_form_says_so() {
    let server = TestServer::start().await;
    for path in ["/api", "/apis"] {
        let mut wanted = request(Method::GET, path, "", Bytes::new());
        wanted.headers_mut().insert("accept", format!("{AGGREGATED},application/json").parse().unwrap());
        let answer = server.ask(wanted).await;
        assert_eq!(answer.headers["content-type"], AGGREGATED);
        assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
        if path == "/api" {
            let version = &answer.json()["items"][0]["versions"][0];
            assert_eq!(version["resources"].as_array().unwrap().len(), 6);
            assert_eq!(version["resources"][4]["subresources"][0]["subresource"], "attach");
        } else {
            assert_eq!(answer.json()["items"], json!([]));
        }
    }
}

#[tokio::test]
async fn version_and_health_are_there() {
    let server = TestServer::start().await;
    let version = server.get("/version/").await.json();
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.37."), "{version}");
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = server.get(path).await;
        assert_eq!((answer.code.as_u16(), answer.body.as_ref()), (200, &b"ok"[..]));
    }
    assert_eq!(server.post("/version", &json!({})).await.code, StatusCode::METHOD_NOT_ALLOWED);
}
