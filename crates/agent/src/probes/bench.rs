//! What probes cost: `cargo test --release -p monopod-agent probes::bench -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use runtime::fake::FakeRuntime;
use runtime::{ContainerState, ContainerStatus, Runtime};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::sync::Notify;

use super::{PodProbes, ProbeContext};
use crate::clock::{Clock, SystemClock};
use crate::desired::DesiredPod;
use crate::events::EventRecorder;
use crate::testing::{desired_pod, named_pod};

const PODS: usize = 1000;
const MEASURED: Duration = Duration::from_secs(30);

/// A web server on a thread of its own, whose CPU time is not counted.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            drop(stream.read(&mut head));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        }
    });
    port
}

fn probed_pod(number: usize, port: u16) -> DesiredPod {
    let spec = json!({ "containers": [{
        "name": "app", "image": "app:1",
        "readinessProbe": { "httpGet": { "host": "127.0.0.1", "port": port }, "periodSeconds": 10 },
    }] });
    desired_pod(&named_pod(&format!("web{number}"), &format!("u{number}"), &spec))
}

fn running(desired: &DesiredPod, now: spec::Timestamp) -> ContainerStatus {
    ContainerStatus {
        id: spec::ContainerId::random(),
        sandbox_id: spec::SandboxId::random(),
        pod_uid: desired.uid.clone(),
        name: spec::ContainerName::new("app"),
        attempt: 0,
        image_ref: "app:1".to_owned(),
        image_id: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        labels: BTreeMap::new(),
        created_at: now,
        log_path: std::path::PathBuf::new(),
        resources: runtime::LinuxResources::default(),
        user: None,
        stop_signal: "SIGTERM".to_owned(),
        // Long before this daemon, so that the probes spread over their period.
        state: ContainerState::Running { started_at: now - Duration::from_hours(1) },
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "it measures for half a minute"]
async fn a_thousand_pods_with_http_probes_each_ten_seconds() {
    let port = server();
    let directory = tempfile::tempdir().unwrap();
    let store = store::Store::open(directory.path()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.wall();
    let (events, _writer) = EventRecorder::start(store, clock, "edge".to_owned(), Duration::ZERO);
    let runtime: Arc<dyn Runtime> = Arc::new(FakeRuntime::new("/nonexistent", move || now));
    let wake = Arc::new(Notify::new());
    let context =
        ProbeContext { runtime: &runtime, events: &events, wake: &wake, now, daemon_started: now, address: None };
    let before = resident_kilobytes();
    let mut all = Vec::new();
    for number in 0..PODS {
        let desired = probed_pod(number, port);
        let run = running(&desired, now);
        let mut probes = PodProbes::default();
        probes.see(&desired, std::slice::from_ref(&run));
        probes.probe(&desired, &desired.app_containers()[0], &run, false, &context);
        all.push((probes, desired.app_containers()[0].clone(), run));
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    let ready = all.iter().filter(|(probes, container, run)| probes.health(container, &run.id).ready).count();
    assert_eq!(ready, PODS);
    let began = cpu_time();
    tokio::time::sleep(MEASURED).await;
    let used = cpu_time().saturating_sub(began);
    eprintln!(
        "{PODS} pods, one httpGet each 10 s: {:.2} % of a core ({} µs a probe), {} KiB more memory",
        used.as_secs_f64() / MEASURED.as_secs_f64() * 100.0,
        used.as_micros() / (PODS as u128 * u128::from(MEASURED.as_secs()) / 10),
        resident_kilobytes() - before,
    );
}
