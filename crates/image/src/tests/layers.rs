//! What a good layer becomes on disk.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use tar::EntryType;

use super::support::{LayerStore, Tar, gzip, is_root, names, zstd};
use layer::digest_of;
use layer::{LayerBlob, OPAQUE};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| there.file_type().is_char_device() && there.rdev() == 0)
}

#[test]
fn owners_modes_times_and_capabilities_are_set_in_an_order_that_keeps_them() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    // cap_dac_override,cap_fowner=ep: the value contains a newline (0x0a), which must not end its PAX record.
    let capability: &[u8] = &[1, 0, 0, 2, 0x0a, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Tar::new()
        .directory("usr/")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.note", b"kept")])
        .entry_with(EntryType::Regular, "usr/ping", "", b"program", |header| {
            header.set_mode(0o4750);
            header.set_uid(1234);
            header.set_gid(70_000);
        })
        .pax(&[
            ("mtime", b"1600000000.25"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .entry_with(EntryType::Directory, "tmp", "", b"", |header| header.set_mode(0o1777))
        .entry_with(EntryType::Symlink, "link", "usr/ping", b"", |header| header.set_uid(9))
        .entry_with(EntryType::Fifo, "pipe", "", b"", |header| header.set_mode(0o620))
        .hard_link("second", "./usr/ping")
        .file("tmp/inside", b"")
        .bytes();
    let (_layer, path) = store.unpack(archive).unwrap();

    let program = path.join("usr/ping").metadata().unwrap();
    assert_eq!((program.uid(), program.gid(), program.mode() & 0o7777), (1234, 70_000, 0o4750));
    assert_eq!(program.mtime(), 1_700_000_000);
    assert_eq!(xattr(&path.join("usr/ping"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&path.join("usr/ping"), "user.note").unwrap(), b"kept");
    assert_eq!(path.join("second").metadata().unwrap().ino(), program.ino());
    let tmp = path.join("tmp").metadata().unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime(), tmp.mtime_nsec()), (0o1777, 1_600_000_000, 250_000_000));
    assert_eq!(xattr(&path.join("tmp"), OPAQUE), None);
    assert_eq!(xattr(&path.join("tmp"), "trusted.overlay.redirect"), None);
    let link = path.join("link");
    assert_eq!(link.read_link().unwrap(), Path::new("usr/ping"));
    let there = link.symlink_metadata().unwrap();
    assert_eq!((there.uid(), there.mtime()), (9, 1_700_000_000));
    let pipe = path.join("pipe").metadata().unwrap();
    assert!(pipe.file_type().is_fifo());
    assert_eq!(pipe.mode() & 0o777, 0o620);
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_symlinked_directory_of_the_same_layer_is_followed_inside_of_it() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let archive = Tar::new()
        .directory("usr/bin/")
        .symlink("bin", "usr/bin")
        .file("bin/sh", b"shell")
        // Absolute targets mean the layer's root, and what they name may come later or never.
        .symlink("lib", "/usr/lib")
        .file("lib/libc.so", b"library")
        .symlink("usr/deep", "/var/deep")
        .file("usr/deep/file", b"deep")
        .symlink("up", "../../../../../../usr")
        .file("up/upper", b"upper")
        .bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert!(path.join("bin").is_symlink());
    assert_eq!(std::fs::read(path.join("usr/bin/sh")).unwrap(), b"shell");
    assert_eq!(std::fs::read(path.join("usr/lib/libc.so")).unwrap(), b"library");
    assert_eq!(std::fs::read(path.join("var/deep/file")).unwrap(), b"deep");
    assert_eq!(std::fs::read(path.join("usr/upper")).unwrap(), b"upper");
    assert_eq!(path.join("usr/lib").metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let archive = Tar::new()
        .file("file", b"one")
        .hard_link("kept", "file")
        .file("file", b"two")
        .file("tree/deep/down", b"")
        .file("tree", b"now a file")
        .symlink("target", "elsewhere")
        .directory("target")
        .file("target/inside", b"")
        .directory("twice")
        .file("twice/stays", b"")
        .directory("twice")
        .hard_link("kept", "kept")
        .bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"two");
    assert_eq!(std::fs::read(path.join("kept")).unwrap(), b"one");
    assert_eq!(std::fs::read(path.join("tree")).unwrap(), b"now a file");
    assert!(path.join("target/inside").is_file() && path.join("twice/stays").is_file());
    assert!(!path.join("elsewhere").exists());
}

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let archive = Tar::new()
        .file(".wh.gone", b"")
        .file("dir/.wh..wh..opq", b"")
        .file("dir/new", b"")
        .file("before", b"mine")
        .file(".wh.before", b"")
        .file(".wh.after", b"")
        .file("after", b"mine")
        // A directory that replaces one of a lower layer.
        .file(".wh.tree", b"")
        .file("tree/file", b"")
        .directory("tree2/")
        .file(".wh.tree2", b"")
        .directory(".wh..wh.plnk/")
        .bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert!(is_whiteout(&path.join("gone")));
    assert_eq!(xattr(&path.join("dir"), OPAQUE).unwrap(), b"y");
    for mine in ["before", "after"] {
        assert_eq!(std::fs::read(path.join(mine)).unwrap(), b"mine");
    }
    for replaced in ["tree", "tree2"] {
        assert_eq!(xattr(&path.join(replaced), OPAQUE).unwrap(), b"y", "{replaced}");
    }
    assert_eq!(names(&path), ["after", "before", "dir", "gone", "tree", "tree2"]);
}

#[test]
fn sparse_files_keep_their_holes() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let size = 64_u64 << 20;
    let map = format!("2\n1048576\n4\n{size}\n0\n");
    let mut body = map.into_bytes();
    body.resize(512, 0);
    body.extend_from_slice(b"data");
    let real_size = size.to_string();
    let archive = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", real_size.as_bytes()),
        ])
        .file("GNUSparseFile.0/sparse", &body)
        .file("next", b"next")
        .bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    let sparse = path.join("sparse");
    let there = sparse.metadata().unwrap();
    assert_eq!(there.len(), size);
    assert!(there.blocks() * 512 < 1 << 20, "{} blocks", there.blocks());
    assert_eq!(&std::fs::read(&sparse).unwrap()[1 << 20..(1 << 20) + 5], b"data\0");
    assert_eq!(std::fs::read(path.join("next")).unwrap(), b"next");
}

#[test]
fn names_that_are_long_or_no_text_are_kept() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(255));
    let archive = Tar::new().file(&long, b"long").pax(&[("path", b"caf\xe9")]).file("short", b"latin").bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert_eq!(std::fs::read(path.join(&long)).unwrap(), b"long");
    assert_eq!(std::fs::read(path.join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).unwrap(), b"latin");
}

#[test]
fn one_layer_is_unpacked_once_however_it_is_compressed() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let archive = Tar::new().file("file", &vec![7; 1 << 20]).bytes();
    let diff_id = digest_of(&archive);
    let mut pinned = Vec::new();
    for stored in [gzip(&archive), zstd(&archive), archive.clone()] {
        let (digest, size) = (Some(digest_of(&stored)), Some(stored.len() as u64));
        let reader = Box::new(std::io::Cursor::new(stored));
        pinned.push(store.layers.ingest(LayerBlob { reader, digest, size, diff_id: Some(diff_id.clone()) }).unwrap());
    }
    let path = store.layers.directory(&diff_id);
    let inode = path.metadata().unwrap().ino();
    assert!(pinned.iter().all(|layer| layer.size() == archive.len() as u64));
    drop(pinned.split_off(1));
    assert_eq!(path.metadata().unwrap().ino(), inode, "it is still in use");
    drop(pinned);
    assert!(!path.exists(), "nobody uses it");
    assert_eq!(store.names("layers"), ["empty"]);
    assert_eq!(store.directory.path().join("layers").metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn each_compression_gives_the_same_layer() {
    if !is_root() {
        return;
    }
    let archive = Tar::new().file("file", &vec![7; 3 << 20]).symlink("link", "file").bytes();
    let diff_id = digest_of(&archive);
    for stored in [gzip(&archive), zstd(&archive), archive.clone()] {
        let store = LayerStore::new();
        let blob =
            LayerBlob { reader: Box::new(&stored[..]), digest: Some(digest_of(&stored)), size: None, diff_id: None };
        let layer = store.layers.ingest(blob).unwrap();
        assert_eq!(layer.diff_id(), &diff_id);
        assert_eq!(std::fs::read(store.layers.directory(&diff_id).join("link")).unwrap().len(), 3 << 20);
    }
}

#[test]
fn threads_that_want_one_layer_at_the_same_time_share_it() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let archive = Tar::new().file("file", &vec![1; 4 << 20]).bytes();
    std::thread::scope(|scope| {
        let unpacking: Vec<_> = (0..8).map(|_| scope.spawn(|| store.unpack(archive.clone()).unwrap())).collect();
        let pinned: Vec<_> = unpacking.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(store.names("layers").len(), 2);
        assert_eq!(store.names("tmp"), [""; 0]);
        drop(pinned);
    });
    assert_eq!(store.names("layers"), ["empty"]);
}
