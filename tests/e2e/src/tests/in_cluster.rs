//! Clients inside of Pods: they find the API, are known by their token, and may do what roles allow.

use e2e::TestNode;
use serde_json::{Value, json};

tests! {
    a_client_in_a_pod_is_its_service_account,
    a_token_is_renewed_and_dies_with_its_pod,
    a_pod_may_go_without_a_token,
    curl_and_python_find_the_api_by_themselves,
}

const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A Pod of Debian that waits, with kubectl from the machine.
fn with_kubectl(name: &str, spec: &str) -> String {
    let kubectl = e2e::kubectl::binary().parent().unwrap().display();
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {spec}
         containers: [{{name: main, image: 'debian:stable', command: [sleep, infinity], env: [{{name: HOME, value: /tmp}}],
         volumeMounts: [{{name: kubectl, mountPath: /opt}}]}}],
         volumes: [{{name: kubectl, hostPath: {{path: {kubectl}}}}}]}}}}"
    )
}

fn a_client_in_a_pod_is_its_service_account(node: &mut TestNode) {
    node.load_image("debian");
    node.kubectl(&["create", "serviceaccount", "reader"]).ok();
    node.kubectl(&["create", "role", "reads", "--verb=get,list", "--resource=pods"]).ok();
    node.kubectl(&["create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:reader"]).ok();
    node.run_text(&with_kubectl("plain", ""), "plain");
    node.run_text(&with_kubectl("reader", "serviceAccountName: reader,"), "reader");
    node.run_text(&with_kubectl("host", "serviceAccountName: reader, hostNetwork: true,"), "host");

    // kubectl has no configuration here but what every Pod is given.
    let who =
        node.exec("plain", "main", &["/opt/kubectl", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(who, "system:serviceaccount:default:default");
    let refused = node.try_exec("plain", "main", &["/opt/kubectl", "get", "pods"]);
    let wanted = "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\"";
    assert!(refused.stderr.contains(wanted), "{refused}");
    for pod in ["reader", "host"] {
        let seen = node.exec(pod, "main", &["/opt/kubectl", "get", "pods", "-o", "name"]);
        assert_eq!(seen, "pod/host\npod/plain\npod/reader\n", "{pod}");
        let refused = node.try_exec(pod, "main", &["/opt/kubectl", "delete", "pod", "plain"]);
        assert!(refused.stderr.contains("cannot delete resource \"pods\""), "{refused}");
        // Its name leads there, too, and the certificate names it.
        let by_name = "/opt/kubectl --server https://kubernetes.default.svc:$KUBERNETES_SERVICE_PORT --token \"$(cat $0/token)\" \
                       --certificate-authority $0/ca.crt get pod plain -o name";
        assert_eq!(node.exec(pod, "main", &["sh", "-c", by_name, PATH]), "pod/plain\n", "{pod}");
    }
    let service = node.api().get("/api/v1/namespaces/default/services/kubernetes");
    let (address, port) = (&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["port"]);
    let of_port = format!("KUBERNETES_PORT_{port}_TCP_PORT");
    let variables = node.exec("plain", "main", &["printenv", "KUBERNETES_SERVICE_HOST", &of_port]);
    assert_eq!(variables, format!("{}\n{port}\n", address.as_str().unwrap()));
    assert_eq!(node.exec("plain", "main", &["cat", &format!("{PATH}/namespace")]), "default");
    assert_ne!(node.try_exec("plain", "main", &["touch", &format!("{PATH}/x")]).code, 0);
}

/// Whether the API knows the bearer.
fn review(node: &TestNode, token: &str) -> Value {
    let review = json!({"spec": {"token": token}});
    node.api().request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(&review)).body["status"].clone()
}

fn a_token_is_renewed_and_dies_with_its_pod(node: &mut TestNode) {
    let spec = "serviceAccountName: default, securityContext: {runAsUser: 1000, fsGroup: 2000},";
    let text = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {spec}
             containers: [{{name: main, image: 'busybox:stable', command: [sleep, infinity]}}]}}}}"
        )
    };
    node.run_text(&text("first"), "first");
    let file = format!("{PATH}/token");
    let token = node.exec("first", "main", &["cat", &file]);
    let status = review(node, &token);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default", "{status}");
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["first"]), "{status}");
    // The user of all containers owns it, and the group may read it.
    assert_eq!(node.exec("first", "main", &["stat", "-L", "-c", "%a %u %g", &file]), "640 1000 2000\n");

    // One for another account of that name is worth nothing; the Pod gets a new token without being asked.
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    node.api().request("DELETE", account, None);
    e2e::eventually(e2e::limit(10), "the Pod has a token of the new account", || {
        let status = review(node, &node.exec("first", "main", &["cat", &file]));
        if status["authenticated"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(review(node, &token)["authenticated"], false);

    // A daemon that starts anew goes on.
    node.kill_daemon();
    node.start_daemon();
    let token = node.exec("first", "main", &["cat", &file]);
    assert_eq!(review(node, &token)["authenticated"], true);
    node.delete_pod("first");
    let status = review(node, &token);
    assert_eq!(status["authenticated"], false, "{status}");
    assert!(status["error"].as_str().unwrap().contains("invalidated"), "{status}");
    node.run_text(&text("first"), "first");
    assert_eq!(review(node, &token)["authenticated"], false, "another Pod of that name is another one");
}

fn a_pod_may_go_without_a_token(node: &mut TestNode) {
    node.run_text(
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: silent}, spec: {terminationGracePeriodSeconds: 0,
         automountServiceAccountToken: false,
         containers: [{name: main, image: 'busybox:stable', command: [sleep, infinity]}]}}",
        "silent",
    );
    assert_ne!(node.try_exec("silent", "main", &["ls", PATH]).code, 0);
    // Where the API is, it is told all the same.
    assert_eq!(node.exec("silent", "main", &["sh", "-c", "echo $KUBERNETES_SERVICE_HOST"]), "10.96.0.1\n");
}

/// Both are the machine's own programs: its `/usr` lies over the image's.
fn curl_and_python_find_the_api_by_themselves(node: &mut TestNode) {
    node.load_image("debian");
    node.kubectl(&["create", "role", "reads", "--verb=get,list", "--resource=pods"]).ok();
    node.kubectl(&["create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:default"]).ok();
    let clients = e2e::clients::home().display();
    node.run_text(
        &format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: asks}}, spec: {{terminationGracePeriodSeconds: 0,
             containers: [{{name: main, image: 'debian:stable', command: [sleep, infinity], volumeMounts: [
             {{name: usr, mountPath: /usr, readOnly: true}}, {{name: clients, mountPath: {clients}, readOnly: true}}]}}],
             volumes: [{{name: usr, hostPath: {{path: /usr}}}}, {{name: clients, hostPath: {{path: {clients}}}}}]}}}}"
        ),
        "asks",
    );
    let asked = "cd $0; curl --silent --show-error --cacert ca.crt --header \"Authorization: Bearer $(cat token)\" \
                 https://kubernetes.default.svc:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat namespace)/pods";
    let answer: Value = serde_json::from_str(&node.exec("asks", "main", &["sh", "-c", asked, PATH])).unwrap();
    assert_eq!((&answer["kind"], &answer["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("asks")));
    let refused = asked.replace("/pods", "/secrets");
    let answer: Value = serde_json::from_str(&node.exec("asks", "main", &["sh", "-c", &refused, PATH])).unwrap();
    assert_eq!(answer["code"], 403, "{answer}");
    let program = "from kubernetes import client, config\nconfig.load_incluster_config()\n\
                   print([pod.metadata.name for pod in client.CoreV1Api().list_namespaced_pod('default').items])";
    // The library is the clients' own, the interpreter that of the machine: theirs may lie anywhere.
    let python =
        format!("PYTHONPATH=$(echo {clients}/python/lib/python3*/site-packages) exec /usr/bin/python3 -B -c \"$0\"");
    assert_eq!(node.exec("asks", "main", &["sh", "-c", &python, program]), "['asks']\n");
}
