//! Many cycles: what leaks a little each time shows.

use e2e::TestNode;
use e2e::leaks::{self, Snapshot};

tests! { twenty_cycles_leave_nothing; long: two_hundred_cycles_leave_nothing }

fn twenty_cycles_leave_nothing(node: &mut TestNode) {
    cycles(node, 20);
}

fn two_hundred_cycles_leave_nothing(node: &mut TestNode) {
    cycles(node, 200);
}

/// Create, exec, delete; every tenth time all of the node is looked at.
fn cycles(node: &mut TestNode, count: u32) {
    let before = Snapshot::settled(node);
    for cycle in 1..=count {
        node.run_ready("empty-dir");
        // It runs before it has written.
        let wait = "until [ -s /disk/file ]; do sleep 0.01; done; cat /disk/file";
        assert_eq!(node.exec("empty-dir", "writer", &["sh", "-c", wait]), "1\n", "cycle {cycle}");
        node.delete_pod("empty-dir");
        if cycle % 10 == 0 {
            leaks::check(node, &before);
            node.start_daemon();
        }
    }
}
