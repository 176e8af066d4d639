//! The kernel: every system call that `rustix` does not offer safely. All `unsafe` of the project is here.
//!
//! Wrappers are thin: one call each, with owned or borrowed descriptors and `io::Result`. No policy, no retries, no
//! logs. Start at [`process`] for clone3(2) and exec, [`mount`] for mount_setattr(2).
#![expect(unsafe_code, reason = "this crate is where unsafe code lives")]

pub mod bpf;
pub mod fd;
pub mod keyring;
pub mod memory;
pub mod mount;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod syscalls;
