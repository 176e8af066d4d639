//! The life of pods, rule by rule, on a fake runtime and with time that the test moves.

use std::time::Duration;

use image::{FakePull, FakeRegistry};
use runtime::MountSource;
use runtime::fake::{OnSignal, Verb};
use serde_json::{Value, json};

use spec::PodRef;
use spec::k8s_openapi::api::core::v1::Pod;

use crate::pod_tokens::SERVICE_ACCOUNTS;
use crate::testing::{TestNode, condition, env_map, is_ready, named_pod, pod, status_of, stored_pod, uid};
use crate::timeline::{ContainerTurn, Happening, Moment};

fn one_container() -> Value {
    json!({ "containers": [{ "name": "app", "image": "app:1" }] })
}

fn with_policy(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "containers": [{ "name": "app", "image": "app:1" }] })
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_says_so() {
    let node = TestNode::start().await;
    node.create(&pod(&one_container())).await;
    let pod = node.wait_for("web", is_ready).await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.85.0.1");
    assert_eq!(status["podIPs"], json!([{ "ip": "10.85.0.1" }]));
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["startTime"], "2026-01-01T00:00:00Z");
    assert_eq!(pod["spec"]["nodeName"], "edge");
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, type_)["status"], "True", "{type_}");
    }
    let app = status_of(&pod, "app");
    assert_eq!((&app["ready"], &app["started"], &app["restartCount"]), (&json!(true), &json!(true), &json!(0)));
    assert_eq!(app["state"]["running"]["startedAt"], "2026-01-01T00:00:00Z");
    assert!(app["containerID"].as_str().unwrap().starts_with("monopod://"));
    assert!(app["imageID"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(app["user"]["linux"]["uid"], 0);
    for (reason, message) in [
        ("Scheduled", "Successfully assigned default/web to edge"),
        ("Pulled", "Container image \"app:1\" already present on machine and can be accessed by the pod"),
        ("Created", "Container created"),
        ("Started", "Container started"),
    ] {
        assert_eq!(node.wait_for_event(reason).await, message);
    }
    assert_eq!(
        node.verbs(),
        ["RunPodSandbox default/web 0", "CreateContainer app 0", "StartContainer app 0"],
        "each step is done once"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_of_a_pod_that_never_became_durable_goes() {
    let node = TestNode::start().await;
    // As of a store whose disk fails after it has told of the pod.
    let lost = stored_pod(&pod(&one_container()), node.store.revision() + 1000);
    node.agent().shared.start_forthcoming(lost);
    while !node.verbs().contains(&"RemovePodSandbox default/web 0".to_owned()) {
        node.advance(1).await;
    }
    node.advance(1).await;
    assert_eq!(node.leftovers(), [""; 0]);
    assert!(node.runtime.is_empty() && node.store.list("pods", None).objects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_what_was_read_and_signed_for_its_pod() {
    let node = TestNode::start().await;
    let account = json!({ "metadata": { "name": "default", "namespace": "default", "uid": "u1" } });
    node.put(SERVICE_ACCOUNTS, account).await;
    let token = json!({ "serviceAccountToken": { "path": "token" } });
    let object = pod(&json!({
        "volumes": [{ "name": "access", "projected": { "sources": [token] } }],
        "containers": [{ "name": "app", "image": "app:1" }],
    }));
    let admitted = |object: &Value| Box::new(serde_json::from_value::<Pod>(object.clone()).unwrap());
    let writing = node.agent().expect("u-web", admitted(&object)).unwrap();
    node.agent().sign_tokens(&writing);
    node.create(&object).await;
    node.wait_for("web", is_ready).await;
    let expected = &node.agent().shared.expected;
    assert_eq!(expected.take_pod(&uid("u-web")), None);
    assert!(expected.take_tokens(&uid("u-web")).is_none());
    drop(writing);

    let mut gated = object;
    gated["spec"]["schedulingGates"] = json!([{ "name": "example.com/wait" }]);
    assert!(node.agent().expect("u-gated", admitted(&gated)).is_none(), "it may wait for days");
}

#[tokio::test(start_paused = true)]
async fn a_status_tells_resources_and_mounts() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "initContainers": [{ "name": "init", "image": "app:1" }],
        "containers": [{
            "name": "app", "image": "app:1",
            "resources": { "limits": { "cpu": "100m" } },
            "volumeMounts": [
                { "name": "data", "mountPath": "/data" },
                { "name": "data", "mountPath": "/again", "readOnly": true },
            ],
        }],
    });
    node.create(&pod(&spec)).await;
    let pod = node.wait_for("web", |pod| status_of(pod, "init")["state"]["running"].is_object()).await;
    let app = status_of(&pod, "app");
    assert!(app["resources"].is_null() && app["allocatedResources"].is_null(), "it never ran: {app}");
    assert!(node.runtime.exit("init", 0));
    let app = status_of(&node.wait_for("web", is_ready).await, "app");
    let mounts = json!([
        { "name": "data", "mountPath": "/data" },
        { "name": "data", "mountPath": "/again", "readOnly": true, "recursiveReadOnly": "Disabled" },
    ]);
    assert_eq!(app["volumeMounts"], mounts);
    assert_eq!(app["allocatedResources"], json!({ "cpu": "100m" }), "a limit alone is the request");
    assert_eq!(app["resources"], json!({ "limits": { "cpu": "100m" }, "requests": { "cpu": "100m" } }));
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_its_command_environment_and_files() {
    let node = TestNode::start().await;
    let spec = json!({ "containers": [{
        "name": "app", "image": "app:1", "args": ["$(GREETING)", "$$(GREETING)"],
        "env": [
            { "name": "GREETING", "value": "hello" },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        ],
    }] });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    let config = node.runtime.container_config("app").unwrap();
    assert_eq!(config.command, ["/program", "hello", "$(GREETING)"]);
    let env = env_map(&config.env);
    assert_eq!(env["IP"], "10.85.0.1");
    assert_eq!(env["HOSTNAME"], "web");
    assert_eq!(env["FROM_IMAGE"], "yes");
    let file = |target: &str| {
        let mount = config.mounts.iter().find(|mount| mount.target.as_os_str() == target).unwrap();
        let MountSource::HostPath(path) = &mount.source else { panic!("{target} is a file of the machine") };
        std::fs::read_to_string(path).unwrap()
    };
    assert!(file("/etc/hosts").contains("10.85.0.1\tweb\n"));
    assert_eq!(file("/etc/hostname"), "web\n");
    assert_eq!(file("/etc/resolv.conf"), "search example.org\nnameserver 192.0.2.53\n");
    assert_eq!(file("/dev/termination-log"), "");
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_before_the_app() {
    let node = TestNode::start().await;
    let spec = json!({
        "initContainers": [{ "name": "one", "image": "app:1" }, { "name": "two", "image": "app:1" }],
        "containers": [{ "name": "app", "image": "app:1" }, { "name": "side", "image": "app:1" }],
    });
    node.create(&pod(&spec)).await;
    let waiting = node.wait_for("web", |pod| status_of(pod, "one")["state"]["running"].is_object()).await;
    assert_eq!(waiting["status"]["phase"], "Pending");
    assert_eq!(status_of(&waiting, "app")["state"]["waiting"]["reason"], "PodInitializing");
    let initialized = condition(&waiting, "Initialized");
    assert_eq!(initialized["reason"], "ContainersNotInitialized");
    assert_eq!(initialized["message"], "containers with incomplete status: [one two]");
    assert_eq!(condition(&waiting, "Ready")["message"], "containers with unready status: [app side]");
    assert!(node.runtime.exit("one", 0));
    node.wait_for("web", |pod| status_of(pod, "two")["state"]["running"].is_object()).await;
    assert!(node.runtime.exit("two", 0));
    let running = node.wait_for("web", is_ready).await;
    assert_eq!(status_of(&running, "one")["state"]["terminated"]["reason"], "Completed");
    assert_eq!(status_of(&running, "two")["ready"], true);
    let starts: Vec<_> = node.verbs().into_iter().filter(|verb| verb.starts_with("Start")).collect();
    assert_eq!(
        starts,
        ["StartContainer one 0", "StartContainer two 0", "StartContainer app 0", "StartContainer side 0"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_is_retried_with_back_off() {
    let node = TestNode::start().await;
    node.runtime.exits_at_once("init", Some(3));
    let spec = json!({
        "initContainers": [{ "name": "init", "image": "app:1" }],
        "containers": [{ "name": "app", "image": "app:1" }],
    });
    node.create(&pod(&spec)).await;
    let pod = node.wait_for_reason("web", "init", "CrashLoopBackOff").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(status_of(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status_of(&pod, "init")["lastState"]["terminated"]["exitCode"], 3);
    node.runtime.exits_at_once("init", Some(0));
    node.advance(10).await;
    node.wait_for("web", is_ready).await;
    assert_eq!(node.starts("init"), [0, 0, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_ends_a_pod_that_never_restarts() {
    let node = TestNode::start().await;
    node.runtime.exits_at_once("init", Some(3));
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "init", "image": "app:1" }],
        "containers": [{ "name": "app", "image": "app:1" }],
    });
    node.create(&pod(&spec)).await;
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(status_of(&pod, "init")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(node.starts("app"), [] as [i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_and_a_restart_of_the_daemon_does_not_forgive_it() {
    let mut node = TestNode::start().await;
    node.runtime.exits_at_once("app", Some(1));
    node.create(&pod(&one_container())).await;
    let pod = node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    let app = status_of(&pod, "app");
    assert_eq!(
        app["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=app pod=web_default(u-web)"
    );
    assert_eq!(app["restartCount"], 1, "the first restart comes at once");
    assert_eq!(app["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(
        node.wait_for_event("BackOff").await,
        "Back-off restarting failed container app in pod web_default(u-web)"
    );
    node.advance(9).await;
    node.kill_agent().await;
    node.start_agent().await;
    node.advance(1).await;
    node.wait_for("web", |pod| {
        status_of(pod, "app")["state"]["waiting"]["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("back-off 20s"))
    })
    .await;
    node.runtime.exits_at_once("app", None);
    node.advance(20).await;
    node.wait_for_restart("web", "app", 3).await;
    assert_eq!(node.starts("app"), [0, 0, 10, 30]);
    node.advance(601).await;
    node.runtime.exit("app", 1);
    node.wait_for_restart("web", "app", 4).await;
    assert_eq!(node.starts("app").last(), Some(&631), "a long run is forgiven");
}

#[tokio::test(start_paused = true)]
async fn a_long_back_off_is_told_of_once_a_minute() {
    let node = TestNode::start().await;
    node.runtime.exits_at_once("app", Some(1));
    node.create(&pod(&one_container())).await;
    let count = || node.event_count("BackOff", "Back-off restarting failed container app in pod web_default(u-web)");
    for (wait, told) in [(10, 1), (20, 2), (40, 3), (80, 5), (160, 8)] {
        let message = format!("back-off {} ", crate::backoff::go_duration(std::time::Duration::from_secs(wait)));
        node.wait_for("web", |pod| {
            let said = &status_of(pod, "app")["state"]["waiting"]["message"];
            said.as_str().is_some_and(|said| said.starts_with(&message))
        })
        .await;
        node.pass(wait - 1).await;
        assert_eq!(count(), told, "in the wait of {wait} s");
        node.pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_does_not_come_is_told_of_every_ten_seconds() {
    let node = TestNode::start().await;
    let missing =
        |policy: &str| json!({ "containers": [{ "name": "app", "image": "late:1", "imagePullPolicy": policy }] });
    node.create(&pod(&missing("Never"))).await;
    node.wait_for_reason("web", "app", "ErrImageNeverPull").await;
    node.pass(35).await;
    let said = "Container image \"late:1\" is not present with pull policy of Never";
    assert_eq!(node.event_count("ErrImageNeverPull", said), 4);
    assert_eq!(node.event_count("Failed", "Error: ErrImageNeverPull"), 4);
    let node = TestNode::start().await;
    node.create(&pod(&missing("IfNotPresent"))).await;
    node.wait_for_reason("web", "app", "ErrImagePull").await;
    node.pass(29).await;
    // Tries at 0 and 10 s; back-offs seen at 5, 15, 25 s.
    assert_eq!(node.event_count("BackOff", "Back-off pulling image \"late:1\""), 3);
    assert_eq!(node.event_count("Failed", "Error: ErrImagePull"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_back_off_counts_from_the_end_of_the_run() {
    let node = TestNode::start().await;
    node.create(&pod(&one_container())).await;
    for crash in 1..3 {
        node.settle().await;
        node.advance(7).await;
        node.runtime.exit("app", 1);
        if crash == 1 {
            node.wait_for_restart("web", "app", 1).await;
        }
    }
    node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    node.advance(9).await;
    node.settle().await;
    assert_eq!(node.starts("app"), [0, 7], "ten seconds from the crash, however long it ran before");
    node.advance(1).await;
    node.wait_for_restart("web", "app", 2).await;
    assert_eq!(node.starts("app"), [0, 7, 24]);
}

#[tokio::test(start_paused = true)]
async fn the_restart_policy_decides_what_an_exit_means() {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 7, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let node = TestNode::start().await;
        node.create(&pod(&with_policy(policy))).await;
        let ready = node.wait_for("web", is_ready).await;
        node.runtime.exit("app", code);
        let pod = node.wait_for_phase("web", phase).await;
        assert_eq!(status_of(&pod, "app")["state"]["terminated"]["exitCode"], code, "{policy} {code}");
        let reason = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
        assert_eq!(condition(&pod, "Ready")["reason"], reason);
        assert!(pod["status"]["podIP"].is_string());
        assert_eq!(pod["status"]["podIPs"], ready["status"]["podIPs"]);
        assert_eq!(node.starts("app"), [0], "{policy} {code}");
    }
    for (policy, code) in [("Always", 0), ("Always", 7), ("OnFailure", 7)] {
        let node = TestNode::start().await;
        node.create(&pod(&with_policy(policy))).await;
        node.wait_for("web", is_ready).await;
        node.runtime.exit("app", code);
        let pod = node.wait_for_restart("web", "app", 1).await;
        assert_eq!(status_of(&pod, "app")["lastState"]["terminated"]["exitCode"], code, "{policy} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminal_phase_waits_for_all_containers() {
    let node = TestNode::start().await;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": "app:1" }, { "name": "other", "image": "app:1" }],
    });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    node.runtime.exit("app", 1);
    let half = node.wait_for("web", |pod| status_of(pod, "app")["state"]["terminated"].is_object()).await;
    assert_eq!(half["status"]["phase"], "Running");
    assert_eq!(condition(&half, "Ready")["message"], "containers with unready status: [app]");
    node.runtime.exit("other", 0);
    node.wait_for_phase("web", "Failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_keeps_object_status_and_logs_but_no_sandbox_or_volume() {
    let mut node = TestNode::start().await;
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "containers": [{ "name": "app", "image": "app:1", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
    });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    let volume = node.volume("u-web", "kubernetes.io~empty-dir", "data");
    assert!(volume.is_dir());
    let logs = node.directory.path().join("logs/default_web_u-web/app");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join("0.log"), "2026-01-01T00:00:00Z stdout F done\n").unwrap();
    node.runtime.exit("app", 0);
    let finished = node.wait_for_phase("web", "Succeeded").await;
    node.wait_until_clean(|| !volume.exists()).await;
    assert!(logs.join("0.log").exists());
    // A restart changes nothing of it and starts nothing.
    node.kill_agent().await;
    node.start_agent().await;
    node.delete("web", 0).await;
    node.wait_until_gone("web").await;
    assert_eq!(finished["status"]["phase"], "Succeeded");
    assert_eq!(node.starts("app"), [0]);
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_gets_its_grace_period_and_leaves_nothing() {
    let node = TestNode::start().await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    let spec = json!({ "containers": [{ "name": "app", "image": "app:1" }, { "name": "quick", "image": "app:1" }] });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 30).await;
    // Both were asked at once; the quick one ends, the other has its time.
    node.wait_for_stop("quick").await;
    for message in ["Stopping container app", "Stopping container quick"] {
        node.wait_for_message("Killing", |said| said == message).await;
    }
    node.advance(29).await;
    assert!(node.get("web").is_some());
    node.advance(1).await;
    node.wait_until_gone("web").await;
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
    let stops: Vec<_> = node.runtime.history().into_iter().filter(|h| h.verb == Verb::StopContainer).collect();
    assert_eq!(stops.iter().map(|stop| stop.at.as_second() % 86400).collect::<Vec<_>>(), [0, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_second_delete_shortens_the_grace_period_and_never_lengthens_it() {
    let node = TestNode::start().await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    node.create(&pod(&one_container())).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 300).await;
    node.wait_for_event("Killing").await;
    node.advance(5).await;
    node.delete("web", 10).await;
    node.settle().await;
    node.delete("web", 500).await;
    node.advance(10).await;
    node.wait_until_gone("web").await;
    let stop = node.runtime.history().into_iter().find(|h| h.verb == Verb::StopContainer).unwrap();
    assert_eq!(stop.at.as_second() % 86400, 15);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_that_never_ran_goes_as_failed() {
    let node = TestNode::start().await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "absent:1" }] }))).await;
    node.wait_for_reason("web", "app", "ErrImagePull").await;
    let mut phases = Vec::new();
    let mut watch = node.store.watch("pods", None).unwrap();
    node.delete("web", 30).await;
    loop {
        let event = watch.next().await.unwrap();
        phases.push(event.object.value["status"]["phase"].clone());
        if event.kind == store::WatchKind::Deleted {
            break;
        }
    }
    assert_eq!(phases.last().unwrap(), "Failed");
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_forced_delete_still_cleans_up_while_the_name_comes_again() {
    let node = TestNode::start().await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    node.create(&named_pod("web", "u-old", &one_container())).await;
    node.wait_for("web", is_ready).await;
    node.remove("pods", "web").await;
    node.create(&named_pod("web", "u-new", &one_container())).await;
    let new = node.wait_for("web", is_ready).await;
    assert_eq!(new["status"]["podIP"], "10.85.0.2", "the old one still holds its address");
    node.wait_for_stop_request("u-old").await;
    node.advance(2).await;
    node.wait_until_clean(|| node.runtime.sandbox_config(&uid("u-old")).is_none()).await;
    node.wait_until_clean(|| !node.directory.path().join("data/pods/u-old").exists()).await;
    assert!(node.runtime.sandbox_config(&uid("u-new")).is_some());
    assert!(node.directory.path().join("data/pods/u-new").exists());
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_no_pod_is_cleaned_up_at_start_and_foreign_logs_stay() {
    let mut node = TestNode::start().await;
    node.create(&pod(&one_container())).await;
    node.wait_for("web", is_ready).await;
    let base = node.directory.path().to_owned();
    let logs = base.join("logs/default_web_u-web/app");
    std::fs::create_dir_all(&logs).unwrap();
    let foreign = base.join("logs/kube-system_other_u-other");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::create_dir_all(base.join("data/pods/u-stray/volumes")).unwrap();
    node.kill_agent().await;
    node.remove("pods", "web").await;
    node.start_agent().await;
    node.wait_until_clean(|| node.leftovers() == ["logs/kube-system_other_u-other"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced_and_init_containers_run_again() {
    let node = TestNode::start().await;
    let spec = json!({
        "initContainers": [{ "name": "init", "image": "app:1" }],
        "containers": [{ "name": "app", "image": "app:1" }],
    });
    node.runtime.exits_at_once("init", Some(0));
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    node.runtime.kill_sandboxes(&uid("u-web"));
    let pod = node.wait_for_restart("web", "app", 1).await;
    assert_eq!(pod["status"]["podIP"], "10.85.0.2");
    let app = status_of(&pod, "app");
    assert_eq!(app["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(app["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(status_of(&pod, "init")["restartCount"], 1);
    assert_eq!(node.wait_for_event("SandboxChanged").await, "Pod sandbox changed, it will be killed and re-created.");
    assert!(node.verbs().contains(&"RunPodSandbox default/web 1".to_owned()));
    assert!(node.verbs().contains(&"RemovePodSandbox default/web 0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_ends_with_its_sandbox() {
    let node = TestNode::start().await;
    node.create(&pod(&with_policy("Never"))).await;
    node.wait_for("web", is_ready).await;
    node.runtime.kill_sandboxes(&uid("u-web"));
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(status_of(&pod, "app")["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(node.starts("app"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_waits_and_heals_when_it_is_loaded() {
    let node = TestNode::start().await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "late:1" }] }))).await;
    let pod = node.wait_for_reason("web", "app", "ErrImagePull").await;
    let message = status_of(&pod, "app")["state"]["waiting"]["message"].clone();
    assert!(message.as_str().unwrap().contains("monopod image load"), "{message}");
    node.advance(5).await;
    let pod = node.wait_for_reason("web", "app", "ImagePullBackOff").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(node.wait_for_event("BackOff").await, "Back-off pulling image \"late:1\"");
    node.advance(5).await;
    node.wait_for_reason("web", "app", "ErrImagePull").await;
    node.load_image("late:1").await;
    node.agent().images_changed();
    node.wait_for("web", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn images_that_can_never_come_say_why() {
    for (image, policy, reason, message) in [
        ("late:1", "Never", "ErrImageNeverPull", "Container image \"late:1\" is not present with pull policy of Never"),
        ("UPPER:1", "IfNotPresent", "InvalidImageName", "Failed to apply default image tag \"UPPER:1\""),
    ] {
        let node = TestNode::start().await;
        let spec = json!({ "containers": [{ "name": "app", "image": image, "imagePullPolicy": policy }] });
        node.create(&pod(&spec)).await;
        let pod = node.wait_for_reason("web", "app", reason).await;
        let said = status_of(&pod, "app")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
        assert!(said.starts_with(message), "{said}");
        node.wait_for_event("Failed").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_image_restarts_that_container_alone_whatever_the_policy() {
    let mut node = TestNode::start().await;
    node.load_image("app:2").await;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": "app:1" }, { "name": "other", "image": "app:1" }],
    });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    node.edit("web", |pod| pod["spec"]["containers"][0]["image"] = "app:2".into()).await;
    assert_eq!(node.wait_for_event("Killing").await, "Container app definition changed, will be restarted");
    // Also where the daemon dies while the container stops.
    node.kill_agent().await;
    node.start_agent().await;
    node.wait_for_stop_request("u-web").await;
    node.advance(60).await;
    let pod = node.wait_for_restart("web", "app", 1).await;
    assert_eq!(status_of(&pod, "app")["image"], "app:2");
    assert_eq!(status_of(&pod, "other")["restartCount"], 0);
    assert_eq!(node.starts("other"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_of_the_environment_heals() {
    let node = TestNode::start().await;
    let spec = json!({ "containers": [{ "name": "app", "image": "app:1", "env": [
        { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "a" } } },
    ] }] });
    node.create(&pod(&spec)).await;
    let waiting = |message: &'static str| {
        move |pod: &Value| {
            let waiting = &status_of(pod, "app")["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == message
        }
    };
    node.wait_for("web", waiting("configmap \"settings\" not found")).await;
    assert_eq!(node.wait_for_event("Failed").await, "Error: configmap \"settings\" not found");
    let map = |data: Value| json!({ "metadata": { "name": "settings", "namespace": "default" }, "data": data });
    node.put("configmaps", map(json!({ "b": "1" }))).await;
    node.advance(10).await;
    node.wait_for("web", waiting("couldn't find key a in ConfigMap default/settings")).await;
    node.put("configmaps", map(json!({ "a": "1" }))).await;
    node.wait_for("web", is_ready).await;
    assert_eq!(env_map(&node.runtime.container_config("app").unwrap().env)["A"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_of_a_volume_heals_and_updates_reach_running_containers() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "keys", "secret": { "secretName": "keys", "defaultMode": 0o400 } },
        ],
        "containers": [{ "name": "app", "image": "app:1", "volumeMounts": [
            { "name": "settings", "mountPath": "/settings" }, { "name": "keys", "mountPath": "/keys" },
        ] }],
    });
    node.create(&pod(&spec)).await;
    let pod = node.wait_for_reason("web", "app", "ContainerCreating").await;
    assert_eq!(condition(&pod, "PodReadyToStartContainers")["status"], "False");
    assert_eq!(
        node.wait_for_event("FailedMount").await,
        "MountVolume.SetUp failed for volume \"settings\" : configmap \"settings\" not found"
    );
    let map =
        |value: &str| json!({ "metadata": { "name": "settings", "namespace": "default" }, "data": { "a": value } });
    node.put("configmaps", map("1")).await;
    let secret = json!({ "metadata": { "name": "keys", "namespace": "default" }, "data": { "k": "c2VjcmV0" } });
    node.put("secrets", secret).await;
    node.wait_for("web", is_ready).await;
    let settings = node.volume("u-web", "kubernetes.io~configmap", "settings");
    assert_eq!(std::fs::read_to_string(settings.join("a")).unwrap(), "1");
    let config = node.runtime.container_config("app").unwrap();
    let keys = config.mounts.iter().find(|mount| mount.target.as_os_str() == "/keys").unwrap();
    assert!(keys.read_only && matches!(&keys.source, MountSource::PodTmpfs(name) if name.as_str() == "keys"));
    let memory = node.secret_directory("keys").await;
    assert_eq!(std::fs::read_to_string(memory.join("k")).unwrap(), "secret");
    node.put("configmaps", map("2")).await;
    let file = settings.join("a");
    node.wait_until_clean(|| std::fs::read_to_string(&file).is_ok_and(|text| text == "2")).await;
    let secret = json!({ "metadata": { "name": "keys", "namespace": "default" }, "data": { "k": "bmV3" } });
    node.put("secrets", secret).await;
    let file = memory.join("k");
    node.wait_until_clean(|| std::fs::read_to_string(&file).is_ok_and(|text| text == "new")).await;
    assert_eq!(node.starts("app"), [0]);
}

#[tokio::test(start_paused = true)]
async fn an_immutable_object_is_read_once_for_all_its_users() {
    let mut node = TestNode::start().await;
    let map = |value: &str, immutable: bool| json!({ "metadata": { "name": "settings", "namespace": "default" }, "data": { "a": value }, "immutable": immutable });
    let user = |name: &str| {
        let spec = json!({
            "volumes": [{ "name": "settings", "configMap": { "name": "settings" } }],
            "containers": [{
                "name": "app", "image": "app:1", "volumeMounts": [{ "name": "settings", "mountPath": "/settings" }],
                "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "a" } } }],
            }],
        });
        named_pod(name, &format!("u-{name}"), &spec)
    };
    let file = |node: &TestNode, uid: &str| {
        std::fs::read_to_string(node.volume(uid, "kubernetes.io~configmap", "settings").join("a")).unwrap()
    };
    node.put("configmaps", map("old", true)).await;
    node.create(&user("web")).await;
    node.wait_for("web", is_ready).await;
    // Deleted, it is still there for who is started anew, and for who comes as long as it is used.
    node.remove("configmaps", "settings").await;
    assert!(node.runtime.exit("app", 1));
    node.wait_for_restart("web", "app", 1).await;
    node.put("configmaps", map("new", false)).await;
    node.settle().await;
    assert_eq!(file(&node, "u-web"), "old");
    node.create(&user("second")).await;
    node.wait_for("second", is_ready).await;
    assert_eq!(file(&node, "u-second"), "old");
    assert_eq!(env_map(&node.runtime.container_config("app").unwrap().env)["A"], "old");
    for name in ["web", "second"] {
        node.delete(name, 0).await;
        node.advance(2).await;
        node.wait_until_gone(name).await;
    }
    node.create(&user("third")).await;
    node.wait_for("third", is_ready).await;
    assert_eq!(file(&node, "u-third"), "new");
    // It is followed as long as it does not say that it never changes, and the next daemon reads anew.
    node.put("configmaps", map("last", true)).await;
    node.wait_until_clean(|| file(&node, "u-third") == "last").await;
    node.put("configmaps", map("other", true)).await;
    node.settle().await;
    assert_eq!(file(&node, "u-third"), "last");
    node.kill_agent().await;
    node.start_agent().await;
    node.wait_until_clean(|| file(&node, "u-third") == "other").await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_of_another_runtime_is_not_made() {
    let node = TestNode::start().await;
    let class = |handler: &str| json!({ "metadata": { "name": "vm" }, "handler": handler });
    node.put("runtimeclasses", class("kata")).await;
    let mut spec = one_container();
    spec["runtimeClassName"] = "vm".into();
    node.create(&pod(&spec)).await;
    assert_eq!(
        node.wait_for_event("FailedCreatePodSandBox").await,
        "Failed to create pod sandbox: no runtime for \"kata\" is configured: RuntimeClass \"vm\" names it, and the only \
         handler here is \"monopod\""
    );
    node.put("runtimeclasses", class("monopod")).await;
    node.advance(2).await;
    node.wait_for("web", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn labels_are_refused_only_where_they_would_mean_something() {
    let mut spec = one_container();
    spec["securityContext"] = json!({ "seLinuxOptions": { "level": "s0" } });
    let node = TestNode::start_with(|config| config.has_selinux = false).await;
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    let node = TestNode::start_with(|config| config.has_selinux = true).await;
    node.create(&pod(&spec)).await;
    assert_eq!(
        node.wait_for_event("FailedCreatePodSandBox").await,
        "Failed to create pod sandbox: spec.securityContext.seLinuxOptions: this machine has SELinux, and monopod does \
         not set its labels yet"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_made_is_tried_again() {
    let node = TestNode::start().await;
    node.runtime.fail(Verb::RunPodSandbox, 2);
    node.create(&pod(&one_container())).await;
    assert_eq!(
        node.wait_for_event("FailedCreatePodSandBox").await,
        "Failed to create pod sandbox: pod default/web: cannot make its network: the test wants it to fail"
    );
    node.wait_for_reason("web", "app", "ContainerCreating").await;
    node.advance(1).await;
    node.wait_until_clean(|| node.runtime.failures_left(Verb::RunPodSandbox) == 0).await;
    node.advance(2).await;
    node.wait_for("web", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_in_a_sandbox_that_is_not_whole() {
    let node = TestNode::start().await;
    node.runtime.slow_down(Verb::FinishPodSandbox, 2, Duration::from_secs(5));
    node.runtime.fail(Verb::FinishPodSandbox, 1);
    node.create(&pod(&one_container())).await;
    node.advance(5).await;
    assert_eq!(
        node.wait_for_event("FailedCreatePodSandBox").await,
        "Failed to create pod sandbox: pod default/web: cannot make its control group: the test wants it to fail"
    );
    let count = |verb: Verb| node.runtime.history().iter().filter(|one| one.verb == verb).count();
    node.advance(2).await;
    node.wait_until_clean(|| count(Verb::CreateContainer) == 2).await;
    assert_eq!(count(Verb::StartContainer), 0);
    node.advance(5).await;
    node.wait_for("web", is_ready).await;
    assert_eq!((count(Verb::RunPodSandbox), count(Verb::RemovePodSandbox)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_container_without_a_command_is_not_tried_at_each_look() {
    let node = TestNode::start().await;
    let rootfs = node.directory.path().join("rootfs");
    node.images.import_rootfs(&rootfs, "bare:1", image::ImportConfig::default()).await.unwrap();
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "bare:1" }] }))).await;
    node.wait_for_reason("web", "app", "CreateContainerConfigError").await;
    for seconds in 0..6 {
        node.edit("web", move |pod| pod["metadata"]["labels"] = json!({ "at": seconds.to_string() })).await;
        node.pass(1).await;
    }
    assert_eq!(node.event_count("Failed", "Error: no command specified"), 1);
    node.pass(10).await;
    assert_eq!(node.event_count("Failed", "Error: no command specified"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_count_that_others_wrote_is_put_right() {
    let mut node = TestNode::start().await;
    node.create(&pod(&one_container())).await;
    for count in 0..3 {
        node.wait_for("web", |pod| is_ready(pod) && status_of(pod, "app")["restartCount"] == count).await;
        for wrong in [99, 0] {
            node.edit("web", move |pod| pod["status"]["containerStatuses"][0]["restartCount"] = wrong.into()).await;
            node.wait_for("web", |pod| status_of(pod, "app")["restartCount"] == count).await;
        }
        // It is not counted from either.
        node.kill_agent().await;
        node.edit("web", |pod| pod["status"]["containerStatuses"][0]["restartCount"] = 99.into()).await;
        node.runtime.exit("app", 1);
        node.start_agent().await;
        node.pass(60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_start_is_a_crash() {
    let node = TestNode::start().await;
    node.runtime.fail_starts_of("app");
    node.create(&pod(&one_container())).await;
    let pod = node.wait_for_reason("web", "app", "RunContainerError").await;
    let last = status_of(&pod, "app")["lastState"]["terminated"].clone();
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("StartError"), &json!(128)));
    let message = "container \"app\": cannot execute /no/such/program: No such file or directory";
    assert_eq!(last["message"], message);
    assert_eq!(status_of(&pod, "app")["state"]["waiting"]["message"], message);
    assert_eq!(node.wait_for_event("Failed").await, format!("Error: {message}"));
    node.advance(1).await;
    node.wait_for("web", |pod| status_of(pod, "app")["restartCount"] == 1).await;
    node.advance(1).await;
    node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_made_is_tried_again() {
    let node = TestNode::start().await;
    node.runtime.fail(Verb::CreateContainer, 1);
    node.create(&pod(&one_container())).await;
    let pod = node.wait_for_reason("web", "app", "CreateContainerError").await;
    assert_eq!(status_of(&pod, "app")["restartCount"], 0);
    node.advance(10).await;
    let pod = node.wait_for("web", is_ready).await;
    assert_eq!(status_of(&pod, "app")["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_container_leaves_its_message() {
    let node = TestNode::start().await;
    let spec = json!({ "restartPolicy": "Never", "containers": [
        { "name": "app", "image": "app:1" },
        { "name": "logs", "image": "app:1", "terminationMessagePolicy": "FallbackToLogsOnError" },
    ] });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    let pod_dir = node.directory.path().join("data/pods/u-web");
    std::fs::write(pod_dir.join("containers/app/0"), "the end").unwrap();
    let logs = node.directory.path().join("logs/default_web_u-web/logs");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join("0.log"), "2026-01-01T00:00:00Z stderr F panic!\n").unwrap();
    node.runtime.kill_for_memory("app");
    node.runtime.exit("logs", 1);
    let pod = node.wait_for_phase("web", "Failed").await;
    let app = status_of(&pod, "app")["state"]["terminated"].clone();
    assert_eq!((&app["reason"], &app["message"]), (&json!("OOMKilled"), &json!("the end")));
    assert_eq!(status_of(&pod, "logs")["state"]["terminated"]["message"], "panic!\n");
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_dead_run_is_kept() {
    let node = TestNode::start().await;
    node.create(&pod(&one_container())).await;
    node.wait_for("web", is_ready).await;
    for (count, wait) in [(1, 0), (2, 10), (3, 20)] {
        node.runtime.exit("app", 1);
        if wait > 0 {
            node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
            node.advance(wait).await;
        }
        node.wait_for_restart("web", "app", count).await;
    }
    let removed: Vec<_> = node.verbs().into_iter().filter(|verb| verb.starts_with("RemoveContainer")).collect();
    assert_eq!(removed, ["RemoveContainer app 0", "RemoveContainer app 1"]);
}

#[tokio::test(start_paused = true)]
async fn the_timeline_knows_every_run_also_across_a_restart_of_the_daemon() {
    let mut node = TestNode::start().await;
    node.create(&pod(&one_container())).await;
    node.wait_for("web", is_ready).await;
    node.advance(5).await;
    node.runtime.exit("app", 3);
    node.wait_for_restart("web", "app", 1).await;
    node.kill_agent().await;
    node.start_agent().await;
    node.runtime.exit("app", 4);
    node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    node.settle().await;
    let moments = node.agent().timeline(&PodRef::new("default", "web")).await.unwrap();
    let codes: Vec<_> = moments.iter().filter_map(|moment| container_turn(moment)?.exit_code).collect();
    assert_eq!(codes, [3, 4], "{moments:#?}");
    let reasons: Vec<_> = moments.iter().filter_map(event_reason).collect();
    assert_eq!(reasons.first(), Some(&"Scheduled"));
    assert_eq!(reasons.iter().filter(|reason| **reason == "Started").count(), 2);
    assert!(moments.windows(2).all(|pair| pair[0].at <= pair[1].at));
    node.delete("web", 0).await;
    node.wait_until_gone("web").await;
    assert!(node.agent().timeline(&PodRef::new("default", "web")).await.is_err());
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

fn container_turn(moment: &Moment) -> Option<&ContainerTurn> {
    match &moment.what {
        Happening::Container(turn) => Some(turn),
        Happening::Event { .. } | Happening::Pod { .. } => None,
    }
}

fn event_reason(moment: &Moment) -> Option<&str> {
    match &moment.what {
        Happening::Event { reason, .. } => Some(reason),
        Happening::Container(_) | Happening::Pod { .. } => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_fails_is_asked_for_again_also_of_a_container_that_is_replaced() {
    let node = TestNode::start().await;
    node.load_image("app:2").await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] }))).await;
    node.wait_for("web", is_ready).await;
    node.runtime.fail(Verb::StopContainer, 2);
    node.edit("web", |pod| pod["spec"]["containers"][0]["image"] = "app:2".into()).await;
    node.pass(3).await;
    assert_eq!(status_of(&node.get("web").unwrap(), "app")["image"], "app:2");
    assert_eq!(node.starts("app"), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_old_run_that_cannot_be_removed_holds_up_neither_the_next_nor_the_status() {
    let node = TestNode::start().await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] }))).await;
    node.wait_for("web", is_ready).await;
    node.runtime.exit("app", 1);
    node.wait_for_restart("web", "app", 1).await;
    node.runtime.fail(Verb::RemoveContainer, 2);
    node.runtime.exit("app", 2);
    let pod = node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    assert_eq!(status_of(&pod, "app")["lastState"]["terminated"]["exitCode"], 2);
    node.pass(3).await;
    assert_eq!(node.runtime.failures_left(Verb::RemoveContainer), 0, "it is tried again");
    let removed = |verb: &String| verb == "RemoveContainer app 0";
    assert!(node.verbs().iter().any(removed), "{:?}", node.verbs());
}

#[tokio::test(start_paused = true)]
async fn a_pod_gives_back_images_also_of_containers_that_only_an_earlier_daemon_knew() {
    let mut node = TestNode::start().await;
    let registry = FakeRegistry::default();
    node.images.use_fake_registry(registry.clone());
    let app = json!({ "name": "app", "image": "app:1", "imagePullPolicy": "Always" });
    node.create(&pod(&json!({ "containers": [app] }))).await;
    node.wait_for("web", is_ready).await;
    node.kill_agent().await;
    node.runtime.forget_everything();
    // So the next daemon never gets as far as to hold it again.
    registry.answer("app:1", FakePull::Fails(Duration::ZERO));
    node.start_agent().await;
    node.wait_for_reason("web", "app", "ErrImagePull").await;
    node.remove("pods", "web").await;
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
    let images = node.images.list();
    assert!(images.iter().all(|image| !node.images.is_held(&image.id)));
}
