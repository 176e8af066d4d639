//! `local`: a directory of the machine that outlives its pods. Containers of before wrote into it, and others may write now, so
//! nothing in it is followed or believed.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, fstat, openat, statat};

use super::VolumeCause;
use super::host_path::in_time;
use crate::directories::{make_path, open_directory, open_same_device, remove_tree, set_mode_and_group};

/// What is deeper keeps its group: each level holds a descriptor.
const DEEPEST: usize = 1024;

/// `fsGroup`, and when it is given to what is in a volume already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupOfFiles {
    /// The group.
    pub group: u32,
    /// `OnRootMismatch`: not where the volume's root has it.
    pub unless_root_has_it: bool,
    /// The group may read only.
    pub read_only: bool,
}

/// Makes the directory of a new volume, which all may write.
pub fn make_local_volume(path: &Path) -> io::Result<()> {
    // One that is there was made by a daemon that died before it said so.
    make_path(path, 0o700)?;
    // Beyond the umask.
    fs::set_permissions(path, Permissions::from_mode(0o777))
}

/// Removes it with all that is in it.
pub fn remove_local_volume(path: &Path) -> io::Result<()> {
    remove_tree(path)
}

/// Whether it is there, and its files are its group's.
pub(super) fn set_up(path: &Path, group: Option<GroupOfFiles>) -> Result<(), VolumeCause> {
    in_time(path, move |path| {
        is_directory(path)?;
        let given = group.map_or(Ok(()), |group| give(path, group));
        given.map_err(|source| VolumeCause::Directory { path: path.to_owned(), source })
    })
}

fn is_directory(path: &Path) -> Result<(), VolumeCause> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(VolumeCause::Unmet(format!("path {:?} is not a directory", path.display().to_string()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(VolumeCause::Unmet(format!("path {:?} does not exist", path.display().to_string())))
        }
        Err(source) => Err(VolumeCause::Directory { path: path.to_owned(), source }),
    }
}

/// Gives files and directories their group and lets it read and write them (kubelet, `SetVolumeOwnership`). What cannot be given
/// away stays as it is, as with the kubelet: a file that nobody may change, a disk that is read only.
fn give(path: &Path, group: GroupOfFiles) -> io::Result<()> {
    let root = open_directory(path)?;
    let mode = fstat(&root)?.st_mode;
    let of_directories = mode_for(FileType::Directory, group);
    if group.unless_root_has_it && fstat(&root)?.st_gid == group.group && mode & of_directories == of_directories {
        return Ok(());
    }
    let mut failure = None;
    let mut keep = |outcome: io::Result<()>| failure = failure.take().or(outcome.err());
    let mut levels = vec![Level { directories: give_all_in(&root, group, &mut keep)?, directory: root }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.directories.pop() {
            match open_same_device(&level.directory, &name) {
                Ok(_) if levels.len() >= DEEPEST => keep(Err(io::Error::other("it is too deep"))),
                Ok(directory) => {
                    levels.push(Level { directories: give_all_in(&directory, group, &mut keep)?, directory });
                }
                Err(error) => keep(Err(error)),
            }
        } else if let Some(Level { directory, .. }) = levels.pop() {
            // The root comes last: where it has its group, everything has.
            keep(give_to(&directory, group));
        }
    }
    if let Some(error) = failure {
        tracing::warn!(path = %path.display(), group = group.group, %error, "not all files of a volume became its group's");
    }
    Ok(())
}

struct Level {
    directory: OwnedFd,
    /// That are still to be looked into.
    directories: Vec<CString>,
}

/// All but directories, which are answered.
fn give_all_in(
    directory: &OwnedFd,
    group: GroupOfFiles,
    keep: &mut dyn FnMut(io::Result<()>),
) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // What is gone meanwhile needs nothing.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => directories.push(name.to_owned()),
            FileType::RegularFile => {
                // It may be another one by now.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(directory, name, flags, Mode::empty());
                keep(file.map_err(io::Error::from).and_then(|file| give_to(&file, group)));
            }
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                let gid = Some(Gid::from_raw(group.group));
                let given = rustix::fs::chownat(directory, name, None, gid, AtFlags::SYMLINK_NOFOLLOW);
                keep(given.map_err(io::Error::from));
            }
        }
    }
    Ok(directories)
}

fn give_to(file: &OwnedFd, group: GroupOfFiles) -> io::Result<()> {
    let mode = fstat(file)?.st_mode;
    let wanted = (mode & 0o7777) | mode_for(FileType::from_raw_mode(mode), group);
    set_mode_and_group(file, wanted, Some(group.group))
}

fn mode_for(kind: FileType, group: GroupOfFiles) -> u32 {
    let read_write = if group.read_only { 0o440 } else { 0o660 };
    if kind == FileType::Directory { read_write | 0o2110 } else { read_write }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    const GROUP: GroupOfFiles = GroupOfFiles { group: 4242, unless_root_has_it: true, read_only: false };

    fn owned(path: &Path) -> (u32, u32) {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.gid(), metadata.mode() & 0o7777)
    }

    #[test]
    fn all_files_become_the_groups_and_no_link_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let (volume, outside) = (base.path().join("volume"), base.path().join("outside"));
        make_local_volume(&volume).unwrap();
        fs::create_dir_all(volume.join("deep/er")).unwrap();
        for file in [&outside, &volume.join("deep/er/file"), &volume.join("file")] {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&outside, volume.join("deep/link")).unwrap();
        let before = owned(&outside);
        set_up(&volume, Some(GROUP)).unwrap();
        assert_eq!(owned(&outside), before);
        assert_eq!(owned(&volume), (4242, 0o2777));
        assert_eq!(owned(&volume.join("deep/er")), (4242, 0o2775));
        assert_eq!(owned(&volume.join("deep/er/file")), (4242, 0o660));
        assert_eq!(owned(&volume.join("deep/link")).0, 4242);

        // The root has it, so a new file waits until somebody asks for all.
        fs::write(volume.join("late"), "x").unwrap();
        rustix::fs::chown(volume.join("late"), None, Some(Gid::from_raw(0))).unwrap();
        set_up(&volume, Some(GROUP)).unwrap();
        assert_eq!(owned(&volume.join("late")).0, 0);
        set_up(&volume, Some(GroupOfFiles { unless_root_has_it: false, ..GROUP })).unwrap();
        assert_eq!(owned(&volume.join("late")).0, 4242);

        remove_local_volume(&volume).unwrap();
        assert!(!volume.exists() && outside.exists());
        let error = set_up(&volume, None).unwrap_err().to_string();
        assert_eq!(error, format!("path {:?} does not exist", volume.display().to_string()));
    }
}
