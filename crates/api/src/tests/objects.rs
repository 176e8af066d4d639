//! create, get, list and update.

use super::*;

#[tokio::test]
async fn a_created_pod_is_completed_but_not_bound() {
    let server = TestServer::start().await;
    let mut unbound = pod("web");
    unbound["spec"].as_object_mut().unwrap().remove("nodeName");
    let answer = server.post(PODS, &unbound).await;
    assert_eq!(answer.code, StatusCode::CREATED, "{:?}", answer.body);
    let created = answer.json();
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(created["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(created["spec"]["nodeName"], Value::Null);
    assert_eq!(created["spec"]["restartPolicy"], "Always");
    assert_eq!(created["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(created["status"]["qosClass"], "BestEffort");
    assert_eq!(server.get(&format!("{PODS}/web")).await.json(), created);
    // Who writes it back without the name of its node means no change.
    server.change(pod_key("web"), |pod| pod["spec"]["nodeName"] = json!("n1")).await;
    let mut again = created;
    again["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let answer = server.put(&format!("{PODS}/web"), &again).await;
    assert_eq!(answer.code, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.json()["spec"]["nodeName"], "n1");
}

#[tokio::test]
async fn what_is_added_to_a_new_pod_is_nobodys_and_stays() {
    let server = TestServer::start().await;
    let mut wanted = pod("p");
    wanted["status"] = json!({"phase": "Running"});
    wanted["spec"]["automountServiceAccountToken"] = json!(false);
    wanted["spec"]["hostAliases"] = json!([{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}]);
    let made = server.post(PODS, &wanted).await;
    assert_eq!(made.headers["warning"], r#"299 - "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"""#);
    let made = made.json();
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!((owned.get("f:status"), owned["f:spec"].get("f:tolerations")), (None, None));
    let added = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let expected = json!([added("node.kubernetes.io/not-ready"), added("node.kubernetes.io/unreachable")]);
    assert_eq!(made["spec"]["tolerations"], expected);
    let again = server.put(&format!("{PODS}/p"), &wanted).await;
    assert_eq!((again.code, again.headers.get("warning")), (StatusCode::OK, None), "{}", again.message());
    assert_eq!(again.json()["spec"]["tolerations"], expected);
}

#[tokio::test]
async fn what_kubernetes_refuses_as_well_is_said_once() {
    let server = TestServer::start().await;
    let mut wrong = pod("p");
    wrong["spec"]["containers"][0]["resources"] = json!({"limits": {"foo": "1"}});
    let message = server.post(PODS, &wrong).await.message();
    assert!(message.contains("must be a standard resource type or fully qualified"), "{message}");
    assert!(!message.contains("monopod"), "{message}");
}

#[tokio::test]
async fn a_pod_with_gates_says_so_from_the_first() {
    let server = TestServer::start().await;
    let mut gated = pod("web");
    gated["spec"].as_object_mut().unwrap().remove("nodeName");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/go"}]);
    let created = server.post(PODS, &gated).await.json();
    let told = json!([{
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "observedGeneration": 1,
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastTransitionTime": created["metadata"]["creationTimestamp"],
    }]);
    assert_eq!(created["status"]["conditions"], told);
    assert_eq!(created["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_a_client_may_not_set_is_not_taken() {
    let server = TestServer::start().await;
    let mut map = config_map("m");
    map["metadata"]["uid"] = json!("mine");
    map["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    map["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
    map["metadata"]["generation"] = json!(7);
    map["metadata"]["managedFields"] = json!([{"manager": "me"}]);
    let created = server.post(MAPS, &map).await.json();
    let metadata = created["metadata"].as_object().unwrap();
    assert_ne!(metadata["uid"], "mine");
    assert!(!metadata["creationTimestamp"].as_str().unwrap().starts_with("2001"));
    assert_ne!(metadata["managedFields"][0]["manager"], "me");
    for absent in ["deletionTimestamp", "generation"] {
        assert!(!metadata.contains_key(absent), "{absent}");
    }
    map["metadata"] = json!({"name": "n", "resourceVersion": "5"});
    let answer = server.post(MAPS, &map).await;
    assert_eq!(answer.message(), "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn a_name_is_generated() {
    let server = TestServer::start().await;
    let mut map = config_map("");
    map["metadata"] = json!({"generateName": "web-"});
    let (one, two) = (server.post(MAPS, &map).await.json(), server.post(MAPS, &map).await.json());
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn a_secret_keeps_no_string_data() {
    let server = TestServer::start().await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let created = server.post("/api/v1/namespaces/default/secrets", &secret).await.json();
    assert_eq!(created["data"], json!({"a": "Yg=="}));
    assert_eq!(created["type"], "Opaque");
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("Secret"), &json!("v1")));
    assert!(created.get("stringData").is_none());
}

#[tokio::test]
async fn yaml_and_a_body_without_type_are_taken() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: text\ndata:\n  text: |\n    one\n    two\n";
    let answer = server.ask(request(Method::POST, MAPS, "application/yaml", yaml)).await;
    assert_eq!(answer.json()["data"]["text"], "one\ntwo\n", "{:?}", answer.body);
    let answer = server.ask(request(Method::POST, MAPS, "", config_map("j").to_string())).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    let answer = server.ask(request(Method::POST, MAPS, "application/vnd.kubernetes.protobuf", "k8s\0")).await;
    assert_eq!(answer.code, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = TestServer::start().await;
    let before = server.context.store.revision();
    let answer = server.post(&format!("{MAPS}?dryRun=All"), &config_map("m")).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    assert!(!answer.json()["metadata"]["uid"].as_str().unwrap().is_empty());
    assert_eq!(server.get(&format!("{MAPS}/m")).await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.context.store.revision(), before);
    assert_eq!(server.post(&format!("{MAPS}?dryRun=Some"), &config_map("m")).await.code, 422);
}

#[tokio::test]
async fn unknown_fields_are_refused_told_or_dropped() {
    let server = TestServer::start().await;
    let mut with_typo = pod("p");
    with_typo["spec"]["foo"] = json!(1);
    let strict = server.post(&format!("{PODS}?fieldValidation=Strict"), &with_typo).await;
    assert_eq!(strict.code, StatusCode::BAD_REQUEST);
    assert_eq!(
        strict.message(),
        r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo""#
    );
    let warned = server.post(PODS, &with_typo).await;
    assert_eq!(warned.code, StatusCode::CREATED);
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"spec.foo\"""#);
    assert!(warned.json()["spec"].get("foo").is_none());
    with_typo["metadata"]["name"] = json!("q");
    let dropped = server.post(&format!("{PODS}?fieldValidation=Ignore"), &with_typo).await;
    assert!(dropped.headers.get("warning").is_none());
}

#[tokio::test]
async fn a_field_that_stands_twice_is_refused_or_warned_about() {
    let server = TestServer::start().await;
    let json = |name: &str| {
        let spec =
            r#""nodeName":"n1","foo":1,"foo":2,"hostname":"a","hostname":"b","containers":[{"name":"c","image":"i"}]"#;
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{{spec}}}}}"#)
    };
    let yaml = |name: &str| {
        let spec = "foo: 1\n  foo: 2\n  hostname: a\n  hostname: b\n  containers: [{name: c, image: i}]";
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
    };
    let (one, apply) = (format!("{PODS}/patched"), "application/apply-patch+yaml");
    let warnings = |answer: &Answer| -> Vec<String> {
        answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    for (method, path, kind, body) in [
        (Method::POST, PODS, "application/json", json("json")),
        (Method::POST, PODS, "application/yaml", yaml("yaml")),
        (Method::PATCH, &one, apply, yaml("patched")),
    ] {
        let send = |query: &str| {
            let path = format!("{path}?fieldManager=m&force=true{query}");
            let path = if method == Method::POST { path.replace("&force=true", "") } else { path };
            server.ask(request(method.clone(), &path, kind, body.clone()))
        };
        let strict = send("&fieldValidation=Strict").await;
        assert_eq!(strict.code, StatusCode::BAD_REQUEST);
        let faults = r#"strict decoding error: unknown field "spec.foo", duplicate field "spec.hostname""#;
        assert!(strict.message().ends_with(faults), "{}", strict.message());
        let ignored = send("&fieldValidation=Ignore&dryRun=All").await;
        assert_eq!(warnings(&ignored), Vec::<String>::new());
        assert_eq!(ignored.json()["spec"]["hostname"], "b");
        let warned = send("").await;
        assert_eq!(warned.code, StatusCode::CREATED, "{}", warned.message());
        let expected = [r#"299 - "unknown field \"spec.foo\"""#, r#"299 - "duplicate field \"spec.hostname\"""#];
        assert_eq!(warnings(&warned), expected);
    }
    let merge = r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let patched = server.ask(request(Method::PATCH, &one, "application/merge-patch+json", merge)).await;
    assert_eq!(warnings(&patched), [r#"299 - "duplicate field \"metadata.labels.a\"""#]);
}

#[tokio::test]
async fn lists_are_narrowed_by_selectors() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await;
    for name in ["a", "b"] {
        server.post(PODS, &pod(name)).await;
    }
    server.post("/api/v1/namespaces/other/pods", &pod("c")).await;
    let table = [
        (PODS.to_owned(), "a b"),
        ("/api/v1/pods".to_owned(), "a b c"),
        ("/api/v1/pods?labelSelector=app%3Db".to_owned(), "b"),
        ("/api/v1/pods?labelSelector=app+in+(a,c)".to_owned(), "a c"),
        ("/api/v1/pods?fieldSelector=metadata.namespace%3Dother".to_owned(), "c"),
        (format!("{PODS}?fieldSelector=metadata.name%3Da,spec.nodeName%3Dn1"), "a"),
        (format!("{PODS}?fieldSelector=status.phase%3DRunning"), ""),
        (format!("{PODS}?resourceVersion=0"), "a b"),
    ];
    for (path, want) in table {
        let list = server.get(&path).await.json();
        assert_eq!(list["kind"], "PodList");
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), want, "{path}");
        let revision = server.context.store.revision().to_string();
        assert_eq!(list["metadata"]["resourceVersion"], revision, "{path}");
    }
}

#[tokio::test]
async fn an_update_holds_the_optimistic_lock() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/m");
    let first = server.post(MAPS, &config_map("m")).await.json();
    let mut next = first.clone();
    next["data"]["k"] = json!("w");
    let second = server.put(&path, &next).await;
    assert_eq!(second.code, StatusCode::OK);
    assert_ne!(second.json()["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second.json()["metadata"]["uid"], first["metadata"]["uid"]);
    let stale = server.put(&path, &next).await;
    assert_eq!(stale.code, StatusCode::CONFLICT);
    assert_eq!(
        stale.message(),
        "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a resourceVersion it is unconditional; the same content makes no new version.
    let same = server.put(&path, &json!({"metadata": {"name": "m"}, "data": {"k": "w"}})).await;
    assert_eq!(same.json(), second.json());
    let other = server.put(&path, &config_map("x")).await;
    assert_eq!(other.message(), "the name of the object (x) does not match the name on the URL (m)");
    assert_eq!(server.put(&format!("{MAPS}/none"), &config_map("none")).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_is_replaced_not_changed() {
    let server = TestServer::start().await;
    let path = format!("{PODS}/p");
    let created = server.post(PODS, &pod("p")).await.json();
    let mut next = created.clone();
    next["metadata"]["labels"]["new"] = json!("label");
    let labelled = server.put(&path, &next).await.json();
    assert_eq!(labelled["metadata"]["generation"], 1);
    next = labelled.clone();
    next["spec"]["containers"][0]["image"] = json!("debian:12");
    let changed = server.put(&path, &next).await.json();
    assert_eq!(changed["metadata"]["generation"], 2, "{changed}");
    next = changed.clone();
    next["spec"]["containers"][0]["command"] = json!(["true"]);
    let refused = server.put(&path, &next).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused
            .message()
            .starts_with("Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than"),
        "{}",
        refused.message()
    );
    assert_eq!(refused.json()["details"]["causes"][0]["field"], "spec");
}

#[tokio::test]
async fn spec_and_status_have_doors_of_their_own() {
    let server = TestServer::start().await;
    let path = format!("{PODS}/p");
    let created = server.post(PODS, &pod("p")).await.json();
    let mut next = created.clone();
    next["status"]["phase"] = json!("Failed");
    assert_eq!(server.put(&path, &next).await.json(), created);
    next["spec"]["containers"][0]["image"] = json!("other");
    let updated = server.put(&format!("{path}/status"), &next).await.json();
    assert_eq!(updated["status"]["phase"], "Failed");
    assert_eq!(updated["spec"], created["spec"]);
    assert_eq!(updated["metadata"]["generation"], 1);
    assert_eq!(server.get(&format!("{path}/status")).await.json(), updated);
    let wrong = json!({"status": {"podIPs": [{"ip": "10.0.0"}]}});
    let refused = server.patch(&format!("{path}/status"), "merge-patch", &wrong).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY);
    let fault = "Pod \"p\" is invalid: status.podIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address";
    assert!(refused.message().starts_with(fault), "{}", refused.message());
}

#[tokio::test]
async fn a_priority_class_gives_a_pod_its_priority() {
    let server = TestServer::start().await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
    server.write(ObjectKey::cluster("priorityclasses", "high"), Change::Put(class)).await;
    let table = [
        (json!({}), Ok((0, "PreemptLowerPriority"))),
        (json!({"priorityClassName": "high"}), Ok((1000, "Never"))),
        (json!({"priorityClassName": "system-node-critical"}), Ok((2_000_001_000, "PreemptLowerPriority"))),
        (
            json!({"priorityClassName": "none"}),
            Err("pods \"p3\" is forbidden: no PriorityClass with name none was found"),
        ),
        (
            json!({"priorityClassName": "high", "priority": 5}),
            Err(
                "pods \"p4\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority \
                 admission controller computed 1000 from the given PriorityClass name",
            ),
        ),
    ];
    for (index, (more, expected)) in table.into_iter().enumerate() {
        let name = format!("p{index}");
        let mut wanted = pod(&name);
        wanted["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wanted["spec"]["automountServiceAccountToken"] = false.into();
        let answer = server.post(PODS, &wanted).await;
        match expected {
            Ok((priority, preemption)) => {
                let spec = answer.json()["spec"].clone();
                assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(priority), &json!(preemption)));
                // What it was given is no change when it is written back without.
                let again = server.put(&format!("{PODS}/{name}"), &wanted).await;
                assert_eq!((again.code, &again.json()["spec"]), (StatusCode::OK, &spec));
            }
            Err(why) => assert_eq!((answer.code, answer.message().as_str()), (StatusCode::FORBIDDEN, why)),
        }
    }
}

#[tokio::test]
async fn resources_change_through_their_own_door_alone() {
    let server = TestServer::start().await;
    let mut wanted = pod("web");
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Mi"}, "limits": {"memory": "2Mi"}});
    wanted["spec"]["containers"][0]["resources"] = resources("100m");
    let place = format!("{PODS}/web");
    assert_eq!(server.post(PODS, &wanted).await.code, StatusCode::CREATED);
    wanted["spec"]["containers"][0]["resources"] = resources("2");
    assert_eq!(server.put(&place, &wanted).await.code, StatusCode::UNPROCESSABLE_ENTITY);
    // Everything else that is sent there is not taken.
    let patch = json!({
        "metadata": {"labels": {"l": "v"}},
        "spec": {"containers": [{"name": "main", "image": "other", "resources": {"requests": {"cpu": "2"}}}]},
    });
    let resized = server.patch(&format!("{place}/resize"), "strategic-merge-patch", &patch).await;
    assert_eq!(resized.code, StatusCode::OK, "{:?}", resized.body);
    let resized = resized.json();
    let container = &resized["spec"]["containers"][0];
    assert_eq!((&container["resources"], &container["image"]), (&resources("2"), &json!("debian:13")));
    assert_eq!((&resized["metadata"]["generation"], &resized["metadata"]["labels"]["l"]), (&json!(2), &Value::Null));
    assert_eq!(server.get(&format!("{place}/resize")).await.json(), resized);
    let lost = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": null}}}]}});
    let refused = server.patch(&format!("{place}/resize"), "strategic-merge-patch", &lost).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.message().contains("resource requests cannot be removed"), "{}", refused.message());
    for list in ["containers", "initContainers"] {
        let another = json!({"spec": {list: [{"name": "another", "image": "i"}]}});
        let refused = server.patch(&format!("{place}/resize"), "strategic-merge-patch", &another).await;
        assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{list}");
        assert!(refused.message().contains("may not be added or removed on resize"), "{}", refused.message());
    }
    assert_eq!(server.delete(&format!("{place}/resize")).await.code, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_pods_own_resources_change_through_the_same_door() {
    let server = TestServer::start().await;
    let mut wanted = pod("web");
    wanted["spec"]["resources"] =
        json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1", "memory": "32Mi"}});
    let place = format!("{PODS}/web");
    let created = server.post(PODS, &wanted).await;
    assert_eq!(created.code, StatusCode::CREATED, "{}", created.message());
    assert_eq!(created.json()["status"]["qosClass"], "Burstable");
    wanted["spec"]["resources"]["limits"]["cpu"] = "2".into();
    assert_eq!(server.put(&place, &wanted).await.code, StatusCode::UNPROCESSABLE_ENTITY);
    let patch = json!({"spec": {"resources": {"limits": {"cpu": "2"}}}});
    let resized = server.patch(&format!("{place}/resize"), "strategic-merge-patch", &patch).await;
    assert_eq!(resized.code, StatusCode::OK, "{}", resized.message());
    assert_eq!(resized.json()["spec"]["resources"], wanted["spec"]["resources"]);
    for (patch, fault) in [
        (json!({"spec": {"resources": {"limits": {"cpu": null}}}}), "resource limits cannot be removed"),
        (json!({"spec": {"resources": {"requests": {"memory": "64Mi", "cpu": "2"}}}}), "Pod QOS Class may not change"),
    ] {
        let refused = server.patch(&format!("{place}/resize"), "strategic-merge-patch", &patch).await;
        assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.message().contains(fault), "{}", refused.message());
    }
}
