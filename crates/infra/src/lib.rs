//! The infra process: one per Pod, the Pod's infra container.
//!
//! It holds the Pod's namespaces, is the parent of its containers, mounts and starts them, writes their logs, reaps
//! them and records their exits. It is told what to do and decides nothing; it never sees a Pod object, and it lives on
//! when the daemon dies. One thread, one epoll, no tokio. Start at [`protocol`] for what it is told, `server` for the
//! loop, `container` for the birth of a container.
#![forbid(unsafe_code)]

mod apparmor;
mod container;
mod failure;
mod kernel_files;
mod limits;
mod logs;
mod masks;
mod mounts;
mod pod_init;
mod poll;
mod process;
mod process_ahead;
mod program;
pub mod protocol;
mod records;
mod rootfs;
mod sandbox;
mod server;
mod streams;
pub mod sub_path;
mod sysctls;
pub mod title;
mod user_namespace;
pub mod versions;
pub mod wire;

use std::io;

use rustix::fs::Mode;
use sys::process::SingleThreaded;

/// Descriptors that the daemon starts an infra process with.
pub mod inherited {
    /// The bound unix socket to listen on.
    pub const LISTENER: i32 = 3;
    /// A connection to the daemon that started it.
    pub const CONNECTION: i32 = 4;
}

/// Runs an infra process until its sandbox ends. `name` is what ps(1) shows of it.
///
/// # Errors
/// Whatever keeps it from serving: it was not started by a daemon, or the kernel refuses what it cannot do without.
pub fn run(name: &str) -> io::Result<()> {
    sys::memory::return_freed_memory();
    let proof = SingleThreaded::prove()?;
    let listener = sys::fd::take_inherited(inherited::LISTENER)?;
    let connection = sys::fd::take_inherited(inherited::CONNECTION)?;
    for fd in [&listener, &connection] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    sys::signal::ignore_termination()?;
    rustix::process::umask(Mode::empty());
    limits::become_as_the_first_process();
    server::set_process_name(name.as_ref());
    rustix::net::listen(&listener, 16)?;
    server::Server::new(proof, listener, connection)?.run()?;
    Ok(())
}
