//! Images: every form in which they come, layers shared by digest, and what is in use is kept.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::images::{archive, directory};
use e2e::{Finished, TestNode};

tests! {
    archives_of_docker_and_oci_share_layers,
    whiteouts_links_and_modes_of_layers_hold,
    a_rootfs_and_a_directory_are_imported,
    an_oci_layout_directory_is_loaded,
    saved_images_are_read_by_skopeo_and_loaded_again,
    an_image_in_use_is_not_removed,
    a_broken_archive_is_refused,
}

/// The number of unpacked layers: directories of the image store that hold a rootfs of ours.
fn unpacked_layers(node: &TestNode) -> usize {
    let found =
        Command::new("find").arg(node.data_dir().join("images")).args(["-path", "*/bin/busybox"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().count()
}

fn archives_of_docker_and_oci_share_layers(node: &mut TestNode) {
    assert_eq!(unpacked_layers(node), 1);
    node.load_image("entry");
    node.load_image("layered");
    assert_eq!(unpacked_layers(node), 1, "three images, one busybox layer");
    let list = node.monopod(&["image", "list"]).ok();
    for name in ["busybox", "entry", "layered"] {
        assert!(list.lines().any(|line| line.contains(name) && line.contains("stable")), "{name}:\n{list}");
    }
    for name in ["entry", "layered"] {
        node.monopod(&["image", "remove", &format!("{name}:stable")]).ok();
    }
    assert_eq!(unpacked_layers(node), 1, "busybox:stable still needs it");
    node.run_ready("idle");
}

fn whiteouts_links_and_modes_of_layers_hold(node: &mut TestNode) {
    node.load_image("layered");
    whiteouts_links_and_modes_hold_in(node);
}

/// Runs the image `layered`, which looks at what its upper layer changed.
fn whiteouts_links_and_modes_hold_in(node: &TestNode) {
    node.run_to_end("layered");
    let expected = "uid=1000(app) gid=50(staff) groups=50(staff),2000(logs)
.
./kept
./kept/file
./kept/file2
./kept/hardlink
./kept/setuid
./kept/symlink
./replaced
./replaced/new
lower
lower
lower
4755 1
644 2
";
    assert_eq!(node.logs("layered", "main"), expected);
}

fn a_rootfs_and_a_directory_are_imported(node: &mut TestNode) {
    let rootfs = directory().join("rootfs.tar.gz");
    node.monopod(&["image", "import", rootfs.to_str().unwrap(), "imported:1"]).ok();
    let tree = node.path("tree");
    fs::create_dir(&tree).unwrap();
    Finished::run(Command::new("tar").args(["xzf", rootfs.to_str().unwrap(), "-C"]).arg(&tree), b"").ok();
    node.monopod(&["image", "import", tree.to_str().unwrap(), "imported:2"]).ok();
    for tag in ["1", "2"] {
        let manifest = format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: imported-{tag}}}, spec: {{restartPolicy: Never, containers:
                [{{name: main, image: 'imported:{tag}', command: [/bin/echo, runs]}}]}}}}"
        );
        node.apply_text(&manifest).ok();
        node.wait_phase(&format!("imported-{tag}"), "Succeeded");
        assert_eq!(node.logs(&format!("imported-{tag}"), "main"), "runs\n");
    }
}

fn an_oci_layout_directory_is_loaded(node: &mut TestNode) {
    let layout = node.path("layout");
    unpack(&archive("layered"), &layout);
    node.monopod(&["image", "load", layout.to_str().unwrap()]).ok();
    assert!(node.monopod(&["image", "list"]).ok().contains("layered"));
}

fn saved_images_are_read_by_skopeo_and_loaded_again(node: &mut TestNode) {
    node.load_image("layered");
    let file = node.path("saved.tar").display().to_string();
    node.monopod(&["image", "save", "layered:stable", "busybox:stable", "-o", &file]).ok();
    let skopeo = |arguments: &[&str]| {
        Finished::run(Command::new("skopeo").args(["--insecure-policy", "--tmpdir", "/tmp"]).args(arguments), b"").ok()
    };
    let full = "docker.io/library/layered:stable";
    // Both readers verify every digest.
    skopeo(&["copy", &format!("docker-archive:{file}:{full}"), &format!("dir:{}", node.path("a").display())]);
    skopeo(&["copy", &format!("oci-archive:{file}:{full}"), &format!("oci:{}:x", node.path("layout").display())]);
    let config = skopeo(&["inspect", "--config", &format!("docker-archive:{file}:{full}")]);
    assert!(config.contains("diff_ids"), "{config}");

    node.monopod(&["image", "remove", "layered:stable"]).ok();
    let said = node.monopod(&["image", "load", &file]).ok();
    assert!(said.contains(full) && said.contains("busybox:stable"), "{said}");
    whiteouts_links_and_modes_hold_in(node);
    // To standard output, and only what there is.
    let archive = Command::new("sh")
        .args([
            "-c",
            "\"$0\" image save layered:stable busybox:stable | cmp - \"$1\"",
            e2e::node::binary().to_str().unwrap(),
        ])
        .arg(&file)
        .env("MONOPOD_SOCKET", node.socket())
        .output()
        .unwrap();
    assert!(archive.status.success(), "a saved image that is saved again: {archive:?}");
    let error = node.monopod(&["image", "save", "nothing:1", "-o", &file]).fails();
    assert!(error.contains("image \"nothing:1\" not found"), "{error}");
    assert!(fs::read_dir(node.path("")).unwrap().flatten().all(|e| e.path().extension().is_none_or(|e| e != "part")));
}

fn an_image_in_use_is_not_removed(node: &mut TestNode) {
    node.run_ready("idle");
    let error = node.monopod(&["image", "remove", "busybox:stable"]).fails();
    assert!(error.contains("busybox:stable") && error.contains("idle"), "names who holds it: {error}");
    assert_eq!(node.exec("idle", "main", &["cat", "/etc/hostname"]), "idle\n");
    node.delete_pod("idle");
    node.monopod(&["image", "remove", "busybox:stable"]).ok();
    e2e::eventually(e2e::limit(5), "its layer is removed", || match unpacked_layers(node) {
        0 => Ok(()),
        count => Err(format!("{count} layers")),
    });
    node.load_image("busybox");
}

fn a_broken_archive_is_refused(node: &mut TestNode) {
    // A layer that does not have the digest that its config names.
    let tree = node.path("broken");
    unpack(&archive("busybox"), &tree);
    let layer =
        fs::read_dir(&tree).unwrap().flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "tar"));
    let layer = layer.expect("a layer").path();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let broken = node.path("broken.tar");
    Finished::run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&broken).arg("."), b"").ok();
    node.monopod(&["image", "remove", "busybox:stable"]).ok();
    let error = node.monopod(&["image", "load", broken.to_str().unwrap()]).fails();
    assert!(error.contains("digest"), "{error}");
    assert_eq!(unpacked_layers(node), 0, "nothing half-made is left");
    let error = node.monopod(&["image", "load", node.path("daemon.log").to_str().unwrap()]).fails();
    assert!(error.contains("archive"), "{error}");
    node.load_image("busybox");
}

fn unpack(archive: &Path, target: &Path) {
    fs::create_dir(target).unwrap();
    Finished::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(target), b"").ok();
}
