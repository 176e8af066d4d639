//! What claims and volumes come to when all steps are taken.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::claims::{PROVISIONED_BY, SELECTED_NODE};
use spec::decode::read;
use spec::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use spec::placement::NodeView;
use store::ObjectKey;

use super::plan::{Next, Step, steps};
use super::world::World;
use super::{CLAIMS, VOLUMES};

/// Objects that change as the plan says until nothing is left to do.
struct Stage {
    objects: Vec<(ObjectKey, Value)>,
    /// Reasons of events, each once.
    said: Vec<&'static str>,
    /// Directories as they were made (`+`) and removed (`-`).
    directories: Vec<String>,
    used: Vec<&'static str>,
    revision: u64,
}

impl Stage {
    fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut stage =
            Self { objects: Vec::new(), said: Vec::new(), directories: Vec::new(), used: Vec::new(), revision: 0 };
        for object in objects {
            stage.put(object);
        }
        stage
    }

    fn put(&mut self, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => ObjectKey::namespaced(CLAIMS, namespace, name),
            None => ObjectKey::cluster(VOLUMES, name),
        };
        self.objects.retain(|(present, _)| *present != key);
        self.objects.push((key, object));
    }

    fn world(&self) -> World {
        let of = |resource: &'static str| self.objects.iter().filter(move |(key, _)| key.resource == resource);
        let class = |name: &str, provisioner: &str, mode: &str, grows: bool| {
            let class = json!({
                "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete",
                "allowVolumeExpansion": grows,
            });
            (name.to_owned(), read(&class).unwrap())
        };
        World {
            claims: of(CLAIMS).map(|(_, claim)| read(claim).unwrap()).collect(),
            volumes: of(VOLUMES).map(|(_, volume)| read(volume).unwrap()).collect(),
            classes: [
                class("standard", "monopod/local", "WaitForFirstConsumer", true),
                class("at-once", "monopod/local", "Immediate", false),
                class("by-hand", "kubernetes.io/no-provisioner", "Immediate", false),
                class("external", "example.com/disks", "Immediate", false),
            ]
            .into(),
            node: NodeView {
                name: "box".to_owned(),
                labels: [("kubernetes.io/hostname".to_owned(), "box".to_owned())].into(),
                ..NodeView::default()
            },
            used: self.used.iter().map(|name| ("shop".to_owned(), (*name).to_owned())).collect(),
            directory: "/data/volumes".into(),
        }
    }

    fn settle(&mut self) -> &mut Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for _ in 0..20 {
            let before = self.revision;
            for step in steps(&self.world(), now) {
                match step {
                    Step::Write(next) => self.take(next),
                    Step::MakeDirectory { path, next } => {
                        self.directories.push(format!("+{}", path.display()));
                        self.take(next);
                    }
                    Step::RemoveDirectory { path, next } => {
                        self.directories.push(format!("-{}", path.display()));
                        self.take(next);
                    }
                    Step::Say(said) if !self.said.contains(&said.reason()) => self.said.push(said.reason()),
                    Step::Say(_) => {}
                }
            }
            if self.revision == before {
                return self;
            }
        }
        panic!("it never comes to rest: {:#?}", self.objects);
    }

    fn take(&mut self, next: Next) {
        let present = self.objects.iter().find(|(key, _)| *key == next.key);
        let seen = present.map(|(_, object)| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
        assert_eq!(seen, next.seen, "two steps for {}", next.key);
        self.revision += 1;
        match next.object {
            Some(object) => self.put(object),
            None => self.objects.retain(|(key, _)| *key != next.key),
        }
    }

    fn get(&self, name: &str) -> &Value {
        let found = self.objects.iter().find(|(key, _)| key.name == name);
        found.map_or(&Value::Null, |(_, object)| object)
    }

    /// Phases of a claim and a volume.
    fn phases(&self, claim: &str, volume: &str) -> (&str, &str) {
        let phase = |name: &str| self.get(name)["status"]["phase"].as_str().unwrap_or("gone");
        (phase(claim), phase(volume))
    }

    fn delete(&mut self, name: &str) -> &mut Self {
        let mut object = self.get(name).clone();
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        self.put(object);
        self
    }
}

fn claim(name: &str, class: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    })
}

fn volume(name: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "capacity": {"storage": "2Gi"},
            "hostPath": {"path": "/srv"}, "persistentVolumeReclaimPolicy": policy,
        },
        "status": {"phase": "Pending"},
    })
}

const MADE: &str = "pvc-uid-data";

#[test]
fn a_claim_waits_for_its_first_pod_and_then_gets_a_directory() {
    let mut stage = Stage::new([claim("data", Some("standard"))]);
    stage.settle();
    assert_eq!((stage.phases("data", MADE), &stage.said[..]), (("Pending", "gone"), &["WaitForFirstConsumer"][..]));
    let mut wanted = stage.get("data").clone();
    wanted["metadata"]["annotations"] = json!({ SELECTED_NODE: "box" });
    stage.put(wanted);
    stage.settle();
    assert_eq!(stage.phases("data", MADE), ("Bound", "Bound"));
    assert_eq!(stage.directories, ["+/data/volumes/pvc-uid-data"]);
    assert_eq!(stage.said, ["WaitForFirstConsumer", "ProvisioningSucceeded"]);
    let (claim, volume) = (stage.get("data"), stage.get(MADE));
    assert_eq!((&claim["spec"]["volumeName"], &claim["status"]["capacity"]["storage"]), (&json!(MADE), &json!("1Gi")));
    let of_volume = &volume["spec"];
    assert_eq!(
        (&of_volume["claimRef"]["uid"], &of_volume["local"]["path"]),
        (&json!("uid-data"), &json!("/data/volumes/pvc-uid-data"))
    );
    assert_eq!(volume["metadata"]["annotations"][PROVISIONED_BY], "monopod/local");
    let read_back: PersistentVolume = read(volume).unwrap();
    assert!(spec::claims::is_of_node(&read_back, &stage.world().node));
}

#[test]
fn a_volume_made_here_goes_with_its_claim_once_no_pod_has_that() {
    let mut stage = Stage::new([claim("data", Some("at-once"))]);
    stage.settle();
    assert_eq!(stage.phases("data", MADE), ("Bound", "Bound"));
    stage.used = vec!["data"];
    stage.delete("data").settle();
    assert_eq!(stage.phases("data", MADE), ("Bound", "Bound"), "a Pod has it");
    stage.used.clear();
    stage.settle();
    assert_eq!(stage.phases("data", MADE), ("gone", "gone"));
    assert_eq!(stage.directories, ["+/data/volumes/pvc-uid-data", "-/data/volumes/pvc-uid-data"]);
}

#[test]
fn only_a_directory_that_was_made_here_is_removed() {
    for path in ["/etc", "/data/volumes/..", "/data/volumes/another"] {
        let mut stage = Stage::new([claim("data", Some("at-once"))]);
        stage.settle();
        let mut forged = stage.get(MADE).clone();
        forged["spec"]["local"]["path"] = path.into();
        stage.put(forged);
        stage.delete("data").settle();
        assert_eq!(stage.phases("data", MADE), ("gone", "gone"));
        assert_eq!(stage.directories, ["+/data/volumes/pvc-uid-data"], "{path}");
    }
}

#[test]
fn a_volume_of_a_person_stays_without_its_claim() {
    let mut stage = Stage::new([claim("data", Some("")), volume("disk", "Retain"), volume("larger", "Retain")]);
    let mut larger = stage.get("larger").clone();
    larger["spec"]["capacity"]["storage"] = "9Gi".into();
    stage.put(larger);
    stage.settle();
    assert_eq!(
        (stage.phases("data", "disk"), stage.phases("data", "larger")),
        (("Bound", "Bound"), ("Bound", "Available"))
    );
    // It is not taken from the claim, and is no other one's afterwards.
    stage.delete("disk").settle();
    assert_eq!(stage.phases("data", "disk"), ("Bound", "Bound"));
    stage.delete("data").settle();
    assert_eq!(stage.phases("data", "disk"), ("gone", "gone"), "it was to go");

    let mut stage = Stage::new([claim("data", Some("")), volume("disk", "Retain")]);
    stage.settle().delete("data").settle();
    stage.put(claim("next", Some("")));
    stage.settle();
    assert_eq!(stage.phases("next", "disk"), ("Pending", "Released"));
    assert_eq!(stage.said, ["FailedBinding"]);
}

#[test]
fn who_cannot_remove_a_volume_says_so() {
    for (policy, reason) in [("Delete", "VolumeFailedDelete"), ("Recycle", "VolumeFailedRecycle")] {
        let mut stage = Stage::new([claim("data", Some("")), volume("disk", policy)]);
        stage.settle().delete("data").settle();
        assert_eq!((stage.phases("data", "disk"), &stage.said[..]), (("gone", "Failed"), &[reason][..]));
        stage.delete("disk").settle();
        assert_eq!(stage.phases("data", "disk"), ("gone", "gone"));
    }
}

#[test]
fn two_claims_never_get_the_same_volume() {
    let claims = ["a", "b", "c"].map(|name| claim(name, Some("")));
    let mut stage = Stage::new(claims.into_iter().chain(["x", "y"].map(|name| volume(name, "Retain"))));
    stage.settle();
    let of = |name: &str| stage.get(name)["spec"]["volumeName"].as_str().unwrap_or("none").to_owned();
    let mut all = [of("a"), of("b"), of("c")];
    all.sort();
    assert_eq!(all, ["none", "x", "y"]);
}

#[test]
fn a_claim_that_names_its_volume_gets_it_or_hears_why_not() {
    let naming = |size: &str| {
        let mut claim = claim("data", Some(""));
        claim["spec"]["volumeName"] = "disk".into();
        claim["spec"]["resources"]["requests"]["storage"] = size.into();
        claim
    };
    let mut kept = volume("disk", "Retain");
    kept["spec"]["claimRef"] = json!({"namespace": "shop", "name": "another"});
    let cases = [
        (naming("1Gi"), volume("disk", "Retain"), ("Bound", "Bound"), None),
        (naming("3Gi"), volume("disk", "Retain"), ("Pending", "Available"), Some("VolumeMismatch")),
        (naming("1Gi"), kept, ("Pending", "Available"), Some("FailedBinding")),
    ];
    for (claim, volume, phases, reason) in cases {
        let mut stage = Stage::new([claim, volume]);
        stage.settle();
        assert_eq!((stage.phases("data", "disk"), stage.said.first().copied()), (phases, reason));
    }
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost() {
    let mut stage = Stage::new([claim("data", Some("at-once"))]);
    stage.settle();
    stage.objects.retain(|(key, _)| key.name != MADE);
    stage.settle();
    assert_eq!((stage.phases("data", MADE), stage.said.last().copied()), (("Lost", "gone"), Some("ClaimLost")));
}

#[test]
fn a_volume_made_here_grows_with_its_claim() {
    let mut stage = Stage::new([claim("data", Some("at-once"))]);
    stage.settle();
    let mut larger = stage.get("data").clone();
    larger["spec"]["resources"]["requests"]["storage"] = "5Gi".into();
    stage.put(larger);
    stage.settle();
    assert_eq!(stage.get("data")["status"]["capacity"]["storage"], "5Gi");
    assert_eq!(stage.get(MADE)["spec"]["capacity"]["storage"], "5Gi");
}

#[test]
fn who_makes_no_volume_is_named() {
    let with_selector = |mut claim: Value| {
        claim["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        claim
    };
    let raw = |mut claim: Value| {
        claim["spec"]["volumeMode"] = "Block".into();
        claim
    };
    let cases = [
        (claim("data", Some("none")), "ProvisioningFailed"),
        (claim("data", Some("by-hand")), "ProvisioningFailed"),
        (claim("data", Some("external")), "ExternalProvisioning"),
        (with_selector(claim("data", Some("at-once"))), "ProvisioningFailed"),
        (raw(claim("data", Some("at-once"))), "ProvisioningFailed"),
        (claim("data", None), "FailedBinding"),
    ];
    for (claim, reason) in cases {
        let mut stage = Stage::new([claim]);
        stage.settle();
        assert_eq!((stage.phases("data", MADE), &stage.said[..]), (("Pending", "gone"), &[reason][..]));
    }
    let mut stage = Stage::new([claim("data", Some("external"))]);
    stage.settle();
    let told: PersistentVolumeClaim = read(stage.get("data")).unwrap();
    assert!(spec::claims::is_annotated(&told.metadata, "volume.kubernetes.io/storage-provisioner"));
}
