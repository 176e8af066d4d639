//! The verbs of kubectl for the kinds that are served, by the newest release and by the one of Debian's stable release.

use std::fs;

use e2e::TestNode;
use e2e::kubectl::Release;

tests! {
    each_release_changes_objects,
    each_release_looks_into_pods,
    each_release_drains_the_node,
    each_release_reads_paths_as_they_are,
    quotas_and_limits_hold_for_kubectl,
}

const WEB: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}},
    spec: {terminationGracePeriodSeconds: 0, containers: [
    {name: main, image: 'busybox:stable', ports: [{containerPort: 8080, name: http}],
     command: [sh, -c, 'mkdir /srv; echo hello > /srv/page; echo main begun; httpd -p 8080 -h /srv; sleep infinity']},
    {name: side, image: 'busybox:stable', resources: {requests: {cpu: 5m}},
     command: [sh, -c, 'echo side begun; sleep infinity']}]}}";

#[track_caller]
fn run_web(node: &TestNode) {
    node.kubectl_with(&["apply", "-f", "-"], WEB.as_bytes()).ok();
    node.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=30s"]).ok();
}

#[track_caller]
fn assert_contains(text: &str, wanted: &[&str]) {
    for one in wanted {
        assert!(text.contains(one), "{one:?} is not in:\n{text}");
    }
}

fn each_release(node: &mut TestNode, test: fn(&TestNode)) {
    for release in Release::ALL {
        node.kubectl_release = release;
        test(node);
        node.kubectl(&["delete", "pod", "--all", "--now"]).ok();
    }
}

fn each_release_changes_objects(node: &mut TestNode) {
    each_release(node, |node| {
        assert_eq!(node.kubectl_with(&["apply", "-f", "-"], WEB.as_bytes()).ok(), "pod/web created\n");
        assert_eq!(node.kubectl_with(&["apply", "-f", "-"], WEB.as_bytes()).ok(), "pod/web unchanged\n");
        assert_eq!(node.kubectl_with(&["diff", "-f", "-"], WEB.as_bytes()).ok(), "");
        let changed = WEB.replace("app: web}", "app: other}");
        assert_eq!(node.kubectl_with(&["diff", "-f", "-"], changed.as_bytes()).code, 1);
        assert_eq!(
            node.kubectl_with(&["apply", "--server-side", "-f", "-"], WEB.as_bytes()).ok(),
            "pod/web serverside-applied\n"
        );
        node.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=30s"]).ok();
        let mut edit = node.kubectl_command(&["edit", "pod", "web"]);
        edit.env("EDITOR", "sed -i s/app:.web/app:\\ edited/");
        assert_eq!(e2e::Finished::run(&mut edit, b"").ok(), "pod/web edited\n");
        assert_eq!(node.pod("web")["metadata"]["labels"]["app"], "edited");
        node.kubectl(&["label", "pod", "web", "app=web", "tier=front", "--overwrite"]).ok();
        node.kubectl(&["annotate", "pod", "--all", "note=kept"]).ok();
        node.kubectl(&["patch", "pod", "web", "-p", r#"{"metadata":{"labels":{"p":"1"}}}"#]).ok();
        let json = r#"[{"op":"remove","path":"/metadata/labels/p"}]"#;
        node.kubectl(&["patch", "pod", "web", "--type=json", "-p", json]).ok();
        let resize = r#"{"spec":{"containers":[{"name":"side","resources":{"requests":{"cpu":"10m"}}}]}}"#;
        node.kubectl(&["patch", "pod", "web", "--subresource=resize", "-p", resize]).ok();
        let pod = node.pod("web");
        assert_eq!(pod["metadata"]["labels"], serde_json::json!({"app": "web", "tier": "front"}));
        assert_eq!(pod["spec"]["containers"][1]["resources"]["requests"]["cpu"], "10m");
        let present = node.kubectl(&["get", "pod", "web", "-o", "yaml"]).ok();
        assert_eq!(node.kubectl_with(&["replace", "-f", "-"], present.as_bytes()).ok(), "pod/web replaced\n");
        let said = node.kubectl_with(&["replace", "--force", "-f", "-"], WEB.as_bytes()).ok();
        assert_contains(&said, &["pod \"web\" deleted", "pod/web replaced"]);

        let kinds: [&[&str]; 8] = [
            &["create", "configmap", "settings", "--from-literal=a=b"],
            &["create", "secret", "generic", "word", "--from-literal=a=b"],
            &["create", "serviceaccount", "robot"],
            &["create", "role", "reads", "--verb=get,list", "--resource=pods"],
            &["create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:robot"],
            &["create", "priorityclass", "high", "--value=5"],
            &["create", "service", "clusterip", "plain", "--tcp=80"],
            &["expose", "pod", "web", "--name=shown", "--port=80", "--target-port=http"],
        ];
        for kind in kinds {
            node.kubectl(kind).ok();
        }
        assert_eq!(
            node.kubectl(&["auth", "can-i", "list", "pods", "--as=system:serviceaccount:default:robot"]).ok(),
            "yes\n"
        );
        assert!(node.kubectl(&["create", "token", "robot"]).ok().matches('.').count() == 2);
        assert_contains(&node.kubectl(&["get", "all"]).ok(), &["pod/web", "service/shown"]);
        assert_contains(&node.kubectl(&["describe", "svc", "shown"]).ok(), &["TargetPort:", "http/TCP"]);
        for kind in [
            "configmap/settings",
            "secret/word",
            "rolebinding/reads",
            "role/reads",
            "serviceaccount/robot",
            "priorityclass/high",
            "service/plain",
            "service/shown",
        ] {
            assert_contains(&node.kubectl(&["delete", kind]).ok(), &["deleted"]);
        }
    });
}

fn each_release_looks_into_pods(node: &mut TestNode) {
    each_release(node, |node| {
        run_web(node);
        let mut logs = node.kubectl_background(&["logs", "-f", "-l", "app=web", "--all-containers", "--prefix"]);
        logs.expect("begun");
        logs.expect("begun");
        drop(logs);
        let debug = ["debug", "web", "--image=busybox:stable", "--target=main", "-c", "tools", "--attach", "--"];
        node.kubectl(&[&debug[..], &["sh", "-c", "cat /proc/1/comm; cat /proc/1/root/srv/page"]].concat()).ok();
        // It may have ended before anybody was attached; its log has it all.
        e2e::eventually(e2e::limit(20), "the tools have looked", || {
            let seen = node.kubectl(&["logs", "web", "-c", "tools"]).to_string();
            if seen.contains("hello") { Ok(()) } else { Err(seen) }
        });
        let copy =
            ["debug", "web", "--image=busybox:stable", "--copy-to=copied", "--container=main", "--", "sleep", "60"];
        node.kubectl(&copy).ok();
        node.kubectl(&["wait", "pod/copied", "--for=condition=Ready", "--timeout=30s"]).ok();
        node.kubectl(&["delete", "pod", "copied", "--now"]).ok();
        let name = node.api().names("/api/v1/nodes").first().unwrap().trim_start_matches('/').to_owned();
        let on_node = format!("node/{name}");
        let on_the_node =
            ["debug", &on_node, "--image=busybox:stable", "--attach", "--", "sh", "-c", "sleep 2; ls /host"];
        assert_contains(&node.kubectl(&on_the_node).ok(), &["etc", "proc"]);

        let (tree, back) = (node.path("tree"), node.path("back"));
        fs::create_dir_all(tree.join("deep")).unwrap();
        for number in 0..50 {
            fs::write(tree.join(format!("deep/{number}")), format!("file {number}\n")).unwrap();
        }
        let noise: Vec<u8> =
            (0..300_017_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        fs::write(tree.join("noise"), &noise).unwrap();
        node.kubectl(&["cp", tree.to_str().unwrap(), "web:/tmp/tree", "-c", "side"]).ok();
        node.kubectl(&["cp", "web:/tmp/tree", back.to_str().unwrap(), "-c", "side"]).ok();
        assert!(fs::read(back.join("noise")).unwrap() == noise, "the bytes are others");
        assert_eq!(fs::read_dir(back.join("deep")).unwrap().count(), 50);
        fs::remove_dir_all(&back).unwrap();

        let mut forward = node.kubectl_background(&["port-forward", "pod/web", "9010:http"]);
        forward.expect("Forwarding from 127.0.0.1:9010 -> 8080");
        let page = e2e::Finished::run(&mut node.role(&["fetch", "127.0.0.1:9010", "GET /page HTTP/1.0"]), b"").ok();
        assert!(page.ends_with("hello\n"), "{page}");
        drop(forward);
        assert_contains(&node.kubectl(&["top", "pod", "--containers"]).ok(), &["main", "side"]);
        assert_contains(&node.kubectl(&["top", "node"]).ok(), &[&name]);
        assert_contains(&node.kubectl(&["events", "--for", "pod/web"]).ok(), &["Started"]);
        assert_contains(&node.kubectl(&["explain", "resourcequota.spec.hard"]).ok(), &["FIELD: hard"]);
        assert_contains(
            &node.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/page"]).ok(),
            &["hello"],
        );
    });
}

fn each_release_drains_the_node(node: &mut TestNode) {
    each_release(node, |node| {
        let name = node.api().names("/api/v1/nodes").first().unwrap().trim_start_matches('/').to_owned();
        run_web(node);
        node.kubectl(&["taint", "node", &name, "k=v:NoSchedule"]).ok();
        node.kubectl(&["taint", "node", &name, "k-"]).ok();
        assert_contains(&node.kubectl(&["drain", &name, "--force"]).ok(), &["evicting pod default/web", "drained"]);
        assert_contains(&node.kubectl(&["get", "nodes"]).ok(), &["Ready,SchedulingDisabled"]);
        assert_contains(&node.kubectl(&["get", "pods"]).stderr, &["No resources found"]);
        node.kubectl_with(&["apply", "-f", "-"], WEB.as_bytes()).ok();
        let pending = ["wait", "pod/web", "--for=condition=PodScheduled=false", "--timeout=20s"];
        node.kubectl(&pending).ok();
        assert_contains(&node.kubectl(&["uncordon", &name]).ok(), &["uncordoned"]);
        node.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=30s"]).ok();
        node.kubectl(&["cordon", &name]).ok();
        node.kubectl(&["uncordon", &name]).ok();
    });
}

fn each_release_reads_paths_as_they_are(node: &mut TestNode) {
    each_release(node, |node| {
        let raw = |path: &str| node.kubectl(&["get", "--raw", path]).ok();
        let name = node.api().names("/api/v1/nodes").first().unwrap().trim_start_matches('/').to_owned();
        for path in ["/healthz", "/livez", "/readyz", "/livez/ping"] {
            assert_eq!(raw(path), "ok", "{path}");
        }
        assert_contains(&raw("/livez?verbose"), &["[+]ping ok\n", "livez check passed\n"]);
        assert_contains(&raw("/readyz?verbose&exclude=store"), &["[+]store excluded: ok\n", "readyz check passed\n"]);
        assert_contains(&raw("/version"), &["\"gitVersion\""]);
        assert_contains(&raw("/openapi/v3"), &["apis/rbac.authorization.k8s.io/v1"]);
        assert_contains(&raw("/metrics"), &["# TYPE"]);
        assert_contains(&raw("/"), &["/apis/metrics.k8s.io/v1beta1", "/healthz"]);
        assert_eq!(raw(&format!("/api/v1/nodes/{name}/proxy/healthz")), "ok");
        assert_contains(&raw(&format!("/api/v1/nodes/{name}/proxy/pods")), &["\"kind\":\"PodList\""]);
        assert_contains(&raw(&format!("/api/v1/nodes/{name}/proxy/metrics/resource")), &["# TYPE"]);
    });
}

fn quotas_and_limits_hold_for_kubectl(node: &mut TestNode) {
    node.kubectl(&["create", "quota", "small", "--hard=pods=1,requests.cpu=1,configmaps=5"]).ok();
    assert_contains(
        &node.kubectl(&["run", "silent", "--image=busybox:stable"]).fails(),
        &["must specify requests.cpu for: silent"],
    );
    let range = "{apiVersion: v1, kind: LimitRange, metadata: {name: r}, spec: {limits: [{type: Container, default: {cpu: 300m}, max: {cpu: 500m}}]}}";
    node.kubectl_with(&["apply", "-f", "-"], range.as_bytes()).ok();
    node.kubectl(&["run", "silent", "--image=busybox:stable", "--", "sleep", "1000"]).ok();
    let error = node.kubectl(&["run", "second", "--image=busybox:stable"]).fails();
    assert_contains(&error, &["exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"]);
    assert_contains(
        &node.kubectl(&["describe", "quota", "small"]).ok(),
        &["pods          1     1", "requests.cpu  300m  1"],
    );
    assert_contains(&node.kubectl(&["describe", "limitrange", "r"]).ok(), &["Container", "500m"]);
    node.delete_pod("silent");
    e2e::eventually(e2e::limit(10), "its place is free", || {
        let said = node.kubectl(&["get", "quota", "small", "-o", "jsonpath={.status.used.pods}"]).ok();
        if said == "0" { Ok(()) } else { Err(said) }
    });
    node.kubectl(&["run", "second", "--image=busybox:stable", "--restart=Never", "--", "true"]).ok();
    node.kubectl(&["delete", "quota,limitrange,pod", "--all"]).ok();
}
