//! A container as CRI describes it, as the runtime takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Image, ImageStore};
use runtime::{ContainerConfig, Mount, MountSource, Propagation};
use spec::{ContainerName, VolumeName};
use tonic::Status;

use crate::errors::{invalid, unsupported};

use crate::proto::{self, MountPropagation, Signal};
use crate::{resources, security};

/// What runtimes give a process whose image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the sandbox a container needs.
pub struct Surroundings<'a> {
    /// The image it is made from.
    pub image: &'a Image,
    /// Where the images are that it mounts.
    pub images: &'a ImageStore,
    /// Its sandbox' host name.
    pub hostname: &'a str,
    /// Files that CRI leaves to the runtime: path in the container, path on the machine.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// Translates.
pub fn translate(config: &proto::ContainerConfig, around: &Surroundings<'_>) -> Result<ContainerConfig, Status> {
    let metadata = config.metadata.as_ref().ok_or_else(|| invalid("config.metadata", "it is missing"))?;
    if metadata.name.is_empty() {
        return Err(invalid("config.metadata.name", "it is empty"));
    }
    if !config.devices.is_empty() || !config.cdi_devices.is_empty() {
        return Err(unsupported(
            "config.devices",
            "devices of the machine are not given to containers that are not privileged",
        ));
    }
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let command = around.image.command_line(&config.command, &config.args);
    if command.is_empty() {
        return Err(invalid("config.command", "neither it nor the image says what to run"));
    }
    let own_dir = Some(config.working_dir.as_str()).filter(|path| !path.is_empty());
    let working_dir = own_dir.or_else(|| around.image.working_dir()).unwrap_or("/");
    Ok(ContainerConfig {
        name: ContainerName::new(&metadata.name),
        attempt: metadata.attempt,
        image_ref: config.image.as_ref().map(reference).unwrap_or_default().to_owned(),
        image_id: around.image.id.clone(),
        command,
        env: environment(config, around)?,
        working_dir: Path::new("/").join(working_dir),
        mounts: mounts(config, around)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources::translate(&linux.resources.unwrap_or_default())?,
        security: security::translate(&context)?,
        pid: security::pid_mode(&context)?,
        stop_signal: stop_signal(config.stop_signal()),
        // What is kept of it comes once its images are known by their identity.
        labels: BTreeMap::new(),
        log_path: Some(log_path(config, &metadata.name, metadata.attempt)),
    })
}

/// What the user called the image.
fn reference(image: &proto::ImageSpec) -> &str {
    if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image }
}

/// Variables hold passwords, and nobody asks for them again.
pub fn without_secrets(config: &proto::ContainerConfig) -> proto::ContainerConfig {
    proto::ContainerConfig { envs: Vec::new(), command: Vec::new(), args: Vec::new(), ..config.clone() }
}

/// Without a path the caller reads no log, yet the output must go somewhere.
fn log_path(config: &proto::ContainerConfig, name: &str, attempt: u32) -> PathBuf {
    match config.log_path.as_str() {
        "" => PathBuf::from(format!("{}_{attempt}.log", name.replace('/', "_"))),
        path => PathBuf::from(path),
    }
}

/// The image's, what every runtime adds, the caller's.
fn environment(config: &proto::ContainerConfig, around: &Surroundings<'_>) -> Result<Vec<(String, String)>, Status> {
    let mut variables = around.image.variables();
    if !variables.iter().any(|(name, _)| name == "PATH") {
        variables.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    }
    variables.push(("HOSTNAME".to_owned(), around.hostname.to_owned()));
    if config.tty {
        variables.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    for proto::KeyValue { key, value } in &config.envs {
        let value = std::str::from_utf8(value)
            .map_err(|error| invalid(&format!("config.envs[{key}]"), format!("its value is not text: {error}")))?;
        variables.push((key.clone(), value.to_owned()));
    }
    Ok(variables)
}

/// The runtime's files come first: a caller that mounts its own covers them.
fn mounts(config: &proto::ContainerConfig, around: &Surroundings<'_>) -> Result<Vec<Mount>, Status> {
    let taken = |path: &str| config.mounts.iter().any(|mount| Path::new(&mount.container_path) == Path::new(path));
    let read_only = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .is_some_and(|context| context.readonly_rootfs);
    let own = around.files.iter().filter(|(path, _)| !taken(path)).map(|(target, source)| {
        Ok(Mount {
            source: MountSource::HostPath(source.clone()),
            target: PathBuf::from(target),
            read_only,
            recursive_read_only: false,
            propagation: Propagation::Private,
            volume: VolumeName::new(*target),
            sub_path: None,
        })
    });
    own.chain(config.mounts.iter().map(|mount| translate_mount(mount, around.images))).collect()
}

fn translate_mount(mount: &proto::Mount, images: &ImageStore) -> Result<Mount, Status> {
    let field = |name: &str| format!("config.mounts[{}].{name}", mount.container_path);
    if !Path::new(&mount.container_path).is_absolute() {
        return Err(invalid(&field("container_path"), "it is not an absolute path"));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(unsupported(&field("uidMappings"), "ids of user namespaces are not taken from the caller"));
    }
    if !mount.mount_options.is_empty() {
        return Err(unsupported(&field("mount_options"), "a mount has no options of its own"));
    }
    let propagation = match mount.propagation() {
        MountPropagation::PropagationPrivate => Propagation::Private,
        MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if mount.recursive_read_only && (!mount.readonly || propagation != Propagation::Private) {
        return Err(invalid(&field("recursive_read_only"), "it needs readonly and PROPAGATION_PRIVATE beside it"));
    }
    let (source, sub_path) = match mount.image.as_ref().filter(|image| !image.image.is_empty()) {
        Some(image) => {
            if !mount.readonly {
                return Err(invalid(&field("readonly"), "an image can only be mounted read-only"));
            }
            let sub_path = Some(PathBuf::from(&mount.image_sub_path)).filter(|path| !path.as_os_str().is_empty());
            (MountSource::Image(find_image(images, &image.image)?.id), sub_path)
        }
        None if Path::new(&mount.host_path).is_absolute() => {
            (MountSource::HostPath(mount.host_path.clone().into()), None)
        }
        None => return Err(invalid(&field("host_path"), "it is not an absolute path")),
    };
    Ok(Mount {
        source,
        target: PathBuf::from(&mount.container_path),
        read_only: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation,
        volume: VolumeName::new(&mount.container_path),
        sub_path,
    })
}

/// An image that is here.
pub fn find_image(images: &ImageStore, reference: &str) -> Result<Image, Status> {
    let found = images.resolve(reference).map_err(|error| invalid("image", error))?;
    found.ok_or_else(|| Status::not_found(format!("image {reference:?} is not on this machine")))
}

fn stop_signal(signal: Signal) -> Option<String> {
    if signal == Signal::RuntimeDefault {
        return None;
    }
    let name = signal.as_str_name().trim_start_matches("SIGNAL_");
    Some(name.replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(container_path: &str, host_path: &str) -> proto::Mount {
        proto::Mount { container_path: container_path.into(), host_path: host_path.into(), ..Default::default() }
    }

    #[test]
    fn signals_have_their_names() {
        let name = stop_signal;
        assert_eq!(name(Signal::RuntimeDefault), None);
        assert_eq!(name(Signal::Sigterm).as_deref(), Some("SIGTERM"));
        assert_eq!(name(Signal::Sigrtminplus3).as_deref(), Some("SIGRTMIN+3"));
        assert_eq!(name(Signal::Sigrtmaxminus14).as_deref(), Some("SIGRTMAX-14"));
    }

    #[tokio::test]
    async fn mounts_that_make_no_sense_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = store::Store::open(&directory.path().join("store")).unwrap();
        let images = ImageStore::open(&directory.path().join("images"), store).unwrap();
        let recursive = proto::Mount { recursive_read_only: true, ..mount("/m", "/s") };
        let shared = proto::Mount { readonly: true, propagation: 2, ..recursive.clone() };
        let image = proto::Mount {
            image: Some(proto::ImageSpec { image: "tools:1".into(), ..Default::default() }),
            ..mount("/m", "")
        };
        for (mount, fault) in [
            (mount("m", "/s"), "container_path"),
            (mount("/m", "s"), "host_path"),
            (recursive, "recursive_read_only"),
            (shared, "recursive_read_only"),
            (image.clone(), "readonly"),
            (proto::Mount { readonly: true, ..image }, "is not on this machine"),
        ] {
            let status = translate_mount(&mount, &images).unwrap_err();
            assert!(status.message().contains(fault), "{status:?}");
        }
        let good = translate_mount(&proto::Mount { propagation: 1, ..mount("/m", "/s") }, &images).unwrap();
        assert_eq!((good.propagation, good.read_only), (Propagation::HostToContainer, false));
    }
}
