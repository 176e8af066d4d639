//! Archives as other programs write them, and archives that break the format.

use std::io::{BufReader, Cursor};

use tar::EntryType;

use super::*;

fn entries(archive: Vec<u8>) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(BufReader::with_capacity(100, Cursor::new(archive)));
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut body = Vec::new();
        loop {
            let bytes = reader.body()?;
            if bytes.is_empty() {
                break;
            }
            body.extend_from_slice(bytes);
            let count = bytes.len();
            reader.consume(count);
        }
        all.push((entry, body));
    }
    Ok(all)
}

fn header(kind: EntryType, name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_mode(0o640);
    header.set_uid(3_000_000_000);
    header.set_gid(7);
    header.set_mtime(99);
    header.set_cksum();
    header
}

#[test]
fn what_the_tar_crate_writes_is_read_back() {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header(EntryType::Regular, "file", 600), &[5; 600][..]).unwrap();
    let long = format!("{}/name", "d".repeat(200));
    builder.append_data(&mut header(EntryType::Regular, "x", 3), &long, &b"abc"[..]).unwrap();
    builder.append_link(&mut header(EntryType::Symlink, "x", 0), "link", &long).unwrap();
    builder.append(&header(EntryType::Directory, "dir/", 0), io::empty()).unwrap();
    let mut ustar = tar::Header::new_ustar();
    ustar.set_path(format!("{}/{}", "p".repeat(120), "n".repeat(90))).unwrap();
    ustar.set_size(0);
    ustar.set_cksum();
    builder.append(&ustar, io::empty()).unwrap();
    let all = entries(builder.into_inner().unwrap()).unwrap();
    let names: Vec<String> = all.iter().map(|(entry, _)| String::from_utf8(entry.path.clone()).unwrap()).collect();
    assert_eq!(
        names,
        [
            "file".to_owned(),
            long.clone(),
            "link".to_owned(),
            "dir/".to_owned(),
            format!("{}/{}", "p".repeat(120), "n".repeat(90))
        ]
    );
    let (file, body) = &all[0];
    assert_eq!(
        (file.kind, file.mode, file.uid, file.gid, file.modified),
        (EntryKind::File, 0o640, 3_000_000_000, 7, (99, 0))
    );
    assert_eq!(body, &[5; 600]);
    assert_eq!(all[1].1, b"abc");
    assert_eq!((all[2].0.kind, all[2].0.link.as_slice()), (EntryKind::Symlink, long.as_bytes()));
    assert_eq!(all[3].0.kind, EntryKind::Directory);
}

#[test]
fn pax_records_override_the_header_and_may_be_binary() {
    let mut builder = tar::Builder::new(Vec::new());
    let value: &[u8] = b"a\nb=c\0\n";
    let records: [(&str, &[u8]); 6] = [
        ("path", "déjà".as_bytes()),
        ("uid", b"4294967294"),
        ("mtime", b"12.5"),
        ("size", b"4"),
        ("SCHILY.xattr.user.binary", value),
        ("comment", b"ignored"),
    ];
    builder.append_pax_extensions(records).unwrap();
    builder.append(&header(EntryType::Regular, "short", 4), &b"body"[..]).unwrap();
    builder.append(&header(EntryType::Regular, "next", 0), io::empty()).unwrap();
    let all = entries(builder.into_inner().unwrap()).unwrap();
    let (entry, body) = &all[0];
    assert_eq!(entry.path, "déjà".as_bytes());
    assert_eq!((entry.uid, entry.modified, body.as_slice()), (4_294_967_294, (12, 500_000_000), &b"body"[..]));
    assert_eq!(entry.xattrs, [(b"user.binary".to_vec(), value.to_vec())]);
    assert!(all[1].0.xattrs.is_empty() && all[1].0.path == b"next", "records are for one entry only");
}

#[test]
fn sparse_files_of_old_gnu_tar_and_of_each_pax_version_have_a_map() {
    let expected = [Segment { offset: 1000, length: 3 }, Segment { offset: 5000, length: 0 }];
    let mut old = header(EntryType::GNUSparse, "old", 3);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(1000);
    gnu.sparse[0].set_length(3);
    gnu.sparse[1].set_offset(5000);
    gnu.sparse[1].set_length(0);
    gnu.set_real_size(5000);
    old.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&old, &b"abc"[..]).unwrap();
    let zero: [(&str, &[u8]); 6] = [
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"1000"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"5000"),
        ("GNU.sparse.numbytes", b"0"),
    ];
    builder.append_pax_extensions(zero).unwrap();
    builder.append(&header(EntryType::Regular, "zero", 3), &b"abc"[..]).unwrap();
    let one: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"5000"), ("GNU.sparse.name", b"named"), ("GNU.sparse.map", b"1000,3,5000,0")];
    builder.append_pax_extensions(one).unwrap();
    builder.append(&header(EntryType::Regular, "GNUSparseFile.1/one", 3), &b"abc"[..]).unwrap();
    let all = entries(builder.into_inner().unwrap()).unwrap();
    assert_eq!(all.len(), 3);
    for (entry, body) in &all {
        assert_eq!(entry.segments.as_deref(), Some(&expected[..]), "{:?}", String::from_utf8_lossy(&entry.path));
        assert_eq!((entry.size, body.as_slice()), (5000, &b"abc"[..]));
    }
    assert_eq!(all[2].0.path, b"named");
}

#[test]
fn maps_that_lie_are_refused() {
    for (map, size) in [
        ("0,4", "5000"),
        ("10,3,5,0", "5000"),
        ("4999,3", "5000"),
        ("0,3,18446744073709551615,1", "5000"),
        ("0", "5000"),
        ("a,b", "1"),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions([("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())])
            .unwrap();
        builder.append(&header(EntryType::Regular, "x", 3), &b"abc"[..]).unwrap();
        let error = entries(builder.into_inner().unwrap()).unwrap_err();
        assert!(matches!(error, TarError::Header { .. }), "{map}: {error}");
    }
}

#[test]
fn an_archive_that_ends_early_or_is_none_is_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("comment", &b"x"[..])]).unwrap();
    builder.append(&header(EntryType::Regular, "file", 2000), &[5; 2000][..]).unwrap();
    let whole = builder.into_inner().unwrap();
    let end = whole.len() - 1024;
    assert_eq!(entries(whole[..end].to_vec()).unwrap().len(), 1, "the closing blocks may be missing");
    for cut in [1, 511, 513, 1600, end - 600] {
        let error = entries(whole[..cut].to_vec()).unwrap_err();
        assert!(matches!(error, TarError::Truncated { .. }), "cut at {cut}: {error}");
    }
    let mut damaged = whole.clone();
    damaged[1030] ^= 1;
    let error = entries(damaged).unwrap_err();
    assert!(error.to_string().starts_with("bad tar header at byte 1024: its checksum is wrong"), "{error}");
}

#[test]
fn bad_records_and_numbers_are_refused() {
    let with_records = |records: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header(EntryType::XHeader, "x", records.len() as u64), records).unwrap();
        builder.append(&header(EntryType::Regular, "file", 0), io::empty()).unwrap();
        entries(builder.into_inner().unwrap())
    };
    let error = with_records(b"13 path=other").map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "bad tar header at byte 0: its extended header has a bad record");
    let bad: [&[u8]; 9] = [
        b"99 path=x\n",
        b"3 =\n",
        b"x path=y\n",
        b"0 path=y\n",
        b"10 path=a\0\n",
        b"9 uid=-1\n",
        b"18446744073709551616 path=x\n",
        b"8 path\n\n",
        b"21 uid=99999999999999\n",
    ];
    for records in bad {
        assert!(with_records(records).is_err(), "{:?}", String::from_utf8_lossy(records));
    }
    assert!(with_records(b"10 path=a\n").is_ok());
    let mut negative = header(EntryType::Regular, "x", 0);
    negative.as_old_mut().size = [0xff; 12];
    negative.set_cksum();
    let mut archive = negative.as_bytes().to_vec();
    archive.resize(2048, 0);
    assert_eq!(entries(archive).unwrap_err().to_string(), "bad tar header at byte 0: its size is negative");
}
