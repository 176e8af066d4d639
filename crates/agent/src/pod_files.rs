//! Files that every container of a pod gets: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, and its termination log.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use runtime::{Mount, MountSource, Propagation};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use spec::dns::{ClusterDns, ResolvConf};
use spec::hosts::{ApiHost, PodHostname};
use spec::k8s_openapi::api::core::v1::Container;
use spec::{ContainerName, VolumeName};

use crate::config::AgentConfig;
use crate::desired::DesiredPod;
use crate::directories::{make_path, open_below, open_directory};

/// Of the files that all containers share: hosts, hostname, resolv.conf.
const NAMES: [&str; 3] = ["etc-hosts", "hostname", "resolv.conf"];
/// Bytes of a termination message that are kept (kubelet, `MaxContainerTerminationMessageLength`).
const LONGEST_MESSAGE: u64 = 4096;
/// Where systemd-resolved keeps the servers behind its stub, which no pod can reach.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// A file of the pod that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct PodFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Contents of the files that all containers of a pod share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFiles {
    /// Name in the UTS namespace and `$HOSTNAME`.
    pub hostname: String,
    hosts: String,
    resolv_conf: String,
    /// What the events should say of the DNS configuration.
    pub dns_warnings: Vec<String>,
}

/// Host name of a pod; with the machine's network it is the machine's.
pub fn hostname(config: &AgentConfig, desired: &DesiredPod) -> PodHostname {
    if desired.host_network() {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        return PodHostname { hostname, domain: None };
    }
    spec::hosts::pod_hostname(&desired.object, &config.cluster_domain)
}

/// The name in the UTS namespace, `$HOSTNAME` and `/etc/hostname`. A full name that is too long starts no pod; until
/// then the short one stands for it.
pub fn kernel_hostname(config: &AgentConfig, desired: &DesiredPod) -> String {
    let name = hostname(config, desired);
    spec::hosts::kernel_hostname(&desired.object, &name).unwrap_or(name.hostname)
}

/// What the files say for a pod with these addresses. Reads the machine's `resolv.conf`; blocks.
pub fn render_pod_files(config: &AgentConfig, desired: &DesiredPod, addresses: &[IpAddr]) -> PodFiles {
    let name = hostname(config, desired);
    let mut node = read_resolv_conf(&config.host_resolv_conf);
    if !desired.host_network() && node.is_local_only() && !node.nameservers.is_empty() {
        let behind = read_resolv_conf(Path::new(RESOLVED_CONF));
        if !behind.nameservers.is_empty() {
            node = behind;
        }
    }
    let cluster = config.dns.map(|dns| ClusterDns {
        server: dns.service.ip(),
        domain: &config.cluster_domain,
        pod_namespace: &desired.pod.pod_namespace,
    });
    let resolv_conf = spec::dns::render(&node, cluster.as_ref(), &desired.spec);
    let aliases = desired.spec.host_aliases.as_deref().unwrap_or_default();
    let api = config.api.map(|api| ApiHost {
        address: api.service.ip(),
        pod_namespace: &desired.pod.pod_namespace,
        cluster_domain: &config.cluster_domain,
    });
    PodFiles {
        hosts: if desired.host_network() {
            spec::hosts::render_host_network(&read_hosts(&config.host_hosts_file), api, aliases)
        } else {
            spec::hosts::render(addresses, &name, api, aliases)
        },
        hostname: kernel_hostname(config, desired),
        resolv_conf: resolv_conf.content.to_string(),
        dns_warnings: resolv_conf.warnings,
    }
}

fn read_hosts(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "cannot read the machine's hosts file");
        String::new()
    })
}

fn read_resolv_conf(path: &Path) -> ResolvConf {
    match fs::read_to_string(path) {
        Ok(text) => ResolvConf::parse(&text),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the machine's resolv.conf");
            ResolvConf::default()
        }
    }
}

/// Makes the directory of a pod with its files, which are empty. Blocks.
pub fn make_empty_files(pod_dir: &Path) -> Result<(), PodFileError> {
    make_path(pod_dir, 0o700).map_err(|source| PodFileError { path: pod_dir.to_owned(), source })?;
    NAMES
        .into_iter()
        .map(|name| pod_dir.join(name))
        .try_for_each(|path| create(&path, b"", 0o644).map_err(|source| PodFileError { path, source }))
}

/// Writes the files where they are missing or differ. A new version is a new file, so that nothing is written through
/// what a container holds; the first one is nobody's yet. `ahead`: they are there, and empty. Blocks.
pub fn write_pod_files(pod_dir: &Path, files: &PodFiles, ahead: bool) -> Result<(), PodFileError> {
    if !ahead {
        make_path(pod_dir, 0o700).map_err(|source| PodFileError { path: pod_dir.to_owned(), source })?;
    }
    let contents = [files.hosts.as_str(), &format!("{}\n", files.hostname), &files.resolv_conf];
    for (name, content) in NAMES.into_iter().zip(contents) {
        let path = pod_dir.join(name);
        let written = if ahead { fill(&path, content.as_bytes()) } else { create(&path, content.as_bytes(), 0o644) };
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => {
                done.map_err(|source| PodFileError { path, source })?;
                continue;
            }
        }
        if fs::read(&path).is_ok_and(|present| present == content.as_bytes()) {
            continue;
        }
        let new = pod_dir.join(format!(".{name}.new"));
        write_new(&new, content.as_bytes(), 0o644)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|source| PodFileError { path, source })?;
    }
    Ok(())
}

fn fill(path: &Path, content: &[u8]) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(content)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    create(path, content, mode)
}

fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    // The umask does not count; before the content, by which a file that a crash has left half made is known.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)
}

/// Path of the termination log of one run.
fn termination_log(pod_dir: &Path, container: &ContainerName, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container.as_str()).join(attempt.to_string())
}

/// Makes an empty termination log that any user of the container may write, and drops those of older runs. Blocks.
pub fn make_termination_log(pod_dir: &Path, container: &ContainerName, attempt: u32) -> Result<(), PodFileError> {
    let path = termination_log(pod_dir, container, attempt);
    let directory = path.parent().unwrap_or(pod_dir).to_owned();
    let make = || {
        make_path(&directory, 0o700)?;
        if attempt == 0 {
            // There is nothing older, and mostly nothing at all.
            return create(&path, b"", 0o666).or_else(|_present| write_new(&path, b"", 0o666));
        }
        for older in crate::directories::entries(&directory)? {
            if older.parse::<u32>().is_ok_and(|older| older.saturating_add(1) < attempt) {
                fs::remove_file(directory.join(older))?;
            }
        }
        write_new(&path, b"", 0o666)
    };
    make().map_err(|source| PodFileError { path, source })
}

/// The end of what a run wrote into its termination log; empty if it wrote nothing or the log is gone. Blocks.
pub fn read_termination_log(pod_dir: &Path, container: &ContainerName, attempt: u32) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let root = open_directory(pod_dir)?;
        let directory = open_below(root.as_fd(), Path::new("containers").join(container.as_str()))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(&directory, attempt.to_string(), flags, Mode::empty(), resolve)?;
        let mut file = File::from(file);
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_MESSAGE)))?;
        let mut message = Vec::new();
        file.take(LONGEST_MESSAGE).read_to_end(&mut message)?;
        Ok(message)
    };
    match read() {
        Ok(message) => String::from_utf8_lossy(&message).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            tracing::warn!(%error, container = %container, attempt, "cannot read the termination log");
            String::new()
        }
    }
}

/// Mounts of the pod's files and of the run's termination log, where the container mounts nothing there itself.
pub fn file_mounts(container: &Container, pod_dir: &Path, attempt: u32) -> Vec<Mount> {
    let security = container.security_context.as_ref();
    let read_only_rootfs = security.and_then(|security| security.read_only_root_filesystem) == Some(true);
    let name = ContainerName::new(&container.name);
    let termination_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let files = [
        ("etc-hosts", "/etc/hosts", pod_dir.join("etc-hosts"), false),
        ("hostname", "/etc/hostname", pod_dir.join("hostname"), read_only_rootfs),
        ("resolv-conf", "/etc/resolv.conf", pod_dir.join("resolv.conf"), read_only_rootfs),
        ("termination-log", termination_path, termination_log(pod_dir, &name, attempt), false),
    ];
    let own: Vec<PathBuf> = container.volume_mounts.iter().flatten().map(|mount| plain(&mount.mount_path)).collect();
    files
        .into_iter()
        .filter(|(_, target, _, _)| !target.is_empty() && !own.contains(&plain(target)))
        .map(|(volume, target, source, read_only)| Mount {
            source: MountSource::HostPath(source),
            target: Path::new("/").join(target),
            read_only,
            recursive_read_only: false,
            propagation: Propagation::Private,
            volume: VolumeName::new(volume),
            sub_path: None,
        })
        .collect()
}

/// The same path without repeated or final slashes.
fn plain(path: &str) -> PathBuf {
    Path::new("/").join(path).components().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_end_of_a_termination_log_is_kept_and_no_link_is_followed() {
        let pod = tempfile::tempdir().unwrap();
        let app = ContainerName::new("app");
        make_termination_log(pod.path(), &app, 2).unwrap();
        let path = termination_log(pod.path(), &app, 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(read_termination_log(pod.path(), &app, 2), "");
        fs::write(&path, format!("{}end", "x".repeat(5000))).unwrap();
        let message = read_termination_log(pod.path(), &app, 2);
        assert_eq!(message.len(), 4096);
        assert!(message.ends_with("xend"));
        fs::remove_file(&path).unwrap();
        assert_eq!(read_termination_log(pod.path(), &app, 2), "");
        symlink("/etc/passwd", &path).unwrap();
        assert_eq!(read_termination_log(pod.path(), &app, 2), "");
    }

    #[test]
    fn a_container_that_mounts_a_path_itself_does_not_get_ours() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "app",
            "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts/"}],
            "terminationMessagePath": "/tmp/end",
            "securityContext": {"readOnlyRootFilesystem": true},
        }))
        .unwrap();
        let mounts = file_mounts(&container, Path::new("/pod"), 3);
        let shown: Vec<_> = mounts
            .iter()
            .map(|mount| {
                let MountSource::HostPath(source) = &mount.source else { panic!("all are files of the machine") };
                format!("{} {} {}", source.display(), mount.target.display(), mount.read_only)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "/pod/hostname /etc/hostname true",
                "/pod/resolv.conf /etc/resolv.conf true",
                "/pod/containers/app/3 /tmp/end false"
            ]
        );
    }

    #[test]
    fn a_changed_file_is_a_new_one() {
        let pod = tempfile::tempdir().unwrap();
        let files = |hosts: &str| PodFiles {
            hostname: "web".into(),
            hosts: hosts.into(),
            resolv_conf: "nameserver 192.0.2.1\n".into(),
            dns_warnings: Vec::new(),
        };
        write_pod_files(pod.path(), &files("one\n"), false).unwrap();
        let held = File::open(pod.path().join("etc-hosts")).unwrap();
        write_pod_files(pod.path(), &files("two\n"), false).unwrap();
        assert_eq!(fs::read_to_string(pod.path().join("etc-hosts")).unwrap(), "two\n");
        let mut text = String::new();
        { held }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
        assert_eq!(fs::read_to_string(pod.path().join("hostname")).unwrap(), "web\n");
    }
}
