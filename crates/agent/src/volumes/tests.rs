//! Tests of what volumes are and how they are set up on the disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use spec::k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Secret, Service, ServiceAccountTokenProjection};

use super::*;
use crate::testing::{desired_pod, pod};

struct Objects;

const NODE: Amounts = Amounts { cpu_millis: Some(4000), memory_bytes: Some(1 << 30) };

impl ConfigObjects for Objects {
    fn config_map(&self, name: &str) -> Option<ConfigMap> {
        let map = json!({ "metadata": {}, "data": { "a": "1", "b": "2" }, "binaryData": { "c": "AAH/" } });
        (name == "map").then(|| serde_json::from_value(map).unwrap())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        (name == "keys")
            .then(|| serde_json::from_value(json!({ "metadata": {}, "data": { "k": "c2VjcmV0" } })).unwrap())
    }

    fn services(&self, _: bool) -> Vec<Service> {
        Vec::new()
    }

    fn volume_of_claim(&self, name: &str, _: bool) -> Result<PersistentVolume, String> {
        let spec = match name {
            "local" => json!({ "local": { "path": "/disks/a" } }),
            "path" => json!({ "hostPath": { "path": "/srv", "type": "Directory" } }),
            "raw" => json!({ "local": { "path": "/dev/sda" }, "volumeMode": "Block" }),
            "far" => json!({ "nfs": { "server": "files", "path": "/" } }),
            _ => return Err(crate::claims::not_found(name)),
        };
        Ok(serde_json::from_value(json!({ "metadata": { "name": "pv" }, "spec": spec })).unwrap())
    }

    fn token(&self, source: &ServiceAccountTokenProjection) -> Result<String, String> {
        Ok(format!("for {}", source.audience.as_deref().unwrap_or("api")))
    }
}

fn plan_one(volume: Value) -> Result<VolumeKind, String> {
    let mut volume = volume;
    volume["name"] = "v".into();
    let spec = json!({
        "volumes": [volume],
        "containers": [{ "name": "app", "image": "app:1", "resources": { "limits": { "memory": "32Mi" } } }],
    });
    let desired = desired_pod(&pod(&spec));
    let planned = plan_volumes(&desired, &Objects, NODE).map_err(|error| error.to_string())?;
    Ok(planned.into_iter().next().unwrap().kind)
}

fn files(payload: &Payload) -> String {
    let show = |(path, file): (&PathBuf, &crate::atomic_writer::PayloadFile)| {
        format!("{}:{:o}:{}", path.display(), file.mode, String::from_utf8_lossy(&file.content))
    };
    payload.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn objects_become_files() {
    let map = |source: Value| json!({ "configMap": source });
    let cases = [
        (map(json!({ "name": "map" })), Ok("a:644:1 b:644:2 c:644:\0\u{1}\u{fffd}")),
        (
            map(json!({ "name": "map", "defaultMode": 0o600, "items": [
                { "key": "a", "path": "sub/x" }, { "key": "b", "path": "y", "mode": 0o400 },
            ] })),
            Ok("sub/x:600:1 y:400:2"),
        ),
        (
            map(json!({ "name": "map", "items": [{ "key": "z", "path": "x" }] })),
            Err("MountVolume.SetUp failed for volume \"v\" : configmap references non-existent config key: z"),
        ),
        (map(json!({ "name": "map", "optional": true, "items": [{ "key": "z", "path": "x" }] })), Ok("")),
        (
            map(json!({ "name": "none" })),
            Err("MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found"),
        ),
        (map(json!({ "name": "none", "optional": true })), Ok("")),
        (json!({ "secret": { "secretName": "keys" } }), Ok("k:644:secret")),
        (
            json!({ "downwardAPI": { "defaultMode": 0o400, "items": [
                { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
                { "path": "limit", "mode": 0o644,
                  "resourceFieldRef": { "containerName": "app", "resource": "limits.memory", "divisor": "1Mi" } },
                { "path": "cpu", "resourceFieldRef": { "containerName": "app", "resource": "limits.cpu" } },
            ] } }),
            Ok("cpu:400:4 limit:644:32 name:400:web"),
        ),
        (
            json!({ "projected": { "defaultMode": 0o440, "sources": [
                { "configMap": { "name": "map", "items": [{ "key": "a", "path": "k", "mode": 0o600 }] } },
                { "secret": { "name": "keys" } },
                { "downwardAPI": { "items": [{ "path": "d/uid", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
                { "secret": { "name": "none", "optional": true } },
            ] } }),
            Ok("d/uid:440:default k:440:secret"),
        ),
        (
            json!({ "projected": { "sources": [{ "configMap": { "name": "none" } }, { "secret": { "name": "none" } }] } }),
            Err(
                "MountVolume.SetUp failed for volume \"v\" : [configmap \"none\" not found, secret \"none\" not found]",
            ),
        ),
        (
            json!({ "downwardAPI": { "items": [{ "path": "a", "fieldRef": { "fieldPath": "status.podIP" } }] } }),
            Err("MountVolume.SetUp failed for volume \"v\" : unsupported fieldPath: status.podIP"),
        ),
        (
            json!({ "secret": { "secretName": "none" } }),
            Err("MountVolume.SetUp failed for volume \"v\" : secret \"none\" not found"),
        ),
        (
            json!({ "secret": { "secretName": "keys", "items": [{ "key": "z", "path": "x" }] } }),
            Err("MountVolume.SetUp failed for volume \"v\" : references non-existent secret key: z"),
        ),
    ];
    for (volume, wanted) in cases {
        let got = plan_one(volume.clone()).map(|kind| match kind {
            VolumeKind::FilesOnDisk(payload) | VolumeKind::FilesInMemory(payload) => files(&payload),
            VolumeKind::EmptyDir
            | VolumeKind::Memory { .. }
            | VolumeKind::HugePages { .. }
            | VolumeKind::HostPath { .. }
            | VolumeKind::Local { .. }
            | VolumeKind::Image => {
                panic!("no files")
            }
        });
        assert_eq!(got, wanted.map(str::to_owned).map_err(str::to_owned), "{volume}");
    }
}

#[test]
fn memory_is_a_directory_as_the_kernel_makes_it() {
    let mode = |group: Value| {
        let spec = json!({
            "securityContext": group, "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory" } }],
            "containers": [{ "name": "app", "image": "app:1" }],
        });
        pod_tmpfs(&plan_volumes(&desired_pod(&pod(&spec)), &Objects, NODE).unwrap())[0].mode
    };
    assert_eq!((mode(json!({})), mode(json!({ "fsGroup": 7 }))), (0o1777, 0o3777));
}

#[test]
fn huge_pages_are_of_the_size_that_the_pod_asks_for() {
    let kind = |empty_dir: Value| {
        let limits = json!({ "memory": "32Mi", "hugepages-2Mi": "8Mi" });
        let spec = json!({
            "volumes": [{ "name": "v", "emptyDir": empty_dir }],
            "containers": [{ "name": "app", "image": "app:1", "resources": { "limits": limits } }],
        });
        let planned = plan_volumes(&desired_pod(&pod(&spec)), &Objects, NODE).map_err(|error| error.to_string())?;
        let tmpfs = pod_tmpfs(&planned).into_iter().next().unwrap();
        Ok::<_, String>((tmpfs.page_size, tmpfs.size, tmpfs.mode))
    };
    assert_eq!(kind(json!({ "medium": "HugePages" })), Ok((Some(2 << 20), None, 0o777)));
    let limited = json!({ "medium": "HugePages-2Mi", "sizeLimit": "3Mi" });
    assert_eq!(kind(limited), Ok((Some(2 << 20), Some(4 << 20), 0o777)), "whole pages");
    assert_eq!(
        kind(json!({ "medium": "HugePages-1Gi" })).unwrap_err(),
        "MountVolume.SetUp failed for volume \"v\" : medium HugePages-1Gi: hugePages storage requested, but there is no \
         resource request for huge pages"
    );
}

#[test]
fn memory_is_as_large_as_the_smaller_limit() {
    for (source, size) in [
        (json!({ "medium": "Memory" }), 32 << 20),
        (json!({ "medium": "Memory", "sizeLimit": "1Mi" }), 1 << 20),
        (json!({ "medium": "Memory", "sizeLimit": "1Gi" }), 32 << 20),
    ] {
        let kind = plan_one(json!({ "emptyDir": source })).unwrap();
        assert_eq!(kind, VolumeKind::Memory { size: Some(size) }, "{source}");
    }
    assert_eq!(plan_one(json!({ "emptyDir": {} })).unwrap(), VolumeKind::EmptyDir);
}

#[test]
fn host_paths_are_what_they_are_said_to_be() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name);
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("file"), "").unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    std::os::unix::fs::symlink(path("dir"), path("link")).unwrap();
    let cases = [
        ("dir", "", ""),
        ("file", "", ""),
        ("made-untyped", "", ""),
        ("dir", "Directory", ""),
        ("link", "Directory", ""),
        ("file", "Directory", "is not a directory"),
        ("none", "Directory", "is not a directory"),
        ("made", "DirectoryOrCreate", ""),
        ("file", "DirectoryOrCreate", "is not a directory"),
        ("file", "File", ""),
        ("dir", "File", "is not a file"),
        ("none", "File", "is not a file"),
        ("made-file", "FileOrCreate", ""),
        ("dir", "FileOrCreate", "is not a file"),
        ("socket", "Socket", ""),
        ("file", "Socket", "is not a socket file"),
        ("file", "CharDevice", "is not a character device"),
        ("file", "BlockDevice", "is not a block device"),
    ];
    for (name, type_, wanted) in cases {
        let planned = [PlannedVolume {
            name: VolumeName::new("v"),
            kind: VolumeKind::HostPath { path: path(name), type_: type_.into() },
            group: None,
            read_only: false,
        }];
        let result = set_up_on_disk(&planned, base.path(), Timestamp::UNIX_EPOCH);
        let wanted = match wanted {
            "" => Ok(()),
            what => Err(format!(
                "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} {what}",
                path(name).display()
            )),
        };
        assert_eq!(result.map_err(|error| error.to_string()), wanted, "{name} as {type_:?}");
    }
    assert!(path("made").is_dir() && path("made-untyped").is_dir() && path("made-file").is_file());
    assert!(!path("none").exists());
    let null = [PlannedVolume {
        name: VolumeName::new("v"),
        kind: VolumeKind::HostPath { path: "/dev/null".into(), type_: "CharDevice".into() },
        group: None,
        read_only: false,
    }];
    set_up_on_disk(&null, base.path(), Timestamp::UNIX_EPOCH).unwrap();
    // The parent of a file is not made.
    let orphan = [PlannedVolume {
        name: VolumeName::new("v"),
        kind: VolumeKind::HostPath { path: path("none/file"), type_: "FileOrCreate".into() },
        group: None,
        read_only: false,
    }];
    assert!(set_up_on_disk(&orphan, base.path(), Timestamp::UNIX_EPOCH).is_err());
}

#[test]
fn an_empty_dir_is_open_to_all_and_keeps_what_is_in_it() {
    let base = tempfile::tempdir().unwrap();
    let planned =
        [PlannedVolume { name: VolumeName::new("v"), kind: VolumeKind::EmptyDir, group: None, read_only: false }];
    set_up_on_disk(&planned, base.path(), Timestamp::UNIX_EPOCH).unwrap();
    let directory = base.path().join("volumes/kubernetes.io~empty-dir/v");
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o777);
    fs::write(directory.join("kept"), "").unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
    set_up_on_disk(&planned, base.path(), Timestamp::UNIX_EPOCH).unwrap();
    assert!(directory.join("kept").exists());
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o1777, "a container's chmod stays");
    assert_eq!(fs::metadata(directory.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn config_and_secrets_are_mounted_read_only() {
    let container: Container = serde_json::from_value(json!({ "name": "app", "volumeMounts": [
        { "name": "d", "mountPath": "/d", "mountPropagation": "HostToContainer" },
        { "name": "d", "mountPath": "/ro", "readOnly": true },
        { "name": "c", "mountPath": "/c" },
        { "name": "s", "mountPath": "/s" },
    ] }))
    .unwrap();
    let planned = [
        PlannedVolume { name: VolumeName::new("d"), kind: VolumeKind::EmptyDir, group: None, read_only: false },
        PlannedVolume {
            name: VolumeName::new("c"),
            kind: VolumeKind::FilesOnDisk(Payload::new()),
            group: None,
            read_only: false,
        },
        PlannedVolume {
            name: VolumeName::new("s"),
            kind: VolumeKind::FilesInMemory(Payload::new()),
            group: None,
            read_only: false,
        },
    ];
    let mounts = volume_mounts(&container, &planned, &VolumeImages::new(), Path::new("/pod"), &[]).unwrap();
    let shown: Vec<_> = mounts
        .iter()
        .map(|mount| {
            let source = match &mount.source {
                MountSource::HostPath(path) => path.display().to_string(),
                MountSource::PodTmpfs(name) => format!("memory {name}"),
                MountSource::Image(id) => format!("image {id}"),
            };
            format!("{source} {} {} {:?}", mount.target.display(), mount.read_only, mount.propagation)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "/pod/volumes/kubernetes.io~empty-dir/d /d false HostToContainer",
            "/pod/volumes/kubernetes.io~empty-dir/d /ro true Private",
            "/pod/volumes/kubernetes.io~configmap/c /c true Private",
            "memory s /s true Private",
        ]
    );
}

#[test]
fn a_group_gets_the_volumes_but_not_the_machines_paths() {
    let spec = json!({
        "securityContext": { "fsGroup": 4242 },
        "volumes": [
            { "name": "disk", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory" } },
            { "name": "map", "configMap": { "name": "map" } },
            { "name": "keys", "secret": { "secretName": "keys" } },
            { "name": "host", "hostPath": { "path": "made" } },
        ],
        "containers": [{ "name": "app", "image": "app:1" }],
    });
    let base = tempfile::tempdir().unwrap();
    let mut planned = plan_volumes(&desired_pod(&pod(&spec)), &Objects, NODE).unwrap();
    let memory: Vec<_> = pod_tmpfs(&planned).into_iter().map(|tmpfs| (tmpfs.mode, tmpfs.group)).collect();
    assert_eq!(memory, [(0o3777, Some(4242)), (0o2755, Some(4242))]);
    planned.last_mut().unwrap().kind =
        VolumeKind::HostPath { path: base.path().join("made"), type_: "DirectoryOrCreate".into() };
    set_up_on_disk(&planned, base.path(), Timestamp::UNIX_EPOCH).unwrap();
    let seen = ["kubernetes.io~empty-dir/disk", "kubernetes.io~configmap/map", "kubernetes.io~configmap/map/a"]
        .map(|name| fs::metadata(base.path().join("volumes").join(name)).unwrap())
        .map(|metadata| (metadata.mode() & 0o7777, metadata.gid()));
    assert_eq!(seen, [(0o2777, 4242), (0o2755, 4242), (0o644, 4242)]);
    let host = fs::metadata(base.path().join("made")).unwrap();
    assert_eq!((host.mode() & 0o7777, host.gid()), (0o755, 0));
}

#[test]
fn a_token_is_for_the_user_of_all_containers_and_for_the_group() {
    let token = json!({ "serviceAccountToken": { "path": "token", "audience": "vault" } });
    let mode_and_user = |pod_security: Value, securities: [Value; 2]| {
        let [app, init] = securities;
        let spec = json!({
            "securityContext": pod_security,
            "containers": [{ "name": "app", "image": "app:1", "securityContext": app }],
            "initContainers": [{ "name": "init", "image": "app:1", "securityContext": init }],
            "volumes": [{ "name": "v", "projected": { "defaultMode": 0o444, "sources": [token] } }],
        });
        let planned = plan_volumes(&desired_pod(&pod(&spec)), &Objects, NODE).unwrap();
        let [PlannedVolume { kind: VolumeKind::FilesInMemory(payload), .. }] = &planned[..] else { unreachable!() };
        let file = &payload[Path::new("token")];
        assert_eq!(file.content, b"for vault");
        (file.mode, file.user)
    };
    let user = |user: u32| json!({ "runAsUser": user });
    let cases = [
        (json!({}), [json!({}), json!({})], (0o444, None)),
        (user(7), [json!({}), json!({})], (0o600, Some(7))),
        (user(7), [json!({}), user(8)], (0o444, None)),
        (json!({}), [user(8), user(8)], (0o600, Some(8))),
        (json!({}), [user(8), json!({})], (0o444, None)),
        (json!({ "fsGroup": 9 }), [json!({}), json!({})], (0o600, None)),
    ];
    for (pod_security, securities, expected) in cases {
        let shown = format!("{pod_security} {securities:?}");
        assert_eq!(mode_and_user(pod_security, securities), expected, "{shown}");
    }
}

#[test]
fn a_claim_is_what_its_volume_is() {
    let kind = |claim: &str| plan_one(json!({ "persistentVolumeClaim": { "claimName": claim } }));
    assert_eq!(kind("local"), Ok(VolumeKind::Local { path: "/disks/a".into(), group: None }));
    assert_eq!(kind("path"), Ok(VolumeKind::HostPath { path: "/srv".into(), type_: "Directory".into() }));
    let refused = [
        ("none", "error processing PVC default/none: persistentvolumeclaims \"none\" not found"),
        ("raw", "PVC \"raw\" has volumeMode Block, which is not supported here: claim a Filesystem"),
        ("far", "volume \"pv\" of PVC \"far\" is neither local nor hostPath: no other can be mounted here"),
    ];
    for (claim, why) in refused {
        assert_eq!(kind(claim), Err(format!("MountVolume.SetUp failed for volume \"v\" : {why}")));
    }
}

#[test]
fn a_claim_is_read_only_where_pod_or_mount_says_so_and_has_its_group() {
    let spec = json!({
        "securityContext": { "fsGroup": 7, "fsGroupChangePolicy": "OnRootMismatch" },
        "volumes": [
            { "name": "ro", "persistentVolumeClaim": { "claimName": "local", "readOnly": true } },
            { "name": "rw", "persistentVolumeClaim": { "claimName": "local" } },
        ],
        "containers": [{ "name": "app", "image": "app:1", "volumeMounts": [
            { "name": "ro", "mountPath": "/a" }, { "name": "rw", "mountPath": "/b" },
            { "name": "rw", "mountPath": "/c", "readOnly": true },
        ] }],
    });
    let desired = desired_pod(&pod(&spec));
    let planned = plan_volumes(&desired, &Objects, NODE).unwrap();
    let group = |read_only| GroupOfFiles { group: 7, unless_root_has_it: true, read_only };
    let kinds: Vec<&VolumeKind> = planned.iter().map(|volume| &volume.kind).collect();
    let local = |group| VolumeKind::Local { path: "/disks/a".into(), group: Some(group) };
    assert_eq!(kinds, [&local(group(true)), &local(group(false))]);
    let container = &desired.spec.containers[0];
    let mounts = volume_mounts(container, &planned, &VolumeImages::new(), Path::new("/pod"), &[]).unwrap();
    let shown: Vec<_> = mounts.iter().map(|mount| (mount.target.to_str().unwrap(), mount.read_only)).collect();
    assert_eq!(shown, [("/a", true), ("/b", false), ("/c", true)]);
}
