//! A store whose file was altered behind its back, at many places: it says so, or has everything. It never panics and
//! never shows less than what was acknowledged.

#![cfg(test)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{delete, files, open, pod, put};
use store::{ObjectList, OpenStoreError, Store};

const PAGE: usize = 4096;

/// Numbers that look random and are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }
}

/// Spoils a file in one of several ways; says how.
fn spoil(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    let mut what = String::new();
    let page = random.below(bytes.len() / PAGE) * PAGE;
    match random.below(6) {
        0 => {
            let (at, bit) = (random.below(bytes.len()), random.below(8));
            bytes[at] ^= 1 << bit;
            write!(what, "bit {bit} of byte {at} is another").unwrap();
        }
        1 => {
            let (at, bit) = (random.below(512), random.below(8));
            bytes[at] ^= 1 << bit;
            write!(what, "bit {bit} of byte {at} of the header is another").unwrap();
        }
        2 => {
            let length = random.below(bytes.len());
            bytes.truncate(length);
            write!(what, "cut to {length}").unwrap();
        }
        3 => {
            bytes[page..page + PAGE].fill(0);
            write!(what, "zeros from {page} on").unwrap();
        }
        4 => {
            let other = random.below(bytes.len() / PAGE) * PAGE;
            bytes.copy_within(page..page + PAGE, other);
            write!(what, "the page at {page} is at {other}, too").unwrap();
        }
        _ => {
            for byte in &mut bytes[page..page + PAGE] {
                *byte = u8::try_from(random.below(256)).unwrap();
            }
            write!(what, "noise from {page} on").unwrap();
        }
    }
    what
}

async fn fill(store: &Store, objects: usize, bytes: usize) {
    for number in 0..objects {
        put(store, &pod(&format!("pod-{number}")), format!("{number}{}", "x".repeat(bytes))).await;
        if number % 4 == 0 {
            store.put_record("things", &format!("thing-{number}"), &number).await.unwrap();
        }
        if number % 9 == 5 {
            delete(store, &pod(&format!("pod-{}", number - 3))).await;
        }
    }
}

type Content = (ObjectList, Vec<(String, usize)>);

fn content(store: &Store) -> Result<Content, store::StoreError> {
    let mut list = store.list("pods", None);
    // A start gives up what was left of a block of revisions.
    list.revision = 0;
    Ok((list, store.records("things")?))
}

/// Opens `spoilt` again and again, each time spoilt otherwise.
fn open_spoilt(
    home: &Path,
    bytes: &[u8],
    acknowledged: &[u8],
    expected: &Content,
    seeds: std::ops::Range<u64>,
) -> (usize, usize) {
    let path = home.join("objects.redb");
    let (mut damaged, mut whole) = (0, 0);
    for seed in seeds {
        let mut spoilt = bytes.to_vec();
        let what = spoil(&mut spoilt, &mut Random(seed + 1));
        fs::write(&path, &spoilt).unwrap();
        fs::write(home.join("acknowledged"), acknowledged).unwrap();
        match Store::open(home) {
            Err(OpenStoreError::Damaged { path: named, .. }) => {
                assert_eq!(named, path, "seed {seed}: {what}");
                damaged += 1;
            }
            Err(error) => panic!("seed {seed}: {what}: {error:?}"),
            Ok(store) => {
                let found = content(&store).unwrap_or_else(|error| panic!("seed {seed}: {what}: {error:?}"));
                assert!(found == *expected, "seed {seed}: {what}: something is lost or altered in silence");
                whole += 1;
            }
        }
    }
    (damaged, whole)
}

#[tokio::test]
async fn a_spoilt_file_of_a_store_that_was_closed_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    fill(&store, 60, 300).await;
    let expected = content(&store).unwrap();
    drop(store);
    let bytes = fs::read(home.path().join("objects.redb")).unwrap();
    let acknowledged = fs::read(home.path().join("acknowledged")).unwrap();
    let (damaged, whole) = open_spoilt(home.path(), &bytes, &acknowledged, &expected, 0..150);
    assert!(damaged > 20 && whole > 20, "{damaged} damaged, {whole} whole: the damage hits nothing, or all");
}

#[tokio::test]
async fn a_spoilt_file_of_a_store_that_was_killed_is_noticed() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(home.path());
    fill(&store, 60, 300).await;
    let expected = content(&store).unwrap();
    // As it lies there while the store is open, and so after kill -9.
    let left = files(home.path());
    drop(store);
    for (name, bytes) in &left {
        fs::write(other.path().join(name), bytes).unwrap();
    }
    let [(_, bytes), _, (_, acknowledged), _] = &left[..] else { panic!("other files") };
    let (damaged, whole) = open_spoilt(other.path(), bytes, acknowledged, &expected, 0..150);
    assert!(damaged > 20 && whole > 20, "{damaged} damaged, {whole} whole: the damage hits nothing, or all");
}

#[tokio::test]
async fn an_older_objects_file_is_not_taken_for_the_newest() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("objects.redb");
    let store = open(home.path());
    put(&store, &pod("a"), 1).await;
    drop(store);
    let older = fs::read(&path).unwrap();
    let store = open(home.path());
    let newest = put(&store, &pod("a"), 2).await;
    drop(store);
    let newer = fs::read(&path).unwrap();
    let acknowledged = fs::read(home.path().join("acknowledged")).unwrap();

    // The journal still has what is missing.
    fs::write(&path, &older).unwrap();
    assert_eq!(open(home.path()).get(&pod("a")).unwrap(), newest);

    for journal in [None, Some(vec![0; 4096])] {
        fs::write(&path, &older).unwrap();
        fs::write(home.path().join("acknowledged"), &acknowledged).unwrap();
        match journal {
            None => fs::remove_file(home.path().join("journal")).unwrap(),
            Some(bytes) => fs::write(home.path().join("journal"), bytes).unwrap(),
        }
        let error = Store::open(home.path()).unwrap_err();
        assert!(matches!(error, OpenStoreError::Damaged { .. }), "{error:?}");
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.starts_with("it is as after commit ") && why.ends_with(" were acknowledged"), "{why}");
    }

    fs::write(&path, newer).unwrap();
    assert_eq!(open(home.path()).get(&pod("a")).unwrap(), newest);
    // Without a word of what was acknowledged, as an earlier version left it, any is taken.
    fs::remove_file(home.path().join("acknowledged")).unwrap();
    assert_eq!(open(home.path()).get(&pod("a")).unwrap(), newest);
}
