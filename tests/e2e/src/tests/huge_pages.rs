//! Huge pages: set aside for a moment, limited by hugetlb, handed out as volumes. Where the machine's hierarchies have no
//! hugetlb of their own, the node gets one for itself.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::node::container;
use e2e::{Finished, TestNode};

tests! { huge_pages_are_counted_mounted_and_limited }

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Pages for the test, of 2 MiB.
const PAGES: u64 = 4;

/// Pages more than there were; given back when dropped.
struct SetAside {
    before: u64,
}

impl SetAside {
    fn take() -> Self {
        let before = read_number(POOL);
        let set_aside = Self { before };
        // A machine that has run for long finds them once its memory is compacted (vm.rst, `compact_memory`).
        e2e::eventually(e2e::limit(20), "there are huge pages", || {
            fs::write(POOL, (before + PAGES).to_string()).unwrap();
            if read_number(POOL) == before + PAGES {
                return Ok(());
            }
            fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
            Err("memory is too fragmented for huge pages".to_owned())
        });
        set_aside
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        fs::write(POOL, self.before.to_string()).unwrap();
    }
}

fn read_number(path: impl AsRef<Path>) -> u64 {
    fs::read_to_string(path.as_ref()).unwrap().trim().parse().unwrap()
}

/// A v1 hierarchy of hugetlb in the node's own mount namespace, unless a hierarchy of the machine has it in use.
fn own_hierarchy(node: &TestNode) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let pure_v2 = !mounts.lines().any(|line| line.contains(" - cgroup ") && !line.contains("name="));
    if pure_v2 || mounts.lines().any(|line| line.contains(" - cgroup ") && line.contains("hugetlb")) {
        return None;
    }
    let directory = node.path("hugetlb");
    fs::create_dir(&directory).unwrap();
    let target = directory.to_str().unwrap();
    Finished::run(&mut node.inside("mount", &["-t", "cgroup", "-o", "hugetlb", "hugetlb", target]), b"").ok();
    Some(directory)
}

/// Removes what the daemon made in it, and it ends with its mount.
fn end_hierarchy(node: &TestNode, directory: &Path) {
    let target = directory.to_str().unwrap();
    let remove = ["-mindepth", "1", "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"];
    Finished::run(&mut node.inside("find", &[&[target][..], &remove].concat()), b"").ok();
    Finished::run(&mut node.inside("umount", &[target]), b"").ok();
}

fn manifest(name: &str, limits: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 1,
        volumes: [{{name: huge, emptyDir: {{medium: HugePages}}}}],
        containers: [{{name: main, image: 'busybox:stable', command: [sleep, '1000'],
        resources: {{limits: {{memory: 32Mi, cpu: 100m, {limits}}}}}, volumeMounts: [{{name: huge, mountPath: /huge}}]}}{more}]}}}}"
    )
}

fn huge_pages_are_counted_mounted_and_limited(node: &mut TestNode) {
    let _pages = SetAside::take();
    node.stop_daemon();
    let hierarchy = own_hierarchy(node);
    node.start_daemon();
    let listed = node.api().get("/api/v1/nodes")["items"][0].clone();
    let pool = format!("{}Mi", read_number(POOL) * 2);
    assert_eq!(listed["status"]["capacity"]["hugepages-2Mi"], pool.as_str());
    assert_eq!(listed["status"]["allocatable"]["hugepages-2Mi"], pool.as_str());
    // Two pages are one's own; the neighbour in the Pod asked for none and may use none.
    let beside = ", {name: beside, image: 'busybox:stable', command: [sleep, '1000'],
        volumeMounts: [{name: huge, mountPath: /huge}]}";
    node.run_text(&manifest("huge", "hugepages-2Mi: 4Mi", beside), "huge");
    assert_eq!(node.exec("huge", "main", &["sh", "-c", "grep /huge /proc/mounts | grep -c pagesize=2M"]), "1\n");
    node.exec("huge", "main", &["fallocate", "-l", "4194304", "/huge/own"]);
    assert_eq!(node.exec("huge", "beside", &["stat", "-c", "%s", "/huge/own"]), "4194304\n", "it is one volume");
    for (name, file) in [("main", "/huge/more"), ("beside", "/huge/none")] {
        let refused = node.try_exec("huge", name, &["fallocate", "-l", "2097152", file]);
        assert_ne!(refused.code, 0, "{name} has got a page beyond its limit");
    }
    // Admission counts them: what is left does not do for as much again as there is.
    node.apply_text(&manifest("greedy", &format!("hugepages-2Mi: {pool}"), "")).ok();
    let waiting = node.wait_for("greedy", "it waits for room", |pod| {
        pod["status"]["conditions"].as_array().into_iter().flatten().any(|one| {
            one["type"] == "PodScheduled" && one["message"].as_str().is_some_and(|text| text.contains("hugepages-2Mi"))
        })
    });
    assert_eq!(waiting["status"]["phase"], "Pending");
    node.delete_pod("huge");
    node.wait_ready("greedy");
    assert_eq!(container(&node.pod("greedy"), "main")["restartCount"], 0);
    node.delete_pod("greedy");
    // A volume of pages that no container asks for waits, and says so.
    node.apply_text(&manifest("unasked", "ephemeral-storage: 1Mi", "")).ok();
    e2e::eventually(e2e::limit(20), "it is told", || {
        let told = node.monopod(&["describe", "pod", "unasked"]).ok();
        if told.contains("there is no resource request for huge pages") { Ok(()) } else { Err(told) }
    });
    node.delete_pod("unasked");
    node.stop_daemon();
    if let Some(directory) = hierarchy {
        end_hierarchy(node, &directory);
    }
    node.start_daemon();
}
