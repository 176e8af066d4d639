//! Images: loaded from an archive, and pulled from a registry, Debian's docker-registry on the loopback of whoever pulls.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use e2e::TestNode;

use crate::material::Image;
use crate::report::{Engine, Report};
use crate::works;

/// The image as the registry names it.
pub const REFERENCE: &str = "127.0.0.1:5000/large:bench";

/// Loads an archive, then removes the image.
pub fn load(node: &TestNode, image: &Image, report: &mut Report) {
    timed(node, &["image", "load", image.archive.to_str().unwrap()], &works::load(image.megabytes), report);
    node.monopod(&["image", "remove", "large:bench"]).ok();
}

/// Pulls the image from a registry on the node's loopback, then removes it.
pub fn pull(node: &TestNode, image: &Image, storage: &Storage, report: &mut Report) {
    let registry = storage.serve(node.init());
    timed(node, &["image", "pull", REFERENCE], &works::pull(image.megabytes), report);
    node.monopod(&["image", "remove", REFERENCE]).ok();
    drop(registry);
}

/// A command, when nothing of what others did before is still to be written to the disk.
fn timed(node: &TestNode, command: &[&str], work: &str, report: &mut Report) {
    rustix::fs::sync();
    let begin = Instant::now();
    node.monopod(command).ok();
    report.add_time(work, Engine::Monopod, begin.elapsed());
}

/// What registries serve: the directory of one that has the image.
#[derive(Debug)]
pub struct Storage {
    config: PathBuf,
}

/// A running registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    process: Child,
}

impl Storage {
    /// Pushes the image into a new one below a directory, by a registry of the node; `None` without the programs for that.
    pub fn with(image: &Image, node: &TestNode, directory: &Path) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            if let Err(error) = Command::new(program).arg("--version").output() {
                println!("no pulls: {program}: {error}");
                return None;
            }
        }
        let storage = Self { config: directory.join("registry.yml") };
        let text = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:5000'}}\n",
            directory.join("registry").display()
        );
        std::fs::write(&storage.config, text).unwrap();
        let registry = storage.serve(node.init());
        let pushed = node
            .on_network("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .args([format!("oci-archive:{}", image.archive.display()), format!("docker://{REFERENCE}")])
            .status()
            .unwrap();
        assert!(pushed.success(), "skopeo cannot push: {pushed}");
        drop(registry);
        Some(storage)
    }

    /// A registry on the loopback of this process's network namespace.
    pub fn serve(&self, of: u32) -> Registry {
        let target = format!("--target={of}");
        let process = Command::new("nsenter")
            .args([&target, "--net", "--", "docker-registry", "serve"])
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listens = || {
            let mut asked = Command::new("nsenter");
            asked.args([&target, "--net", "--", "curl", "--silent", "--fail", "http://127.0.0.1:5000/v2/"]);
            let answered = asked.stdout(Stdio::null()).status().unwrap();
            if answered.success() { Ok(()) } else { Err(answered.to_string()) }
        };
        e2e::eventually(e2e::limit(10), "the registry listens", listens);
        Registry { process }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
