//! Layers that were made to do harm.

use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use super::support::{LayerStore, Tar, gzip, is_root, names, whole_message, zstd};
use layer::LayerBlob;
use layer::digest_of;
use layer::limits::LayerLimits;

/// The message of a layer that must be refused; nothing of it may stay.
fn refused(store: &LayerStore, archive: Vec<u8>) -> String {
    let error = store.unpack(archive).map(|(_, path)| path).expect_err("the layer must be refused");
    assert_eq!(store.names("layers"), ["empty"]);
    assert_eq!(store.names("tmp"), [""; 0]);
    whole_message(&error)
}

#[test]
fn names_that_leave_the_layer_are_refused() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    for name in ["../evil", "a/../../evil", "/../evil", "..", "a/../b"] {
        for kind in [EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Fifo] {
            let message = refused(&store, Tar::new().entry(kind, name, "x", b"").bytes());
            assert_eq!(message, format!("cannot unpack it: entry {name:?}: its path leaves the image by \"..\""));
        }
    }
    for name in [".wh..", ".wh...", ".wh."] {
        let message = refused(&store, Tar::new().directory("dir/").file(&format!("dir/{name}"), b"").bytes());
        assert!(message.contains("leaves the image"), "{message}");
    }
    assert!(!store.directory.path().join("evil").exists());
}

#[test]
fn absolute_names_lie_inside_the_layer() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let outside = store.directory.path().join("outside");
    let archive = Tar::new().file(outside.to_str().unwrap(), b"inside").bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert!(!outside.exists());
    assert_eq!(std::fs::read(path.join(outside.strip_prefix("/").unwrap())).unwrap(), b"inside");
}

#[test]
fn no_symlink_leads_a_file_outside() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("victim"), b"untouched").unwrap();
    let absolute = outside.path().to_str().unwrap().to_owned();
    let relative = format!("../../../../../../../../../../../../..{absolute}");
    let victim = format!("{absolute}/victim");
    let archive = Tar::new()
        .symlink("absolute", &absolute)
        .file("absolute/one", b"evil")
        .symlink("relative", &relative)
        .file("relative/two", b"evil")
        // The last name itself is a symlink: it is replaced, not followed.
        .symlink("file", &victim)
        .file("file", b"evil")
        .symlink("whiteout", &absolute)
        .file("whiteout/.wh.victim", b"")
        .file("whiteout/.wh..wh..opq", b"")
        .symlink("magic", "/proc/self/root")
        .file("magic/three", b"evil")
        .bytes();
    let before = outside.path().metadata().unwrap();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert_eq!(names(outside.path()), ["victim"]);
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(outside.path().metadata().unwrap().ctime_nsec(), before.ctime_nsec());
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"evil");
    // What the links name exists inside the layer instead.
    assert!(path.join(absolute.trim_start_matches('/')).join("one").is_file());
    assert!(path.join("proc/self/root/three").is_file());
}

#[test]
fn endless_symlinks_end() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let message = refused(&store, Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").bytes());
    assert!(message.contains("Too many levels of symbolic links"), "{message}");
    // Each link doubles the path that is still ahead.
    let mut archive = Tar::new().symlink("l0", "d/d");
    for level in 1..30 {
        let target = format!("l{0}/../../l{0}", level - 1);
        archive = archive.symlink(&format!("l{level}"), &target);
    }
    let message = refused(&store, archive.file("l29/x", b"").bytes());
    assert!(message.contains("cannot make or open its directory"), "{message}");
}

#[test]
fn hard_links_stay_inside() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, b"untouched").unwrap();
    let absolute = victim.to_str().unwrap();
    let directory = outside.path().to_str().unwrap();
    let archives = [
        Tar::new().hard_link("evil", absolute),
        Tar::new().hard_link("evil", &format!("../../../../../../..{absolute}")),
        Tar::new().symlink("out", directory).hard_link("evil", "out/victim"),
        Tar::new().directory("dir").hard_link("evil", "dir"),
        Tar::new().hard_link("evil", "/"),
        Tar::new().file(".wh.hidden", b"").hard_link("evil", "hidden"),
    ];
    for archive in archives {
        let message = refused(&store, archive.bytes());
        assert!(message.starts_with("cannot unpack it: entry \"evil\": its link target "), "{message}");
    }
    assert_eq!(victim.metadata().unwrap().nlink(), 1);
    // A link to a symlink is one to the symlink itself; writing to it later replaces it.
    let archive = Tar::new().symlink("link", absolute).hard_link("evil", "link").file("evil", b"evil").bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(std::fs::read(path.join("evil")).unwrap(), b"evil");
}

#[test]
fn device_nodes_are_left_out() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let device = |header: &mut tar::Header| {
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
    };
    let archive = Tar::new()
        .entry_with(EntryType::Block, "dev/sda", "", b"", device)
        .entry_with(EntryType::Char, "dev/mem", "", b"", device)
        // A whiteout in disguise.
        .entry_with(EntryType::Char, "etc", "", b"", |header| {
            header.set_device_major(0).unwrap();
            header.set_device_minor(0).unwrap();
        })
        .file("kept", b"")
        .bytes();
    let (_layer, path) = store.unpack(archive).unwrap();
    assert_eq!(names(&path), ["kept"]);
}

#[test]
fn too_much_of_anything_is_refused() {
    if !is_root() {
        return;
    }
    let limits = LayerLimits { entries: 100, bytes: 1 << 20, directory_name_bytes: 500 };
    let store = LayerStore::with_limits(limits);
    let many = (0..101).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b""));
    assert_eq!(refused(&store, many.bytes()), "cannot unpack it: it has more than 100 entries");
    let exactly = (0..100).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b""));
    drop(store.unpack(exactly.bytes()).unwrap());

    let names = (0..90).fold(Tar::new(), |tar, n| tar.directory(&format!("directory{n}")));
    assert_eq!(
        refused(&store, names.bytes()),
        "cannot unpack it: it has more than 500 bytes in its directories' names"
    );

    // Bombs: a few kilobytes that become a hundred megabytes, inside a file and behind the archive's end.
    let inside = Tar::new().file("bomb", &vec![0; 100 << 20]).bytes();
    let mut behind = Tar::new().file("file", b"").bytes();
    behind.resize(100 << 20, 0);
    for bomb in [inside, behind] {
        for stored in [gzip(&bomb), zstd(&bomb)] {
            assert!(stored.len() < 1 << 20);
            let (digest, diff_id) = (Some(digest_of(&stored)), Some(digest_of(&bomb)));
            let blob = LayerBlob { reader: Box::new(&stored[..]), digest, size: None, diff_id };
            let message = whole_message(&store.layers.ingest(blob).unwrap_err());
            // Whichever thread sees it first: "in its files" or "when decompressed".
            assert!(message.starts_with("cannot unpack it: it has more than 1048576 bytes "), "{message}");
        }
    }
    // A sparse file is as large as it says, although it takes no space in the archive.
    let sparse =
        Tar::new().pax(&[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", b"9000000000000000000")]).file("sparse", b"");
    assert_eq!(refused(&store, sparse.bytes()), "cannot unpack it: it has more than 1048576 bytes in its files");

    let deep = format!("{}f", "d/".repeat(300));
    assert!(
        refused(&store, Tar::new().pax(&[("path", deep.as_bytes())]).file("x", b"").bytes())
            .contains("more than 255 names")
    );
    let long = "n".repeat(256);
    assert!(
        refused(&store, Tar::new().pax(&[("path", long.as_bytes())]).file("x", b"").bytes())
            .contains("more than 255 bytes")
    );
    let extension = vec![b'x'; 2 << 20];
    let pax = Tar::new().pax(&[("comment", &extension)]).file("x", b"");
    assert!(refused(&LayerStore::new(), pax.bytes()).contains("an extended header of more than 1 MiB"));
}

#[test]
fn depth_made_of_symlinks_is_bounded_and_can_be_deleted_again() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let down = "d/".repeat(200);
    // Each link leads 200 directories further down.
    let deeper = |levels: usize| {
        (0..levels).fold(Tar::new(), |archive, level| {
            let path = if level == 0 { down.clone() } else { format!("s{}/{down}", level - 1) };
            let archive = archive.pax(&[("path", path.as_bytes())]).directory("x");
            let target = path.trim_end_matches('/');
            archive.pax(&[("linkpath", target.as_bytes())]).symlink(&format!("s{level}"), "x")
        })
    };
    let (layer, path) = store.unpack(deeper(2).bytes()).unwrap();
    drop(layer);
    assert!(!path.exists());
    let message = refused(&store, deeper(3).bytes());
    assert!(message.ends_with("cannot make or open its directory: File name too long (os error 36)"), "{message}");
    // `empty` goes on until nothing is left, whoever else empties it too.
    layer::Trash::open(&store.directory.path().join("trash")).unwrap().empty().unwrap();
    assert_eq!(store.names("trash"), [""; 0]);
}

#[test]
fn wrong_bytes_are_told_by_their_digest_before_anything_else() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let archive = Tar::new().file("file", &vec![3; 200_000]).bytes();
    let other = digest_of(b"other");
    let ingest = |stored: &[u8], digest: &[u8], diff_id: &[u8], size: Option<u64>| {
        let (digest, diff_id) = (Some(digest_of(digest)), Some(digest_of(diff_id)));
        let error = store.layers.ingest(LayerBlob { reader: Box::new(stored), digest, size, diff_id }).unwrap_err();
        assert_eq!(store.names("layers"), ["empty"]);
        whole_message(&error)
    };
    for stored in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let found = digest_of(&stored);
        assert_eq!(
            ingest(&stored, b"other", &archive, None),
            format!("its digest is {found}, its manifest says {other}")
        );
        let diff_id = digest_of(&archive);
        let expected = format!("its content has digest {diff_id} (diff id), its image config says {other}");
        assert_eq!(ingest(&stored, &stored, b"other", None), expected);
        // One flipped bit, also where it breaks the compression or the archive.
        for at in [0, 20, stored.len() / 2] {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x10;
            let message = ingest(&damaged, &stored, &archive, None);
            assert!(message.contains("its manifest says"), "at {at}: {message}");
        }
        let (size, cut) = (stored.len() as u64, &stored[..stored.len() - 10]);
        let message = ingest(cut, &stored, &archive, Some(size));
        assert_eq!(message, format!("it has {} bytes, its manifest says {size}", size - 10));
        // A manifest that names the cut bytes does not make them whole.
        let expected = if stored == archive { "its content has digest" } else { "cannot read it: " };
        let message = ingest(cut, cut, &archive, None);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn entries_that_would_replace_the_root_or_that_nobody_knows_are_refused() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let message = refused(&store, Tar::new().symlink("./", "/etc").bytes());
    assert!(message.ends_with("it would replace the root directory"), "{message}");
    let message = refused(&store, Tar::new().entry(EntryType::new(b'Z'), "x", "", b"").bytes());
    assert!(message.ends_with("an entry type that we do not know"), "{message}");
    let message = refused(
        &store,
        Tar::new().entry_with(EntryType::Regular, "x", "", b"", |header| header.set_uid(u32::MAX.into())).bytes(),
    );
    assert!(message.ends_with("a user id outside 0 to 4294967294"), "{message}");
    let message = refused(&store, Tar::new().file("file", b"").file("file/below", b"").bytes());
    assert!(message.contains("Not a directory"), "{message}");
}

#[test]
fn no_change_of_a_header_makes_it_panic_or_leave_the_layer() {
    if !is_root() {
        return;
    }
    let store = LayerStore::new();
    let seed = Tar::new()
        .directory("dir/")
        .symlink("dir/link", "../../../..")
        .file("dir/link/file", b"data")
        .hard_link("hard", "dir/link/file")
        .pax(&[("path", b"/renamed"), ("GNU.sparse.map", b"0,1,9,3"), ("GNU.sparse.size", b"12")])
        .file("sparse", b"data")
        .file("dir/.wh.gone", b"")
        .bytes();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let mut accepted = 0;
    for _ in 0..400 {
        let mut archive = seed.clone();
        for _ in 0..=next(3) {
            let block = next(archive.len() / 512) * 512;
            // Names, numbers, type, link: where a change means something.
            let at = block + [next(100), 100 + next(57), 156, 157 + next(30), 345 + next(160)][next(5)];
            archive[at] = [0, b'/', b'.', b'1', b'5', b'S', b'x', b'L', 0x80, 0xff][next(10)];
            let sum: u32 = archive[block..block + 512].iter().map(|&byte| u32::from(byte)).sum();
            let old: u32 = archive[block + 148..block + 156].iter().map(|&byte| u32::from(byte)).sum();
            let field = format!("{:06o}\0 ", sum - old + 8 * 32);
            archive[block + 148..block + 156].copy_from_slice(field.as_bytes());
        }
        accepted += usize::from(store.unpack(archive).is_ok());
    }
    assert!(accepted > 0, "some changes are harmless");
    assert_eq!(names(store.directory.path()), ["layers", "tmp", "trash"]);
    assert_eq!(store.names("layers"), ["empty"]);
    assert_eq!(store.names("tmp"), [""; 0]);
}
