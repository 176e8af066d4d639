//! Images saved and loaded again.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::support::{Node, Tar, docker_archive, is_root, whole_message};

const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn layers() -> Vec<Vec<u8>> {
    let lower = Tar::new()
        .directory("kept/")
        .file("kept/gone", b"gone")
        .directory("replaced/")
        .file("replaced/old", b"old")
        .entry_with(tar::EntryType::Regular, "kept/setuid", "", b"program", |header| {
            header.set_mode(0o4755);
            header.set_uid(5);
            header.set_gid(3_000_000);
        })
        .hard_link("kept/second", "kept/setuid")
        .symlink("link", "/kept")
        .entry(tar::EntryType::Fifo, "fifo", "", b"")
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY), ("SCHILY.xattr.user.mark", b"yes")])
        .file("capable", b"program")
        .file(&format!("deep/{}", "n".repeat(150)), b"long");
    let upper = Tar::new().file("kept/.wh.gone", b"").file("replaced/.wh..wh..opq", b"").file("replaced/new", b"new");
    vec![lower.bytes(), upper.bytes()]
}

async fn saved(node: &Node, references: &[&str]) -> Vec<u8> {
    let references: Vec<String> = references.iter().map(|&reference| reference.to_owned()).collect();
    let images = node.images.save(&references).await.unwrap();
    let mut archive = Vec::new();
    images.write_to(&mut archive).unwrap();
    archive
}

/// Everything that a tree is, line by line.
fn tree(root: &Path) -> Vec<String> {
    let (mut lines, mut ahead) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = ahead.pop() {
        let there = path.symlink_metadata().unwrap();
        let attribute = |name: &str| {
            let mut value = vec![0; 64];
            rustix::fs::lgetxattr(&path, name, &mut value).map(|length| value[..length].to_vec()).ok()
        };
        let content = if there.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let target = std::fs::read_link(&path).ok();
        lines.push(format!(
            "{:?} {:o} {}:{} {} links {} rdev {} {content:?} {target:?} {:?} {:?} {:?}",
            path.strip_prefix(root).unwrap(),
            there.mode(),
            there.uid(),
            there.gid(),
            // The root of a layer is in no archive: it is as old as its unpacking.
            if path == root { 0 } else { there.mtime() },
            if there.is_dir() { 0 } else { there.nlink() },
            there.rdev(),
            attribute("security.capability"),
            attribute("user.mark"),
            attribute("trusted.overlay.opaque"),
        ));
        if there.is_dir() {
            ahead.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn what_is_saved_and_loaded_again_is_the_same_and_stays_so() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let original = node.load(&docker_archive(Some(&["app:1", "app:2"]), &layers())).await.unwrap().remove(0);
    let archive = saved(&node, &["app:1"]).await;
    let other = Node::new();
    let copy = other.load(&archive).await.unwrap().remove(0);
    assert_eq!(copy.references, ["docker.io/library/app:1"]);
    assert_eq!(copy.config.config(), original.config.config());
    assert_eq!(copy.created, original.created);
    let (from, to) = (node.images.layer_directories(&original.id), other.images.layer_directories(&copy.id));
    assert_eq!(from.len(), 2);
    for (from, to) in from.iter().zip(&to) {
        assert_eq!(tree(from), tree(to));
    }
    // From now on the digests stay.
    assert_eq!(saved(&other, &["app:1"]).await, archive);
    // Without docker's list it is an OCI archive.
    let mut oci = tar::Builder::new(Vec::new());
    for member in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let member = member.unwrap();
        if member.path().unwrap() != Path::new("manifest.json") {
            oci.append(&member.header().clone(), member).unwrap();
        }
    }
    let third = Node::new();
    let loaded = third.load(&oci.into_inner().unwrap()).await.unwrap();
    assert_eq!((loaded[0].id.clone(), loaded[0].references.clone()), (copy.id, copy.references));
}

#[tokio::test]
async fn several_images_share_their_layers_and_an_id_gives_no_name() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let layers = layers();
    let both = node.load(&docker_archive(Some(&["both:1"]), &layers)).await.unwrap().remove(0);
    node.load(&docker_archive(Some(&["lower:1"]), &layers[..1])).await.unwrap();
    let archive = saved(&node, &[both.id.as_str(), "lower:1", "lower:1"]).await;
    let names: Vec<String> = tar::Archive::new(archive.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    // Two layers, two configs, two manifests.
    assert_eq!(
        names.iter().filter(|name| name.starts_with("blobs/sha256/") && name.len() > 13).count(),
        6,
        "{names:?}"
    );
    let other = Node::new();
    let loaded = other.load(&archive).await.unwrap();
    let mut names: Vec<_> = loaded.iter().map(|image| image.references.clone()).collect();
    names.sort();
    assert_eq!(names, [vec![], vec!["docker.io/library/lower:1".to_owned()]]);
}

#[tokio::test]
async fn holes_of_a_file_are_not_written() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    // A GNU sparse file: a map of one segment in front of its data (tar(5), "GNU sparse").
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(6);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize.copy_from_slice(format!("{:011o}\0", 64 << 20).as_bytes());
    gnu.sparse[0].offset.copy_from_slice(format!("{:011o}\0", 32 << 20).as_bytes());
    gnu.sparse[0].numbytes.copy_from_slice(format!("{:011o}\0", 6).as_bytes());
    gnu.sparse[1].offset.copy_from_slice(format!("{:011o}\0", 64 << 20).as_bytes());
    gnu.sparse[1].numbytes.copy_from_slice(format!("{:011o}\0", 0).as_bytes());
    header.set_path("disk").unwrap();
    header.set_cksum();
    let mut sparse = tar::Builder::new(Vec::new());
    sparse.append(&header, b"middle".as_slice()).unwrap();
    let layer = node.write("layer.tar", &sparse.into_inner().unwrap());
    let image = node.images.import_rootfs(&layer, "sparse:1", crate::ImportConfig::default()).await.unwrap();
    let archive = saved(&node, &["sparse:1"]).await;
    assert!(archive.len() < 1 << 20, "{} bytes", archive.len());
    let other = Node::new();
    let copy = other.load(&archive).await.unwrap().remove(0);
    let read = |node: &Node, id| std::fs::read(node.images.layer_directories(id)[0].join("disk")).unwrap();
    assert!(read(&node, &image.id) == read(&other, &copy.id));
}

#[tokio::test]
async fn what_is_not_here_is_not_saved() {
    let node = Node::new();
    for (references, wanted) in [
        (vec![], "no image is named"),
        (vec!["absent:1".to_owned()], "image \"absent:1\" not found"),
        (vec!["UPPER".to_owned()], "invalid image reference \"UPPER\""),
    ] {
        let error = node.images.save(&references).await.unwrap_err();
        assert!(whole_message(&error).contains(wanted), "{}", whole_message(&error));
    }
}
