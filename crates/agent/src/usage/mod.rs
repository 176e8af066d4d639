//! What pods use of the disk: writable layers, logs, volumes and the files that the agent made for them. Processor and
//! memory are in `meter`.

pub(crate) mod meter;
mod process;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use spec::ContainerName;

pub use meter::{PodResourceUsage, ResourceUsage, Usage};
pub use process::{ProcessUsage, own_process};
pub use runtime::{DiskUsage, measure_tree};

use crate::directories::entries;
use crate::records::PodPaths;

/// Directory name of volumes of the kind `emptyDir`.
const EMPTY_DIRS: &str = "kubernetes.io~empty-dir";

/// What one pod uses of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// By container.
    pub containers: BTreeMap<ContainerName, ContainerDisk>,
    /// By volume.
    pub empty_dirs: BTreeMap<String, DiskUsage>,
    /// Everything else that lies in the pod's directory: files of `ConfigMap`s, `/etc/hosts`, termination messages.
    pub other: DiskUsage,
}

/// What one container uses of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerDisk {
    /// What it has written over its image.
    pub writable_layer: DiskUsage,
    /// Its logs, those of earlier runs included.
    pub logs: DiskUsage,
}

impl ContainerDisk {
    /// Both together.
    pub fn total(self) -> DiskUsage {
        self.writable_layer + self.logs
    }
}

impl PodDisk {
    /// All of it.
    pub fn total(&self) -> DiskUsage {
        let containers = self.containers.values().map(|container| container.total());
        containers.chain(self.empty_dirs.values().copied()).fold(self.other, |sum, part| sum + part)
    }
}

/// Measures a pod; `layers` are the writable layers of its containers.
pub fn measure_pod(paths: &PodPaths, layers: &[(ContainerName, PathBuf)]) -> io::Result<PodDisk> {
    let mut disk = PodDisk::default();
    for (name, layer) in layers {
        let logs = measure_tree(&paths.logs.join(name.as_str()))?;
        let measured = ContainerDisk { writable_layer: measure_tree(layer)?, logs };
        disk.containers.insert(name.clone(), measured);
    }
    let volumes = paths.directory.join("volumes").join(EMPTY_DIRS);
    for name in names_in(&volumes)? {
        disk.empty_dirs.insert(name.clone(), measure_tree(&volumes.join(name))?);
    }
    let all = measure_tree(&paths.directory)?;
    disk.other = disk.empty_dirs.values().fold(all, |left, volume| left - *volume);
    Ok(disk)
}

fn names_in(directory: &std::path::Path) -> io::Result<Vec<String>> {
    match entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_pod_is_the_sum_of_its_parts() {
        let directory = tempfile::tempdir().unwrap();
        let paths = PodPaths { directory: directory.path().join("pod"), logs: directory.path().join("logs") };
        let layer = directory.path().join("layer");
        let volume = paths.directory.join("volumes").join(EMPTY_DIRS).join("cache");
        for (path, file, size) in [
            (&layer, "written", 40_960),
            (&paths.logs.join("app"), "0.log", 8192),
            (&volume, "file", 20_480),
            (&paths.directory, "hosts", 4096),
        ] {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join(file), vec![b'x'; size]).unwrap();
        }
        let app = ContainerName::new("app");
        let disk = measure_pod(&paths, &[(app.clone(), layer)]).unwrap();
        assert!((40_960..60_000).contains(&disk.containers[&app].writable_layer.bytes), "{disk:?}");
        assert!((8192..20_000).contains(&disk.containers[&app].logs.bytes), "{disk:?}");
        assert!((20_480..30_000).contains(&disk.empty_dirs["cache"].bytes), "{disk:?}");
        assert!((4096..30_000).contains(&disk.other.bytes), "{disk:?}");
        assert_eq!(disk.containers[&app].writable_layer.inodes, 2);
        assert!(disk.total().bytes >= 40_960 + 8192 + 20_480 + 4096);
        // A pod without anything on the disk uses nothing.
        let none = PodPaths { directory: directory.path().join("none"), logs: directory.path().join("none") };
        assert_eq!(measure_pod(&none, &[]).unwrap(), PodDisk::default());
    }
}
