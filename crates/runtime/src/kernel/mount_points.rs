//! Mount points that nearly every container has, in a layer below those of its image.
//!
//! What an image lacks is otherwise made in the container's writable layer at every start, and costs more there than all
//! mounts together: overlayfs copies `/etc` and `/var` up first. A layer of the image hides what lies below it, as ever;
//! should that be a mount point, it is made as before.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::config::{Mount, MountSource};

/// Targets of mounts, and what they are in the layer: files but for the last, below `/run` where an image has its
/// `/var/run` lead there.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ACCOUNT_IN_RUN: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// The layers, one for each set of mount points that was needed: of few paths, so they stay few.
pub(super) struct MountPoints {
    data: PathBuf,
    made: Mutex<BTreeSet<PathBuf>>,
}

impl MountPoints {
    /// Layers in the data directory, made when they are needed.
    pub(super) fn new(data: PathBuf) -> Self {
        Self { data, made: Mutex::default() }
    }

    /// The layer for a container with these mounts on these layers, lowest first; none if it needs no such mount point.
    pub(super) fn layer(&self, mounts: &[Mount], layers: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        let of =
            |target: &str| mounts.iter().find(|mount| mount.target == Path::new(target) && mount.sub_path.is_none());
        let files: Vec<&str> =
            FILES.into_iter().filter(|target| of(target).is_some_and(|mount| self.is_own_file(mount))).collect();
        let account = of(ACCOUNT).filter(|mount| matches!(mount.source, MountSource::PodTmpfs(_)));
        let account = account.map(|_| if leads_to_run(layers) { ACCOUNT_IN_RUN } else { ACCOUNT });
        if files.is_empty() && account.is_none() {
            return Ok(None);
        }
        let names: Vec<String> = files
            .iter()
            .copied()
            .chain(account)
            .map(|target| target.trim_start_matches('/').replace('/', "-"))
            .collect();
        let directory = self.data.join("mount-points");
        let layer = directory.join(names.join("+"));
        // One that is made twice at once is whole all the same: all steps find it done.
        if !self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(&layer) {
            make_directories(&directory, 0o700)?;
            make_layer(&layer, &files, account)?;
            self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone());
        }
        Ok(Some(layer))
    }

    /// A directory may be mounted there, too, and needs one to be mounted on. Elsewhere than in the data directory it is not
    /// looked at: dead storage would not answer.
    fn is_own_file(&self, mount: &Mount) -> bool {
        match &mount.source {
            MountSource::HostPath(path) => {
                // What is not there yet is one of the pod's files, which are being written: volumes are made before.
                let is_file = |found: io::Result<fs::Metadata>| match found {
                    Ok(found) => found.is_file(),
                    Err(error) => error.kind() == io::ErrorKind::NotFound,
                };
                path.starts_with(&self.data) && is_file(fs::symlink_metadata(path))
            }
            MountSource::PodTmpfs(_) | MountSource::Image(_) => false,
        }
    }
}

fn make_layer(layer: &Path, files: &[&str], account: Option<&str>) -> io::Result<()> {
    make_directories(layer, 0o755)?;
    for file in files {
        let path = make_parents(layer, Path::new(file))?;
        File::options().append(true).create(true).open(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    if let Some(account) = account {
        let path = make_parents(layer, Path::new(account))?;
        make_directories(&path, 0o755)?;
    }
    Ok(())
}

/// Makes the directories that a path of the layer lies in.
fn make_parents(layer: &Path, path: &Path) -> io::Result<PathBuf> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let mut parents: Vec<&Path> = relative.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents {
        make_directories(&layer.join(parent), 0o755)?;
    }
    Ok(layer.join(relative))
}

/// The mode does not depend on the daemon's umask.
fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether the image has a link in place of `/var/run`, as most distributions have.
fn leads_to_run(layers: &[PathBuf]) -> bool {
    let highest = layers.iter().rev().find_map(|layer| fs::symlink_metadata(layer.join("var/run")).ok());
    highest.is_some_and(|found| found.is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use spec::VolumeName;

    use crate::config::Propagation;

    fn mounts(data: &Path, targets: &[&str]) -> Vec<Mount> {
        let file = data.join("file");
        fs::write(&file, "").unwrap();
        targets
            .iter()
            .map(|target| Mount {
                target: target.into(),
                source: if *target == ACCOUNT {
                    MountSource::PodTmpfs(VolumeName::new("v"))
                } else {
                    MountSource::HostPath(file.clone())
                },
                read_only: false,
                recursive_read_only: false,
                propagation: Propagation::Private,
                sub_path: None,
                volume: VolumeName::new("v"),
            })
            .collect()
    }

    fn modes(layer: &Path) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        let mut directories = vec![layer.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
                let metadata = entry.metadata().unwrap();
                let name = entry.path().strip_prefix(layer).unwrap().display().to_string();
                found.push((name, metadata.permissions().mode()));
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_layer_holds_the_mount_points_of_its_containers_and_no_others() {
        let base = tempfile::tempdir().unwrap();
        let points = MountPoints::new(base.path().to_owned());
        assert_eq!(points.layer(&mounts(base.path(), &["/data", "/dev/termination-log"]), &[]).unwrap(), None);
        let hosts = points.layer(&mounts(base.path(), &["/data", "/etc/hosts"]), &[]).unwrap().unwrap();
        assert_eq!(modes(&hosts), [("etc".into(), 0o40755), ("etc/hosts".into(), 0o100_644)]);
        let all = mounts(base.path(), &["/etc/resolv.conf", "/etc/hostname", "/etc/hosts", ACCOUNT]);
        let layer = points.layer(&all, &[]).unwrap().unwrap();
        let names: Vec<String> = modes(&layer).into_iter().map(|(name, _)| name).collect();
        let expected = ["etc", "etc/hostname", "etc/hosts", "etc/resolv.conf", "var", "var/run", "var/run/secrets"];
        assert_eq!(names[..7], expected);
        assert_eq!(names.last().unwrap(), "var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(points.layer(&all, &[]).unwrap(), Some(layer.clone()));
        // A directory is not meant, nor what lies elsewhere; what is not there yet is.
        let from = |source: PathBuf| {
            let mut other = mounts(base.path(), &["/etc/hosts"]);
            other[0].source = MountSource::HostPath(source);
            points.layer(&other, &[]).unwrap()
        };
        for source in [base.path().to_owned(), "/proc/self/exe".into(), "/nowhere/etc-hosts".into()] {
            assert_eq!(from(source), None);
        }
        assert_eq!(from(base.path().join("to come")), Some(hosts));
        // A daemon that starts anew finds it, and makes whole what was not.
        fs::remove_file(layer.join("etc/hosts")).unwrap();
        let again = MountPoints::new(base.path().to_owned());
        assert_eq!(again.layer(&all, &[]).unwrap(), Some(layer.clone()));
        assert!(layer.join("etc/hosts").exists());
    }

    #[test]
    fn where_var_run_is_a_link_the_mount_point_is_where_it_leads() {
        let base = tempfile::tempdir().unwrap();
        let points = MountPoints::new(base.path().to_owned());
        let layers = ["low", "middle", "high"].map(|name| base.path().join(name));
        for layer in &layers {
            fs::create_dir_all(layer.join("var")).unwrap();
        }
        symlink("/run", layers[1].join("var/run")).unwrap();
        let account = mounts(base.path(), &[ACCOUNT]);
        let linked = points.layer(&account, &layers).unwrap().unwrap();
        assert!(linked.join(&ACCOUNT_IN_RUN[1..]).is_dir() && !linked.join("var").exists());
        fs::create_dir(layers[2].join("var/run")).unwrap();
        let hidden = points.layer(&account, &layers).unwrap().unwrap();
        assert!(hidden.join(&ACCOUNT[1..]).is_dir() && !hidden.join("run").exists());
    }
}
