//! What the test binary tries from inside a container, as `attempt NAME...`: each prints `NAME=` and the kernel's word.

use std::io::Write as _;
use std::process::ExitCode;

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketType, socket};

type Attempt = fn() -> Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("user-namespace", || unshare(rustix::thread::UnshareFlags::NEWUSER)),
    ("network-namespace", || unshare(rustix::thread::UnshareFlags::NEWNET)),
    ("alg-socket", || open_socket(38)),
    ("vsock-socket", || open_socket(40)),
    ("inet-socket", || open_socket(2)),
    ("mount", || rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty())),
    ("host-name", || rustix::system::sethostname(b"changed")),
    ("supplementary-groups", || rustix::thread::set_thread_groups(&[])),
    ("working-directory", || rustix::process::getcwd(Vec::new()).map(drop)),
];

/// Tries what is named, in order.
pub fn attempt(wanted: &[&str]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    for name in wanted {
        let found = ATTEMPTS.iter().find(|(known, _)| known == name);
        let (_, attempt) = found.ok_or_else(|| anyhow::anyhow!("no attempt {name:?}"))?;
        let word = match attempt() {
            Ok(()) => "done".to_owned(),
            Err(error) => error_name(error),
        };
        writeln!(out, "{name}={word}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn unshare(flags: rustix::thread::UnshareFlags) -> Result<()> {
    #[expect(deprecated, reason = "none of the flags that are used here splits the descriptor table")]
    rustix::thread::unshare(flags)
}

fn open_socket(family: u16) -> Result<()> {
    socket(AddressFamily::from_raw(family), SocketType::from_raw(5), None)
        .or_else(|error| match error {
            // The family has no such type: it was reached all the same.
            Errno::SOCKTNOSUPPORT | Errno::PROTONOSUPPORT | Errno::NODEV => {
                socket(AddressFamily::from_raw(family), SocketType::STREAM, None)
            }
            other => Err(other),
        })
        .map(drop)
}

fn error_name(error: Errno) -> String {
    match error {
        Errno::PERM => "EPERM".to_owned(),
        Errno::ACCESS => "EACCES".to_owned(),
        Errno::NOSYS => "ENOSYS".to_owned(),
        Errno::NOENT => "ENOENT".to_owned(),
        Errno::INVAL => "EINVAL".to_owned(),
        Errno::AFNOSUPPORT => "EAFNOSUPPORT".to_owned(),
        other => format!("errno {}", other.raw_os_error()),
    }
}
