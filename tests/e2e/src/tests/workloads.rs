//! Deployments, ReplicaSets and Jobs, driven by kubectl.

use e2e::TestNode;
use serde_json::{Value, json};

tests! {
    a_deployment_rolls_scales_and_goes_back,
    a_deployment_survives_the_death_of_the_daemon,
    a_replica_set_adopts_and_releases,
    a_job_runs_to_its_end,
    an_indexed_job_shares_its_work,
    a_job_gives_up,
}

const DEPLOYMENT: &str = "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3,
    selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {
    terminationGracePeriodSeconds: 0, containers: [{name: main, image: 'busybox:stable', command: [sleep, '1000'],
    env: [{name: VERSION, value: one}]}]}}}}";

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A Job of one container.
fn job(name: &str, more: &str, script: &str) -> String {
    format!(
        "---\n{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{{more} template: {{spec: {{
         restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{{name: main, image: 'busybox:stable',
         command: [sh, -c, '{script}']}}]}}}}}}}}"
    )
}

#[track_caller]
fn apply(node: &TestNode, manifest: &str) {
    node.kubectl_with(&["apply", "-f", "-"], manifest.as_bytes()).ok();
}

fn pods(node: &TestNode) -> Vec<Value> {
    node.api().get(PODS)["items"].as_array().unwrap().clone()
}

/// Waits until the objects are as they should be, whichever of them change for it.
#[track_caller]
fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    e2e::eventually(e2e::limit(30), what, || found().ok_or_else(|| "not yet".to_owned()))
}

/// Deletes an object with all that it owns, and waits until that is gone, too.
#[track_caller]
fn delete(node: &TestNode, what: &str) {
    node.kubectl(&["delete", what]).ok();
    eventually("all Pods are gone", || pods(node).is_empty().then_some(()));
}

fn a_deployment_rolls_scales_and_goes_back(node: &mut TestNode) {
    apply(node, DEPLOYMENT);
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let table = node.kubectl(&["get", "deployment,replicaset"]).ok();
    assert!(table.contains("deployment.apps/web   3/3     3            3 "), "{table}");
    node.kubectl(&["set", "env", "deployment/web", "VERSION=two"]).ok();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let versions = |node: &TestNode| -> Vec<Value> {
        let alive = pods(node).into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        alive.map(|pod| pod["spec"]["containers"][0]["env"][0]["value"].clone()).collect()
    };
    assert_eq!(versions(node), [json!("two"), json!("two"), json!("two")]);
    let history = node.kubectl(&["rollout", "history", "deployment/web"]).ok();
    assert!(history.contains("1         <none>\n2         <none>"), "{history}");
    node.kubectl(&["scale", "deployment/web", "--replicas=5"]).ok();
    node.kubectl(&["wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=5", "--timeout=60s"]).ok();
    node.kubectl(&["rollout", "undo", "deployment/web"]).ok();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    assert_eq!(versions(node), vec![json!("one"); 5]);
    let told = node.kubectl(&["describe", "deployment", "web"]).ok();
    for wanted in ["ScalingReplicaSet", "NewReplicaSetAvailable", "5 desired | 5 updated | 5 total | 5 available"] {
        assert!(told.contains(wanted), "{wanted:?} is not in:\n{told}");
    }
    // A template that never gets ready takes away no more than may be missing.
    node.kubectl(&["set", "image", "deployment/web", "main=no-such-image:1"]).ok();
    eventually("the new set is there", || {
        let newest = node.api().get(SETS)["items"].as_array().unwrap().iter().any(|set| {
            set["spec"]["template"]["spec"]["containers"][0]["image"] == "no-such-image:1"
                && set["status"]["replicas"].as_i64() > Some(0)
        });
        newest.then_some(())
    });
    node.kubectl(&["wait", "deployment/web", "--for=jsonpath={.status.availableReplicas}=4", "--timeout=60s"]).ok();
    delete(node, "deployment/web");
    assert_eq!(node.api().names(SETS), Vec::<String>::new());
}

fn a_deployment_survives_the_death_of_the_daemon(node: &mut TestNode) {
    apply(node, DEPLOYMENT);
    for version in ["two", "three"] {
        node.kill_daemon();
        node.start_daemon();
        node.kubectl(&["set", "env", "deployment/web", &format!("VERSION={version}")]).ok();
    }
    node.kill_daemon();
    node.start_daemon();
    node.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    eventually("only new Pods are left", || {
        let all = pods(node);
        let new = all.iter().filter(|pod| pod["spec"]["containers"][0]["env"][0]["value"] == "three").count();
        (new == 3 && all.len() == 3).then_some(())
    });
    delete(node, "deployment/web");
}

fn a_replica_set_adopts_and_releases(node: &mut TestNode) {
    let pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: first, labels: {app: web}}, spec: {
        terminationGracePeriodSeconds: 0, containers: [{name: main, image: 'busybox:stable', command: [sleep, '1000']}]}}";
    node.run_text(pod, "first");
    let set = DEPLOYMENT.replace("Deployment", "ReplicaSet").replace("replicas: 3", "replicas: 2");
    apply(node, &set);
    node.kubectl(&["wait", "rs/web", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=60s"]).ok();
    assert_eq!(node.pod("first")["metadata"]["ownerReferences"][0]["name"], "web", "it was adopted");
    // One that the selector no longer finds is let go, and another comes in its place.
    node.kubectl(&["label", "pod", "first", "app=other", "--overwrite"]).ok();
    eventually("three Pods", || (pods(node).len() == 3).then_some(()));
    node.wait_for("first", "it is let go", |pod| {
        pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
    });
    node.kubectl(&["delete", "rs/web"]).ok();
    eventually("only the free Pod is left", || (pods(node).len() == 1).then_some(()));
    node.delete_pod("first");
}

fn a_job_runs_to_its_end(node: &mut TestNode) {
    apply(
        node,
        &job("work", "completions: 3, parallelism: 2, ttlSecondsAfterFinished: 3600,", "echo done by $HOSTNAME"),
    );
    node.kubectl(&["wait", "job/work", "--for=condition=Complete", "--timeout=60s"]).ok();
    let table = node.kubectl(&["get", "jobs"]).ok();
    assert!(table.contains("work   Complete   3/3 "), "{table}");
    assert!(node.kubectl(&["logs", "job/work"]).ok().contains("done by work-"));
    let status = node.api().get(&format!("{JOBS}/work"))["status"].clone();
    assert_eq!((&status["succeeded"], &status["uncountedTerminatedPods"]), (&json!(3), &json!({})));
    assert!(pods(node).iter().all(|pod| pod["metadata"]["finalizers"].is_null()), "each end was counted");
    delete(node, "job/work");
    // What is made by hand is suspended and goes on by hand, too.
    apply(node, &job("late", "suspend: true,", "exit 0"));
    node.kubectl(&["wait", "job/late", "--for=condition=Suspended", "--timeout=30s"]).ok();
    assert!(pods(node).is_empty());
    node.kubectl(&["patch", "job/late", "--type=merge", "-p", "{\"spec\": {\"suspend\": false}}"]).ok();
    node.kubectl(&["wait", "job/late", "--for=condition=Complete", "--timeout=60s"]).ok();
    // Its Pods stay where they are wanted.
    node.kubectl(&["delete", "job/late", "--cascade=orphan"]).ok();
    let orphan = eventually("the Pod is nobody's", || {
        let pod = pods(node).pop()?;
        let free = pod["metadata"]["ownerReferences"].is_null() && pod["metadata"]["finalizers"].is_null();
        free.then(|| pod["metadata"]["name"].as_str().unwrap().to_owned())
    });
    node.delete_pod(&orphan);
    apply(node, &job("brief", "ttlSecondsAfterFinished: 0,", "exit 0"));
    eventually("the Job and its Pod go by themselves", || {
        (node.api().names(JOBS).is_empty() && pods(node).is_empty()).then_some(())
    });
}

fn an_indexed_job_shares_its_work(node: &mut TestNode) {
    let more = "completions: 4, parallelism: 4, completionMode: Indexed,";
    apply(node, &job("parts", more, "echo part $JOB_COMPLETION_INDEX on $(hostname)"));
    node.kubectl(&["wait", "job/parts", "--for=condition=Complete", "--timeout=60s"]).ok();
    let status = node.api().get(&format!("{JOBS}/parts"))["status"].clone();
    assert_eq!(status["completedIndexes"], "0-3");
    let mut said: Vec<String> = pods(node)
        .iter()
        .map(|pod| node.logs(pod["metadata"]["name"].as_str().unwrap(), "main").trim().to_owned())
        .collect();
    said.sort();
    assert_eq!(said, (0..4).map(|index| format!("part {index} on parts-{index}")).collect::<Vec<_>>());
    delete(node, "job/parts");
}

fn a_job_gives_up(node: &mut TestNode) {
    apply(node, &job("bad", "backoffLimit: 0,", "exit 3"));
    node.kubectl(&["wait", "job/bad", "--for=condition=Failed", "--timeout=60s"]).ok();
    let events = node.kubectl(&["events", "--for", "job/bad"]).ok();
    assert!(events.contains("BackoffLimitExceeded"), "{events}");
    delete(node, "job/bad");
    let rule =
        "backoffLimit: 5, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]},";
    apply(node, &job("ruled", rule, "exit 42"));
    node.kubectl(&["wait", "job/ruled", "--for=condition=Failed", "--timeout=60s"]).ok();
    let conditions = node.api().get(&format!("{JOBS}/ruled"))["status"]["conditions"].clone();
    assert!(
        conditions.to_string().contains("failed with exit code 42 matching FailJob rule at index 0"),
        "{conditions}"
    );
    delete(node, "job/ruled");
    apply(node, &job("slow", "activeDeadlineSeconds: 1,", "sleep 1000"));
    node.kubectl(&["wait", "job/slow", "--for=condition=Failed", "--timeout=60s"]).ok();
    delete(node, "job/slow");
}
