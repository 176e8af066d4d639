//! The kernel's own word: layers mounted by overlay show what the image means.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::support::{Node, Tar, docker_archive, is_root};

/// A detached overlay mount: it is in no mount table, and goes away with its descriptor.
fn mount(lower: &[std::path::PathBuf], scratch: &Path) -> OwnedFd {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    std::fs::create_dir_all(&upper).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for layer in lower.iter().rev() {
        // Linux 6.8; overlay takes the highest first.
        fsconfig_set_string(overlay.as_fd(), "lowerdir+", layer).unwrap();
    }
    fsconfig_set_string(overlay.as_fd(), "upperdir", upper).unwrap();
    fsconfig_set_string(overlay.as_fd(), "workdir", work).unwrap();
    fsconfig_create(overlay.as_fd()).unwrap();
    fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

fn read(root: &OwnedFd, path: &str) -> Option<String> {
    let file = openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).unwrap();
    Some(text)
}

fn list(root: &OwnedFd, path: &str) -> Vec<String> {
    let directory = openat(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let names = layer::directory::names(directory.as_fd()).unwrap();
    let mut names: Vec<String> = names.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn overlay_shows_what_the_layers_mean() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let lowest = Tar::new()
        .file("gone", b"")
        .file("stays", b"lowest")
        .file("opaque/old", b"")
        .file("merged/old", b"old")
        .file("replaced/old", b"")
        .file("file-then-directory", b"")
        .file("directory-then-file/old", b"")
        .bytes();
    let middle = Tar::new()
        .file(".wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("merged/new", b"new")
        .file(".wh.replaced", b"")
        .directory("replaced")
        .file("replaced/new", b"new")
        .file("file-then-directory/new", b"new")
        .file("directory-then-file", b"file")
        .bytes();
    let highest = Tar::new().file("gone-and-back", b"back").file("merged/.wh.old", b"").bytes();
    // The same layer below and above: overlay takes a directory once.
    let layers = [highest.clone(), lowest, middle, highest];
    let image = node.load(&docker_archive(Some(&["web:1"]), &layers)).await.unwrap().remove(0);
    let directories = node.images.layer_directories(&image.id);
    assert_eq!(directories.len(), 3);
    let scratch = tempfile::tempdir().unwrap();
    let root = mount(&directories, scratch.path());

    let expected =
        ["directory-then-file", "file-then-directory", "gone-and-back", "merged", "opaque", "replaced", "stays"];
    assert_eq!(list(&root, "."), expected);
    assert_eq!(list(&root, "opaque"), ["new"]);
    assert_eq!(list(&root, "merged"), ["new"]);
    assert_eq!(list(&root, "replaced"), ["new"]);
    assert_eq!(read(&root, "stays").unwrap(), "lowest");
    assert_eq!(read(&root, "gone"), None);
    assert_eq!(read(&root, "file-then-directory/new").unwrap(), "new");
    assert_eq!(read(&root, "directory-then-file").unwrap(), "file");
    // It can be written to, and the layers do not change.
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    drop(openat(&root, "stays", flags, Mode::empty()).unwrap());
    assert_eq!(read(&root, "stays").unwrap(), "");
    assert_eq!(std::fs::read(directories[0].join("stays")).unwrap(), b"lowest");
}

#[tokio::test]
async fn a_layer_that_hides_everything_below_and_an_image_without_layers_can_be_mounted() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let lower = Tar::new().file("old", b"").bytes();
    let upper = Tar::new().file(".wh..wh..opq", b"").file("new", b"").bytes();
    let image = node.load(&docker_archive(Some(&["squashed:1"]), &[lower, upper])).await.unwrap().remove(0);
    let scratch = tempfile::tempdir().unwrap();
    let root = mount(&node.images.layer_directories(&image.id), scratch.path());
    assert_eq!(list(&root, "."), ["new"]);

    let image = node.load(&docker_archive(Some(&["scratch:1"]), &[])).await.unwrap().remove(0);
    let scratch = tempfile::tempdir().unwrap();
    let root = mount(&node.images.layer_directories(&image.id), scratch.path());
    assert_eq!(list(&root, "."), [""; 0]);
}
