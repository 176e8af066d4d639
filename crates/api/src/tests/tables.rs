//! Tables and metadata: the forms of an answer.

use super::*;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

async fn get_as(server: &TestServer, path: &str, accept: &str) -> Answer {
    let mut wanted = request(Method::GET, path, "", Bytes::new());
    wanted.headers_mut().insert("accept", accept.parse().unwrap());
    server.ask(wanted).await
}

#[tokio::test]
async fn a_table_has_kubectls_columns() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    server.post(MAPS, &config_map("m")).await;
    let table = [
        ("pods", "Name,Ready,Status,Restarts,Age,IP*,Node*,Nominated Node*,Readiness Gates*"),
        ("configmaps", "Name,Data,Age"),
        ("secrets", "Name,Type,Data,Age"),
        ("namespaces", "Name,Status,Age"),
        (
            "nodes",
            "Name,Status,Roles,Age,Version,Internal-IP*,External-IP*,OS-Image*,Kernel-Version*,Container-Runtime*",
        ),
        ("events", "Last Seen,Type,Reason,Object,Subobject*,Source*,Message,First Seen*,Count*,Name*"),
    ];
    for (resource, want) in table {
        let answer = get_as(&server, &format!("/api/v1/{resource}"), TABLE).await;
        assert_eq!(answer.headers["content-type"], "application/json;as=Table;g=meta.k8s.io;v=v1");
        let table = answer.json();
        let columns: Vec<String> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| {
                format!("{}{}", column["name"].as_str().unwrap(), if column["priority"] == 1 { "*" } else { "" })
            })
            .collect();
        assert_eq!(columns.join(","), want);
        for row in table["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), columns.len(), "{resource}");
        }
    }
}

#[tokio::test]
async fn a_row_carries_what_was_asked_for() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    let row = |answer: Answer| answer.json()["rows"][0].clone();
    let one = row(get_as(&server, &format!("{PODS}/p"), TABLE).await);
    assert_eq!(one["cells"].as_array().unwrap()[..4], [json!("p"), json!("0/1"), json!("Pending"), json!("0")]);
    assert_eq!(one["cells"][6], "n1");
    assert_eq!(one["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(one["object"]["metadata"]["labels"], json!({"app": "p"}));
    assert!(one["object"].get("spec").is_none());
    let whole = row(get_as(&server, &format!("{PODS}?includeObject=Object"), TABLE).await);
    assert_eq!(whole["object"]["kind"], "Pod");
    let bare = row(get_as(&server, &format!("{PODS}?includeObject=None"), TABLE).await);
    assert!(bare.get("object").is_none());
}

#[tokio::test]
async fn metadata_comes_alone() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    let list = get_as(&server, PODS, METADATA).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "p");
    assert!(list["items"][0].get("spec").is_none());
    let none = get_as(&server, PODS, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(none.code, StatusCode::NOT_ACCEPTABLE);
}
