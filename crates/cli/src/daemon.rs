//! Where a daemon keeps its things and what it calls them on the machine.

use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest as _, Sha256};

/// The usual data directory.
pub const DATA_DIR: &str = "/var/lib/monopod";

/// The directories and addresses of one daemon. Several live side by side if these differ.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// What is kept over reboots: the store, images, volumes
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Sockets, also the API's: DIR/monopod.sock
    #[arg(long, value_name = "DIR", default_value = "/run/monopod")]
    pub run_dir: PathBuf,
    /// Logs of containers, as a kubelet lays them out
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub log_dir: PathBuf,
    /// Read options from a YAML file, with their names as keys; what stands on the command line wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Addresses of Pods; nothing else may use them
    #[arg(long, value_name = "NETWORK", default_value = "10.85.0.0/16")]
    pub pod_cidr: String,
}

/// Names of which a machine has only one each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The interface with the gateway's address.
    pub bridge: String,
    /// The nftables table.
    pub nft_table: String,
    /// The control group above all others.
    pub cgroup_parent: String,
}

impl Place {
    /// The same with absolute paths, so that nothing depends on where the daemon was started.
    pub fn absolute(&self) -> std::io::Result<Self> {
        Ok(Self {
            data_dir: std::path::absolute(&self.data_dir)?,
            run_dir: std::path::absolute(&self.run_dir)?,
            log_dir: std::path::absolute(&self.log_dir)?,
            config: self.config.clone(),
            pod_cidr: self.pod_cidr.clone(),
        })
    }

    /// The certificate authority's directory.
    pub fn authority(&self) -> PathBuf {
        authority_dir(&self.data_dir)
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        admin_kubeconfig(&self.data_dir)
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("monopod.sock")
    }

    /// The names that follow from the data directory; plain ones for the usual directory.
    pub fn names(&self) -> Names {
        let real = real_path(&self.data_dir);
        if real == real_path(Path::new(DATA_DIR)) {
            return Names { bridge: "mono0".into(), nft_table: "monopod".into(), cgroup_parent: "monopod".into() };
        }
        let hash = Sha256::digest(real.as_os_str().as_encoded_bytes());
        let digits = hash.iter().take(3).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let digits = format!("{digits:06x}");
        Names {
            bridge: format!("mono-{digits}"),
            nft_table: format!("monopod_{digits}"),
            cgroup_parent: format!("monopod-{digits}"),
        }
    }
}

/// Where the certificate authority is kept.
pub fn authority_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("authority")
}

/// Where the daemon writes the administrator's kubeconfig.
pub fn admin_kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.kubeconfig")
}

/// One directory has one name, also if links lead to it.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_missing| std::path::absolute(path)).unwrap_or_else(|_odd| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(data_dir: &Path) -> Names {
        let (run_dir, log_dir) = (PathBuf::from("/r"), PathBuf::from("/l"));
        Place { data_dir: data_dir.to_owned(), run_dir, log_dir, config: None, pod_cidr: String::new() }.names()
    }

    #[test]
    fn each_data_directory_has_its_names() {
        assert_eq!(names(Path::new(DATA_DIR)).bridge, "mono0");
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        std::fs::create_dir(&one).unwrap();
        std::os::unix::fs::symlink(&one, &other).unwrap();
        assert_eq!(names(&one), names(&other));
        assert_ne!(names(&one), names(directory.path()));
        assert_eq!(names(&one).bridge.len(), "mono-123456".len());
        assert!(names(&one).nft_table.starts_with("monopod_") && names(&one).cgroup_parent.starts_with("monopod-"));
    }
}
