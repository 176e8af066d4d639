//! Claims as clients make and change them.

use super::*;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";

fn claim(name: &str) -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn class(server: &TestServer, name: &str, is_default: &str, grows: bool) {
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": is_default});
    let class = json!({
        "metadata": {"name": name, "annotations": annotations}, "provisioner": "example.com/x", "allowVolumeExpansion": grows,
    });
    assert_eq!(server.post(CLASSES, &class).await.code, StatusCode::CREATED);
}

#[tokio::test]
async fn a_claim_that_names_no_class_gets_the_default_one_and_stays_while_it_is_used() {
    let server = TestServer::start().await;
    let class_of = |made: Answer| made.json()["spec"]["storageClassName"].clone();
    assert_eq!(class_of(server.post(CLAIMS, &claim("before")).await), Value::Null);
    class(&server, "plain", "false", false).await;
    class(&server, "usual", "true", false).await;
    let made = server.post(CLAIMS, &claim("silent")).await;
    assert_eq!(made.json()["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert_eq!(class_of(made), "usual");
    let mut none = claim("none");
    none["spec"]["storageClassName"] = json!("");
    assert_eq!(class_of(server.post(CLAIMS, &none).await), "", "an empty name is a word");
}

#[tokio::test]
async fn only_a_bound_claim_of_a_class_that_allows_it_grows() {
    let server = TestServer::start().await;
    class(&server, "fixed", "false", false).await;
    class(&server, "elastic", "true", true).await;
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    for (name, class, phase, word) in [
        ("a", "elastic", "Pending", "Only bound persistent volume claims can be expanded"),
        (
            "b",
            "fixed",
            "Bound",
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ),
        ("c", "elastic", "Bound", ""),
    ] {
        let mut claim = claim(name);
        claim["spec"]["storageClassName"] = json!(class);
        server.post(CLAIMS, &claim).await;
        let key = ObjectKey::namespaced("persistentvolumeclaims", "default", name);
        server.change(key, move |claim| claim["status"]["phase"] = json!(phase)).await;
        let patched = server.patch(&format!("{CLAIMS}/{name}"), "merge-patch", &larger).await;
        assert_eq!(patched.code.is_success(), word.is_empty(), "{name}: {}", patched.message());
        assert!(word.is_empty() || patched.message().ends_with(word), "{name}: {}", patched.message());
    }
}
