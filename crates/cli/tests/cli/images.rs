//! `image`: what is uploaded, and what is said about it.

use std::fs;

use crate::fake::FakeDaemon;
use crate::program::{monopod, monopod_with_input};

#[test]
fn archives_are_uploaded_from_files_and_standard_input() {
    let daemon = FakeDaemon::start();
    let archive: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let file = daemon.path("image.tar");
    fs::write(&file, &archive).unwrap();
    let finished = monopod(&daemon.socket(), &["image", "load", file.to_str().unwrap(), "--reference", "my:1"]);
    assert_eq!(finished.stdout, "loaded docker.io/library/nginx:1 (0123456789ab, 1.00 kB)\n", "{finished:?}");
    monopod_with_input(&daemon.socket(), &["image", "load", "-"], &archive);
    let uploads = daemon.uploads();
    assert_eq!(uploads[0].0, "/monopod/v1/images/load?reference=my%3A1");
    assert_eq!(uploads[1].0, "/monopod/v1/images/load");
    assert!(uploads.iter().all(|(_, body)| *body == archive), "uploads arrive whole");
}

#[test]
fn directories_are_uploaded_as_archives() {
    let daemon = FakeDaemon::start();
    let rootfs = daemon.path("rootfs");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::write(rootfs.join("bin/sh"), "#!").unwrap();
    let rootfs = rootfs.to_str().unwrap();
    let finished = monopod(&daemon.socket(), &["image", "load", rootfs]);
    assert!(finished.code == 1 && finished.stderr.contains("monopod image import"), "{finished:?}");
    monopod(&daemon.socket(), &["image", "import", rootfs, "my:2", "--cmd", "/bin/sh", "--env", "A=1"]);
    let (uri, body) = daemon.uploads().pop().unwrap();
    assert_eq!(
        uri,
        "/monopod/v1/images/import?reference=my%3A2&config=%7B%22cmd%22%3A%5B%22%2Fbin%2Fsh%22%5D%2C%22env%22%3A%5B%22A%3D1%22%5D%7D"
    );
    let names: Vec<_> = tar::Archive::new(body.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["bin", "bin/sh"]);
}

#[test]
fn failures_of_uploads_are_named() {
    let daemon = FakeDaemon::start();
    let finished = monopod(&daemon.socket(), &["image", "load", "/nowhere/image.tar"]);
    assert_eq!(
        finished.stderr,
        "error: cannot read /nowhere/image.tar\n  caused by: No such file or directory (os error 2)\n"
    );
    daemon.refuse_uploads();
    let finished = monopod_with_input(&daemon.socket(), &["image", "load", "-"], &vec![0; 20_000_000]);
    assert_eq!((finished.code, finished.stderr.as_str()), (1, "error: this is not an image\n"));
    let finished = monopod(&daemon.socket(), &["image", "rm", "nginx:1"]);
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (1, "error: image docker.io/library/nginx:1 is used by pod default/web\n")
    );
}

#[test]
fn images_are_listed() {
    let daemon = FakeDaemon::start();
    assert!(
        monopod(&daemon.socket(), &["image", "list"])
            .stdout
            .contains("docker.io/library/nginx:1   0123456789ab   1.00 kB")
    );
    assert_eq!(monopod(&daemon.socket(), &["image", "ls", "-q"]).stdout, "sha256:0123456789abcdef\n");
}
