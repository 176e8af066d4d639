//! The kinds around Pods: each can be made, read, shown and removed, and is judged by its own rules.

use super::*;

/// Path of the collection, a small object, and a sentence about a bad one that differs by a JSON pointer.
#[expect(clippy::too_many_lines, reason = "a table")]
fn kinds() -> Vec<(&'static str, Value, &'static str, Value, &'static str)> {
    let port = json!({"port": 80});
    let storage = json!({"requests": {"storage": "1Gi"}});
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let role = json!({"kind": "ClusterRole", "name": "r"});
    let labels = json!({"app": "a"});
    let template = json!({"metadata": {"labels": labels}, "spec": pod("p")["spec"]});
    let workload = json!({"spec": {"selector": {"matchLabels": labels}, "template": template}});
    let mut job = json!({"spec": {"template": template}});
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    vec![
        (
            "/api/v1/namespaces/default/serviceaccounts",
            json!({}),
            "/metadata/name",
            json!("A"),
            "ServiceAccount \"A\" is invalid: metadata.name: Invalid value: \"A\"",
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"spec": {"holderIdentity": "me"}}),
            "/spec/leaseDurationSeconds",
            json!(0),
            "Lease.coordination.k8s.io \"x\" is invalid: spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            json!({"rules": rules}),
            "/rules/0/verbs",
            json!([]),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"rules": rules}),
            "/rules/0/nonResourceURLs",
            json!(["/x"]),
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"roleRef": role, "subjects": [{"kind": "User", "name": "u"}]}),
            "/subjects/0/kind",
            json!("Robot"),
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({"roleRef": role}),
            "/roleRef/kind",
            json!("Role"),
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": storage}}),
            "/spec/accessModes",
            json!([]),
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            "/api/v1/persistentvolumes",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}),
            "/spec/hostPath",
            json!(null),
            "spec: Required value: must specify a volume type",
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"provisioner": "example.com/x"}),
            "/reclaimPolicy",
            json!("Keep"),
            "reclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
        ),
        (
            "/api/v1/namespaces/default/podtemplates",
            json!({"template": {"spec": pod("p")["spec"]}}),
            "/template/spec/restartPolicy",
            json!("Perhaps"),
            "template.spec.restartPolicy: Unsupported value: \"Perhaps\"",
        ),
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": 2}}]}}),
            "/spec/limits/0/min",
            json!({"cpu": "3"}),
            "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
        ),
        (
            "/api/v1/namespaces/default/resourcequotas",
            json!({"spec": {"hard": {"pods": 2, "requests.cpu": "1"}}}),
            "/spec/hard/bananas",
            json!("1"),
            "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource for quota",
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"value": 5}),
            "/value",
            json!(2_000_000_000),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "runc"}),
            "/handler",
            json!("A"),
            "handler: Invalid value: \"A\"",
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"spec": {"ports": [port], "selector": {"a": "b"}}}),
            "/spec/clusterIP",
            json!("10.0.0.1"),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            workload.clone(),
            "/spec/template/metadata/labels/app",
            json!("b"),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
        ),
        (
            "/apis/apps/v1/namespaces/default/replicasets",
            workload,
            "/spec/replicas",
            json!(-1),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            job,
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
            "/endpoints/0/addresses/0",
            json!("ten"),
            "endpoints[0].addresses[0]: Invalid value: \"ten\": must be a valid IP address",
        ),
        (
            "/api/v1/namespaces/default/endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [port]}]}),
            "/subsets/0/ports/0/port",
            json!(0),
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
    ]
}

#[tokio::test]
async fn no_two_services_get_the_same_address() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: String| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let made = (0..20).map(|index| {
        let (server, service) = (&server, service(format!("s{index}")));
        async move { server.post(path, &service).await.json()["spec"]["clusterIP"].as_str().unwrap().to_owned() }
    });
    let addresses: std::collections::BTreeSet<String> = futures::future::join_all(made).await.into_iter().collect();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    let first = server.get(&format!("{path}/s0")).await.json()["spec"]["clusterIP"].clone();
    let mut wish = service("late".to_owned());
    wish["spec"]["clusterIP"] = first.clone();
    let refused = server.post(path, &wish).await;
    assert!(refused.message().ends_with("provided IP is already allocated"), "{}", refused.message());
    server.delete(&format!("{path}/s0")).await;
    assert_eq!(server.post(path, &wish).await.json()["spec"]["clusterIP"], first);
}

#[tokio::test]
async fn a_service_of_another_type_lets_go_of_what_only_the_old_one_has() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/services";
    let dotted = json!({"metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 80}]}});
    let refused = server.post(path, &dotted).await.message();
    assert_eq!(refused, "Service \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain dots");
    let made = server.post(path, &json!({"metadata": {"name": "s"}, "spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000, "loadBalancerClass": "a/b",
        "allocateLoadBalancerNodePorts": true, "ports": [{"port": 80}],
    }})).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    assert!(made.json()["spec"]["ports"][0]["nodePort"].is_number());
    let change = async |spec: Value| server.patch(&format!("{path}/s"), "merge-patch", &json!({ "spec": spec })).await;
    let refused = change(json!({"type": "ClusterIP", "externalTrafficPolicy": "Cluster"})).await.message();
    assert!(refused.ends_with("\"Cluster\": may only be set for externally-accessible services"), "{refused}");
    let changed = change(json!({"type": "ClusterIP"})).await;
    assert_eq!(changed.code, StatusCode::OK, "{}", changed.message());
    let spec = &changed.json()["spec"];
    assert_eq!(spec["clusterIP"], made.json()["spec"]["clusterIP"]);
    for pointer in [
        "/externalTrafficPolicy",
        "/healthCheckNodePort",
        "/loadBalancerClass",
        "/allocateLoadBalancerNodePorts",
        "/ports/0/nodePort",
    ] {
        assert_eq!(spec.pointer(pointer), None, "{pointer}");
    }
    let changed = change(json!({"type": "ExternalName", "externalName": "x", "clusterIP": ""})).await;
    assert_eq!(changed.code, StatusCode::OK, "{}", changed.message());
    assert_eq!(changed.json()["spec"]["ipFamilies"], Value::Null);
    let back = change(json!({"type": "NodePort", "externalName": null})).await;
    assert_eq!(back.code, StatusCode::OK, "{}", back.message());
    assert!(back.json()["spec"]["ports"][0]["nodePort"].is_number());
}

#[tokio::test]
async fn a_pod_takes_over_from_its_runtime_class() {
    let server = TestServer::start().await;
    let mut wanted = pod("p");
    wanted["spec"]["runtimeClassName"] = json!("vm");
    let refused = server.post(PODS, &wanted).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(refused.message(), "pods \"p\" is forbidden: pod rejected: RuntimeClass \"vm\" not found");
    let class = json!({
        "metadata": {"name": "vm"}, "handler": "monopod", "overhead": {"podFixed": {"memory": "1Mi"}},
        "scheduling": {"nodeSelector": {"kubernetes.io/os": "linux"}},
    });
    assert_eq!(server.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.code, StatusCode::CREATED);
    let made = server.post(PODS, &wanted).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    assert_eq!(made.json()["spec"]["overhead"], json!({"memory": "1Mi"}));
    assert_eq!(made.json()["spec"]["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
}

#[tokio::test]
async fn each_kind_lives_by_the_same_verbs() {
    let server = TestServer::start().await;
    for (path, mut object, pointer, bad, sentence) in kinds() {
        object["metadata"] = json!({"name": "x"});
        let made = server.post(path, &object).await;
        assert_eq!(made.code, StatusCode::CREATED, "{path}: {}", made.message());
        let found = server.get(&format!("{path}/x")).await.json();
        assert_eq!(found, made.json());
        let again = server.put(&format!("{path}/x"), &found).await;
        assert_eq!(again.json(), found, "{path}: nothing changes");
        let labelled =
            server.patch(&format!("{path}/x"), "merge-patch", &json!({"metadata": {"labels": {"l": "v"}}})).await;
        assert_eq!(labelled.code, StatusCode::OK, "{path}: {}", labelled.message());
        let mut table = request(Method::GET, &format!("{path}?labelSelector=l"), "", Bytes::new());
        table.headers_mut().insert("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
        let table = server.ask(table).await.json();
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{path}");
        assert_eq!(table["rows"][0]["cells"][0], "x");
        let gone = server.delete(&format!("{path}/x?propagationPolicy=Background")).await;
        if found["metadata"]["finalizers"].is_null() {
            assert_eq!(gone.json()["status"], "Success", "{path}");
        } else {
            let free = json!({"metadata": {"finalizers": null}});
            let freed = server.patch(&format!("{path}/x"), "merge-patch", &free).await;
            assert_eq!(freed.code, StatusCode::OK, "{path}: {}", freed.message());
        }
        assert_eq!(server.get(&format!("{path}/x")).await.code, StatusCode::NOT_FOUND, "{path}");

        let mut wrong = object.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = wrong.pointer_mut(parent).unwrap();
        match field.parse::<usize>() {
            Ok(index) => parent[index] = bad,
            Err(_name) => parent[field] = bad,
        }
        let refused = server.post(path, &wrong).await;
        assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {}", refused.message());
        assert!(refused.message().contains(sentence), "{path}: {}", refused.message());
    }
}

#[tokio::test]
async fn a_namespace_is_furnished_and_stays_so() {
    let server = TestServer::start().await;
    let accounts = "/api/v1/namespaces/team/serviceaccounts";
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await;
    let first = server.get(&format!("{accounts}/default")).await.json();
    let mut changes = server.context.store.watch("serviceaccounts", None).unwrap();
    server.delete(&format!("{accounts}/default")).await;
    let next = async {
        loop {
            let event = changes.next().await.unwrap();
            if event.kind == store::WatchKind::Added {
                return event.object.value["metadata"]["uid"].clone();
            }
        }
    };
    let uid = tokio::time::timeout(PATIENCE, next).await.unwrap();
    assert_ne!(uid, first["metadata"]["uid"]);
    assert_eq!(server.get("/api/v1/namespaces/team/configmaps").await.json()["items"], json!([]));
    let Context { store, agent, node_name, version, data_dir, spool, shutdown, .. } = server.context.as_ref();
    let over_tls = Context {
        store: store.clone(),
        agent: agent.clone(),
        service_network: server.context.service_network,
        shared_writes: tokio::sync::Mutex::new(()),
        steps: steps::Recorder::default(),
        limits: crate::limits::Limits::default(),
        node_name: node_name.clone(),
        version: version.clone(),
        data_dir: data_dir.clone(),
        spool: spool.clone(),
        shutdown: shutdown.clone(),
        ca: Some("PEM".to_owned()),
    };
    crate::standing::furnish(&over_tls, "team").await.unwrap();
    let root = server.get("/api/v1/namespaces/team/configmaps/kube-root-ca.crt").await.json();
    assert_eq!(root["data"], json!({"ca.crt": "PEM"}));
    let system = server.get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical").await.json();
    assert_eq!(system["value"], 2_000_001_000);
}

#[tokio::test]
async fn a_pod_takes_its_priority_and_its_accounts_secrets() {
    let server = TestServer::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    server.post(classes, &json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"})).await;
    let account = json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "s"}]});
    server.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let with = |name: &str, field: &str, value: Value| {
        let mut pod = pod(name);
        pod["spec"][field] = value;
        pod
    };
    let plain = server.post(PODS, &pod("plain")).await.json();
    assert_eq!(
        (&plain["spec"]["priority"], &plain["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let high = server.post(PODS, &with("high", "priorityClassName", json!("high"))).await.json();
    assert_eq!((&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]), (&json!(7), &json!("Never")));
    let robot = server.post(PODS, &with("robot", "serviceAccountName", json!("robot"))).await.json();
    assert_eq!(robot["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
    for (field, value, why) in [
        ("priorityClassName", json!("low"), "no PriorityClass with name low was found"),
        ("priority", json!(3), "the integer value of priority (3) must not be provided in pod spec"),
        (
            "serviceAccountName",
            json!("nobody"),
            "error looking up service account default/nobody: serviceaccount \"nobody\" not found",
        ),
    ] {
        let refused = server.post(PODS, &with("p", field, value)).await;
        assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.message());
        assert!(refused.message().starts_with(&format!("pods \"p\" is forbidden: {why}")), "{}", refused.message());
    }
    // What a client writes back without what admission has set is no change.
    let mut back = plain.clone();
    back["spec"].as_object_mut().unwrap().remove("priority");
    assert_eq!(server.put(&format!("{PODS}/plain"), &back).await.json(), plain);
}

#[tokio::test]
async fn an_event_has_two_faces() {
    let server = TestServer::start().await;
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c",
        "reportingInstance": "i", "action": "a", "reason": "Because", "type": "Normal", "note": "text",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let made = server.post(new, &event).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    assert_eq!((&made.json()["note"], &made.json()["apiVersion"]), (&json!("text"), &json!("events.k8s.io/v1")));
    let old = server.get("/api/v1/namespaces/default/events/e").await.json();
    assert_eq!(
        (&old["message"], &old["apiVersion"], &old["involvedObject"]["name"]),
        (&json!("text"), &json!("v1"), &json!("p"))
    );
    assert!(old.get("note").is_none() && old.get("regarding").is_none());
    let changed = server.patch(&format!("{new}/e"), "merge-patch", &json!({"note": "other"})).await.json();
    assert_eq!(changed["note"], "other");
    let list = server.get(&format!("{new}?fieldSelector=regarding.name%3Dp")).await.json();
    assert_eq!((&list["kind"], &list["items"][0]["note"]), (&json!("EventList"), &json!("other")));
    let bare = server.post(new, &json!({"metadata": {"name": "f"}})).await;
    assert!(bare.message().contains("reportingController: Required value"), "{}", bare.message());
}

#[tokio::test]
async fn a_scale_is_a_door_to_the_number_of_pods() {
    let server = TestServer::start().await;
    let (path, object, ..) =
        kinds().into_iter().find(|(path, ..)| path.ends_with("deployments")).expect("Deployments are a kind");
    let mut object = object;
    object["metadata"] = json!({"name": "x"});
    server.post(path, &object).await;
    let door = format!("{path}/x/scale");
    let scale = server.get(&door).await.json();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"], &scale["status"]["selector"]), (&json!({"replicas": 1}), &json!("app=a")));
    let patched = server.patch(&door, "merge-patch", &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((patched.code, &patched.json()["spec"]["replicas"]), (StatusCode::OK, &json!(3)));
    let found = server.get(&format!("{path}/x")).await.json();
    assert_eq!((&found["spec"]["replicas"], &found["metadata"]["generation"]), (&json!(3), &json!(2)));
    // The first Scale is no longer true.
    let late = server.put(&door, &scale).await;
    assert_eq!(late.code, StatusCode::CONFLICT, "{}", late.message());
    let negative = server.patch(&door, "merge-patch", &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(negative.message().contains("spec.replicas: Invalid value: -1"), "{}", negative.message());
}

#[tokio::test]
async fn a_job_selects_its_own_pods() {
    let server = TestServer::start().await;
    let (path, object, ..) = kinds().into_iter().find(|(path, ..)| path.ends_with("jobs")).expect("Jobs are a kind");
    let mut object = object;
    object["metadata"] = json!({"name": "x"});
    let made = server.post(path, &object).await.json();
    let uid = &made["metadata"]["uid"];
    assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["controller-uid"], &labels["batch.kubernetes.io/job-name"]), (uid, &json!("x")));
    let mut changed = made.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other:1");
    let refused = server.put(&format!("{path}/x"), &changed).await;
    assert!(refused.message().ends_with("field is immutable"), "{}", refused.message());
    object["metadata"]["name"] = json!("y");
    object["spec"]["selector"] = json!({"matchLabels": {"app": "a"}});
    let refused = server.post(path, &object).await;
    assert!(refused.message().contains("`selector` not auto-generated"), "{}", refused.message());
}
