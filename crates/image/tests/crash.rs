//! kill -9 at any point of loading, removing and pruning leaves a store that the next start repairs.

#![cfg(test)]

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use image::{Image, ImageStore};
use sha2::{Digest as _, Sha256};
use store::Store;

/// Set in the process that is killed: the directory it works in.
const VICTIM: &str = "IMAGE_CRASH_VICTIM";
const ROUNDS: u64 = 40;
/// Files of each layer.
const FILES: usize = 30;

#[tokio::test]
async fn a_killed_daemon_leaves_whole_images_or_none() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if let Some(directory) = std::env::var_os(VICTIM) {
        return work_until_killed(Path::new(&directory)).await;
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a.tar"), archive("a:1", &[1, 2])).unwrap();
    std::fs::write(home.path().join("b.tar"), archive("b:1", &[1, 3])).unwrap();
    let random = RandomState::new();
    let (mut kills, mut seen) = (Vec::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let mut victim = start_victim(home.path());
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("begun")), "it begins");
        // A machine that is busy begins late: it gets more time until a kill has come after something was done.
        let within = if seen.len() > 1 { 40_000 } else { 40_000 << (round / 8).min(6) };
        let after = Duration::from_micros(random.hash_one(round) % within);
        kills.push(after);
        // The fault's own time, not a wait for something.
        std::thread::sleep(after);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let images = open(home.path());
        seen.extend(images.list().iter().map(|image| image.references.clone()));
        check(home.path(), &images, &kills);
    }
    let images = open(home.path());
    for name in ["a.tar", "b.tar"] {
        images.load_archive(&home.path().join(name), None).await.unwrap();
    }
    check(home.path(), &images, &kills);
    assert_eq!(images.list().len(), 2);
    assert!(seen.len() > 1, "kills came at different points: {seen:?}");
}

/// Every image that is listed has all of its layers with all of their files, and nothing else lies there.
fn check(home: &Path, images: &ImageStore, kills: &[Duration]) {
    let mut needed = BTreeSet::from(["empty".to_owned()]);
    for image in images.list() {
        // A name comes after its image and goes before it, so a whole image may be left without one.
        assert!(image.references.len() <= 1, "killed after {kills:?}");
        for layer in images.layer_directories(&image.id) {
            assert_eq!(files(&layer), FILES, "{}: {}, killed after {kills:?}", name(&image), layer.display());
            needed.insert(layer.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let there: BTreeSet<String> = std::fs::read_dir(home.join("images/layers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, needed, "killed after {kills:?}");
    assert_eq!(std::fs::read_dir(home.join("images/tmp")).unwrap().count(), 0);
}

fn files(layer: &Path) -> usize {
    let entries = std::fs::read_dir(layer.join("data")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| std::fs::read(path).is_ok_and(|content| content == content_of(path))).count()
}

fn name(image: &Image) -> &str {
    image.references.first().map_or("", String::as_str)
}

/// What a file holds follows from its name.
fn content_of(path: &Path) -> Vec<u8> {
    path.file_name().unwrap().as_encoded_bytes().repeat(400)
}

fn open(home: &Path) -> ImageStore {
    let store = Store::open(&home.join("store")).unwrap();
    ImageStore::open(&home.join("images"), store).unwrap()
}

fn start_victim(home: &Path) -> Child {
    #[expect(clippy::disallowed_methods, reason = "a process has to be killed")]
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "a_killed_daemon_leaves_whole_images_or_none";
    command.args(["--exact", test, "--nocapture"]).env(VICTIM, home).stdout(Stdio::piped()).spawn().unwrap()
}

async fn work_until_killed(home: &Path) {
    let images = open(home);
    println!("begun");
    loop {
        for archive in ["a.tar", "b.tar"] {
            images.load_archive(&home.join(archive), None).await.unwrap();
        }
        images.remove("a:1").await.unwrap();
        images.load_archive(&home.join("a.tar"), None).await.unwrap();
        images.prune_unused().await.unwrap();
    }
}

/// `docker save` of an image whose layers are these numbers.
fn archive(tag: &str, layers: &[u8]) -> Vec<u8> {
    let layers: Vec<(String, Vec<u8>)> =
        layers.iter().map(|number| (format!("{number}/layer.tar"), layer(*number))).collect();
    let diff_ids: Vec<String> = layers.iter().map(|(_, layer)| format!("sha256:{}", hex(layer))).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let names: Vec<&String> = layers.iter().map(|(name, _)| name).collect();
    let list = serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in &layers {
        add(&mut archive, Path::new(name), content);
    }
    add(&mut archive, Path::new("config.json"), config.to_string().as_bytes());
    add(&mut archive, Path::new("manifest.json"), list.to_string().as_bytes());
    archive.into_inner().unwrap()
}

fn layer(number: u8) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for file in 0..FILES {
        let path = PathBuf::from(format!("data/{number}-{file}"));
        add(&mut layer, &path, &content_of(&path));
    }
    layer.into_inner().unwrap()
}

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &Path, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
