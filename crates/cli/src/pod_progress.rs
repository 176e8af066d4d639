//! Where a Pod is on its way to ready, from its status alone. Pure.

use serde_json::Value;

use crate::fields::Fields as _;

/// What one container does at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerProgress {
    /// Its name.
    pub name: String,
    /// In words.
    pub text: String,
    /// How it stands.
    pub stage: Stage,
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On its way.
    Underway,
    /// Running and ready, or ended well.
    Good,
    /// In an error that the engine tries again.
    Trouble,
}

/// Whether waiting goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not ready yet.
    Waiting,
    /// The condition Ready holds.
    Ready,
    /// All containers ended well.
    Succeeded,
    /// It won't get ready by waiting.
    Failed {
        /// What and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Restarts after which a container that ends again and again is taken for broken: earlier ones may just wait for a
/// neighbour.
const PATIENCE: i64 = 3;

/// The containers in the order in which they start.
pub fn containers(pod: &Value) -> Vec<ContainerProgress> {
    let lists =
        [("/spec/initContainers", "/status/initContainerStatuses"), ("/spec/containers", "/status/containerStatuses")];
    let mut all = Vec::new();
    for (specs, statuses) in lists {
        for spec in pod.items(specs) {
            let name = spec.text("/name");
            let status = pod.items(statuses).iter().find(|status| status.text("/name") == name);
            let is_app = specs == "/spec/containers";
            let (text, stage) = describe(pod, spec, status.unwrap_or(&Value::Null), is_app);
            all.push(ContainerProgress { name: name.to_owned(), text, stage });
        }
    }
    all
}

/// What the Pod as a whole has come to.
pub fn verdict(pod: &Value) -> Verdict {
    let name = pod.name();
    match pod.text("/status/phase") {
        "Succeeded" => return Verdict::Succeeded,
        "Failed" => return failed_pod(pod),
        _ => {}
    }
    if !pod.text("/metadata/deletionTimestamp").is_empty() {
        return Verdict::Failed { message: format!("pod {name:?} is being deleted"), hint: None };
    }
    if has_condition(pod, "Ready") {
        return Verdict::Ready;
    }
    statuses(pod).find_map(|status| stuck(pod, status)).unwrap_or(Verdict::Waiting)
}

/// Whether the condition of this type is `True`.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition.text("/status") == "True")
}

/// The condition of this type; types are compared as kubectl does, in any case.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.items("/status/conditions").iter().find(|condition| condition.text("/type").eq_ignore_ascii_case(kind))
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.items("/status/initContainerStatuses").iter().chain(pod.items("/status/containerStatuses"))
}

fn describe(pod: &Value, spec: &Value, status: &Value, is_app: bool) -> (String, Stage) {
    let waiting = status.at("/state/waiting");
    let terminated = status.at("/state/terminated");
    if status.at("/state/running").is_object() {
        return running(spec, status, is_app);
    }
    if terminated.is_object() {
        return ended(terminated);
    }
    match waiting.text("/reason") {
        "" if scheduled(pod) => ("waiting for the Pod's sandbox".to_owned(), Stage::Underway),
        "" => ("waiting for the daemon to take the Pod".to_owned(), Stage::Underway),
        // How far its image is.
        "ContainerCreating" | "PodInitializing" if !waiting.text("/message").is_empty() => {
            (waiting.text("/message").to_owned(), Stage::Underway)
        }
        "ContainerCreating" => ("creating".to_owned(), Stage::Underway),
        "PodInitializing" if is_app => ("waiting for the init containers".to_owned(), Stage::Underway),
        "PodInitializing" => ("waiting for its turn".to_owned(), Stage::Underway),
        reason => (with_message(reason, waiting.text("/message")), Stage::Trouble),
    }
}

fn scheduled(pod: &Value) -> bool {
    !pod.text("/spec/nodeName").is_empty()
}

fn running(spec: &Value, status: &Value, is_app: bool) -> (String, Stage) {
    let restarts = match status.integer("/restartCount").unwrap_or_default() {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        n => format!(", restarted {n} times"),
    };
    let is_sidecar = spec.text("/restartPolicy") == "Always";
    match status.flag("/ready") {
        true => (format!("running, ready{restarts}"), Stage::Good),
        false if is_app || is_sidecar => (format!("running, not ready yet{restarts}"), Stage::Underway),
        false => (format!("running{restarts}"), Stage::Underway),
    }
}

fn ended(terminated: &Value) -> (String, Stage) {
    let code = terminated.integer("/exitCode").unwrap_or_default();
    if code == 0 {
        return ("completed".to_owned(), Stage::Good);
    }
    (with_message(&exit_text(terminated), terminated.text("/message")), Stage::Trouble)
}

/// `exit code 3 (Error)`, or the signal's number.
fn exit_text(terminated: &Value) -> String {
    let reason = match terminated.text("/reason") {
        "" | "Error" => String::new(),
        reason => format!(" ({reason})"),
    };
    match terminated.integer("/signal").unwrap_or_default() {
        0 => format!("exit code {}{reason}", terminated.integer("/exitCode").unwrap_or_default()),
        signal => format!("killed by signal {signal}{reason}"),
    }
}

fn with_message(reason: &str, message: &str) -> String {
    if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
}

fn failed_pod(pod: &Value) -> Verdict {
    let name = pod.name();
    let of_container = |status: &Value| {
        let terminated = status.at("/state/terminated");
        (terminated.integer("/exitCode").unwrap_or_default() != 0)
            .then(|| (status.text("/name").to_owned(), exit_text(terminated)))
    };
    if let Some((container, exit)) = statuses(pod).find_map(of_container) {
        Verdict::Failed {
            message: format!("pod {name:?} failed: container {container:?}: {exit}"),
            hint: Some(format!("its output: `monopod logs {}{name} -c {container}`", namespace_flag(pod))),
        }
    } else {
        let reason = with_message(pod.text("/status/reason"), pod.text("/status/message"));
        Verdict::Failed { message: format!("pod {name:?} failed: {reason}"), hint: Some(describe_hint(pod)) }
    }
}

/// A container whose error does not go away by waiting.
fn stuck(pod: &Value, status: &Value) -> Option<Verdict> {
    let waiting = status.at("/state/waiting");
    let reason = waiting.text("/reason");
    let container = status.text("/name");
    let last = status.at("/lastState/terminated");
    let failure = |detail: String, hint| {
        let message = format!("pod {:?}: container {container:?}: {detail}", pod.name());
        Some(Verdict::Failed { message, hint: Some(hint) })
    };
    match reason {
        "InvalidImageName" => {
            failure(with_message(reason, waiting.text("/message")), "correct `image` in the manifest".to_owned())
        }
        "ErrImageNeverPull" | "ErrImagePull" | "ImagePullBackOff" => failure(
            with_message(reason, waiting.text("/message")),
            "`monopod image list` shows what is here; `monopod image load FILE` brings an image, which runs with \
             `imagePullPolicy: IfNotPresent`"
                .to_owned(),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            failure(with_message(reason, waiting.text("/message")), describe_hint(pod))
        }
        "CrashLoopBackOff" if status.integer("/restartCount").unwrap_or_default() >= PATIENCE => failure(
            format!("it ends again and again, last with {}", exit_text(last)),
            format!("its last output: `monopod logs {}{} -c {container} --previous`", namespace_flag(pod), pod.name()),
        ),
        _ => None,
    }
}

fn describe_hint(pod: &Value) -> String {
    format!("`monopod describe {}pod {}` shows its events", namespace_flag(pod), pod.name())
}

fn namespace_flag(pod: &Value) -> String {
    match pod.namespace() {
        "" | "default" => String::new(),
        namespace => format!("-n {namespace} "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: &Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "default"},
            "spec": {"nodeName": "n", "initContainers": [{"name": "setup"}], "containers": [{"name": "app"}]},
            "status": status})
    }

    #[test]
    fn containers_are_described_in_starting_order() {
        let cases = [
            (json!({}), ["waiting for the Pod's sandbox", "waiting for the Pod's sandbox"]),
            (
                json!({"initContainerStatuses": [{"name": "setup", "state": {"running": {}}}],
                    "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                ["running", "waiting for the init containers"],
            ),
            (
                json!({"initContainerStatuses": [{"name": "setup", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
                    "containerStatuses": [{"name": "app", "restartCount": 2, "ready": true, "state": {"running": {}}}]}),
                ["completed", "running, ready, restarted 2 times"],
            ),
            (
                json!({"initContainerStatuses": [{"name": "setup", "state": {"terminated": {"exitCode": 137, "signal": 9, "reason": "OOMKilled"}}}],
                    "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ErrImagePull", "message": "no image"}}}]}),
                ["killed by signal 9 (OOMKilled)", "ErrImagePull: no image"],
            ),
            (
                json!({"containerStatuses": [{"name": "app",
                    "state": {"waiting": {"reason": "PodInitializing", "message": "pulling image: 5 %"}}}]}),
                ["waiting for the Pod's sandbox", "pulling image: 5 %"],
            ),
            (
                json!({"containerStatuses": 3, "initContainerStatuses": [{"name": 1}]}),
                ["waiting for the Pod's sandbox"; 2],
            ),
        ];
        for (status, texts) in cases {
            let shown: Vec<_> = containers(&pod(&status)).into_iter().map(|c| c.text).collect();
            assert_eq!(shown, texts, "{status}");
        }
    }

    #[test]
    fn waiting_ends_when_it_cannot_help() {
        let waiting = |reason: &str, restarts: i64| {
            json!({"phase": "Pending", "containerStatuses": [{"name": "app", "restartCount": restarts,
                "state": {"waiting": {"reason": reason, "message": "why"}}, "lastState": {"terminated": {"exitCode": 3}}}]})
        };
        let message = |status: &Value| match verdict(&pod(status)) {
            Verdict::Failed { message, .. } => message,
            other => format!("{other:?}"),
        };
        for (status, expected) in [
            (waiting("ContainerCreating", 0), "Waiting"),
            (waiting("CrashLoopBackOff", 1), "Waiting"),
            (
                waiting("CrashLoopBackOff", 3),
                r#"pod "web": container "app": it ends again and again, last with exit code 3"#,
            ),
            (waiting("ErrImageNeverPull", 0), r#"pod "web": container "app": ErrImageNeverPull: why"#),
            (json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}), "Ready"),
            (json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}), "Waiting"),
            (json!({"phase": "Succeeded"}), "Succeeded"),
            (json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}), r#"pod "web" failed: Evicted: disk"#),
            (
                json!({"phase": "Failed", "containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": 2}}}]}),
                r#"pod "web" failed: container "app": exit code 2"#,
            ),
            (json!(null), "Waiting"),
        ] {
            assert_eq!(message(&status), expected, "{status}");
        }
    }
}
