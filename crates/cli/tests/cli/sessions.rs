//! `exec` and `attach`: streams, exit statuses, and a real terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::fake::FakeDaemon;
use crate::program::{command, monopod, monopod_with_input};

fn daemon_with_pod() -> FakeDaemon {
    let daemon = FakeDaemon::start();
    let containers =
        json!([{"name": "app", "image": "x", "stdin": true, "tty": true}, {"name": "helper", "image": "y"}]);
    daemon
        .put("pods", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": containers}}));
    daemon
}

#[test]
fn output_and_exit_status_are_the_programs_own() {
    let daemon = daemon_with_pod();
    let exec = |arguments: &[&str]| monopod(&daemon.socket(), &[&["exec", "web", "-c", "app"], arguments].concat());
    let finished = exec(&["--", "echo", "a b", "-c"]);
    assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (0, "echo a b -c", "to stderr"));
    assert_eq!(exec(&["ls", "-la", "--help"]).stdout, "ls -la --help", "flags behind the program are its own");
    assert_eq!((exec(&["--", "exit", "7"]).code, exec(&["--", "exit", "255"]).code), (7, 255));
    let finished = exec(&["--", "missing"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (1, "error: container missing is not valid for pod web\n"));
    let finished = monopod(&daemon.socket(), &["exec", "pod/web", "true"]);
    assert!(finished.stderr.starts_with("Defaulted container \"app\" out of: app, helper\n"), "{finished:?}");
    assert!(daemon.requests().last().unwrap().ends_with("/exec?command=true&container=app&stdout=true&stderr=true"));
}

#[test]
fn standard_input_arrives_whole_and_ends() {
    let daemon = daemon_with_pod();
    let input: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).filter(u8::is_ascii).collect();
    let finished = monopod_with_input(&daemon.socket(), &["exec", "-i", "web", "-c", "app", "--", "cat"], &input);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stdout.as_bytes() == input, "{} of {} bytes came back", finished.stdout.len(), input.len());
}

#[test]
fn attach_refuses_what_the_container_does_not_have() {
    let daemon = daemon_with_pod();
    let finished = monopod(&daemon.socket(), &["attach", "web", "-c", "helper", "-i"]);
    insta::assert_snapshot!(finished.stderr, @r#"
    error: container "helper" does not read standard input
      hint: set `stdin: true` in the container's spec, or attach without -i
    "#);
}

/// A terminal with its two ends: what a person sees and types, and what the program has.
fn terminal(columns: u16, rows: u16) -> (File, File) {
    let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    tcsetwinsize(&program, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (person.into(), program)
}

fn read_until(person: &mut File, end: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(end) {
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(person, PollFlags::IN)], Some(&limit)).unwrap();
        assert!(ready > 0, "{end:?} does not come; so far: {seen:?}");
        let length = person.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    seen
}

#[test]
fn a_terminal_is_raw_has_a_size_and_is_restored() {
    let daemon = daemon_with_pod();
    let (mut person, program) = terminal(100, 30);
    let is_raw = |program: &File| {
        !tcgetattr(program.as_fd()).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ISIG)
    };
    let mut child = command(&daemon.socket(), &["exec", "-it", "web", "-c", "app", "--", "size"])
        .stdin(program.try_clone().unwrap())
        .stdout(program.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    read_until(&mut person, "{\"Width\":100,\"Height\":30}");
    assert!(is_raw(&program));
    tcsetwinsize(&program, Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    // The kernel tells the terminal's foreground group only; a test has no controlling terminal.
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::WINCH).unwrap();
    read_until(&mut person, "{\"Width\":80,\"Height\":24}");
    person.write_all(b"\x03").unwrap();
    read_until(&mut person, "interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!is_raw(&program), "the terminal is as it was");
}

#[test]
fn what_is_typed_ahead_reaches_the_program() {
    let daemon = daemon_with_pod();
    let (mut person, program) = terminal(100, 30);
    // Before the program starts: it waits in the terminal's queue, a whole line of it.
    person.write_all(b"typed ahead\n").unwrap();
    read_until(&mut person, "typed ahead");
    let mut child = command(&daemon.socket(), &["exec", "-it", "web", "-c", "app", "--", "cat"])
        .stdin(program.try_clone().unwrap())
        .stdout(program.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    read_until(&mut person, "typed ahead");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_terminal_is_restored_when_a_signal_ends_the_program() {
    let daemon = daemon_with_pod();
    let (mut person, program) = terminal(100, 30);
    let mut child = command(&daemon.socket(), &["exec", "-it", "web", "-c", "app", "--", "cat"])
        .stdin(program.try_clone().unwrap())
        .stdout(program.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The size is sent when the terminal is raw and the signals are caught.
    read_until(&mut person, "{\"Width\":100,\"Height\":30}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(tcgetattr(program.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
}
