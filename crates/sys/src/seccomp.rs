//! Filters of system calls (seccomp(2)).

use std::io;

/// Bytes of one instruction, `struct sock_filter` of linux/filter.h.
const INSTRUCTION: usize = 8;

/// Gives the calling thread one more filter, for good. `program` holds classic BPF instructions in the machine's byte
/// order. Without `no_new_privs` it needs CAP_SYS_ADMIN.
///
/// # Errors
/// `EINVAL` if it is no program; `EACCES` without privilege.
pub fn add_filter(program: &[u8]) -> io::Result<()> {
    let (chunks, rest) = program.as_chunks::<INSTRUCTION>();
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    if !rest.is_empty() {
        return Err(invalid());
    }
    let mut filter: Vec<libc::sock_filter> = chunks
        .iter()
        .map(|&[code0, code1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([code0, code1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_too_long| invalid())?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which lives until the call returns, and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
