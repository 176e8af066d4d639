//! Images from a real registry, Debian's docker-registry on the node's loopback; they get there by skopeo.

use std::fs;
use std::process::Command;

use e2e::images::archive;
use e2e::node::container;
use e2e::{Background, Finished, TestNode};

tests! {
    an_image_is_pulled_by_tag_and_digest_without_encryption,
    a_private_registry_with_a_certificate_of_ones_own,
    a_pull_that_fails_backs_off_and_ends_with_its_pod,
    a_registry_behind_a_proxy_is_reached_through_it,
    the_policy_always_asks_the_registry_also_for_a_loaded_image,
    a_daemon_killed_in_a_pull_leaves_nothing_half_done,
}

/// `secret`, as htpasswd(1) writes it with bcrypt.
const USER: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry on port 5000 of the node. Dropping it ends it.
struct Registry {
    pid: u32,
    _process: Background,
}

impl Registry {
    fn start(node: &TestNode, more: &str) -> Self {
        let storage = node.path("registry").display().to_string();
        let config = node.path("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {storage}}}\nhttp:\n  addr: 127.0.0.1:5000\n{more}"
        );
        fs::write(&config, text).unwrap();
        let mut process = Background::start(&mut node.inside("docker-registry", &["serve", config.to_str().unwrap()]));
        process.expect("listening on");
        let pid = node.process("docker-registry").pid;
        Self { pid, _process: process }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        Command::new("kill").arg("-KILL").arg(self.pid.to_string()).status().unwrap();
    }
}

fn push(node: &TestNode, name: &str, more: &[&str]) {
    let source = format!("docker-archive:{}", archive("busybox").display());
    let target = format!("docker://127.0.0.1:5000/{name}");
    let arguments = [&["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"], more, &[&source, &target]];
    Finished::run(&mut node.inside("skopeo", &arguments.concat()), b"").ok();
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  containers:\n  - name: main\n    \
         image: {image}\n    imagePullPolicy: Always\n    \
         command: [sh, -c, 'trap \"exit 0\" TERM; sleep infinity & wait']\n"
    )
}

/// Messages of the events of a Pod with this reason.
fn events(node: &TestNode, pod: &str, reason: &str) -> Vec<String> {
    let events = node.api().get("/api/v1/namespaces/default/events");
    let of_pod = |event: &&serde_json::Value| event["involvedObject"]["name"] == pod && event["reason"] == reason;
    let found = events["items"].as_array().unwrap().iter().filter(of_pod);
    found.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

fn an_image_is_pulled_by_tag_and_digest_without_encryption(node: &mut TestNode) {
    let registry = Registry::start(node, "");
    push(node, "app:1", &[]);
    let said = node.monopod(&["image", "pull", "127.0.0.1:5000/app:1"]).ok();
    assert!(said.starts_with("pulled 127.0.0.1:5000/app:1, "), "it is the image that was here: {said}");
    let running = node.run_text(&pod("web", "127.0.0.1:5000/app:1", ""), "web");
    let image_id = container(&running, "main")["imageID"].as_str().unwrap().to_owned();
    assert!(image_id.starts_with("127.0.0.1:5000/app@sha256:"), "{image_id}");
    assert_eq!(events(node, "web", "Pulling"), ["Pulling image \"127.0.0.1:5000/app:1\""]);
    let pulled = events(node, "web", "Pulled").remove(0);
    assert!(pulled.starts_with("Successfully pulled image \"127.0.0.1:5000/app:1\" in "), "{pulled}");
    assert!(pulled.ends_with(" bytes."), "{pulled}");

    // By digest, after all that was here is gone.
    node.delete_pod("web");
    for name in ["127.0.0.1:5000/app:1", "busybox:stable"] {
        node.monopod(&["image", "remove", name]).ok();
    }
    node.run_text(&pod("pinned", &image_id, ""), "pinned");
    assert_eq!(node.exec("pinned", "main", &["echo", "alive"]), "alive\n");
    let pruned = node.monopod(&["image", "prune", "--all"]).ok();
    assert!(pruned.starts_with("0 images removed"), "it is in use: {pruned}");
    node.delete_pod("pinned");
    let pruned = node.monopod(&["image", "prune", "--all"]).ok();
    assert!(pruned.contains("1 images removed"), "{pruned}");
    drop(registry);
}

/// A key and a certificate of one's own for `name`, in `certificates/REGISTRY/ca.crt`.
fn certificate(node: &TestNode, registry: &str, name: &str) -> (String, String) {
    let directory = node.path("certificates").join(registry);
    fs::create_dir_all(&directory).unwrap();
    let at = |path: std::path::PathBuf| path.display().to_string();
    let (key, certificate) = (at(node.path("key.pem")), at(directory.join("ca.crt")));
    let name = format!("subjectAltName={name}");
    let subject = ["-subj", "/CN=registry", "-addext", &name, "-days", "30"];
    let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    // rustls takes no certificate of an authority for one of a server (webpki, `CaUsedAsEndEntity`).
    let server = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate];
    Finished::run(Command::new("openssl").args(made).args(subject).args(server), b"").ok();
    (key, certificate)
}

fn a_registry_behind_a_proxy_is_reached_through_it(node: &mut TestNode) {
    let (key, certificate) = certificate(node, "registry.test", "DNS:registry.test,IP:127.0.0.1");
    let registry = Registry::start(node, &format!("  tls: {{certificate: '{certificate}', key: '{key}'}}\n"));
    push(node, "app:1", &[]);
    let mut proxy = Background::start(&mut node.role(&["proxy", "127.0.0.1:3128", "127.0.0.1:5000"]));
    proxy.expect("listening");
    node.stop_daemon();
    node.serve_arguments = vec!["--registry-ca-dir".into(), node.path("certificates").display().to_string()];
    node.serve_environment = vec![
        ("HTTPS_PROXY".into(), "http://me:word@127.0.0.1:3128".into()),
        ("NO_PROXY".into(), "direct.test,10.0.0.0/8".into()),
    ];
    node.start_daemon();
    // Nobody but the proxy knows where this name is.
    node.monopod(&["image", "pull", "registry.test/app:1"]).ok();
    assert_eq!(proxy.expect("CONNECT").trim_end(), "CONNECT registry.test:443 HTTP/1.1");
    assert_eq!(proxy.expect("Proxy-Authorization").trim_end(), "Proxy-Authorization: Basic bWU6d29yZA==");
    node.run_text(&pod("web", "registry.test/app:1", ""), "web");
    node.delete_pod("web");
    let error = node.monopod(&["image", "pull", "direct.test/app:1"]).fails();
    assert!(error.contains("direct.test") && !error.contains("127.0.0.1:3128"), "{error}");
    // A registry of this machine is never asked through a proxy.
    let error = node.monopod(&["image", "pull", "127.0.0.1:5001/app:1"]).fails();
    assert!(error.contains("127.0.0.1:5001") && !error.contains("proxy"), "{error}");
    drop(registry);
    let pid = node.process("proxy 127.0.0.1:3128").pid;
    Command::new("kill").arg("-KILL").arg(pid.to_string()).status().unwrap();
    drop(proxy);
    let error = node.monopod(&["image", "pull", "registry.test/app:1"]).fails();
    assert!(error.contains("127.0.0.1:3128") && !error.contains("word"), "{error}");
}

fn the_policy_always_asks_the_registry_also_for_a_loaded_image(node: &mut TestNode) {
    let saved = node.path("app.tar").display().to_string();
    let source = format!("docker-archive:{}", archive("busybox").display());
    let copy =
        ["--insecure-policy", "copy", "--quiet", &source, &format!("docker-archive:{saved}:127.0.0.1:5000/app:latest")];
    Finished::run(Command::new("skopeo").args(copy), b"").ok();
    node.monopod(&["image", "load", &saved]).ok();
    // Nobody listens there.
    node.apply_text(&pod("loaded", "127.0.0.1:5000/app", "")).ok();
    let seen = node.wait_for("loaded", "ErrImagePull", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "ErrImagePull"
    });
    let message = container(&seen, "main")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    for wanted in ["127.0.0.1:5000", "is on this machine", "imagePullPolicy Always", "use IfNotPresent or Never"] {
        assert!(message.contains(wanted), "{wanted:?}: {message}");
    }
    node.delete_pod("loaded");
    let here =
        pod("here", "127.0.0.1:5000/app", "").replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent");
    node.run_text(&here, "here");
    node.delete_pod("here");
}

fn a_private_registry_with_a_certificate_of_ones_own(node: &mut TestNode) {
    let at = |name: &str| node.path(name).display().to_string();
    let (key, certificate) = certificate(node, "127.0.0.1:5000", "IP:127.0.0.1");
    fs::write(node.path("htpasswd"), USER).unwrap();
    let more = format!(
        "  tls: {{certificate: '{certificate}', key: '{key}'}}\nauth:\n  htpasswd: {{realm: r, path: {}}}\n",
        at("htpasswd")
    );
    let directory = at("certificates");
    let registry = Registry::start(node, &more);
    push(node, "app:1", &["--dest-creds=me:secret"]);

    let said = node.monopod(&["image", "pull", "127.0.0.1:5000/app:1"]).fails();
    assert!(said.contains("cannot speak TLS with 127.0.0.1:5000"), "{said}");
    node.stop_daemon();
    node.serve_arguments = vec!["--registry-ca-dir".into(), directory];
    node.start_daemon();
    let said = node.monopod(&["image", "pull", "127.0.0.1:5000/app:1"]).fails();
    assert!(said.contains("it wants user and password, and there are none for it"), "{said}");
    let asked = ["image", "pull", "127.0.0.1:5000/app:1", "--quiet", "--username", "me", "--password-stdin"];
    let said = node.monopod_with(&asked, b"wrong\n").fails();
    assert!(said.contains("refuses access to manifest 1") && !said.contains("wrong"), "{said}");
    node.monopod_with(&asked, b"secret\n").ok();

    // A Pod brings its own credentials.
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: regcred}\ntype: kubernetes.io/dockerconfigjson\n\
                  stringData:\n  .dockerconfigjson: '{\"auths\": {\"127.0.0.1:5000\": {\"auth\": \"bWU6c2VjcmV0\"}}}'\n";
    node.apply_text(secret).ok();
    node.run_text(&pod("private", "127.0.0.1:5000/app:1", "imagePullSecrets: [{name: regcred}]"), "private");
    node.delete_pod("private");
    drop(registry);
}

fn a_pull_that_fails_backs_off_and_ends_with_its_pod(node: &mut TestNode) {
    let registry = Registry::start(node, "");
    node.apply_text(&pod("lost", "127.0.0.1:5000/absent:1", "imagePullSecrets: [{name: nothing}]")).ok();
    let waiting = |reason: &'static str| {
        move |pod: &serde_json::Value| container(pod, "main")["state"]["waiting"]["reason"] == reason
    };
    let seen = node.wait_for("lost", "ErrImagePull", waiting("ErrImagePull"));
    let message = container(&seen, "main")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("manifest 1 not found in 127.0.0.1:5000"), "{message}");
    let seen = node.wait_for("lost", "ImagePullBackOff", waiting("ImagePullBackOff"));
    let message = container(&seen, "main")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Back-off pulling image \"127.0.0.1:5000/absent:1\": ErrImagePull: "), "{message}");
    let missing = events(node, "lost", "FailedToRetrieveImagePullSecret").remove(0);
    assert!(missing.contains("(nothing)"), "{missing}");
    // It heals by itself when the image comes.
    push(node, "absent:1", &[]);
    node.wait_ready("lost");
    node.delete_pod("lost");
    drop(registry);
}

fn a_daemon_killed_in_a_pull_leaves_nothing_half_done(node: &mut TestNode) {
    let _registry = Registry::start(node, "");
    push(node, "half:1", &[]);
    // Its layer is the same, and would not be fetched.
    node.monopod(&["image", "remove", "busybox:stable"]).ok();
    let before = (node_images(node), files_of_images(node));
    // Manifest and config pass; the layer stands still in its middle.
    let mut stalling = stalling_proxy(node, 100_000);
    node.apply_text(&pod("half", "127.0.0.1:5001/half:1", "")).ok();
    stalling.expect("stalled");
    node.kill_daemon();
    let pid = node.process("stalling-proxy").pid;
    e2e::node::kill(pid, rustix::process::Signal::KILL);
    drop(stalling);
    node.start_daemon();
    // The next daemon has repaired what it found, and pulls in vain while nobody answers.
    node.wait_for("half", "the pull fails", |pod| {
        matches!(
            container(pod, "main")["state"]["waiting"]["reason"].as_str(),
            Some("ErrImagePull" | "ImagePullBackOff")
        )
    });
    assert_eq!((node_images(node), files_of_images(node)), before, "nothing of the half pull is left");
    let _whole = stalling_proxy(node, u64::MAX);
    node.delete_pod("half");
    node.apply_text(&pod("half", "127.0.0.1:5001/half:1", "")).ok();
    node.wait_ready("half");
    node.delete_pod("half");
    node.monopod(&["image", "remove", "127.0.0.1:5001/half:1"]).ok();
    node.load_image("busybox");
    let pid = node.process("stalling-proxy").pid;
    e2e::node::kill(pid, rustix::process::Signal::KILL);
}

/// In front of the registry, on port 5001.
fn stalling_proxy(node: &TestNode, bytes: u64) -> Background {
    let bytes = bytes.to_string();
    let mut role = node.role(&["stalling-proxy", "127.0.0.1:5001", "127.0.0.1:5000", &bytes]);
    let mut proxy = Background::start(&mut role);
    proxy.expect("listening");
    proxy
}

fn node_images(node: &TestNode) -> String {
    node.monopod(&["image", "list"]).ok()
}

/// How many layers, and how many files that are on their way to become some; what is being removed does not count.
fn files_of_images(node: &TestNode) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = fs::read_dir(node.data_dir().join("images"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_type().unwrap().is_dir() && entry.file_name() != "trash")
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_dir(entry.path()).unwrap().count()))
        .collect();
    found.sort();
    found
}
