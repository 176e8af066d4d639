//! What a person reads when something is wrong.

use super::*;

/// An answer, and the code, reason and beginning of the message that it must have.
type Case = (Answer, u16, &'static str, &'static str);

fn check(table: Vec<Case>) {
    for (answer, code, reason, message) in table {
        let status = answer.json();
        assert_eq!(
            (status["kind"].as_str(), status["status"].as_str()),
            (Some("Status"), Some("Failure")),
            "{message}"
        );
        assert_eq!((answer.code.as_u16(), &status["code"]), (code, &json!(code)), "{message}");
        assert_eq!(status["reason"], reason, "{message}");
        assert!(answer.message().starts_with(message), "{:?} should start with {message:?}", answer.message());
    }
}

fn with_container(container: &Value) -> Value {
    json!({"metadata": {"name": "x"}, "spec": {"containers": [container]}})
}

#[tokio::test]
async fn what_is_wrong_with_an_object_is_told_as_kubernetes_words_it() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    let post = async |path: &str, body: Value| server.post(path, &body).await;
    let mut elsewhere = with_container(&json!({"name": "a", "image": "b"}));
    elsewhere["spec"]["nodeName"] = json!("n2");
    check(vec![
        (post(PODS, pod("p")).await, 409, "AlreadyExists", "pods \"p\" already exists"),
        (post("/api/v1/namespaces/no/pods", pod("p")).await, 404, "NotFound", "namespaces \"no\" not found"),
        (
            post(PODS, with_container(&json!({"name": "a"}))).await,
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.containers[0].image: Required value",
        ),
        (
            post(PODS, with_container(&json!({"name": "a", "image": 1}))).await,
            400,
            "BadRequest",
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal spec.containers[0].image: ",
        ),
        (
            post(PODS, elsewhere).await,
            422,
            "Invalid",
            "Pod \"x\" is invalid: spec.nodeName: Invalid value: \"n2\": the only node is \"n1\"",
        ),
        (
            post(MAPS, json!({"metadata": {"name": "x", "namespace": "other"}})).await,
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            post(MAPS, json!({"metadata": {}})).await,
            422,
            "Invalid",
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            post(MAPS, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})).await,
            400,
            "BadRequest",
            "Secret in version \"v1\" cannot be handled as a ConfigMap",
        ),
        (
            post(MAPS, json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}})).await,
            400,
            "BadRequest",
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            post(MAPS, json!({"metadata": {"name": "Not_A_Name"}})).await,
            422,
            "Invalid",
            "ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123",
        ),
    ]);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_as_kubernetes_words_it() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    let get = async |path: &str| server.get(path).await;
    let raw = async |kind: &str, body: &'static str| server.ask(request(Method::POST, MAPS, kind, body)).await;
    let nothing_here = "the server could not find the requested resource";
    let accepted = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml";
    check(vec![
        (get(&format!("{PODS}/x")).await, 404, "NotFound", "pods \"x\" not found"),
        (get("/api/v1/things").await, 404, "NotFound", nothing_here),
        (get(&format!("{PODS}/p/nothing")).await, 404, "NotFound", nothing_here),
        (
            server.post("/api/v1/pods", &pod("x")).await,
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            get(&format!("{PODS}?fieldSelector=spec.x%3D1")).await,
            400,
            "BadRequest",
            "field label not supported: spec.x",
        ),
        (get(&format!("{PODS}?labelSelector=a+b")).await, 400, "BadRequest", "unable to parse requirement"),
        (
            get(&format!("{PODS}?resourceVersion=999999999")).await,
            504,
            "Timeout",
            "Too large resource version: 999999999, current:",
        ),
        (get(&format!("{PODS}?continue=abc")).await, 400, "BadRequest", "continue key is not valid"),
        (raw("application/json", "{").await, 400, "BadRequest", "invalid JSON"),
        (raw("application/json", "[]").await, 400, "BadRequest", "the body is not a JSON object"),
        (raw("application/yaml", "{a: [").await, 400, "BadRequest", "invalid YAML"),
        (raw("text/plain", "x").await, 415, "UnsupportedMediaType", accepted),
    ]);
    let unknown = server.get("/nothing").await;
    assert_eq!((unknown.code.as_u16(), unknown.body.as_ref()), (404, &b"404 page not found\n"[..]));
}

#[tokio::test]
async fn an_error_names_the_object_and_the_fields() {
    let server = TestServer::start().await;
    let details = server.get(&format!("{PODS}/x")).await.json()["details"].clone();
    assert_eq!(details, json!({"name": "x", "kind": "pods"}));
    let bad = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}, {"name": "a", "image": "b"}]}});
    let answer = server.post(PODS, &bad).await.json();
    let causes = answer["details"]["causes"].as_array().unwrap();
    assert_eq!(
        causes[0],
        json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].image"})
    );
    assert!(causes.iter().any(|cause| cause["reason"] == "FieldValueDuplicate"), "{causes:?}");
    assert!(answer["message"].as_str().unwrap().starts_with("Pod \"x\" is invalid: ["));
}

#[tokio::test]
async fn a_field_that_is_not_honoured_is_refused_by_name() {
    let server = TestServer::start().await;
    let mut wanted = pod("x");
    wanted["spec"]["volumes"] = json!([{"name": "share", "nfs": {"server": "s", "path": "/"}}]);
    let answer = server.post(PODS, &wanted).await;
    assert_eq!(answer.code, StatusCode::UNPROCESSABLE_ENTITY);
    let cause = &answer.json()["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldValueForbidden"), &json!("spec.volumes[0].nfs")));
}

#[tokio::test]
async fn a_body_is_bounded() {
    let server = TestServer::start().await;
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(3 << 20)}});
    let answer = server.post(MAPS, &map).await;
    assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.message(), "Request entity too large: limit is 3145728");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let answer = server.ask(request(Method::POST, MAPS, "application/json", deep)).await;
    assert_eq!(answer.code, StatusCode::BAD_REQUEST);
}
