//! Who a container runs as: numbers from the Pod, or names looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use spec::Digest;

use crate::config::SecurityConfig;
use crate::status::ResolvedUser;

/// A larger file is no account database (CVE-2024-9676).
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Of so many images accounts are kept, and so much of each at most.
const KEPT_IMAGES: usize = 32;
const KEPT_BYTES: usize = 16 * 1024;

/// A user and where it is at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: ResolvedUser,
    pub(super) home: String,
}

/// Why a user could not be settled; the messages are the kubelet's and runc's.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoSuchUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoSuchGroup(String),
    #[error("invalid user {0:?}: a number must be between 0 and 4294967295 and have no leading zero")]
    BadNumber(String),
    #[error("container's runAsUser breaks non-root policy")]
    RootByPod,
    #[error("container has runAsNonRoot and image will run as root")]
    RootByImage,
    #[error("container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user is non-root")]
    NotNumeric(String),
    #[error("cannot read /etc/{name} of the image")]
    Unreadable {
        name: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The accounts that an image knows.
#[derive(Debug)]
pub(super) struct AccountFiles {
    passwd: String,
    group: String,
}

impl AccountFiles {
    /// Reads them in a root file system of the image that no container has written to.
    pub(super) fn read(rootfs: BorrowedFd<'_>) -> Result<Self, UserError> {
        Ok(Self { passwd: read(rootfs, "passwd")?, group: read(rootfs, "group")? })
    }

    /// Settles user, groups and home from the Pod's settings and the image's `USER`.
    pub(super) fn resolve(&self, image_user: &str, security: &SecurityConfig) -> Result<Account, UserError> {
        let account = settle(&self.passwd, &self.group, image_user, security)?;
        if security.run_as_non_root {
            check_non_root(account.user.uid, image_user, security)?;
        }
        Ok(account)
    }
}

/// The accounts of the images that were started last: an image never changes, so whoever starts one of them again needs no look
/// into its root file system.
#[derive(Debug, Default)]
pub(super) struct KnownAccounts(Mutex<VecDeque<(Digest, Arc<AccountFiles>)>>);

impl KnownAccounts {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Digest, Arc<AccountFiles>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, image: &Digest) -> Option<Arc<AccountFiles>> {
        self.lock().iter().find(|(known, _)| known == image).map(|(_, files)| Arc::clone(files))
    }

    /// Keeps them unless they are large.
    pub(super) fn note(&self, image: &Digest, files: AccountFiles) -> Arc<AccountFiles> {
        let files = Arc::new(files);
        if files.passwd.len() + files.group.len() <= KEPT_BYTES {
            let mut known = self.lock();
            known.retain(|(other, _)| other != image);
            known.truncate(KEPT_IMAGES - 1);
            known.push_front((image.clone(), Arc::clone(&files)));
        }
        files
    }
}

/// The kubelet asks for a number, since it cannot look into the image; we judge the resolved user on top of that.
fn check_non_root(uid: u32, image_user: &str, security: &SecurityConfig) -> Result<(), UserError> {
    let name = image_user.split(':').next().unwrap_or_default();
    match security.run_as_user {
        Some(0) => Err(UserError::RootByPod),
        None if !name.is_empty() && name.parse::<u32>().is_err() => Err(UserError::NotNumeric(name.to_owned())),
        None if uid == 0 => Err(UserError::RootByImage),
        Some(_) | None => Ok(()),
    }
}

fn settle(passwd: &str, group: &str, image_user: &str, security: &SecurityConfig) -> Result<Account, UserError> {
    let (image_name, image_group) = match image_user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (image_user, None),
    };
    let entry = match security.run_as_user {
        Some(uid) => passwd_entries(passwd).find(|entry| entry.uid == uid).unwrap_or(PasswdEntry::unknown(uid)),
        None => find_user(passwd, image_name)?,
    };
    let gid = match (security.run_as_group, security.run_as_user, image_group) {
        (Some(gid), _, _) => gid,
        (None, None, Some(name)) if !name.is_empty() => find_group(group, name)?,
        (None, _, _) => entry.gid,
    };
    let mut groups = vec![gid];
    // Groups that the image gives the user by name; a user without an entry has none.
    let takes_named = !entry.name.is_empty() && !security.strict_groups;
    let named = group_entries(group).filter(|(_, _, members)| takes_named && members.contains(&entry.name));
    for gid in named.map(|(_, gid, _)| gid).chain(security.supplemental_groups.iter().copied()) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    let home = if entry.home.is_empty() { "/" } else { entry.home };
    Ok(Account { user: ResolvedUser { uid: entry.uid, gid, groups }, home: home.to_owned() })
}

fn find_user<'a>(passwd: &'a str, name: &str) -> Result<PasswdEntry<'a>, UserError> {
    if name.is_empty() {
        return Ok(passwd_entries(passwd).find(|entry| entry.uid == 0).unwrap_or(PasswdEntry::unknown(0)));
    }
    if let Some(entry) = passwd_entries(passwd).find(|entry| entry.name == name) {
        return Ok(entry);
    }
    match number(name)? {
        Some(uid) => Ok(passwd_entries(passwd).find(|entry| entry.uid == uid).unwrap_or(PasswdEntry::unknown(uid))),
        None => Err(UserError::NoSuchUser(name.to_owned())),
    }
}

fn find_group(group: &str, name: &str) -> Result<u32, UserError> {
    if let Some((_, gid, _)) = group_entries(group).find(|(entry, _, _)| *entry == name) {
        return Ok(gid);
    }
    number(name)?.ok_or_else(|| UserError::NoSuchGroup(name.to_owned()))
}

/// A decimal number without tricks: `4294967296`, `-1`, `007` and `0x0` have each meant root somewhere (CVE-2024-40635).
fn number(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.trim_start_matches(['-', '+']);
    if digits.is_empty() || !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    let plain = digits == text && digits.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse::<u32>() {
        Ok(number) if plain => Ok(Some(number)),
        _ => Err(UserError::BadNumber(text.to_owned())),
    }
}

#[derive(Debug, Clone, Copy)]
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl PasswdEntry<'_> {
    fn unknown(uid: u32) -> Self {
        Self { name: "", uid, gid: 0, home: "" }
    }
}

/// passwd(5); lines that are not entries are passed over.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

/// group(5).
fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or_default().split(',').collect()))
    })
}

/// A regular file inside the image, bounded; an image may have none, or a FIFO in its place (CVE-2025-4437).
fn read(rootfs: BorrowedFd<'_>, name: &'static str) -> Result<String, UserError> {
    let read = || -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file: OwnedFd = match openat2(rootfs, format!("etc/{name}"), flags, Mode::empty(), how) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
            opened => opened?,
        };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        let mut bytes = Vec::new();
        if std::fs::File::from(file).take(FILE_LIMIT + 1).read_to_end(&mut bytes)? as u64 > FILE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 4 MiB"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|source| UserError::Unreadable { name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n1000:x:7:7::/odd:\nbad line\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:web,other\nstaff:x:50:root\n";

    fn security(user: Option<u32>, group: Option<u32>, extra: &[u32]) -> SecurityConfig {
        SecurityConfig {
            run_as_user: user,
            run_as_group: group,
            supplemental_groups: extra.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        for (image, security, uid, gid, groups, home) in [
            ("", security(None, None, &[]), 0, 0, vec![0, 50], "/root"),
            ("web", security(None, None, &[]), 33, 33, vec![33, 4], "/var/www"),
            ("33", security(None, None, &[]), 33, 33, vec![33, 4], "/var/www"),
            ("web:logs", security(None, None, &[]), 33, 4, vec![4], "/var/www"),
            ("web:77", security(None, None, &[]), 33, 77, vec![77, 4], "/var/www"),
            ("4242", security(None, None, &[9]), 4242, 0, vec![0, 9], "/"),
            ("1000", security(None, None, &[]), 7, 7, vec![7], "/odd"),
            ("web", security(Some(5000), None, &[]), 5000, 0, vec![0], "/"),
            ("web", security(Some(33), Some(99), &[4, 99]), 33, 99, vec![99, 4], "/var/www"),
        ] {
            let account = settle(PASSWD, GROUP, image, &security).unwrap();
            assert_eq!(account, Account { user: ResolvedUser { uid, gid, groups }, home: home.into() }, "{image:?}");
        }
    }

    #[test]
    fn accounts_of_the_last_images_are_known() {
        let known = KnownAccounts::default();
        let image = |number: usize| Digest::sha256([u8::try_from(number).unwrap(); 32]);
        let files = |passwd: &str| AccountFiles { passwd: passwd.into(), group: GROUP.into() };
        for number in 0..=KEPT_IMAGES {
            known.note(&image(number), files(PASSWD));
        }
        assert!(known.of(&image(0)).is_none() && known.of(&image(1)).is_some());
        known.note(&image(1), files("other:x:0:0::/home:\n"));
        let account = known.of(&image(1)).unwrap().resolve("", &SecurityConfig::default()).unwrap();
        assert_eq!(account.home, "/home");
        known.note(&image(0), files(&"x".repeat(KEPT_BYTES)));
        assert!(known.of(&image(0)).is_none(), "too large to be kept");
    }

    #[test]
    fn tricky_numbers_are_refused() {
        for image in ["4294967296", "-1", "007", "0x0", "+5", "99999999999999999999"] {
            let error = settle(PASSWD, GROUP, image, &SecurityConfig::default()).unwrap_err();
            assert!(matches!(error, UserError::BadNumber(_)), "{image}: {error}");
        }
        assert!(matches!(settle(PASSWD, GROUP, "nobody", &SecurityConfig::default()), Err(UserError::NoSuchUser(_))));
    }

    #[test]
    fn non_root_judges_the_resolved_user() {
        let pod = |uid| SecurityConfig { run_as_user: uid, run_as_non_root: true, ..Default::default() };
        assert!(matches!(check_non_root(0, "", &pod(Some(0))), Err(UserError::RootByPod)));
        assert!(matches!(check_non_root(0, "", &pod(None)), Err(UserError::RootByImage)));
        assert!(matches!(check_non_root(33, "web", &pod(None)), Err(UserError::NotNumeric(_))));
        assert!(
            matches!(check_non_root(0, "root:web", &pod(None)), Err(UserError::NotNumeric(name)) if name == "root")
        );
        assert!(matches!(check_non_root(0, "0", &pod(None)), Err(UserError::RootByImage)));
        assert!(check_non_root(33, "33", &pod(None)).is_ok());
        assert!(check_non_root(1000, "root", &pod(Some(1000))).is_ok());
    }
}
