//! The copy of a Pod that `debug --copy-to` makes: what stays, what goes, and the container that is changed or added (kubectl,
//! `generatePodCopyWithDebugContainer` and its profile `general`).

use clap::Args;
use serde_json::{Map, Value, json};

use crate::errors::Failure;
use crate::fields::Fields as _;

/// What the copy keeps, and what of it is another.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
pub struct CopyArgs {
    /// Make a copy of the Pod with this name, and change the copy
    #[arg(long, value_name = "NAME", conflicts_with = "target_container")]
    pub copy_to: Option<String>,
    /// Delete the Pod once its copy is made
    #[arg(long, requires = "copy_to")]
    pub replace: bool,
    /// Bind the copy to the same node without the scheduler's judgement
    #[arg(long, requires = "copy_to")]
    pub same_node: bool,
    /// Whether the containers of the copy see each other's processes
    #[arg(long, requires = "copy_to", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub share_processes: Option<bool>,
    /// Other images for containers of the copy; `*` means all
    #[arg(long, requires = "copy_to", value_name = "CONTAINER=IMAGE", value_delimiter = ',', value_parser = parse_image)]
    pub set_image: Vec<(String, String)>,
    /// Keep the labels, by which Services and controllers find the Pod
    #[arg(long, requires = "copy_to")]
    pub keep_labels: bool,
    /// Keep the annotations
    #[arg(long, requires = "copy_to")]
    pub keep_annotations: bool,
    /// Keep the liveness probes
    #[arg(long, requires = "copy_to")]
    pub keep_liveness: bool,
    /// Keep the readiness probes
    #[arg(long, requires = "copy_to")]
    pub keep_readiness: bool,
    /// Keep the startup probes
    #[arg(long, requires = "copy_to")]
    pub keep_startup: bool,
    /// Whether the init containers run in the copy
    #[arg(long, requires = "copy_to", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub keep_init_containers: bool,
}

fn parse_image(text: &str) -> Result<(String, String), String> {
    let (name, image) = text.split_once('=').ok_or("write it as CONTAINER=IMAGE")?;
    Ok((name.to_owned(), image.to_owned()))
}

/// A copy that can be created, and the container to attach to: none when only images were exchanged.
#[derive(Debug)]
pub struct Copy {
    /// The Pod.
    pub pod: Value,
    /// The changed or new container.
    pub container: Option<String>,
}

/// Copies a Pod. `container` names the one to change; one that the Pod does not have is added, and `draw` gives it a name if it has none.
/// `changes` are the fields that the command line sets for it.
pub fn copy(
    pod: &Value,
    arguments: &CopyArgs,
    container: Option<&str>,
    changes: &Map<String, Value>,
    draw: impl FnOnce() -> String,
) -> Result<Copy, Failure> {
    let mut spec = pod.at("/spec").as_object().cloned().unwrap_or_default();
    // They come through another door, and only into a Pod that there is.
    spec.remove("ephemeralContainers");
    if let Some(share) = arguments.share_processes {
        spec.insert("shareProcessNamespace".to_owned(), json!(share));
    }
    if !arguments.same_node {
        spec.remove("nodeName");
    }
    for own in containers(&mut spec, "containers") {
        let of = |name: &str| arguments.set_image.iter().rev().find(|(container, _)| container == name);
        if let Some((_, image)) = of(own.text("/name")).or_else(|| of("*"))
            && let Some(fields) = own.as_object_mut()
        {
            fields.insert("image".to_owned(), json!(image));
        }
    }
    let kept = ["labels", "annotations"].map(|field| (field, pod.at("/metadata").get(field).cloned()));
    let mut metadata = json!({"name": arguments.copy_to, "namespace": pod.namespace()});
    let mut keep = |field: &str, value: Option<Value>| {
        if let (Some(fields), Some(value)) = (metadata.as_object_mut(), value) {
            fields.insert(field.to_owned(), value);
        }
    };
    let has = |name: &str| {
        ["/spec/containers", "/spec/initContainers"]
            .into_iter()
            .flat_map(|list| pod.items(list))
            .any(|own| own.text("/name") == name)
    };
    let is_new = !container.is_some_and(has);
    let has_image = changes.contains_key("image");
    if is_new && !has_image {
        if arguments.set_image.is_empty() {
            return Err(Failure::new("a new container needs an image").hint("name one with --image"));
        }
        for (field, value) in kept {
            keep(field, value);
        }
        return Ok(Copy { pod: whole(&metadata, &spec), container: None });
    }
    let name = container.map_or_else(draw, str::to_owned);
    if is_new {
        let new = json!({"name": name, "terminationMessagePolicy": "File"});
        spec.entry("containers")
            .or_insert_with(|| json!([]))
            .as_array_mut()
            .into_iter()
            .for_each(|all| all.push(new.clone()));
    }
    for list in ["containers", "initContainers"] {
        containers(&mut spec, list)
            .iter_mut()
            .filter(|own| own.text("/name") == name)
            .for_each(|own| change(own, changes));
    }
    for own in containers(&mut spec, "containers").iter_mut().filter_map(Value::as_object_mut) {
        for (probe, is_kept) in [
            ("livenessProbe", arguments.keep_liveness),
            ("readinessProbe", arguments.keep_readiness),
            ("startupProbe", arguments.keep_startup),
        ] {
            if !is_kept {
                own.remove(probe);
            }
        }
    }
    for ((field, value), wanted) in kept.into_iter().zip([arguments.keep_labels, arguments.keep_annotations]) {
        keep(field, value.filter(|_| wanted));
    }
    if !arguments.keep_init_containers {
        spec.remove("initContainers");
    }
    spec.entry("shareProcessNamespace").or_insert(json!(true));
    Ok(Copy { pod: whole(&metadata, &spec), container: Some(name) })
}

fn whole(metadata: &Value, spec: &Map<String, Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn containers<'a>(spec: &'a mut Map<String, Value>, list: &str) -> &'a mut [Value] {
    spec.get_mut(list).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// What the command line says, and the right to trace what runs beside it.
fn change(container: &mut Value, changes: &Map<String, Value>) {
    let Some(fields) = container.as_object_mut() else { return };
    if changes.contains_key("command") {
        fields.remove("args");
    }
    fields.extend(changes.clone());
    let context = fields.entry("securityContext").or_insert_with(|| json!({}));
    let mut added = context.items("/capabilities/add").to_vec();
    added.push(json!("SYS_PTRACE"));
    let capabilities =
        context.as_object_mut().map(|context| context.entry("capabilities").or_insert_with(|| json!({})));
    if let Some(capabilities) = capabilities.and_then(Value::as_object_mut) {
        capabilities.insert("add".to_owned(), json!(added));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        copy: CopyArgs,
        #[arg(long = "target")]
        target_container: Option<String>,
    }

    fn made(line: &[&str], container: Option<&str>, changes: &Value) -> Result<Copy, Failure> {
        let pod = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web"}, "annotations": {"a": "b"},
                "ownerReferences": [{"name": "of-web"}],
            },
            "spec": {
                "nodeName": "n1", "ephemeralContainers": [{"name": "old"}], "initContainers": [{"name": "first", "image": "i"}],
                "containers": [
                    {"name": "main", "image": "a", "command": ["x"], "args": ["y"], "livenessProbe": {}, "readinessProbe": {},
                        "securityContext": {"capabilities": {"add": ["NET_RAW"]}}},
                    {"name": "log", "image": "b", "startupProbe": {}},
                ],
            },
            "status": {"phase": "Running"},
        });
        let all = ["debug", "--copy-to=web-copy"].iter().chain(line);
        let line = Line::try_parse_from(all).unwrap();
        assert!(line.target_container.is_none());
        copy(&pod, &line.copy, container, changes.as_object().unwrap(), || "debugger-x".to_owned())
    }

    #[test]
    fn a_copy_with_tools_is_nobodys_and_shares_its_processes() {
        let Copy { pod, container } = made(&[], None, &json!({"image": "tools", "stdin": true, "tty": false})).unwrap();
        let want = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-copy", "namespace": "shop"},
            "spec": {
                "shareProcessNamespace": true, "initContainers": [{"name": "first", "image": "i"}],
                "containers": [
                    {"name": "main", "image": "a", "command": ["x"], "args": ["y"],
                        "securityContext": {"capabilities": {"add": ["NET_RAW"]}}},
                    {"name": "log", "image": "b"},
                    {"name": "debugger-x", "image": "tools", "stdin": true, "tty": false, "terminationMessagePolicy": "File",
                        "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
                ],
            },
        });
        assert_eq!((pod, container.as_deref()), (want, Some("debugger-x")));
    }

    #[test]
    fn a_container_of_the_copy_runs_another_program() {
        let changes = json!({"command": ["sh"], "stdin": true, "tty": true});
        let Copy { pod, container } = made(&["--set-image=*=all,log=c"], Some("main"), &changes).unwrap();
        assert_eq!(container.as_deref(), Some("main"));
        let want = json!({"name": "main", "image": "all", "command": ["sh"], "stdin": true, "tty": true,
            "securityContext": {"capabilities": {"add": ["NET_RAW", "SYS_PTRACE"]}}});
        assert_eq!(pod["spec"]["containers"], json!([want, {"name": "log", "image": "c"}]));
        let Copy { pod, .. } = made(&[], Some("main"), &json!({"args": ["z"]})).unwrap();
        assert_eq!(
            (&pod["spec"]["containers"][0]["command"], &pod["spec"]["containers"][0]["args"]),
            (&json!(["x"]), &json!(["z"]))
        );
    }

    #[test]
    fn what_is_to_be_kept_is_kept() {
        let keep = [
            "--keep-labels",
            "--keep-annotations",
            "--keep-liveness",
            "--keep-readiness",
            "--keep-startup",
            "--same-node",
        ];
        let Copy { pod, .. } = made(&keep, None, &json!({"image": "tools"})).unwrap();
        assert_eq!(
            pod["metadata"],
            json!({"name": "web-copy", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"a": "b"}})
        );
        assert_eq!(pod["spec"]["nodeName"], "n1");
        let containers = &pod["spec"]["containers"];
        assert!(containers[0]["livenessProbe"].is_object() && containers[0]["readinessProbe"].is_object());
        assert!(containers[1]["startupProbe"].is_object());
        let less = ["--keep-init-containers=false", "--share-processes=false"];
        let Copy { pod, .. } = made(&less, None, &json!({"image": "tools"})).unwrap();
        assert_eq!((pod["spec"].get("initContainers"), &pod["spec"]["shareProcessNamespace"]), (None, &json!(false)));
    }

    #[test]
    fn with_other_images_alone_all_else_stays() {
        let Copy { pod, container } = made(&["--set-image=log=c"], None, &json!({"stdin": false})).unwrap();
        assert_eq!(container, None);
        assert_eq!(pod["metadata"]["labels"], json!({"app": "web"}));
        let containers = &pod["spec"]["containers"];
        assert_eq!((&containers[1]["image"], containers[0]["livenessProbe"].is_object()), (&json!("c"), true));
        assert_eq!(pod["spec"].get("shareProcessNamespace"), None);
        let error = made(&[], Some("none"), &json!({"command": ["sh"]})).unwrap_err();
        assert!(error.to_string().contains("needs an image"), "{error}");
    }
}
