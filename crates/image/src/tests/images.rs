//! Names, holds, removal, and what is left after a crash.

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, symlink};

use super::support::{Node, Tar, docker_archive, is_root, names, whole_message};
use crate::{HoldError, ImportConfig, RemoveImageError, Removed};

fn layer(content: &[u8]) -> Vec<u8> {
    Tar::new().file("file", content).bytes()
}

#[tokio::test]
async fn images_are_found_by_every_name_and_survive_a_restart() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let loaded = node.load(&docker_archive(Some(&["web:1.0"]), &[layer(b"one")])).await.unwrap().remove(0);
    for _ in 0..2 {
        let id = &loaded.id;
        for name in ["web:1.0", "docker.io/library/web:1.0", id.as_str(), id.hex(), &id.hex()[..12]] {
            assert_eq!(node.images.resolve(name).unwrap().as_ref(), Some(&loaded), "{name}");
        }
        for name in ["web", "web:2", &"0".repeat(64), &id.hex()[..11], "other/web:1.0"] {
            assert_eq!(node.images.resolve(name).unwrap(), None, "{name}");
        }
        assert!(node.images.resolve("Not A Name").is_err());
        assert_eq!(node.images.list(), std::slice::from_ref(&loaded));
        assert_eq!(node.images.get(id), Some(loaded.clone()));
        node = node.restart();
    }
}

#[tokio::test]
async fn a_name_moves_and_the_last_name_takes_the_image_with_it() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let shared = layer(b"shared");
    let old = node.load(&docker_archive(Some(&["web:1"]), &[shared.clone(), layer(b"old")])).await.unwrap().remove(0);
    let new = node.load(&docker_archive(Some(&["web:1", "web:2"]), &[shared, layer(b"new")])).await.unwrap().remove(0);
    assert_eq!(node.images.resolve("web:1").unwrap().unwrap().id, new.id);
    assert_eq!(node.images.get(&old.id).unwrap().references, [""; 0]);
    assert_eq!(names(&node.path("images/layers")).len(), 4, "three layers and the empty one");

    let removed = node.images.prune().await.unwrap();
    assert_eq!(removed, [Removed { untagged: Vec::new(), deleted: Some(old.id.clone()) }]);
    assert_eq!(names(&node.path("images/layers")).len(), 3, "the shared layer stays");

    let node = node.restart();
    let removed = node.images.remove("web:1").await.unwrap();
    assert_eq!(removed, Removed { untagged: vec!["docker.io/library/web:1".to_owned()], deleted: None });
    let removed = node.images.remove("web:2").await.unwrap();
    assert_eq!(removed, Removed { untagged: vec!["docker.io/library/web:2".to_owned()], deleted: Some(new.id) });
    assert_eq!(names(&node.path("images/layers")), ["empty"]);
    let error = node.images.remove("web:2").await.unwrap_err();
    assert_eq!(error.to_string(), "image \"web:2\" not found");
    let node = node.restart();
    assert!(node.images.list().is_empty());
}

#[tokio::test]
async fn a_held_image_is_not_removed() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let image = node.load(&docker_archive(Some(&["web:1"]), &[layer(b"one")])).await.unwrap().remove(0);
    assert_eq!(node.images.hold(&image.id, "pod-b/web").await.unwrap(), image);
    node.images.hold(&image.id, "pod-a").await.unwrap();
    node.images.hold(&image.id, "pod-a").await.unwrap();
    let node = node.restart();
    for name in ["web:1", image.id.as_str()] {
        let error = node.images.remove(name).await.unwrap_err();
        assert_eq!(error.to_string(), format!("image {name:?} is in use by pod-a, pod-b/web"));
    }
    assert_eq!(node.images.get(&image.id), Some(image.clone()));

    node.images.release("pod-a");
    assert!(
        matches!(node.images.remove("web:1").await, Err(RemoveImageError::Held { holders, .. }) if holders == ["pod-b/web"])
    );
    node.images.retain_holders(&HashSet::from(["pod-b/web".to_owned()]));
    assert!(node.images.remove("web:1").await.is_err());
    node.images.retain_holders(&HashSet::new());
    let node = node.restart();
    assert_eq!(node.images.remove("web:1").await.unwrap().deleted, Some(image.id.clone()));
    assert!(matches!(node.images.hold(&image.id, "pod-c").await, Err(HoldError::NotFound { .. })));
}

#[tokio::test]
async fn what_a_crash_left_is_removed_at_the_next_start() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let image = node.load(&docker_archive(Some(&["web:1"]), &[layer(b"one")])).await.unwrap().remove(0);
    let kept = node.images.layer_directories(&image.id).remove(0);
    // A layer half unpacked, an upload, and a layer in its place whose image was never recorded.
    node.write("images/tmp/0/usr/bin/half", b"");
    node.write("images/tmp/upload.tar", b"");
    node.write(&format!("images/layers/{}/file", "0a".repeat(20)), b"");
    let node = node.restart();
    assert_eq!(names(&node.path("images/tmp")), [""; 0]);
    assert_eq!(names(&node.path("images/layers")), [kept.file_name().unwrap().to_str().unwrap(), "empty"]);
    assert_eq!(node.images.list(), std::slice::from_ref(&image));

    // The other way round: a layer that somebody deleted takes its image with it until it is loaded again.
    std::fs::remove_dir_all(&kept).unwrap();
    let node = node.restart();
    assert!(node.images.list().is_empty());
    let again = node.load(&docker_archive(Some(&["web:1"]), &[layer(b"one")])).await.unwrap().remove(0);
    assert_eq!(again, image);
    assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"one");
}

#[tokio::test]
async fn others_cannot_enter_the_directories() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    for directory in ["images", "images/layers", "images/tmp", "images/trash"] {
        assert_eq!(node.path(directory).metadata().unwrap().mode() & 0o777, 0o700, "{directory}");
    }
    let long = node.path(&"d".repeat(220));
    let store = store::Store::open(&node.path("other")).unwrap();
    let error = crate::ImageStore::open(&long, store).unwrap_err();
    assert!(whole_message(&error).ends_with("at most 207 are possible"), "{}", whole_message(&error));
}

#[tokio::test]
async fn an_image_of_equal_layers_survives_the_removal_of_another() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let twice = [layer(b"one"), layer(b"one")];
    let double = node.load(&docker_archive(Some(&["double:1"]), &twice)).await.unwrap().remove(0);
    let single = node.load(&docker_archive(Some(&["single:1"]), &twice[..1])).await.unwrap().remove(0);
    node.images.remove("double:1").await.unwrap();
    assert_eq!(node.images.get(&double.id), None);
    assert!(node.images.layer_directories(&single.id)[0].join("file").is_file());
    node.images.remove("single:1").await.unwrap();
    assert_eq!(names(&node.path("images/layers")), ["empty"]);
}

#[tokio::test]
async fn a_root_file_system_becomes_an_image_from_a_tar_file_or_a_directory() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let config = ImportConfig {
        entrypoint: vec!["/bin/sh".to_owned()],
        env: vec!["A=b".to_owned()],
        exposed_ports: vec!["80/tcp".to_owned()],
        created: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        ..ImportConfig::default()
    };
    let archive = node.write("rootfs.tar.gz", &super::support::gzip(&layer(b"from tar")));
    let image = node.images.import_rootfs(&archive, "mine", config.clone()).await.unwrap();
    assert_eq!(image.references, ["docker.io/library/mine:latest"]);
    assert_eq!(image.created.unwrap().to_string(), "2026-01-02T03:04:05Z");
    let run = image.config.config().clone().unwrap();
    assert_eq!(run.entrypoint().as_deref(), Some(&["/bin/sh".to_owned()][..]));
    assert_eq!(run.exposed_ports().as_deref(), Some(&["80/tcp".to_owned()][..]));
    assert_eq!(run.user(), &None);

    let rootfs = node.path("rootfs");
    node.write("rootfs/usr/bin/program", b"program");
    std::fs::hard_link(rootfs.join("usr/bin/program"), rootfs.join("usr/second")).unwrap();
    symlink("usr/bin", rootfs.join("bin")).unwrap();
    let long = "n".repeat(200);
    node.write(&format!("rootfs/{long}"), b"long");
    std::os::unix::fs::chown(rootfs.join("usr"), Some(5), Some(3_000_000)).unwrap();
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(rootfs.join("usr/bin/program"), "security.capability", capability, flags).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(rootfs.join("socket")).unwrap();
    let image = node.images.import_rootfs(&rootfs, "dir:1", config.clone()).await.unwrap();
    let unpacked = node.images.layer_directories(&image.id).remove(0);
    assert_eq!(names(&unpacked), ["bin", long.as_str(), "usr"]);
    let program = unpacked.join("bin/program").metadata().unwrap();
    assert_eq!((program.nlink(), program.ino()), (2, unpacked.join("usr/second").metadata().unwrap().ino()));
    assert_eq!(unpacked.join("usr").metadata().unwrap().gid(), 3_000_000);
    let mut value = [0_u8; 20];
    rustix::fs::getxattr(unpacked.join("usr/bin/program"), "security.capability", &mut value).unwrap();
    assert_eq!(value, capability);
    // The same content is the same image.
    let again = node.images.import_rootfs(&rootfs, "dir:2", config).await.unwrap();
    assert_eq!(again.id, image.id);
    assert_eq!(again.references, ["docker.io/library/dir:1", "docker.io/library/dir:2"]);
}
