//! eviction, binding and tokens.

use super::*;

#[tokio::test]
async fn an_evicted_pod_says_so_and_goes() {
    let server = TestServer::start().await;
    server.post(PODS, &pod("p")).await;
    server.change(pod_key("p"), |pod| pod["spec"]["nodeName"] = json!("n1")).await;
    let eviction = |dry: Value| {
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
               "deleteOptions": {"gracePeriodSeconds": 7, "dryRun": dry}})
    };
    let before = server.get(&format!("{PODS}/p")).await.json();
    let path = format!("{PODS}/p/eviction");
    assert_eq!(server.post(&path, &eviction(json!(["All"]))).await.code, StatusCode::CREATED);
    assert_eq!(server.get(&format!("{PODS}/p")).await.json(), before);
    let evicted = server.post(&path, &eviction(json!(null))).await;
    assert_eq!(
        (evicted.code, evicted.json()["status"].as_str()),
        (StatusCode::CREATED, Some("Success")),
        "{}",
        evicted.message()
    );
    let going = server.get(&format!("{PODS}/p")).await.json();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 7);
    let condition =
        going["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    let mut wrong = eviction(json!(null));
    wrong["metadata"]["name"] = json!("q");
    assert_eq!(server.post(&path, &wrong).await.message(), "name in URL does not match name in Eviction object");
    assert_eq!(
        server.post(&format!("{PODS}/none/eviction"), &json!({"kind": "Eviction"})).await.code,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn another_scheduler_binds_its_pods() {
    let server = TestServer::start().await;
    let mut waiting = pod("p");
    waiting["spec"]["schedulerName"] = json!("mine");
    waiting["spec"].as_object_mut().unwrap().remove("nodeName");
    server.post(PODS, &waiting).await;
    let path = format!("{PODS}/p/binding");
    let to = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "annotations": {"by": "mine"}}, "target": {"kind": "Node", "name": node}});
    let nowhere = server.post(&path, &to("n9")).await;
    assert_eq!(
        nowhere.message(),
        "Binding \"p\" is invalid: target.name: Invalid value: \"n9\": the only node is \"n1\""
    );
    let made = server.post(&path, &to("n1")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    let bound = server.get(&format!("{PODS}/p")).await.json();
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["by"]), (&json!("n1"), &json!("mine")));
    let again = server.post(&path, &to("n1")).await;
    assert_eq!(again.code, StatusCode::CONFLICT);
    let why = "pod p is already assigned to node \"n1\"";
    assert_eq!(again.message(), format!("Operation cannot be fulfilled on pods/binding \"p\": {why}"));
}

#[tokio::test]
async fn a_token_is_issued_for_an_account_and_bound_to_its_pod() {
    let server = TestServer::start().await;
    let made = server.post(PODS, &pod("p")).await.json();
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = |kind: &str, name: &str, uid: &Value| json!({"spec": {"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}}});
    let issued = server.post(path, &bound("Pod", "p", &made["metadata"]["uid"])).await;
    assert_eq!(issued.code, StatusCode::CREATED, "{}", issued.message());
    let issued = issued.json();
    assert_eq!((&issued["kind"], &issued["spec"]["expirationSeconds"]), (&json!("TokenRequest"), &json!(3600)));
    let token = issued["status"]["token"].as_str().unwrap();
    let (tokens, store) = (server.context.agent.tokens(), &server.context.store);
    let user = tokens.verify(token, &[], store, Context::now()).unwrap();
    assert_eq!(user.name, "system:serviceaccount:default:default");
    assert_eq!(user.pod.unwrap().name, "p");
    server.write(pod_key("p"), Change::Delete).await;
    assert_eq!(tokens.verify(token, &[], store, Context::now()), Err(agent::TokenError::Gone));

    let vault = server.post(path, &json!({"spec": {"audiences": ["vault"], "expirationSeconds": 600}})).await.json();
    let token = vault["status"]["token"].as_str().unwrap();
    assert!(tokens.verify(token, &[], store, Context::now()).is_err());
    assert!(tokens.verify(token, &["vault".to_owned()], store, Context::now()).is_ok());
    let short = server.post(path, &json!({"spec": {"audiences": [], "expirationSeconds": 60}})).await;
    assert!(
        short
            .message()
            .ends_with("spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"),
        "{}",
        short.message()
    );
    assert_eq!(server.post(path, &bound("Pod", "none", &json!(""))).await.code, StatusCode::NOT_FOUND);
    server.post(PODS, &pod("q")).await;
    assert_eq!(server.post(path, &bound("Pod", "q", &json!("other"))).await.code, StatusCode::CONFLICT);
    assert_eq!(server.post(path, &bound("Node", "n1", &json!(""))).await.code, StatusCode::BAD_REQUEST);
    let nobody = server.post("/api/v1/namespaces/default/serviceaccounts/nobody/token", &json!({"spec": {}})).await;
    assert_eq!(nobody.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_gets_the_token_of_its_account_unless_one_of_them_objects() {
    let server = TestServer::start().await;
    let silent = json!({"metadata": {"name": "silent"}, "automountServiceAccountToken": false});
    server.post("/api/v1/namespaces/default/serviceaccounts", &silent).await;
    let made = |name: &'static str, change: &dyn Fn(&mut Value)| {
        let mut pod = pod(name);
        change(&mut pod["spec"]);
        let server = &server;
        async move { server.post(PODS, &pod).await.json() }
    };
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let plain = made("plain", &|spec| {
        spec["initContainers"] = json!([{"name": "init", "image": "debian:13"}]);
        let mount = json!([{"name": "own", "mountPath": path}]);
        spec["containers"] = json!([
            {"name": "main", "image": "debian:13"}, {"name": "own", "image": "debian:13", "volumeMounts": mount},
        ]);
        spec["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
    });
    let plain = plain.await;
    let volume = &plain["spec"]["volumes"][1];
    let name = volume["name"].as_str().unwrap_or_else(|| panic!("{plain}"));
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]})
    );
    let mount = json!([{"name": name, "mountPath": path, "readOnly": true}]);
    assert_eq!(plain["spec"]["initContainers"][0]["volumeMounts"], mount);
    assert_eq!(plain["spec"]["containers"][0]["volumeMounts"], mount);
    assert_eq!(plain["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    // What comes back from a client is the same Pod.
    let again = server.put(&format!("{PODS}/plain"), &plain).await;
    assert_eq!((again.code, &again.json()["spec"]), (StatusCode::OK, &plain["spec"]));

    let of_account = made("of-account", &|spec| spec["serviceAccountName"] = "silent".into()).await;
    assert_eq!(of_account["spec"].get("volumes"), None);
    let overruled = made("overruled", &|spec| {
        spec["serviceAccountName"] = "silent".into();
        spec["automountServiceAccountToken"] = true.into();
    });
    assert_eq!(overruled.await["spec"]["volumes"].as_array().unwrap().len(), 1);
    let refused = made("refused", &|spec| spec["automountServiceAccountToken"] = false.into()).await;
    assert_eq!(refused["spec"].get("volumes"), None);
}

#[tokio::test]
async fn a_token_review_goes_by_the_audiences_that_it_names() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let issued =
        server.post(path, &json!({"spec": {"audiences": ["vault", "db"], "expirationSeconds": 600}})).await.json();
    let review = |audiences: Value| {
        let spec = json!({"token": issued["status"]["token"], "audiences": audiences});
        let server = &server;
        async move {
            let path = "/apis/authentication.k8s.io/v1/tokenreviews";
            server.post(path, &json!({"spec": spec})).await.json()["status"].clone()
        }
    };
    let good = review(json!(["vault", "other"])).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &json!(["vault"])), "{good}");
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:default");
    let bad = review(json!([])).await;
    assert_eq!(bad["authenticated"], false);
    assert!(bad["error"].as_str().unwrap().contains("is invalid for the target audiences"), "{bad}");
}
