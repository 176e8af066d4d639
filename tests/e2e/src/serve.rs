//! Small roles that the test binary plays when it is started again inside a namespace.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;

/// Runs the role that the command line names, if it names one. Each `main` calls this first.
pub fn play_role() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["node-init", boot_id] => crate::namespaces::node_init(Path::new(boot_id)),
        ["tell-peer", address] => tell_peer(address),
        ["fetch", address, request] => fetch(address, request),
        ["send", address, bytes] => send(address, bytes.parse().unwrap_or(0)),
        ["proxy", address, target] => proxy(address, target),
        ["dead-mount", directory] => crate::dead_mount::serve(Path::new(directory)),
        ["stalling-proxy", address, target, bytes] => stalling_proxy(address, target, bytes.parse().unwrap_or(0)),
        ["older-kernel", missing, program, arguments @ ..] => older_kernel(missing, program, arguments),
        ["attempt", wanted @ ..] => crate::attempts::attempt(wanted),
        _ => return None,
    };
    Some(result.unwrap_or_else(|error| {
        eprintln!("e2e {}: {error:#}", words.join(" "));
        ExitCode::FAILURE
    }))
}

/// Listens on `address` and tells each client its address, as HTTP.
fn tell_peer(address: &str) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(address)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"listening\n")?;
    stdout.flush()?;
    for client in listener.incoming() {
        let mut client = client?;
        let peer = client.peer_addr()?.ip().to_string();
        let mut request = [0; 4096];
        // The request does not matter, only that it was read before the close.
        let _read = client.read(&mut request)?;
        let length = peer.len();
        write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{peer}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes a program for which the kernel does not know some system calls, as one that is older or was built without.
fn older_kernel(missing: &str, program: &str, arguments: &[&str]) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    // By number as linux/unistd.h has them; those that came after 2019 are the same on all machines.
    let known = [
        ("open_tree", 428),
        ("fsopen", 430),
        ("pidfd_open", 434),
        ("openat2", 437),
        ("mount_setattr", 442),
        ("seccomp", if cfg!(target_arch = "x86_64") { 317 } else { 277 }),
    ];
    let mut filter: Vec<u8> = Vec::new();
    // Classic BPF (linux/filter.h): the call's number, then for each that is missing its answer, and else nothing.
    let mut instruct = |code: u16, when: u8, otherwise: u8, value: u32| {
        filter.extend(code.to_ne_bytes());
        filter.extend([when, otherwise]);
        filter.extend(value.to_ne_bytes());
    };
    instruct(0x20, 0, 0, 0);
    for name in missing.split(',') {
        let found = known.iter().find(|(known, _)| *known == name);
        let (_, number) = found.ok_or_else(|| anyhow::anyhow!("no system call {name:?} here"))?;
        instruct(0x15, 0, 1, *number);
        // SECCOMP_RET_ERRNO with ENOSYS (38).
        instruct(0x06, 0, 0, 0x0005_0026);
    }
    instruct(0x06, 0, 0, 0x7fff_0000);
    sys::seccomp::add_filter(&filter)?;
    Err(std::process::Command::new(program).args(arguments).exec().into())
}

/// A proxy that makes tunnels (RFC 9110, 9.3.6): all of them lead to `target`. It tells what it was asked for.
fn proxy(address: &str, target: &str) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(address)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"listening\n")?;
    stdout.flush()?;
    for client in listener.incoming() {
        let mut client = client?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte)? > 0 {
            head.push(byte[0]);
        }
        stdout.write_all(&head)?;
        stdout.flush()?;
        let server = TcpStream::connect(target)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            std::thread::spawn(move || {
                // A side that breaks off ends the tunnel.
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(std::net::Shutdown::Write));
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Passes connections on to `target`, but no more than so many bytes of what comes back in each: then it stands still.
fn stalling_proxy(address: &str, target: &str, bytes: u64) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(address)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"listening\n")?;
    stdout.flush()?;
    for client in listener.incoming() {
        let (client, server) = (client?, TcpStream::connect(target)?);
        let (mut asked, mut to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            // A side that breaks off ends the connection.
            drop(std::io::copy(&mut asked, &mut to));
            drop(to.shutdown(std::net::Shutdown::Write));
        });
        std::thread::spawn(move || {
            let mut client = client;
            let passed = std::io::copy(&mut server.take(bytes), &mut client).unwrap_or(0);
            if passed == bytes {
                // Whoever reads it may be gone.
                writeln!(std::io::stdout(), "stalled").ok();
                std::thread::park();
            }
            drop(client.shutdown(std::net::Shutdown::Write));
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends so many bytes to `address`, ends its half of the connection, and prints the answer.
fn send(address: &str, bytes: usize) -> anyhow::Result<ExitCode> {
    let mut server = TcpStream::connect(address)?;
    server.set_read_timeout(Some(crate::limit(10)))?;
    server.write_all(&vec![b'x'; bytes])?;
    server.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    std::io::stdout().write_all(&answer)?;
    Ok(ExitCode::SUCCESS)
}

/// Sends one line to `address` and prints the answer.
fn fetch(address: &str, request: &str) -> anyhow::Result<ExitCode> {
    let mut server = TcpStream::connect(address)?;
    server.set_read_timeout(Some(crate::limit(10)))?;
    write!(server, "{request}\r\n\r\n")?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    std::io::stdout().write_all(&answer)?;
    Ok(ExitCode::SUCCESS)
}
