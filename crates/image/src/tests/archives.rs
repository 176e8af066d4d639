//! Image archives of every format, whole and damaged.

use serde_json::json;

use super::support::{Layout, Node, Tar, architecture, config, docker_archive, gzip, is_root, with, zstd};
use layer::digest_of;

fn layers() -> Vec<Vec<u8>> {
    let lower = Tar::new().directory("etc").file("etc/motd", b"lower").file("etc/gone", b"").bytes();
    let upper = Tar::new().file("etc/motd", b"upper").file("etc/.wh.gone", b"").bytes();
    vec![lower, upper]
}

fn read(node: &Node, id: &spec::Digest, layer: usize, name: &str) -> Vec<u8> {
    std::fs::read(node.images.layer_directories(id)[layer].join(name)).unwrap()
}

#[tokio::test]
async fn a_docker_archive_is_loaded_plain_gzip_and_zstd() {
    if !is_root() {
        return;
    }
    let plain = docker_archive(Some(&["web:1.0", "registry.local:5000/team/web:latest"]), &layers());
    for archive in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let node = Node::new();
        let images = node.load(&archive).await.unwrap();
        assert_eq!(images.len(), 1);
        let image = &images[0];
        assert_eq!(image.id, digest_of(&config(&layers())));
        assert_eq!(image.references, ["docker.io/library/web:1.0", "registry.local:5000/team/web:latest"]);
        assert_eq!(image.layers, layers().iter().map(|layer| digest_of(layer)).collect::<Vec<_>>());
        assert_eq!(image.size, layers().iter().map(|layer| layer.len() as u64).sum::<u64>());
        assert_eq!(image.created.unwrap().to_string(), "2026-01-02T03:04:05.678901234Z");
        assert_eq!(image.config.config().as_ref().unwrap().cmd().as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(read(&node, &image.id, 0, "etc/motd"), b"lower");
        assert_eq!(read(&node, &image.id, 1, "etc/motd"), b"upper");
    }
}

#[tokio::test]
async fn the_layout_of_newer_docker_and_linked_layers_of_older_are_read() {
    if !is_root() {
        return;
    }
    let layers = layers();
    let blob = |data: &[u8]| format!("blobs/sha256/{}", digest_of(data).hex());
    let config = config(&layers);
    let names: Vec<String> = layers.iter().map(|layer| blob(layer)).collect();
    let manifest = json!([{ "Config": blob(&config), "RepoTags": ["new:1"], "Layers": names, "LayerSources": {} }]);
    let mut archive = Tar::new().file("oci-layout", b"{}").file("index.json", b"{}").file(&blob(&config), &config);
    for layer in &layers {
        archive = archive.file(&blob(layer), layer);
    }
    let archive = archive.file("manifest.json", &serde_json::to_vec(&manifest).unwrap()).bytes();
    let node = Node::new();
    assert_eq!(node.load(&archive).await.unwrap()[0].references, ["docker.io/library/new:1"]);

    // Equal layers of docker before 25: one is a symlink to the other.
    let twice = vec![layers[0].clone(), layers[0].clone()];
    let config = super::support::config(&twice);
    let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    let archive = Tar::new()
        .symlink("b/layer.tar", "../a/layer.tar")
        .file("a/layer.tar", &layers[0])
        .file("config.json", &config)
        .file("./manifest.json", &serde_json::to_vec(&manifest).unwrap())
        .bytes();
    let image = node.load(&archive).await.unwrap().remove(0);
    assert_eq!((image.layers.len(), image.references.len()), (2, 0));
    assert_eq!(node.images.layer_directories(&image.id).len(), 1, "overlay refuses one directory twice");
}

#[tokio::test]
async fn an_oci_archive_and_an_oci_layout_are_loaded_with_each_compression() {
    if !is_root() {
        return;
    }
    for compress in [|data: &[u8]| data.to_vec(), gzip, zstd] {
        let mut layout = Layout::default();
        let manifest = layout.image(&layers(), compress);
        let digest = manifest["digest"].as_str().unwrap().to_owned();
        let name = json!({ "org.opencontainers.image.ref.name": "quay.io/team/app:2" });
        let layout = layout.finish(&[with(manifest, "annotations", name)]);
        let node = Node::new();
        let from_archive = node.load(&layout.archive()).await.unwrap().remove(0);
        assert_eq!(from_archive.references, ["quay.io/team/app:2"]);
        assert_eq!(from_archive.repo_digests, [format!("quay.io/team/app@{digest}")]);
        assert_eq!(read(&node, &from_archive.id, 1, "etc/motd"), b"upper");

        for (member, data) in &layout.members {
            node.write(&format!("layout/{member}"), data);
        }
        let from_directory = node.images.load_archive(&node.path("layout"), Some("other:3")).await.unwrap().remove(0);
        assert_eq!(from_directory.id, from_archive.id);
        assert_eq!(from_directory.references, ["docker.io/library/other:3", "quay.io/team/app:2"]);
        let pinned = format!("quay.io/team/app@{digest}");
        assert_eq!(node.images.resolve(&pinned).unwrap().unwrap().id, from_archive.id);
        assert_eq!(node.images.resolve(&digest).unwrap().unwrap().id, from_archive.id);
    }
}

#[tokio::test]
async fn an_index_is_searched_for_this_machine() {
    if !is_root() {
        return;
    }
    let mut layout = Layout::default();
    let here = layout.image(&layers(), gzip);
    let elsewhere = layout.image(&layers()[..1], gzip);
    let platform = |architecture: &str, os: &str| json!({ "architecture": architecture, "os": os });
    let index = layout.index_blob(&[
        with(elsewhere.clone(), "platform", platform("s390x", "linux")),
        with(elsewhere.clone(), "platform", platform(&architecture(), "windows")),
        with(
            with(elsewhere.clone(), "platform", platform("unknown", "unknown")),
            "annotations",
            json!({ "vnd.docker.reference.type": "attestation-manifest" }),
        ),
        with(here.clone(), "platform", platform(&architecture(), "linux")),
    ]);
    let index = with(
        index,
        "annotations",
        json!({ "io.containerd.image.name": "docker.io/library/multi:1", "org.opencontainers.image.ref.name": "1" }),
    );
    let node = Node::new();
    let images = node.load(&layout.clone().finish(std::slice::from_ref(&index)).archive()).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].layers.len(), 2);
    assert_eq!(images[0].references, ["docker.io/library/multi:1"]);
    // By the digest of the index as well as by that of the manifest.
    for digest in [&index["digest"], &here["digest"]] {
        let name = format!("multi@{}", digest.as_str().unwrap());
        assert_eq!(node.images.resolve(&name).unwrap().unwrap().id, images[0].id);
    }

    let foreign = with(elsewhere.clone(), "platform", platform("s390x", "linux"));
    let message = node.load(&layout.clone().finish(&[foreign]).archive()).await.unwrap_err();
    let wanted = format!("cannot load ARCHIVE: it has no image for linux/{}, only for linux/s390x", architecture());
    assert_eq!(message, wanted);

    let mut endless = layout.index_blob(&[here]);
    for _ in 0..5 {
        endless = layout.index_blob(&[endless]);
    }
    let message = node.load(&layout.finish(&[endless]).archive()).await.unwrap_err();
    assert_eq!(message, "cannot load ARCHIVE: 4 indexes inside each other; at most 4 are supported");
}

#[tokio::test]
async fn several_images_are_loaded_together_but_not_under_one_name() {
    if !is_root() {
        return;
    }
    let mut layout = Layout::default();
    let name = |name: &str| json!({ "org.opencontainers.image.ref.name": name });
    let one = layout.image(&layers(), gzip);
    let two = layout.image(&layers()[..1], gzip);
    let manifests = [
        with(one.clone(), "annotations", name("one:1")),
        with(two, "annotations", name("two:1")),
        with(one, "annotations", name("also/one:1")),
    ];
    let archive = layout.finish(&manifests).archive();
    let node = Node::new();
    let images = node.load(&archive).await.unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(images[0].references, ["docker.io/also/one:1", "docker.io/library/one:1"]);
    let path = node.path("archive");
    let error = node.images.load_archive(&path, Some("mine:1")).await.unwrap_err();
    assert!(super::support::whole_message(&error).ends_with(
        "it holds 2 images, so \"docker.io/library/mine:1\" cannot be the name of one; load it without a name"
    ));
}

#[tokio::test]
async fn damage_is_named_with_its_file_and_digest() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let mut layout = Layout::default();
    let layers = layers();
    let manifest = layout.image(&layers, <[u8]>::to_vec);
    let good = layout.finish(std::slice::from_ref(&manifest));
    let config = config(&layers);
    let manifest_digest: spec::Digest = manifest["digest"].as_str().unwrap().parse().unwrap();
    let manifest_json = good.members[&format!("blobs/sha256/{}", manifest_digest.hex())].clone();
    for blob in [&config, &manifest_json] {
        let mut damaged = good.clone();
        damaged.damage(blob, |data| data.push(b' '));
        let message = node.load(&damaged.archive()).await.unwrap_err();
        let digest = digest_of(blob);
        let start = format!("cannot load ARCHIVE: \"blobs/sha256/{}\" has digest ", digest.hex());
        assert!(message.starts_with(&start) && message.ends_with(&format!("its manifest says {digest}")), "{message}");
    }

    let mut damaged = good.clone();
    damaged.damage(&layers[1], |data| data[600] ^= 1);
    let message = node.load(&damaged.archive()).await.unwrap_err();
    let digest = digest_of(&layers[1]);
    let start = format!(
        "cannot load ARCHIVE: layer 2 of 2 (\"blobs/sha256/{}\"): layer {digest}: its digest is sha256:",
        digest.hex()
    );
    assert!(message.starts_with(&start), "{message}");

    let mut missing = good.clone();
    missing.members.remove(&format!("blobs/sha256/{}", digest.hex()));
    let message = node.load(&missing.archive()).await.unwrap_err();
    assert!(
        message.ends_with(&format!(
            "layer 2 of 2 (\"blobs/sha256/{0}\"): \"blobs/sha256/{0}\" is missing in it",
            digest.hex()
        )),
        "{message}"
    );

    let archive = good.archive();
    for cut in [archive.len() - 1024 - 512, archive.len() / 2, 700] {
        let message = node.load(&archive[..cut]).await.unwrap_err();
        assert!(message.contains("cut off"), "{message}");
    }
    let compressed = gzip(&archive);
    let message = node.load(&compressed[..compressed.len() / 2]).await.unwrap_err();
    assert!(message.starts_with("cannot load ARCHIVE: cannot read it: "), "{message}");
    assert!(node.images.list().is_empty());
    assert_eq!(super::support::names(&node.path("images/layers")), ["empty"]);
    assert_eq!(super::support::names(&node.path("images/tmp")), [""; 0]);
}

#[tokio::test]
async fn what_is_no_image_is_refused_with_a_reason() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let large = vec![b' '; (4 << 20) + 1];
    let mut layout = Layout::default();
    let chart = layout.blob("application/vnd.cncf.helm.config.v1+json", b"{}".to_vec());
    let manifest = json!({ "schemaVersion": 2, "config": chart, "layers": [] });
    let manifest = layout.blob("application/vnd.oci.image.manifest.v1+json", serde_json::to_vec(&manifest).unwrap());
    let cases = [
        (
            Tar::new().file("etc/passwd", b"").bytes(),
            "it is no image archive: it has neither manifest.json (docker save) nor index.json (OCI)",
        ),
        (
            Tar::new().file("manifest.json", &large).bytes(),
            "\"manifest.json\" has 4194305 bytes; at most 4194304 are read",
        ),
        (
            Tar::new().file("manifest.json", b"[{\"Config\":").bytes(),
            "\"manifest.json\" is no valid image archive: EOF while parsing",
        ),
        (Tar::new().file("manifest.json", b"[]").bytes(), "\"manifest.json\" lists no image"),
        (Tar::new().file("manifest.json", br#"[{"Config":"c.json"}]"#).bytes(), "\"c.json\" is missing in it"),
        (
            Tar::new().file("manifest.json", br#"[{"Config":"c.json"}]"#).file("c.json", b"{}").bytes(),
            "\"c.json\" is no valid image config: missing field",
        ),
        (b"just some text".to_vec(), "the archive is cut off"),
        (vec![7; 4096], "bad tar header at byte 0: its checksum is wrong; this is not a tar archive, or it is damaged"),
        (
            layout.finish(&[manifest]).archive(),
            "is no container image: its config is \"application/vnd.cncf.helm.config.v1+json\"",
        ),
        (docker_archive(Some(&["Bad Name"]), &layers()), "bad image name \"Bad Name\": invalid image reference"),
    ];
    for (archive, expected) in cases {
        let message = node.load(&archive).await.unwrap_err();
        assert!(
            message.starts_with("cannot load ARCHIVE: ") && message.contains(expected),
            "{message}\nexpected: {expected}"
        );
    }
    let error = node.images.load_archive(std::path::Path::new("/dev/zero"), None).await.unwrap_err();
    assert_eq!(
        super::support::whole_message(&error),
        "cannot load /dev/zero: it is neither a regular file nor a directory"
    );
    let error = node.images.load_archive(std::path::Path::new("/nowhere"), None).await.unwrap_err();
    assert!(super::support::whole_message(&error).starts_with("cannot load /nowhere: cannot read it: No such file"));
}
