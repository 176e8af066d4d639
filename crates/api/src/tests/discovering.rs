//! Discovery and the version.

use super::*;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[tokio::test]
async fn the_older_form_lists_every_kind() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/api").await.json()["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.json();
    assert_eq!(groups["groups"][0]["preferredVersion"]["groupVersion"], "apps/v1");
    let roles = server.get("/apis/rbac.authorization.k8s.io/v1").await.json();
    assert_eq!(roles["resources"].as_array().unwrap().len(), 4);
    let list = server.get("/api/v1").await.json();
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    for want in ["configmaps", "pods", "pods/attach", "pods/exec", "pods/log", "pods/status", "namespaces/status"] {
        assert!(names.contains(&want), "{want} in {names:?}");
    }
    let pods = list["resources"].as_array().unwrap().iter().find(|resource| resource["name"] == "pods").unwrap();
    assert_eq!(
        (&pods["namespaced"], &pods["shortNames"], &pods["categories"]),
        (&json!(true), &json!(["po"]), &json!(["all"]))
    );
    assert_eq!(server.get("/apis/autoscaling").await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/apis/autoscaling/v1").await.code, StatusCode::NOT_FOUND);
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
            let resources = version["resources"].as_array().unwrap();
            let pods = resources.iter().find(|resource| resource["resource"] == "pods").unwrap();
            assert_eq!(pods["subresources"][0]["subresource"], "attach");
        } else {
            assert_eq!(answer.json()["items"][0]["metadata"]["name"], "apps");
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

#[tokio::test]
async fn openapi_describes_each_group_and_names_its_content() {
    let server = TestServer::start().await;
    let index = server.get("/openapi/v3").await;
    let url = index.json()["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(url.starts_with("/openapi/v3/api/v1?hash="), "{url}");
    let answer = server.get(&url).await;
    assert_eq!(
        (answer.code, &answer.headers["cache-control"]),
        (StatusCode::OK, &"public, immutable".parse().unwrap())
    );
    let document = answer.json();
    assert_eq!(document["openapi"], "3.0.0");
    // What kubectl looks for before it lets the server validate, and before it sends a strategic patch.
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(["dryRun", "fieldValidation"].iter().all(|name| parameters.iter().any(|one| one["name"] == *name)));
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!((&spec["type"], &spec["x-kubernetes-patch-merge-key"]), (&json!("array"), &json!("name")));
    assert!(!spec["description"].as_str().unwrap().is_empty());
    // Who has it already gets no second copy.
    for path in [url.as_str(), "/openapi/v3"] {
        let tag = server.get(path).await.headers["etag"].clone();
        let mut again = request(Method::GET, path, "", Bytes::new());
        again.headers_mut().insert("if-none-match", tag);
        let answer = server.ask(again).await;
        assert_eq!((answer.code, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
    }
    assert_eq!(server.get("/openapi/v3/apis/none/v1").await.code, StatusCode::NOT_FOUND);
    // kubectl asks for protobuf there and goes on without.
    assert_eq!(server.get("/openapi/v2").await.code, StatusCode::NOT_FOUND);
}
