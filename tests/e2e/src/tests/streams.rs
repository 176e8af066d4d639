//! exec and attach: exit codes, streams, terminals.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use e2e::TestNode;
use e2e::node::container;

tests! {
    exec_gives_the_exit_code,
    exec_keeps_stdout_and_stderr_apart,
    exec_hands_on_stdin_and_its_end,
    exec_moves_much_data_both_ways,
    exec_in_a_terminal_resizes_and_has_job_control,
    exec_enters_the_container_as_its_user,
    exec_of_a_missing_program_says_so,
    exec_that_is_abandoned_leaves_nothing,
    exec_whose_answer_nobody_waits_for_leaves_nothing,
    attach_talks_to_a_terminal,
    attach_closes_stdin_once,
}

fn exec_gives_the_exit_code(node: &mut TestNode) {
    node.run_ready("idle");
    node.try_exec("idle", "main", &["true"]).ok();
    for code in [1, 42, 255] {
        node.try_exec("idle", "main", &["sh", "-c", &format!("exit {code}")]).fails_with(code);
    }
    node.try_exec("idle", "main", &["sh", "-c", "kill -TERM $$"]).fails_with(128 + 15);
    // Also without the `--`, and without naming the only container.
    assert_eq!(node.monopod(&["exec", "idle", "echo", "plain"]).ok(), "plain\n");
}

fn exec_keeps_stdout_and_stderr_apart(node: &mut TestNode) {
    node.run_ready("idle");
    let both = node.try_exec("idle", "main", &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((both.code, both.stdout.as_str()), (3, "out\n"));
    assert!(both.stderr.starts_with("err\n"), "{}", both.stderr);
}

fn exec_hands_on_stdin_and_its_end(node: &mut TestNode) {
    node.run_ready("idle");
    let counted = node.monopod_with(&["exec", "-i", "idle", "--", "wc", "-c"], b"twelve bytes");
    assert_eq!(counted.ok().trim(), "12");
    // Without -i the program sees an end at once.
    assert_eq!(node.monopod_with(&["exec", "idle", "--", "wc", "-c"], b"ignored").ok().trim(), "0");
}

fn exec_moves_much_data_both_ways(node: &mut TestNode) {
    node.run_ready("idle");
    let data: Vec<u8> = (0..8_u32 << 20).map(|number| b"0123456789abcdef\n"[number as usize % 17]).collect();
    let echoed = node.monopod_with(&["exec", "-i", "idle", "--", "cat"], &data).ok();
    assert!(echoed.as_bytes() == data, "{} of {} bytes came back, or others", echoed.len(), data.len());
}

fn exec_in_a_terminal_resizes_and_has_job_control(node: &mut TestNode) {
    node.load_image("debian");
    node.run_text(
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: shell}, spec: {terminationGracePeriodSeconds: 0,
        containers: [{name: main, image: 'debian:stable', command: [sleep, infinity]}]}}",
        "shell",
    );
    let mut terminal = node.terminal(&["exec", "shell", "-c", "main", "-it", "--", "/bin/bash", "--norc"]);
    terminal.send("PS1='ready: '; tty; stty size\n");
    terminal.expect("/dev/pts/");
    terminal.expect("30 100");
    terminal.resize(132, 43);
    // The new size arrives as an event of its own, some time after.
    terminal.send("until [ \"$(stty size)\" = '43 132' ]; do sleep 0.02; done; echo resi''zed\n");
    terminal.expect("resized");
    // Ctrl-C ends the program, not the shell: the program says when the terminal is its own.
    terminal.send("bash -c 'echo be\"\"gun; exec sleep 1000'; echo interrupted with $?\n");
    terminal.expect("begun");
    terminal.send("\x03");
    // An interrupted list is abandoned as a whole.
    terminal.expect("ready: ");
    terminal.send("echo code $?\n");
    terminal.expect("code 130");
    // Ctrl-Z stops it; it is a job, and can be killed as one.
    terminal.send("bash -c 'echo stop\"\"pable; exec sleep 1000'\n");
    terminal.expect("stoppable");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.send("jobs; kill %1; wait; echo jobs''left: $(jobs -r | wc -l)\n");
    terminal.expect("jobsleft: 0");
    terminal.send("exit 7\n");
    assert_eq!(terminal.finish(), 7);
}

fn exec_enters_the_container_as_its_user(node: &mut TestNode) {
    node.load_image("entry");
    node.run_text(
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: user}, spec: {terminationGracePeriodSeconds: 0,
        containers: [{name: main, image: 'entry:stable', command: [sleep, infinity],
        env: [{name: FROM_POD, value: pod}]}]}}",
        "user",
    );
    let shown = node.exec("user", "main", &["sh", "-c", "id; pwd; echo $FROM_POD $FROM_IMAGE $HOME; hostname"]);
    let expected =
        "uid=1000(app) gid=1000(app) groups=50(staff),1000(app),2000(logs)\n/srv\npod image /home/app\nuser\n";
    assert_eq!(shown, expected);
    // The cgroup, too: an exec counts against the container's limits.
    let cgroup = |process: &str| node.exec("user", "main", &["cat", &format!("/proc/{process}/cgroup")]);
    assert_eq!(cgroup("self"), cgroup("1"));
    let open = node.exec("user", "main", &["ls", "/proc/self/fd"]);
    // 3 is the directory that ls reads.
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

fn exec_of_a_missing_program_says_so(node: &mut TestNode) {
    node.run_ready("idle");
    let error = node.try_exec("idle", "main", &["/no/such/program"]).fails();
    assert!(error.contains("/no/such/program") && error.contains("No such file or directory"), "{error}");
    let error = node.monopod(&["exec", "idle", "-c", "nobody", "--", "true"]).fails();
    assert!(error.contains("container nobody is not valid for pod idle"), "{error}");
    let error = node.monopod(&["exec", "nothing", "--", "true"]).fails();
    assert!(error.contains("\"nothing\" not found"), "{error}");
}

fn exec_that_is_abandoned_leaves_nothing(node: &mut TestNode) {
    node.run_ready("idle");
    let mut session = node.background(&["exec", "-i", "idle", "--", "sh", "-c", "echo here; exec cat"]);
    session.expect("here");
    drop(session);
    // Its client is gone, so it sees the end of its input.
    e2e::eventually(e2e::limit(10), "the abandoned program ends", || {
        let left = node.exec("idle", "main", &["ps", "-o", "args"]);
        if left.lines().any(|line| line == "cat") { Err(left) } else { Ok(()) }
    });
}

/// It starts while its client is being answered: one that is refused never does, and one that is gone by then takes it along.
fn exec_whose_answer_nobody_waits_for_leaves_nothing(node: &mut TestNode) {
    node.run_ready("idle");
    let ask = |protocol: &str| {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        let path = "/api/v1/namespaces/default/pods/idle/exec?stdout=true&command=sleep&command=4242";
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let sleeping = || {
        let processes = node.exec("idle", "main", &["ps", "-o", "args"]);
        processes.lines().filter(|line| line.contains("4242")).count()
    };
    let mut refusal = String::new();
    ask("nobody.speaks.it").read_to_string(&mut refusal).unwrap();
    assert!(refusal.starts_with("HTTP/1.1 400 "), "{refusal}");
    assert_eq!(sleeping(), 0);
    for _ in 0..20 {
        drop(ask("v5.channel.k8s.io"));
    }
    let waits = ask("v5.channel.k8s.io");
    e2e::eventually(e2e::limit(10), "only that of the client that is there sleeps", || match sleeping() {
        1 => Ok(()),
        other => Err(format!("{other} sleep")),
    });
    drop(waits);
    e2e::eventually(e2e::limit(10), "none sleeps", || match sleeping() {
        0 => Ok(()),
        other => Err(format!("{other} sleep")),
    });
}

fn attach_talks_to_a_terminal(node: &mut TestNode) {
    node.load_image("debian");
    node.run_ready("terminal");
    let mut terminal = node.terminal(&["attach", "terminal", "-c", "main", "-it"]);
    terminal.expect("try pressing enter");
    terminal.send("tty; stty size; echo at''tached\n");
    terminal.expect("30 100");
    terminal.expect("attached");
    // Leaving detaches; the container runs on, and a second attach finds it.
    drop(terminal);
    let mut terminal = node.terminal(&["attach", "terminal", "-c", "main", "-it"]);
    terminal.expect("try pressing enter");
    terminal.send("echo ag''ain\n");
    terminal.expect("again");
    assert_eq!(container(&node.pod("terminal"), "main")["restartCount"], 0);
}

fn attach_closes_stdin_once(node: &mut TestNode) {
    node.apply("reader.yaml");
    node.wait_ready("reader");
    let mut attached = node.background(&["attach", "-i", "reader"]);
    attached.send("one\n");
    attached.expect("got one");
    attached.close_stdin();
    attached.expect("end");
    attached.finish();
    node.wait_phase("reader", "Succeeded");
    assert_eq!(node.logs("reader", "main"), "got one\nend\n");
}
