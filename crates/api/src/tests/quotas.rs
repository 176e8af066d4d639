//! What a namespace may use: LimitRanges and ResourceQuotas.

use super::*;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const RANGES: &str = "/api/v1/namespaces/default/limitranges";

async fn quota(server: &TestServer, name: &str, hard: Value) {
    let made = server.post(QUOTAS, &json!({"metadata": {"name": name}, "spec": {"hard": hard}})).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
}

async fn used(server: &TestServer, name: &str) -> Value {
    server.get(&format!("{QUOTAS}/{name}")).await.json()["status"]["used"].clone()
}

fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

#[tokio::test]
async fn pods_that_do_not_fit_are_refused_and_those_that_do_are_counted() {
    let server = TestServer::start().await;
    crate::quotas::keep(&server.context);
    server.post(PODS, &asking("before", json!({"requests": {"cpu": "200m"}}))).await;
    quota(&server, "small", json!({"pods": "2", "requests.cpu": "1"})).await;
    assert_eq!(used(&server, "small").await, json!({"pods": "1", "requests.cpu": "200m"}), "from the first moment");

    let said = server.post(PODS, &pod("silent")).await;
    assert_eq!(said.code, StatusCode::FORBIDDEN);
    let wanted = "pods \"silent\" is forbidden: failed quota: small: must specify requests.cpu for: main";
    assert_eq!(said.message(), wanted);
    let large = server.post(PODS, &asking("large", json!({"requests": {"cpu": "900m"}}))).await;
    assert_eq!(
        large.message(),
        "pods \"large\" is forbidden: exceeded quota: small, requested: requests.cpu=900m, used: requests.cpu=200m, \
         limited: requests.cpu=1"
    );
    let tried = server.post(&format!("{PODS}?dryRun=All"), &asking("fits", json!({"requests": {"cpu": "800m"}}))).await;
    assert_eq!(tried.code, StatusCode::CREATED);
    assert_eq!(used(&server, "small").await["pods"], "1", "nothing is stored");
    let fits = server.post(PODS, &asking("fits", json!({"requests": {"cpu": "800m"}}))).await;
    assert_eq!(fits.code, StatusCode::CREATED, "{}", fits.message());
    assert_eq!(used(&server, "small").await, json!({"pods": "2", "requests.cpu": "1"}));
    let mut table = request(Method::GET, QUOTAS, "", Bytes::new());
    table.headers_mut().insert("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
    let cells = server.ask(table).await.json()["rows"][0]["cells"].clone();
    assert_eq!(cells[1], "pods: 2/2, requests.cpu: 1/1");

    // What goes, and what has ended, counts no longer.
    let mut changes = server.context.store.watch("resourcequotas", None).unwrap();
    server.change(pod_key("fits"), |pod| pod["status"]["phase"] = json!("Succeeded")).await;
    let wanted = json!({"pods": "1", "requests.cpu": "200m"});
    let counted = async {
        while changes.next().await.unwrap().object.value["status"]["used"] != wanted {}
        server.write(pod_key("before"), Change::Delete).await;
        while changes.next().await.unwrap().object.value["status"]["used"]["pods"] != "0" {}
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
}

#[tokio::test]
async fn no_two_writers_get_the_last_place() {
    let server = TestServer::start().await;
    quota(&server, "q", json!({"configmaps": "3", "count/secrets": "1"})).await;
    let made = (0..10).map(|index| {
        let server = &server;
        async move { server.post(MAPS, &config_map(&format!("m{index}"))).await }
    });
    let answers = futures::future::join_all(made).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == StatusCode::CREATED).count(), 3);
    let refused = answers.iter().find(|answer| answer.code == StatusCode::FORBIDDEN).unwrap().message();
    assert!(refused.ends_with("exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"));
    assert_eq!(used(&server, "q").await, json!({"configmaps": "3", "count/secrets": "0"}));
    // Another namespace is another matter.
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "free"}})).await;
    assert_eq!(server.post("/api/v1/namespaces/free/configmaps", &config_map("m")).await.code, StatusCode::CREATED);
}

#[tokio::test]
async fn changes_of_services_claims_and_pods_are_charged() {
    let server = TestServer::start().await;
    quota(&server, "q", json!({"services.nodeports": "1", "requests.storage": "2Gi", "requests.cpu": "1"})).await;
    let services = "/api/v1/namespaces/default/services";
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]}});
    assert_eq!(server.post(services, &service).await.code, StatusCode::CREATED);
    let opened = json!({"spec": {"type": "NodePort"}});
    let refused = server.patch(&format!("{services}/s"), "merge-patch", &opened).await;
    let wanted =
        "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1";
    assert!(refused.message().ends_with(wanted), "{}", refused.message());
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let class = json!({"metadata": {"name": "elastic"}, "provisioner": "a/b", "allowVolumeExpansion": true});
    server.post("/apis/storage.k8s.io/v1/storageclasses", &class).await;
    let claim = |size: &str| {
        let spec = json!({
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "storageClassName": "elastic",
        });
        json!({"metadata": {"name": "c"}, "spec": spec})
    };
    assert_eq!(server.post(claims, &claim("1Gi")).await.code, StatusCode::CREATED);
    let key = ObjectKey::namespaced("persistentvolumeclaims", "default", "c");
    server.change(key, |claim| claim["status"]["phase"] = json!("Bound")).await;
    let grown = server.put(&format!("{claims}/c"), &claim("3Gi")).await;
    assert!(
        grown.message().contains("requested: requests.storage=2Gi, used: requests.storage=1Gi"),
        "{}",
        grown.message()
    );
    assert_eq!(server.post(PODS, &asking("p", json!({"requests": {"cpu": "500m"}}))).await.code, StatusCode::CREATED);
    let resize =
        |cpu: &str| json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]}});
    let path = format!("{PODS}/p/resize");
    let refused = server.patch(&path, "strategic-merge-patch", &resize("1500m")).await;
    assert!(refused.message().contains("requested: requests.cpu=1, used: requests.cpu=500m"), "{}", refused.message());
    let resized = server.patch(&path, "strategic-merge-patch", &resize("700m")).await;
    assert_eq!(resized.code, StatusCode::OK, "{}", resized.message());
    assert_eq!(used(&server, "q").await["requests.cpu"], "700m");
}

#[tokio::test]
async fn limit_ranges_complete_and_refuse() {
    let server = TestServer::start().await;
    let items = json!([
        {"type": "Container", "default": {"cpu": "200m"}, "max": {"cpu": 1}, "min": {"cpu": "100m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]);
    server.post(RANGES, &json!({"metadata": {"name": "r"}, "spec": {"limits": items}})).await;
    let made = server.post(PODS, &pod("silent")).await.json();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "200m"}}),
    );
    assert_eq!(made["status"]["qosClass"], "Burstable", "by what it was given");
    let refused =
        server.post(PODS, &asking("greedy", json!({"limits": {"cpu": "2"}, "requests": {"cpu": "50m"}}))).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "pods \"greedy\" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, maximum cpu usage per \
         Container is 1, but limit is 2]"
    );
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    let refused = server.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await;
    let wanted = "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi";
    assert!(refused.message().ends_with(wanted), "{}", refused.message());
}
