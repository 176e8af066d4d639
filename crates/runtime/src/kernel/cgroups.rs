//! cgroups of Pods and containers, on v2, v1 and hybrid machines (cgroups(7), cgroup-v2.rst).
//!
//! `<parent>/<qos>/pod<uid>/<container>`, as the kubelet lays them out, and `<parent>/infra` for the infra processes, so
//! that a Pod's limits never stop its log writer (CVE-2019-14891).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use infra::protocol::CgroupMount;
use spec::ordered::set_of;
use spec::{ContainerId, PodUid};

use super::cgroup_base::find_base;
use super::cgroup_mounts::{Mounts, ShownMount, shown_tree};
use super::devices::{DeviceProgram, v1_rules};
use super::huge_pages::PageSizes;
use super::stuck::StuckProcesses;
use crate::config::{LinuxResources, PodSandboxConfig, QosClass};

/// v1 hierarchies that Pods get a cgroup in. Each costs a directory and a write at every start.
const V1_CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "hugetlb"];
/// And without any v2 hierarchy one more, for killing: there is no `cgroup.kill`.
const FREEZER: &str = "freezer";
/// v2 controllers that Pods get, as far as the machine has them.
const V2_CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "io", "hugetlb"];
const PERIOD_US: u64 = 100_000;
/// The kernel's least quota (`cpu.max` refuses less).
const LEAST_QUOTA_US: u64 = 1000;

/// An operation on a cgroup file failed.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {}", path.display())]
pub struct CgroupError {
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's word.
    #[source]
    pub source: io::Error,
}

/// A cgroup is still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoveCgroupError {
    #[error(transparent)]
    Refused(#[from] CgroupError),
    #[error("{0}")]
    Stuck(StuckProcesses),
}

/// The cgroup file systems of this machine and our place in them.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// Directory in the v2 mount; beside v1 it only serves to place and to kill.
    v2: Option<Place>,
    /// v2 carries the controllers.
    pure_v2: bool,
    v1: Vec<Hierarchy>,
    shown: Vec<ShownMount>,
    devices: DeviceProgram,
    page_sizes: PageSizes,
    /// What was written last for each class.
    weights: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug)]
struct Hierarchy {
    place: Place,
    controllers: Vec<String>,
}

/// Descriptors to be born in a cgroup with.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// v2 directory.
    pub(super) v2: Option<OwnedFd>,
    /// Open `tasks` files.
    pub(super) v1_tasks: Vec<OwnedFd>,
}

/// cgroup file systems as a container sees them, by name below `/sys/fs/cgroup`: detached mounts.
pub(super) type ShownTrees = Vec<(String, OwnedFd)>;

/// A cgroup file system, and our directory in it.
#[derive(Debug)]
struct Place {
    mount: PathBuf,
    root: PathBuf,
}

impl Place {
    fn at(&self, path: &CgroupPath) -> PathBuf {
        self.above(path).join(&path.path)
    }

    /// What the path starts from.
    fn above(&self, path: &CgroupPath) -> &PathBuf {
        if path.ours { &self.root } else { &self.mount }
    }
}

/// A cgroup, by its path below our parent, or from the root where somebody else made the one above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupPath {
    path: PathBuf,
    ours: bool,
}

/// What is known of a cgroup's limits before they are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It is new, and the kernel limits nothing.
    Unlimited,
    Unknown,
}

/// What a cgroup is of: the kubelet sets those of Pods, the runtime those of containers, and they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// The Pod; processes are in its containers alone.
    Pod,
    /// A container. The kernel's OOM killer ends all of it at once, and none of it is swapped out (the kubelet's
    /// `singleProcessOOMKill: false` and `swapBehavior: NoSwap`, both the default).
    Container,
}

fn class_directory(class: QosClass) -> &'static str {
    match class {
        QosClass::Guaranteed => "",
        QosClass::Burstable => "burstable",
        QosClass::BestEffort => "besteffort",
    }
}

impl CgroupPath {
    pub(super) fn infra() -> Self {
        Self::below_ours("infra")
    }

    fn below_ours(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ours: true }
    }

    /// The Pod's, ours or its maker's.
    pub(super) fn of(config: &PodSandboxConfig) -> Self {
        match &config.cgroup {
            None => Self::pod(config.qos, &config.uid),
            Some(path) => {
                let names = path.components().filter(|component| matches!(component, Component::Normal(_)));
                Self { path: names.collect(), ours: false }
            }
        }
    }

    /// Whether it was made by us, and goes with us.
    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    pub(super) fn pod(qos: QosClass, uid: &PodUid) -> Self {
        Self::below_ours(Path::new(class_directory(qos)).join(format!("pod{uid}")))
    }

    pub(super) fn container(&self, id: &ContainerId) -> Self {
        Self { path: self.path.join(id.as_str()), ours: self.ours }
    }
}

impl Cgroups {
    /// Finds the mounts and makes our parent directory in each.
    pub(super) fn open(parent: &str) -> Result<Self, CgroupError> {
        let found = Mounts::read()?;
        let pure_v2 = found.v1.is_empty();
        let v2 = match found.v2 {
            Some(mount) if pure_v2 => {
                let root = mount.join(find_base(&mount, parent)?).join(parent);
                Some(Place { mount, root })
            }
            beside => beside.map(|mount| Place { root: mount.join(parent), mount }),
        };
        let wanted = |name: &str| V1_CONTROLLERS.contains(&name) || (name == FREEZER && v2.is_none());
        let v1 = found
            .v1
            .into_iter()
            .filter(|(_, controllers)| controllers.iter().any(|name| wanted(name)))
            .map(|(mount, controllers)| Hierarchy { place: Place { root: mount.join(parent), mount }, controllers })
            .collect();
        let cgroups = Self {
            v2,
            pure_v2,
            v1,
            shown: found.shown,
            devices: DeviceProgram::default(),
            page_sizes: PageSizes::of_machine(),
            weights: Mutex::default(),
        };
        for place in cgroups.places() {
            create_directory(&place.root)?;
        }
        if pure_v2 && let Some(Place { root, .. }) = &cgroups.v2 {
            if let Some(above) = root.parent() {
                enable_controllers(above)?;
            }
            enable_controllers(root)?;
        }
        cgroups.create(&CgroupPath::infra())?;
        Ok(cgroups)
    }

    /// What containers are shown below `/sys/fs/cgroup`.
    pub(super) fn mounts(&self) -> Vec<CgroupMount> {
        self.shown.iter().map(|shown| shown.mount.clone()).collect()
    }

    /// The same for one whose cgroup is there. What cannot be cloned is left for infra to mount.
    pub(super) fn shown_to(&self, path: &CgroupPath) -> ShownTrees {
        let tree = |shown: &ShownMount| {
            let place = self.places().find(|place| place.mount == shown.point);
            let directory = place.map(|place| place.at(path)).or_else(|| shown.inherited.clone())?;
            Some((shown.name().to_owned(), shown_tree(&directory).ok()?))
        };
        self.shown.iter().filter_map(tree).collect()
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.v2.iter().chain(self.v1.iter().map(|hierarchy| &hierarchy.place))
    }

    /// Makes a cgroup and those above it, and limits it.
    pub(super) fn create_limited(
        &self,
        path: &CgroupPath,
        resources: &LinuxResources,
        unit: Unit,
    ) -> Result<(), CgroupError> {
        let before = self.create(path)?;
        self.set_limits(path, resources, unit, before)
    }

    /// Makes a cgroup and those above it.
    pub(super) fn create(&self, path: &CgroupPath) -> Result<Before, CgroupError> {
        let mut before = Before::Unlimited;
        for place in self.places() {
            // Mostly what is above is there, and has its controllers enabled.
            let leaf = place.at(path);
            match fs::create_dir(&leaf) {
                Ok(()) if self.has_controllers(&leaf) => continue,
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => before = Before::Unknown,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError { path: leaf, source }),
            }
            let start = place.above(path);
            let mut directory = start.clone();
            for name in &path.path {
                if self.pure_v2 && directory != *start {
                    enable_controllers(&directory)?;
                }
                directory.push(name);
                create_directory(&directory)?;
            }
        }
        Ok(before)
    }

    /// Where no controller is to be enabled, all are.
    fn has_controllers(&self, directory: &Path) -> bool {
        let Some(Place { root, .. }) = self.v2.as_ref().filter(|_| self.pure_v2) else { return true };
        let list = |directory: &Path| fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let (present, possible) = (list(directory), list(root));
        let mut wanted = possible.split_whitespace().filter(|name| V2_CONTROLLERS.contains(name));
        wanted.all(|name| present.split_whitespace().any(|listed| listed == name))
    }

    /// Opens what a process needs to be born in a cgroup.
    pub(super) fn placement(&self, path: &CgroupPath) -> Result<Placement, CgroupError> {
        let mut placement = Placement::default();
        if let Some(place) = &self.v2 {
            let directory = place.at(path);
            placement.v2 =
                Some(File::open(&directory).map_err(|source| CgroupError { path: directory, source })?.into());
        }
        for hierarchy in &self.v1 {
            let tasks = hierarchy.place.at(path).join("tasks");
            let file = OpenOptions::new().write(true).open(&tasks);
            placement.v1_tasks.push(file.map_err(|source| CgroupError { path: tasks, source })?.into());
        }
        Ok(placement)
    }

    /// Sets limits.
    pub(super) fn limit(&self, path: &CgroupPath, resources: &LinuxResources, unit: Unit) -> Result<(), CgroupError> {
        self.set_limits(path, resources, unit, Before::Unknown)
    }

    /// Sets limits, where something is known of those before.
    pub(super) fn set_limits(
        &self,
        path: &CgroupPath,
        resources: &LinuxResources,
        unit: Unit,
        before: Before,
    ) -> Result<(), CgroupError> {
        if self.pure_v2
            && let Some(place) = &self.v2
        {
            let directory = place.at(path);
            limit_v2(&directory, resources, unit, before)?;
            return self.page_sizes.limit_v2(&directory, &resources.huge_pages);
        }
        for hierarchy in &self.v1 {
            limit_v1(&hierarchy.place.at(path), &hierarchy.controllers, resources, before)?;
        }
        match self.v1_directory("hugetlb", path) {
            Some(directory) => self.page_sizes.limit_v1(&directory, &resources.huge_pages),
            None => Ok(()),
        }
    }

    /// Gives a class of Pods the processor time that its Pods ask for, or the least there is.
    pub(super) fn weigh(&self, class: QosClass, cpu_request_millis: Option<u64>) -> Result<(), CgroupError> {
        let name = class_directory(class);
        if name.is_empty() {
            // Guaranteed Pods stand beside the classes, each with its own.
            return Ok(());
        }
        let shares = shares(cpu_request_millis);
        let mut weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        if weights.get(name) == Some(&shares) {
            return Ok(());
        }
        let (file, value) = match (&self.v2, self.hierarchy("cpu")) {
            (Some(Place { root, .. }), _) if self.pure_v2 => (root.join(name).join("cpu.weight"), pod_weight(shares)),
            (_, Some(Place { root, .. })) => (root.join(name).join("cpu.shares"), shares),
            (_, None) => return Ok(()),
        };
        match write(&file, &value.to_string()) {
            // No Pod of the class is there, or the kernel has no such thing.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done?,
        }
        weights.insert(name, shares);
        Ok(())
    }

    /// Lets what runs in a cgroup open only the default devices.
    pub(super) fn restrict_devices(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        if let Some(place) = self.hierarchy("devices") {
            let directory = place.at(path);
            return v1_rules().iter().try_for_each(|(file, rule)| match write(&directory.join(file), rule) {
                // What is above us allows less than the default list.
                Err(error) if *file == "devices.allow" && error.source.kind() == io::ErrorKind::PermissionDenied => {
                    Ok(())
                }
                done => done,
            });
        }
        let Some(place) = &self.v2 else { return Ok(()) };
        let directory = place.at(path);
        let opened = File::open(&directory).and_then(|opened| self.devices.enforce(opened));
        opened.map_err(|source| CgroupError { path: directory, source })
    }

    /// How many processes of this very cgroup the kernel has killed for lack of memory.
    pub(super) fn oom_kills(&self, path: &CgroupPath) -> u64 {
        let counter = if self.pure_v2 {
            self.v2.as_ref().map(|place| place.at(path).join("memory.events.local"))
        } else {
            self.hierarchy("memory").map(|place| place.at(path).join("memory.oom_control"))
        };
        counter.and_then(|file| fs::read_to_string(file).ok()).map_or(0, |text| {
            text.lines()
                .find_map(|line| line.strip_prefix("oom_kill "))
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or(0)
        })
    }

    /// Its directory where v2 carries the controllers.
    pub(super) fn v2_directory(&self, path: &CgroupPath) -> Option<PathBuf> {
        self.v2.as_ref().filter(|_| self.pure_v2).map(|place| place.at(path))
    }

    /// Its directory in the v1 hierarchy of a controller.
    pub(super) fn v1_directory(&self, controller: &str, path: &CgroupPath) -> Option<PathBuf> {
        self.hierarchy(controller).map(|place| place.at(path))
    }

    fn hierarchy(&self, controller: &str) -> Option<&Place> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller)).map(|h| &h.place)
    }

    /// Kills every process in a cgroup and below it.
    pub(super) fn kill(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        if let Some(place) = &self.v2 {
            let directory = place.at(path);
            if directory.exists() {
                // cgroup.kill works in a hybrid machine's v2 mount too, which has no controllers (Linux 5.14).
                return write(&directory.join("cgroup.kill"), "1");
            }
        }
        // Frozen, nobody forks on while the list is read; what was just being born is for the caller's next round.
        let freezer = self.v1_directory(FREEZER, path).filter(|directory| directory.exists());
        let freezer = freezer.map(|directory| directory.join("freezer.state"));
        if let Some(state) = &freezer {
            write_if_present(state, "FROZEN")?;
        }
        for hierarchy in &self.v1 {
            kill_listed(&hierarchy.place.at(path));
        }
        match &freezer {
            // A signal reaches a frozen process when it is thawed (cgroup-v1/freezer-subsystem.rst).
            Some(state) => write_if_present(state, "THAWED"),
            None => Ok(()),
        }
    }

    /// What is still in a cgroup and below it, though it was killed.
    pub(super) fn stuck(&self, path: &CgroupPath) -> StuckProcesses {
        let pids = self.places().flat_map(|place| listed(&place.at(path)));
        StuckProcesses::look(pids)
    }

    /// Whether no process is left in a cgroup and below it.
    pub(super) fn is_empty(&self, path: &CgroupPath) -> bool {
        let v2_empty = self.v2.as_ref().is_none_or(|place| {
            fs::read_to_string(place.at(path).join("cgroup.events"))
                .map_or(true, |events| events.lines().any(|line| line == "populated 0"))
        });
        v2_empty && self.v1.iter().all(|hierarchy| listed(&hierarchy.place.at(path)).is_empty())
    }

    /// Removes a cgroup and those below it, in which nothing is.
    pub(super) fn remove_empty(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        self.places().map(|place| remove_tree(&place.at(path))).fold(Ok(()), Result::and)
    }

    /// Kills what is in a cgroup, waits until it is empty, and removes it and those below it.
    pub(super) async fn remove(&self, path: &CgroupPath) -> Result<(), RemoveCgroupError> {
        // Processes that a signal cannot end now (uninterruptible sleep) are left for a later call.
        let mut pause = Duration::from_millis(1);
        loop {
            // Mostly nothing is in it, and the kernel says so where something is.
            match self.remove_empty(path) {
                Err(error) if is_busy(&error) && pause < Duration::from_secs(4) => {
                    self.kill(path)?;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) if is_busy(&error) => return Err(RemoveCgroupError::Stuck(self.stuck(path))),
                done => return Ok(done?),
            }
        }
    }

    /// Pods' cgroups that exist, for those that nobody knows any more to be removed.
    pub(super) fn pods(&self) -> Vec<(CgroupPath, PodUid)> {
        let mut pods: Vec<(CgroupPath, PodUid)> = Vec::new();
        for Place { root, .. } in self.places() {
            for parent in ["", "burstable", "besteffort"] {
                for name in subdirectories(&root.join(parent)) {
                    if let Some(uid) = name.strip_prefix("pod") {
                        let path = CgroupPath::below_ours(Path::new(parent).join(&name));
                        if !pods.iter().any(|(known, _)| *known == path) {
                            pods.push((path, PodUid::new(uid)));
                        }
                    }
                }
            }
        }
        pods
    }

    /// Containers' cgroups in a Pod's.
    pub(super) fn containers(&self, pod: &CgroupPath) -> Vec<ContainerId> {
        let names = self.places().flat_map(|place| subdirectories(&place.at(pod)));
        set_of(names.map(ContainerId::new)).into_iter().collect()
    }

    /// Removes everything of ours, for `monopod reset`.
    pub(super) async fn remove_all(&self) -> Result<(), RemoveCgroupError> {
        self.remove(&CgroupPath::below_ours("")).await
    }
}

fn enable_controllers(directory: &Path) -> Result<(), CgroupError> {
    let available = read(&directory.join("cgroup.controllers"))?;
    let enabled = read(&directory.join("cgroup.subtree_control"))?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|listed| listed == name);
    for controller in V2_CONTROLLERS {
        if has(&available, controller) && !has(&enabled, controller) {
            write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// Shares from a cpu request, as the kubelet computes them.
fn shares(millis: Option<u64>) -> u64 {
    (millis.unwrap_or(0) * 1024 / 1000).clamp(2, 262_144)
}

/// `cpu.weight` from shares by the curve that runc 1.3.2 and crun 1.23 use: 2 gives 1, 1024 gives 100, 262144 gives 10000.
fn weight(shares: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "shares are at most 2^18")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=10000 right after")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// The same for Pods and their classes, by the line that the kubelet draws (`getCPUWeight` in pkg/kubelet/cm).
fn pod_weight(shares: u64) -> u64 {
    if shares >= 262_144 { 10_000 } else { 1 + shares.saturating_sub(2) * 9999 / 262_142 }
}

fn quota(millis: u64) -> u64 {
    (millis * PERIOD_US / 1000).max(LEAST_QUOTA_US)
}

fn limit_v2(directory: &Path, resources: &LinuxResources, unit: Unit, before: Before) -> Result<(), CgroupError> {
    let shares = shares(resources.cpu_request_millis);
    let weight = match unit {
        Unit::Pod => pod_weight(shares),
        Unit::Container => weight(shares),
    };
    write_if_present(&directory.join("cpu.weight"), &weight.to_string())?;
    let quota = resources.cpu_limit_millis.map(|millis| format!("{} {PERIOD_US}", quota(millis)));
    let number = |limit: Option<u64>| limit.map(|limit| limit.to_string());
    let maximum = |file: &str, limit: Option<String>, unlimited: &str| match limit {
        None if before == Before::Unlimited => Ok(()),
        limit => write_if_present(&directory.join(file), limit.as_deref().unwrap_or(unlimited)),
    };
    maximum("cpu.max", quota, &format!("max {PERIOD_US}"))?;
    maximum("memory.max", number(resources.memory_limit_bytes), "max")?;
    if unit == Unit::Container {
        write_if_present(&directory.join("memory.swap.max"), "0")?;
        write_if_present(&directory.join("memory.oom.group"), "1")?;
    }
    maximum("pids.max", number(resources.pids_limit), "max")
}

fn limit_v1(
    directory: &Path,
    controllers: &[String],
    resources: &LinuxResources,
    before: Before,
) -> Result<(), CgroupError> {
    let is_so_already = |limit: Option<u64>| before == Before::Unlimited && limit.is_none();
    for controller in controllers {
        match controller.as_str() {
            "cpu" => {
                write(&directory.join("cpu.shares"), &shares(resources.cpu_request_millis).to_string())?;
                if is_so_already(resources.cpu_limit_millis) {
                    continue;
                }
                write_if_present(&directory.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                let quota = resources.cpu_limit_millis.map_or("-1".to_owned(), |millis| quota(millis).to_string());
                write_if_present(&directory.join("cpu.cfs_quota_us"), &quota)?;
            }
            "memory" if !is_so_already(resources.memory_limit_bytes) => {
                limit_memory_v1(directory, resources.memory_limit_bytes)?;
            }
            "pids" if !is_so_already(resources.pids_limit) => {
                let limit = resources.pids_limit.map_or("max".to_owned(), |limit| limit.to_string());
                write(&directory.join("pids.max"), &limit)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Memory and swap together must stay above memory alone at every moment, so the order depends on the direction.
fn limit_memory_v1(directory: &Path, limit: Option<u64>) -> Result<(), CgroupError> {
    let value = limit.map_or("-1".to_owned(), |limit| limit.to_string());
    let (memory, both) = (directory.join("memory.limit_in_bytes"), directory.join("memory.memsw.limit_in_bytes"));
    let raised = both.exists().then(|| write(&both, &value)).is_some_and(|raised| raised.is_ok());
    write(&memory, &value)?;
    if raised { Ok(()) } else { write_if_present(&both, &value) }
}

pub(super) fn create_directory(directory: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError { path: directory.to_owned(), source })
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

/// What is gone already is removed. Only where the kernel refuses is there anything below it to be looked for.
fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    if remove_if_present(directory).is_ok() {
        return Ok(());
    }
    for name in subdirectories(directory) {
        remove_tree(&directory.join(name))?;
    }
    remove_if_present(directory).map_err(|source| CgroupError { path: directory.to_owned(), source })
}

fn remove_if_present(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn is_busy(error: &CgroupError) -> bool {
    error.source.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error())
}

pub(super) fn subdirectories(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Processes of a v1 cgroup and of those below it.
fn listed(directory: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(directory.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for name in subdirectories(directory) {
        pids.extend(listed(&directory.join(name)));
    }
    pids
}

/// Pure v1 has no cgroup.kill: signals all that are listed. The caller repeats until none is left.
fn kill_listed(directory: &Path) {
    for pid in listed(directory).into_iter().filter_map(rustix::process::Pid::from_raw) {
        // A number may be reused between reading and opening; opened, it is checked to be still listed.
        if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            && listed(directory).contains(&pid.as_raw_nonzero().get())
        {
            // It may have ended meanwhile, which is what we want.
            drop(sys::signal::pidfd_send(&pidfd, 9));
        }
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError { path: path.to_owned(), source })
}

pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| CgroupError { path: path.to_owned(), source })
}

/// A machine may lack a controller, or a kernel an option of it.
pub(super) fn write_if_present(path: &Path, value: &str) -> Result<(), CgroupError> {
    match write(path, value) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_curve_of_the_runtimes() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (102, 17)] {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
        for (shares, expected) in [(2, 1), (102, 4), (1024, 39), (262_143, 9999), (262_144, 10_000)] {
            assert_eq!(pod_weight(shares), expected, "{shares} shares of a Pod");
        }
        assert_eq!((shares(None), shares(Some(1)), shares(Some(100)), shares(Some(2000))), (2, 2, 102, 2048));
        assert_eq!((quota(500), quota(1)), (50_000, 1000));
    }
}
