//! Requests to servers in Pods, by way of the API.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use e2e::TestNode;
use serde_json::json;

tests! {
    requests_reach_a_server_in_a_pod_and_its_links_lead_back,
    an_upgraded_connection_is_carried_both_ways,
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn run(node: &TestNode, name: &str, port: u16, script: &str) {
    let container = json!({
        "name": "main", "image": "busybox:stable", "command": ["sh", "-c", script], "ports": [{"containerPort": port}],
    });
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    node.run_text(&pod.to_string(), name);
}

fn requests_reach_a_server_in_a_pod_and_its_links_lead_back(node: &mut TestNode) {
    let script = "mkdir -p /www/dir /www/cgi-bin; echo '<a href=/next>' > /www/index.html; echo file > /www/dir/a.txt
        echo in > /www/dir/index.html; printf '#!/bin/sh\necho; env; echo body $(cat)\n' > /www/cgi-bin/env
        chmod +x /www/cgi-bin/env; exec httpd -f -p 8080 -h /www";
    run(node, "web", 8080, script);
    let server = format!("{PODS}/web/proxy");
    e2e::eventually(e2e::limit(10), "the server listens", || {
        let answer = node.api().request("GET", &format!("{server}/dir/a.txt"), None);
        if answer.code == 200 { Ok(()) } else { Err(answer.body.to_string()) }
    });
    assert_eq!(node.kubectl(&["get", "--raw", &format!("{PODS}/web:8080/proxy/dir/a.txt")]).ok(), "file\n");
    // As a browser gets it, also one that forgets the slash.
    let page = format!("<a href={server}/next>\n");
    assert_eq!(node.kubectl(&["get", "--raw", &format!("{server}/")]).ok(), page);
    assert_eq!(node.kubectl(&["get", "--raw", &server]).ok(), page);
    // busybox leads from a directory without a slash to the one with it.
    assert_eq!(node.kubectl(&["get", "--raw", &format!("{server}/dir")]).ok(), "in\n");
    let (code, told) =
        ask(node, "POST", &format!("{server}/cgi-bin/env?a=b%20c"), "Authorization: Bearer secret\r\n", "words");
    assert_eq!(code, 200, "{told}");
    for wanted in ["REQUEST_METHOD=POST", "QUERY_STRING=a=b%20c", "body words"] {
        assert!(told.contains(wanted), "{wanted} is not in {told}");
    }
    assert!(!told.contains("secret"), "{told}");
    assert_eq!(node.api().request("GET", &format!("{server}/none"), None).code, 404);

    let refused = node.api().request("GET", &format!("{PODS}/web:9/proxy/"), None);
    assert_eq!((refused.code, &refused.body["reason"]), (503, &"ServiceUnavailable".into()), "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.starts_with("error trying to reach service: dial tcp 10.85.0."), "{message}");
    assert!(message.ends_with(":9: connect: connection refused"), "{message}");
    let invalid = node.api().request("GET", &format!("{PODS}/ftp:web:9/proxy/"), None);
    assert_eq!(invalid.body["message"], "invalid pod request \"ftp:web:9\"");
    assert_eq!(node.api().request("GET", &format!("{PODS}/nobody/proxy/"), None).code, 404);
}

/// One request by hand: status and all that follows.
fn ask(node: &TestNode, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(node.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

fn an_upgraded_connection_is_carried_both_ways(node: &mut TestNode) {
    let script = r"cat > /echo <<'END'
#!/bin/sh
while read -r line; do [ ${#line} -gt 1 ] || break; done
printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'
exec cat
END
chmod +x /echo; while :; do nc -l -p 81 -e /echo; done";
    run(node, "echo", 81, script);
    let path = format!("{PODS}/echo:81/proxy/");
    let mut answers = e2e::eventually(e2e::limit(10), "the server listens", || {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
        let mut answers = BufReader::new(stream);
        let mut status = String::new();
        answers.read_line(&mut status).unwrap();
        if status.starts_with("HTTP/1.1 101 ") { Ok(answers) } else { Err(status) }
    });
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        answers.read_line(&mut line).unwrap();
    }
    for word in ["ping\n", "pong\n"] {
        answers.get_ref().write_all(word.as_bytes()).unwrap();
        line.clear();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, word);
    }
    // The end of one direction is carried, too.
    answers.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    line.clear();
    assert_eq!(answers.read_line(&mut line).unwrap(), 0, "{line}");
}
