//! Streams of a running container as kubectl opens them: exec, cp by exec, and port-forward, each over a WebSocket.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use e2e::TestNode;
use serde_json::{Value, json};

use crate::material::Lines;
use crate::monopod::since_epoch;
use crate::report::{Engine, Report};
use crate::websocket::{CHUNK, WebSocket};
use crate::{memory, works};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STATUS: u8 = 3;
const END_OF: u8 = 255;
/// Of port-forward, with one port.
const DATA: u8 = 0;

const POD: &str = "streams";
const PORT: u16 = 8080;
/// Streams of each kind that nobody reads, at once.
const STALLED: u32 = 8;

/// `exec POD -- true` on a connection of its own: until the client knows how it ended, and until infra saw its execve(2)
/// succeed, which is the stamp of a container's start, too.
pub fn exec(node: &TestNode, pod: &str, report: &mut Report) {
    let (begin, wall) = (Instant::now(), SystemTime::now());
    let mut socket = open_exec(node, pod, &["true"], false);
    finish(&mut socket);
    report.add_time(works::EXEC, Engine::Monopod, begin.elapsed());
    let steps = node.api().get(&format!("/monopod/v1/namespaces/default/pods/{pod}/steps"));
    let started = steps["steps"].as_array().unwrap().iter().rev().find(|step| step["name"] == "start its program");
    let at = started.unwrap_or_else(|| panic!("no step of an exec: {steps}"))["to"].as_u64().unwrap();
    let until_begun = Duration::from_nanos(at).saturating_sub(since_epoch(wall));
    report.add_time(works::EXEC_BEGUN, Engine::Monopod, until_begun);
}

/// All of the lines through each kind of stream.
pub fn measure(node: &TestNode, lines: &Lines, report: &mut Report) {
    node.run_text(&pod(lines.directory()).to_string(), POD);
    let mut timed = |work: String, stream: &dyn Fn()| {
        let begin = Instant::now();
        stream();
        report.add_time(&work, Engine::Monopod, begin.elapsed());
    };
    timed(works::exec_output(lines.megabytes), &|| take(node, &["cat", "/data/lines"], lines.bytes()));
    timed(works::forward(lines.megabytes), &|| forward(node, lines.bytes()));
    let pack = ["tar", "cf", "-", "-C", "/data", "lines"];
    timed(works::copy_out(lines.megabytes), &|| take(node, &pack, lines.bytes()));
    let unpack = ["tar", "xmf", "-", "-C", "/scratch"];
    timed(works::copy_in(lines.megabytes), &|| give(node, &unpack, &lines.archive()));
    node.delete_pod(POD);
}

/// What a stream costs the daemon that nobody reads: by how much it grows for some of both kinds, once it has read what it will.
pub fn stalled(node: &TestNode, lines: &Lines, report: &mut Report) {
    node.run_text(&pod(lines.directory()).to_string(), POD);
    let resident = || f64::from(u32::try_from(memory::resident(node.daemon_pid())).unwrap());
    let before = resident();
    let pairs: Vec<[WebSocket; 2]> =
        (0..STALLED).map(|_| [open_exec(node, POD, &["cat", "/data/lines"], false), open_forward(node)]).collect();
    std::thread::sleep(Duration::from_secs(2));
    report.add(works::STALLED, "kB", Engine::Monopod, (resident() - before) / f64::from(2 * STALLED));
    drop(pairs);
    node.delete_pod(POD);
}

/// A program's output to its end.
fn take(node: &TestNode, command: &[&str], least: usize) {
    let mut socket = open_exec(node, POD, command, false);
    let bytes = finish(&mut socket);
    assert!(bytes >= least, "{command:?} gave {bytes} bytes of {least}");
}

/// A file as a program's input, until it has ended.
fn give(node: &TestNode, command: &[&str], file: &Path) {
    let mut socket = open_exec(node, POD, command, true);
    let (mut file, mut chunk) = (File::open(file).unwrap(), vec![0; CHUNK]);
    loop {
        let read = file.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        socket.send(STDIN, &chunk[..read]);
    }
    socket.send(END_OF, &[STDIN]);
    finish(&mut socket);
}

fn open_exec(node: &TestNode, pod: &str, command: &[&str], stdin: bool) -> WebSocket {
    let words = command.join("&command=");
    let path =
        format!("/api/v1/namespaces/default/pods/{pod}/exec?stdin={stdin}&stdout=true&stderr=true&command={words}");
    WebSocket::open(&node.socket(), &path, "v5.channel.k8s.io")
}

/// Reads until the Status, which must be that of success. How many bytes of output came.
fn finish(socket: &mut WebSocket) -> usize {
    let mut bytes = 0;
    while let Some((channel, data)) = socket.message() {
        match channel {
            STDOUT => bytes += data.len(),
            STATUS => {
                let status: Value = serde_json::from_slice(data).unwrap();
                assert_eq!(status["status"], "Success", "{status}");
                return bytes;
            }
            _ => assert!(data.is_empty(), "{}", String::from_utf8_lossy(data)),
        }
    }
    panic!("the daemon closed an exec without its status");
}

/// A file of the Pod's web server, by one connection.
fn forward(node: &TestNode, least: usize) {
    let mut socket = open_forward(node);
    let mut bytes = 0;
    while bytes < least {
        let (channel, data) = socket.message().unwrap();
        assert_eq!(channel, DATA, "{}", String::from_utf8_lossy(data));
        bytes += data.len();
    }
}

fn open_forward(node: &TestNode) -> WebSocket {
    let path = format!("/api/v1/namespaces/default/pods/{POD}/portforward?ports={PORT}");
    let mut socket = WebSocket::open(&node.socket(), &path, "v4.channel.k8s.io");
    // Both channels of a port begin with its number.
    for channel in [DATA, DATA + 1] {
        assert_eq!(socket.message(), Some((channel, &PORT.to_le_bytes()[..])));
    }
    socket.send(DATA, b"GET /lines HTTP/1.0\r\n\r\n");
    socket
}

/// A container that serves the lines, with a directory of its own to write to.
fn pod(lines: &Path) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "busybox:stable",
                "command": ["httpd", "-f", "-p", PORT.to_string(), "-h", "/data"],
                "resources": {"requests": {"cpu": "1"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true},
                    {"name": "scratch", "mountPath": "/scratch"}]}],
            "volumes": [{"name": "data", "hostPath": {"path": lines}}, {"name": "scratch", "emptyDir": {}}],
        },
    })
}
